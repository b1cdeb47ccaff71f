"""A sign of life on the run's page while it is running, and what others conclude from it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psutil
from mlflow.tracking import MlflowClient

from topotrain.fields import TAG_HEARTBEAT
from topotrain.reading.json_file import parse_json
from topotrain.tracking.records import RunRecord

INTERVAL_SECONDS = 30.0
MISSED_BEATS = 3
SAME_START_SECONDS = 2.0  # a process's start is known to a hundredth of a second or so


class Heartbeat:
    """Sets ``topotrain.heartbeat`` every 30 s, from a thread of its own.

    Args:
        client: of the store.
        run_id: the run.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="topotrain-heartbeat", daemon=True)

    def start(self) -> None:
        """Start beating; the first beat is immediate."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and wait for the beat under way, if any."""
        self._stop.set()
        self._thread.join(timeout=10.0)

    def _beat(self) -> None:
        while True:
            # A missed beat says what it should: this process could not be reached.
            with contextlib.suppress(Exception):
                self._client.set_tag(self._run_id, TAG_HEARTBEAT, json.dumps(sign_of_life()))
            if self._stop.wait(INTERVAL_SECONDS):
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

    On the host that beats, its process decides; elsewhere three missed beats do. A run without a beat, as
    ``mlflow run`` makes it, is given as long to begin.

    Args:
        run: as the server has it.
        now: with a time zone; by default the time.
    """
    if run.status != "RUNNING":
        return False
    now = now or datetime.now(UTC)
    beat = _last_beat(run)
    if beat is None:
        last = run.started
    elif beat["host"] == socket.gethostname():
        return _same_process(int(beat["pid"]), float(beat["process_start"]))
    else:
        last = datetime.fromisoformat(beat["time"])
    return (now - last).total_seconds() < MISSED_BEATS * INTERVAL_SECONDS


def _last_beat(run: RunRecord) -> Mapping[str, Any] | None:
    """The sign of life, or ``None`` where there is none that can be read."""
    try:
        beat = parse_json(run.tags.get(TAG_HEARTBEAT, "null"))
        time = datetime.fromisoformat(beat["time"]).astimezone(UTC).isoformat()
        process = {"pid": int(beat["pid"]), "process_start": float(beat["process_start"])}
        return {"host": str(beat["host"]), "time": time, **process}
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _same_process(pid: int, started: float) -> bool:
    """Whether this process still runs here; another that was given its number does not count."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < SAME_START_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ArithmeticError, ValueError):  # no process has such a number
        return False
