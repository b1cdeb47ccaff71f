"""Waiting for something that another process or thread does; how long that takes says nothing about the code."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

PATIENCE = 600.0  # seconds; only a test that hangs waits so long
T = TypeVar("T")


def wait_for(what: Callable[[], T], shown: Callable[[], object] = str, every: float = 0.05) -> T:
    """Ask until the answer is true, and return it.

    Args:
        what: the question.
        shown: what to show where the answer never comes.
        every: seconds between two questions.
    """
    deadline = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < deadline, shown()
        time.sleep(every)
    return answer


def hang_up(port: int, calls: int) -> None:
    """In place of a server that is gone: take so many calls on its port, and end each without an answer."""
    with closing(socket.create_server(("127.0.0.1", port))) as listener:
        listener.settimeout(PATIENCE)
        for _ in range(calls):
            listener.accept()[0].close()
