"""What epochs leave beside their files: of short ones, several in one call to the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from mlflow.entities import Metric, RunTag
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

SECONDS_APART = 1.0  # a call takes some milliseconds however much it carries: too much of an epoch of 0.2 s
POINTS_A_CALL = 500  # MLflow takes 1,000


class EpochRecords:
    """Points, tags and artifacts to remove of the epochs since the last call.

    A kill loses those of a second; a resumed run fills them in from its checkpoint.

    Args:
        deliver: takes them, in that order.
    """

    def __init__(self, deliver: Callable[[list[Metric], dict[str, str], list[str]], None]) -> None:
        self._deliver = deliver
        self._points: list[Metric] = []
        self._tags: dict[str, str] = {}
        self._removed: list[str] = []
        self._last = float("-inf")

    @property
    def waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._points or self._tags or self._removed)

    def add(self, points: Iterable[Metric], tags: Mapping[str, str], removed: Iterable[str]) -> None:
        """Those of one more epoch; delivered now, unless others just were."""
        self._points += points
        self._tags |= tags
        self._removed += removed
        if time.monotonic() - self._last >= SECONDS_APART or len(self._points) >= POINTS_A_CALL:
            self.flush()

    def flush(self) -> None:
        """Deliver what waits."""
        if not self.waiting:
            return
        points, tags, removed = self._points, self._tags, self._removed
        self._points, self._tags, self._removed = [], {}, []
        try:
            self._deliver(points, tags, removed)
        finally:
            self._last = time.monotonic()


def points_of(values: Mapping[str, float], step: int) -> list[Metric]:
    """One point for each metric, of this moment."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items()]


def tags_of(values: Mapping[str, str]) -> list[RunTag]:
    """Tags; one too long for the server is cut, and ends by saying so."""
    mark = " ... (cut)"
    return [
        RunTag(key, value if len(value) <= MAX_TAG_VAL_LENGTH else value[: MAX_TAG_VAL_LENGTH - len(mark)] + mark)
        for key, value in values.items()
    ]
