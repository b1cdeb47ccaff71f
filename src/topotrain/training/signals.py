"""Signals that ask the program to stop, turned into one exception."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from topotrain.errors import InterruptedRunError

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``InterruptedRunError`` at the first SIGINT or SIGTERM; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = False

    def stop(signum: int, frame: FrameType | None) -> None:
        # Lightning puts this handler back when it ends, so resetting it would not be enough.
        nonlocal asked
        if asked:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        asked = True
        raise InterruptedRunError(signum)

    before = {each: signal.signal(each, stop) for each in STOPPING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
