"""Following a run: where it stands now, and again at each change until it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from topotrain.errors import OutageError, TrackingError
from topotrain.fields import TAG_HEARTBEAT
from topotrain.reports.run_state import config_of, run_state

if TYPE_CHECKING:
    from topotrain.tracking.records import RunRecord
    from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")

INTERVAL_SECONDS = 5.0
State = dict[str, Any]


def monitor(run: str = "latest", *, experiment: str | None = None, tracking_uri: str | None = None) -> State:
    """Where a run stands now: best checkpoint, the learning parameters that produced it, progress, warnings.

    Args:
        run: id, unique prefix, name, or ``latest``.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store can't be used, or the run is not there.
    """
    return _Watch.of(run, experiment, tracking_uri).look()


def follow(
    run: str = "latest",
    *,
    interval: float = INTERVAL_SECONDS,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    outage: Callable[[str | None], None] | None = None,
) -> Iterator[State]:
    """Where a run stands, at once and at each change, until it has ended or no process works on it any more.

    Args:
        run: id, unique prefix, name, or ``latest``.
        interval: seconds between questions to the server.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        outage: called once with what is wrong when the server stops answering, and ``None`` when it answers again; by
            default both are logged.

    Raises:
        TrackingError: the store can't be used at the start, or the run is not there (any more).
    """
    watch = _Watch.of(run, experiment, tracking_uri)
    return _changes(watch, interval, outage or _log_outage)


def _changes(watch: _Watch, interval: float, outage: Callable[[str | None], None]) -> Iterator[State]:
    shown: State | None = None
    silent = False
    while True:
        try:
            state = watch.look()
        except OutageError as error:
            if not silent:
                outage(error.what)
            silent = True
        else:
            if silent:
                outage(None)
            silent = False
            if state != shown:
                yield state
                shown = state
            if not state["alive"]:
                return
        time.sleep(interval)


def _log_outage(what: str | None) -> None:
    if what is None:
        log.warning("the tracking server answers again")
    else:
        log.warning("%s; trying again", what)


class _Watch:
    """Looks at one run again and again, and fetches only what may have changed.

    Args:
        store: that the run is on.
        run_id: the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._seen: tuple[Any, ...] | None = None
        self._history: dict[int, dict[str, float]] = {}
        self._config: dict[str, Any] = {}
        self._silent = False
        self._answered = self._back = datetime.now(UTC)
        self._lost = timedelta(0)

    @classmethod
    def of(cls, run: str, experiment: str | None, tracking_uri: str | None) -> _Watch:
        """Find the run that is meant, once: a later ``latest`` is another run."""
        from topotrain.tracking.store import find_store

        store = find_store(tracking_uri)
        return cls(store, store.runs.find(run, experiment).run_id)

    def look(self) -> State:
        """Where the run stands now.

        Raises:
            OutageError: the server does not answer.
            TrackingError: the run is not there any more.
        """
        try:
            run, alive = self._run()
            tags = {key: value for key, value in run.tags.items() if key != TAG_HEARTBEAT}
            seen = (run.status, run.metrics, len(run.params), tags)
            if seen != self._seen:
                self._history = self._store.runs.history(run)
                self._config = config_of(self._store, run)
                self._seen = seen
        except OutageError:
            self._silent = True
            raise
        return run_state(self._store, run, self._history, self._config, alive=alive)

    def _run(self) -> tuple[RunRecord, bool]:
        from topotrain.tracking.heartbeat import is_alive

        run = self._store.runs.get(self._run_id)
        self._count_outage()
        alive = is_alive(run, self._now())
        if run.status == "RUNNING" and not alive:  # its process may have ended well just after the question
            run = self._store.runs.get(self._run_id)
            alive = is_alive(run, self._now())
        if run.deleted:
            raise TrackingError(f"run {self._run_id} was deleted", "a run that is there")
        return run, alive

    def _count_outage(self) -> None:
        """Note how long no beat could arrive, when the server answers again."""
        now = datetime.now(UTC)
        if self._silent:
            self._lost = now - self._now(self._answered)
            self._back, self._silent = now, False
        self._answered = now

    def _now(self, now: datetime | None = None) -> datetime:
        """The time; just after an outage without it, since beats that could not arrive were not missed."""
        now = now or datetime.now(UTC)
        return now - self._lost if now - self._back < _hearing() else now


def _hearing() -> timedelta:
    """After how long without a sign of life a run on another machine counts as dead."""
    from topotrain.tracking.heartbeat import INTERVAL_SECONDS as BEAT
    from topotrain.tracking.heartbeat import MISSED_BEATS

    return timedelta(seconds=BEAT * MISSED_BEATS)
