"""A sign of life on the run's page while it is running."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from datetime import UTC, datetime

import psutil
from mlflow.tracking import MlflowClient

from topotrain.fields import TAG_HEARTBEAT

INTERVAL_SECONDS = 30.0


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
            # A missed beat says what it should: nobody could hear this process.
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
