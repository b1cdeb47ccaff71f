"""What is concluded from a run's last sign of life."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from topotrain.fields import TAG_HEARTBEAT
from topotrain.tracking.heartbeat import is_alive, sign_of_life
from topotrain.tracking.records import RunRecord

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)


def run(beat=None, status="RUNNING", started=NOW):
    tags = {} if beat is None else {TAG_HEARTBEAT: beat if isinstance(beat, str) else json.dumps(beat)}
    return RunRecord("0" * 32, "a run", "1", status, started, None, False, "", tags=tags)


def elsewhere(seconds_ago):
    time = (NOW - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
    return {"host": "another-host", "pid": os.getpid(), "process_start": 1.0, "time": time}


def test_on_this_host_the_process_decides_whatever_the_clock_says():
    beat = {**sign_of_life(), "time": (NOW - timedelta(days=9)).isoformat()}
    assert is_alive(run(beat), NOW)
    assert not is_alive(run({**beat, "process_start": beat["process_start"] - 60}), NOW)  # its number was given away


def test_on_this_host_a_dead_process_is_dead_at_once():
    script = "import json; from topotrain.tracking.heartbeat import sign_of_life; print(json.dumps(sign_of_life()))"
    beat = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert json.loads(beat)["host"] == socket.gethostname()
    assert not is_alive(run(beat))


@pytest.mark.parametrize(("ago", "alive"), [(0, True), (89, True), (90, False), (10_000, False)])
def test_elsewhere_three_missed_beats_decide(ago, alive):
    assert is_alive(run(elsewhere(ago)), NOW) is alive


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED", "SCHEDULED"])
def test_a_run_that_ended_is_not_alive(status):
    assert not is_alive(run(elsewhere(0), status=status), NOW)


@pytest.mark.parametrize("beat", [None, "", "{", "[]", '{"host": 3}', '{"host": "h", "pid": "x", "time": "y"}'])
def test_a_run_without_a_readable_beat_is_given_time_to_begin(beat):
    assert is_alive(run(beat, started=NOW - timedelta(seconds=60)), NOW)
    assert not is_alive(run(beat, started=NOW - timedelta(seconds=100)), NOW)
