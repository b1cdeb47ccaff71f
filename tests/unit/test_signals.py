"""What an interrupted call held is free when the last words are written."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from topotrain import signals
from topotrain.errors import InterruptedRunError
from topotrain.signals import heeding, interruptible, release


def test_a_query_that_a_signal_cut_off_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    last_words = sqlite3.connect(path, timeout=0, isolation_level=None)
    last_words.execute("CREATE TABLE runs (status)")
    last_words.executemany("INSERT INTO runs VALUES (?)", [("RUNNING",)] * 3)

    def ask() -> None:
        found = sqlite3.connect(path).execute("SELECT * FROM runs")
        next(found)
        os.kill(os.getpid(), signal.SIGTERM)
        list(found)

    with interruptible():
        try:
            ask()
        except InterruptedRunError as stop:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                last_words.execute("UPDATE runs SET status = 'KILLED'")
            release(stop)
            last_words.execute("UPDATE runs SET status = 'KILLED'")
    assert last_words.execute("SELECT DISTINCT status FROM runs").fetchall() == [("KILLED",)]


def test_a_signal_in_a_finaliser_is_heard_all_the_same() -> None:
    """No exception gets out of one: Python prints it, and goes on."""

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):  # the handler runs within
                pass

    def work() -> None:
        dying = Dying()
        del dying
        threading.Event().wait(30)

    hook = sys.unraisablehook
    with interruptible(), pytest.raises(InterruptedRunError) as stop:
        work()
    assert stop.value.signum == signal.SIGTERM
    assert sys.unraisablehook is hook


def test_a_signal_is_heeded_where_it_suits() -> None:
    done = []
    with interruptible(), pytest.raises(InterruptedRunError) as stop, heeding() as wish:
        os.kill(os.getpid(), signal.SIGUSR1)
        done.append("the step")
        wish.heed()
        done.append("another")
    assert (stop.value.signum, done) == (signal.SIGUSR1, ["the step"])


def test_a_wish_that_nobody_heeded_and_what_failed_because_of_it_end_as_the_signal_asks() -> None:
    with interruptible(), pytest.raises(InterruptedRunError), heeding():
        os.kill(os.getpid(), signal.SIGTERM)
    with interruptible(), pytest.raises(InterruptedRunError), heeding():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("a process that reads data is gone")
    with interruptible(), pytest.raises(RuntimeError), heeding():
        raise RuntimeError("nobody asked for anything")


def test_a_step_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "STEP_SECONDS", 0.05)
    with interruptible(), pytest.raises(InterruptedRunError), heeding():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(30)
        pytest.fail("it waited to the end")


def test_nothing_is_cut_off_once_the_steps_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last records of a run that was stopped may take longer than a step."""
    monkeypatch.setattr(signals, "STEP_SECONDS", 0.01)
    with interruptible():
        with pytest.raises(InterruptedRunError), heeding() as wish:
            os.kill(os.getpid(), signal.SIGTERM)
            wish.heed()
        threading.Event().wait(0.1)
