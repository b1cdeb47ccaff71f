"""Starting and ending fast: no search for garbage where there is none."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HEAVY = ("torch", "mlflow")


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around a command's imports of the big libraries.

    They make more than a million objects and no garbage, and every search for garbage goes through all objects that
    there are: a quarter of the time that importing takes. What was imported is left out of later searches as well.
    """
    if not gc.isenabled() or all(name in sys.modules for name in HEAVY):  # the second command of a process
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def end_quickly() -> None:
    """Let the process end without a last search through everything it imported, which takes a second or two.

    Files are closed and exit handlers run as ever; only objects that hold each other go without being taken apart.
    """
    atexit.unregister(gc.freeze)  # a process may call the program twice
    atexit.register(gc.freeze)
