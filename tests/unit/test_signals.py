"""What an interrupted call held is free when the last words are written."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from topotrain.errors import InterruptedRunError
from topotrain.signals import interruptible, release


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
