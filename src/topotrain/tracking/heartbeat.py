"""A sign of life on the run's page while it is running, and what others conclude from it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import psutil

from topotrain.fields import TAG_HEARTBEAT, TAG_LEASE
from topotrain.reading.json_file import parse_json
from topotrain.tracking.records import RunRecord

INTERVAL_SECONDS = 30.0
MISSED_BEATS = 3
STOP_SECONDS = 1.0  # the server may not answer
SAME_START_SECONDS = 2.0  # a process's start is known to a hundredth of a second or so


class Heartbeat:
    """Renews a run's lease every 30 s, from a thread of its own.

    Args:
        beat: renews it, and says whether it is still held.
    """

    def __init__(self, beat: Callable[[], bool]) -> None:
        self._renew = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="topotrain-heartbeat", daemon=True)
        self.lost = False

    def start(self) -> None:
        """Start beating."""
        self._thread.start()

    def stop(self, *, wait: bool = True) -> None:
        """Stop beating and wait a moment for the beat under way, if any."""
        self._stop.set()
        if wait and self._thread.is_alive():  # one that was never started is not
            self._thread.join(timeout=STOP_SECONDS)

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            # A missed beat says what it should: this process could not be reached.
            with contextlib.suppress(Exception):
                if not self._renew():
                    self.lost = True
                    return


def sign_of_life() -> dict[str, str | int | float]:
    """Host, process and time, enough to tell on the same host whether the process still runs."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": process.create_time(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def is_alive(run: RunRecord, now: datetime | None = None) -> bool:
    """Whether a process still works on a run.

    Who holds its lease, or asks for it, decides; of a run that was recorded without one, the last beat. A run without
    any sign of life, as ``mlflow run`` makes it, is given as long to begin.

    Args:
        run: as the server has it.
        now: with a time zone; by default the time.
    """
    if run.status != "RUNNING":
        return False
    now = now or datetime.now(UTC)
    sign = _last_beat(run)
    if sign is None:
        return _is_fresh(run.started, now)
    if "writer" in sign:
        return any(lives(claim, now) for claim in claims(run).values())
    return lives(sign, now)


def claims(run: RunRecord) -> dict[str, Mapping[str, Any]]:
    """Who holds or asks for a run's lease: signs of life by writer; one that can't be read is nobody's."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, text in run.tags.items():
        if name.startswith(TAG_LEASE):
            with contextlib.suppress(ValueError):
                sign = parse_json(text)
                found[name.removeprefix(TAG_LEASE)] = sign if isinstance(sign, dict) else {}
    return found


def signs(run: RunRecord) -> dict[str, str]:
    """What those that record a run, or recorded it, say of themselves, as written: a living one says it anew."""
    return {name: text for name, text in run.tags.items() if name == TAG_HEARTBEAT or name.startswith(TAG_LEASE)}


def is_of_this_host(run: RunRecord) -> bool:
    """Whether the last sign of life came from this host, where the process decides."""
    beat = _last_beat(run)
    return beat is not None and beat["host"] == socket.gethostname()


def lives(sign: Mapping[str, Any], now: datetime | None = None) -> bool:
    """Whether the process that gave a sign of life still runs; one that can't be read is nobody's.

    Args:
        sign: as ``sign_of_life`` gives it.
        now: with a time zone; by default the time.
    """
    try:
        if sign["host"] == socket.gethostname():
            return _same_process(int(sign["pid"]), float(sign["process_start"]))
        return _is_fresh(datetime.fromisoformat(sign["time"]).astimezone(UTC), now or datetime.now(UTC))
    except (ValueError, TypeError, KeyError):
        return False


def _is_fresh(last: datetime, now: datetime) -> bool:
    return (now - last).total_seconds() < MISSED_BEATS * INTERVAL_SECONDS


def _last_beat(run: RunRecord) -> Mapping[str, Any] | None:
    """The sign of life, or ``None`` where there is none that can be read."""
    try:
        beat = parse_json(run.tags.get(TAG_HEARTBEAT, "null"))
        time = datetime.fromisoformat(beat["time"]).astimezone(UTC).isoformat()
        process = {"pid": int(beat["pid"]), "process_start": float(beat["process_start"])}
        return {**beat, "host": str(beat["host"]), "time": time, **process}
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _same_process(pid: int, started: float) -> bool:
    """Whether this process still runs here; another that was given its number does not count."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < SAME_START_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ArithmeticError, ValueError):  # no process has such a number
        return False
