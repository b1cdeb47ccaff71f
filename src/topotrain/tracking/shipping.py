"""The thread that brings a journal's entries to the server, whatever becomes of the server meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from mlflow.exceptions import MlflowException

from topotrain.disk import EXPECTED, database_fault, file_fault
from topotrain.errors import OutageError, TrackingError
from topotrain.text import one_line
from topotrain.tracking.address import database_path, local_folder
from topotrain.tracking.backlog import Backlog, Waiting
from topotrain.tracking.entries import what
from topotrain.tracking.journal import Journal
from topotrain.tracking.outages import advice

log = logging.getLogger("topotrain")

# What waiting does not mend. A folder that may not be written does: it could be when the run began.
PERMANENT = (IsADirectoryError, NotADirectoryError)
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
LOOK_SECONDS = 0.2  # between two looks whether the server is away
SECONDS_APART = 1.0  # a call takes some milliseconds however much it carries: too much of an epoch of 0.2 s
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # between two attempts while the server is away


class Delivers(Protocol):
    """What makes the calls."""

    def deliver(self, group: list[Waiting]) -> None:
        """Make one; it raises what the store raises."""


class Shipper:
    """Delivers what a journal holds and what is added to it, in a thread of its own.

    Args:
        journal: whose entries.
        delivery: makes the calls.
        place: of the artifacts, for messages.
        store: where the rest goes, for messages.
        ready: told whether the server was away, raises ``OutageError`` where nothing may be delivered now, and
            ``TrackingError`` where nothing may be delivered any more, since the run is another's.

    Attributes:
        refusals: what the server refused for good, and ``check`` has not told yet.
    """

    def __init__(
        self, journal: Journal, delivery: Delivers, place: str, store: str, ready: Callable[[bool], None]
    ) -> None:
        self._backlog, self._delivery, self._ready = Backlog(journal), delivery, ready
        self._place, self._store = place, store
        self._wake = threading.Condition()
        self._added = self._hurry = self._stop = False
        self._journal = journal
        self._outage: str | None = None
        self._under_way = ""  # what is being delivered
        self._denied = False  # the server answers, and does not let this user
        self.refusals: list[TrackingError] = []
        self._idle = True
        self._thread = threading.Thread(target=self._run, name="topotrain-delivery", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def notify(self) -> None:
        """Say that something was added to the journal."""
        with self._wake:
            self._added, self._idle = True, False
            self._wake.notify_all()

    @property
    def away(self) -> bool:
        """Whether the server does not answer just now."""
        return self._outage is not None

    @property
    def waiting(self) -> list[str]:
        """What is not delivered, each kind once."""
        return self._backlog.names

    @property
    def complete(self) -> bool:
        """Whether everything was delivered."""
        with self._wake:
            return self._idle

    def check(self) -> None:
        """Raise what the server refused since this was last asked.

        Raises:
            TrackingError: it refused something, and asking again can't help.
        """
        if self.refusals:
            raise self.refusals.pop(0)

    def flush(self, patience: float, away: float | None = None) -> bool:
        """Wait until everything is delivered.

        Args:
            patience: seconds without any progress after which this gives up.
            away: the same, where the server is known not to answer; by default as long.

        Returns:
            Whether it is.
        """
        with self._wake:
            # An interruption may have come between an entry and its notice: the journal is looked through once more.
            self._hurry = self._added = True
            self._idle = self._denied = False
            self._wake.notify_all()
            seen, since = self._journal.progress, time.monotonic()
            while not self._idle:
                if self._journal.progress != seen:
                    seen, since = self._journal.progress, time.monotonic()
                left = since + (away if self.away and away is not None else patience) - time.monotonic()
                if left <= 0 or self._denied or not self._thread.is_alive():
                    break
                self._wake.wait(min(left, LOOK_SECONDS))
            self._hurry = False
            return self._idle

    def stop(self, patience: float = SECONDS_APART) -> None:
        """End the thread; where the server is away, it ends with the process."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread.is_alive() and not self.away:
            self._thread.join(patience)

    def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._added or self._stop)
                if self._stop:
                    return
                self._added = False
            if self._ship():
                wait = FIRST_WAIT
                with self._wake:
                    self._wake.wait_for(lambda: self._stop or self._hurry, timeout=SECONDS_APART)
                continue
            until, wait = time.monotonic() + wait, min(2 * wait, LONGEST_WAIT)
            with self._wake:
                while not self._stop and time.monotonic() < until:
                    self._wake.wait_for(lambda: self._stop, timeout=FIRST_WAIT)
                    if self._hurry:
                        break
                self._added = True

    def told(self, error: Exception) -> OutageError | None:
        """What to say where a disk takes nothing more: that of artifacts here, or of a database here."""
        what_waits = self._what_waits
        if isinstance(error, MlflowException):
            place, fault = database_path(self._store), database_fault(error)
        else:
            place, fault = local_folder(self._place), file_fault(error)
        if place is None or fault is None:
            return None
        return OutageError(f"{place} does not take {what_waits} ({fault})", EXPECTED, "make room there")

    @property
    def _what_waits(self) -> str:
        """What was under way when the store took no more, whatever has come since; else the first that waits."""
        return self._under_way or (self.waiting[0] if self.waiting else "records")

    def deliver_all(self) -> int:
        """Deliver all there is, in the calling thread, which is another's only where none was started.

        Returns:
            How many entries there were.

        Raises:
            MlflowException, OSError and others: the store does not take it; what it took is noted.
        """
        entries = 0
        while True:
            self._backlog.take_in()
            group = self._backlog.next()
            if not group or self._stop:
                return entries
            self._ready(self.away)
            self._under_way = what(group[0].entry)
            self._one(group)
            self._under_way = ""
            entries += sum(len(one.numbers) for one in group)

    def _ship(self) -> bool:
        """Deliver all there is; whether the server took it."""
        try:
            self.deliver_all()
        except OutageError as error:
            return self._lost(error)
        except TrackingError as error:  # nothing can be delivered any more
            self.refusals.append(error)
            self._stop = True
            return False
        except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
            return self._lost(error)
        if self._stop:
            return True
        if self.away:
            log.warning("the tracking server answers again; nothing was lost")
            self._outage = None
        with self._wake:
            self._idle = not self._added
            self._wake.notify_all()
        return True

    def _one(self, group: list[Waiting]) -> None:
        """Deliver a group; what is refused for good is struck out and told later."""
        try:
            self._delivery.deliver(group)
        except (MlflowException, TrackingError, *PERMANENT) as error:
            refused = self._refusal(group, error)
            if refused is None:
                raise
            if len(group) > 1:  # it may be one of them alone
                for one in group:
                    self._one([one])
                return
            self.refusals.append(refused)
        self._backlog.done(group)

    def _refusal(self, group: list[Waiting], error: Exception) -> TrackingError | None:
        """What to say of an error that waiting does not mend; ``None`` of another."""
        name = what(group[0].entry)
        if isinstance(error, TrackingError):
            return None if isinstance(error, OutageError) else error
        if isinstance(error, MlflowException):
            if error.error_code not in REFUSALS:
                return None
            return TrackingError(f"the server refused {name} ({one_line(error)})")
        what_fails = f"{name} can't be written to {self._place} ({one_line(error)})"
        return TrackingError(what_fails, "artifacts that can be written")

    def _lost(self, error: Exception) -> bool:
        if self._outage is None:
            told: TrackingError | None = self.told(error)
            if told is None:
                told = TrackingError(f"the tracking server does not take {self._what_waits} ({one_line(error)})")
            self._outage = one_line(error)
            log.warning("%s; the journal keeps everything, trying again", told)
            log.debug("in full:", exc_info=error)
        self._denied = advice(error) is not None
        return False
