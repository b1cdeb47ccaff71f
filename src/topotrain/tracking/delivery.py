"""What a run leaves, delivered in order: what the server does not take waits, and is tried again with the next."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from topotrain.errors import TrackingError
from topotrain.text import one_line

log = logging.getLogger("topotrain")

# What waiting does not mend, other than a full disk or a server that is away.
PERMANENT = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")


class Delivery:
    """The calls to the server that are not made yet, in order.

    Args:
        run_id: of the run that they are about.
        artifact_uri: where its artifacts go; both for messages.
    """

    def __init__(self, run_id: str, artifact_uri: str) -> None:
        self._run_id, self._artifact_uri = run_id, artifact_uri
        self._calls: deque[tuple[str, Callable[[], None]]] = deque()
        self._outage_reported = False

    @property
    def waiting(self) -> list[str]:
        """What is not delivered, each kind once."""
        return list(dict.fromkeys(what for what, _ in self._calls))

    def add(self, what: str, call: Callable[[], None]) -> None:
        """Make a call after all earlier ones; keep it for later if the server does not answer.

        Raises:
            TrackingError: the server refuses, and asking again can't help.
        """
        self._calls.append((what, call))
        while self._calls:
            first, pending = self._calls[0]
            try:
                pending()
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    return self._report_outage(first, error)
                self._calls.popleft()
                raise TrackingError(f"the server refused {first} ({one_line(error)})") from None
            except TrackingError:
                self._calls.popleft()
                raise
            except PERMANENT as error:
                self._calls.popleft()
                raise TrackingError(
                    f"{first} can't be written to {self._artifact_uri} ({one_line(error)})",
                    "artifacts that can be written",
                ) from None
            except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
                return self._report_outage(first, error)
            self._calls.popleft()
        if self._outage_reported:
            log.warning("the tracking server answers again; nothing was lost")
            self._outage_reported = False
        return None

    def now(self, what: str, call: Callable[[], None]) -> None:
        """Make a last call now, whatever waits before it: how a run ended matters even if the rest is lost."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
            self._calls.append((what, call))
            log.error("the %s of run %s could not be recorded (%s)", what, self._run_id, one_line(error))

    def _report_outage(self, what: str, error: Exception) -> None:
        if not self._outage_reported:
            log.warning(
                "the tracking server does not take %s (%s); training goes on, trying again", what, one_line(error)
            )
            self._outage_reported = True
