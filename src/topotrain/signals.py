"""Signals that ask the program to stop, turned into one exception."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from topotrain.errors import ConfigError, InterruptedRunError
from topotrain.invocation import STOP_VARIABLE, serving_parent, stop_signals

NEVER = ("SIGKILL", "SIGSTOP")
SAME_WISH_SECONDS = 3.0
STEP_SECONDS = 30.0  # that a step may take to end once a signal asks for it
WATCH_SECONDS = 1.0
AGAIN_SECONDS = 0.01


def stopping() -> tuple[signal.Signals, ...]:
    """Signals that ask to stop: SIGINT, SIGTERM, and those that warn of the end, SIGUSR1 or what the user names.

    Raises:
        ConfigError: there is no such signal.
    """
    named = stop_signals().replace(",", " ").upper().split()
    names = [name if name.startswith("SIG") else f"SIG{name}" for name in named]
    unknown = [name for name in names if name not in signal.Signals.__members__ or name in NEVER]
    if unknown:
        raise ConfigError(
            f"{STOP_VARIABLE} names {', '.join(unknown)}", "signals that a process can take, such as USR1 or USR1,USR2"
        )
    return tuple(dict.fromkeys([signal.SIGINT, signal.SIGTERM, *(signal.Signals[name] for name in names)]))


@dataclass
class Wish:
    """What signals asked for, kept until whoever is in the middle of something has come to the end of it.

    Attributes:
        signum: of the signal that asked to stop; ``None`` where none has.
    """

    signum: int | None = None

    def heed(self) -> None:
        """Stop, where a signal has asked for it.

        Raises:
            InterruptedRunError: one has.
        """
        if self.signum is not None:
            raise InterruptedRunError(self.signum)


_wish: Wish | None = None  # of who heeds it at moments of its own; the signals of a process are its main thread's


@contextmanager
def heeding() -> Iterator[Wish]:
    """Within ``interruptible``: a signal that asks to stop is kept as a wish, and raises nothing yet.

    It does after ``STEP_SECONDS``, and at the end of this; whatever else fails meanwhile failed because of it, as
    the processes that read data do where a terminal signals them too.

    Raises:
        InterruptedRunError: a signal has asked to stop.
    """
    global _wish
    wish = Wish()
    if threading.current_thread() is threading.main_thread():
        _wish = wish
    try:
        yield wish
    except Exception:
        wish.heed()
        raise
    finally:
        _wish = None if _wish is wish else _wish
    wish.heed()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``InterruptedRunError`` at the first signal that asks to stop, or where ``heeding`` suits.

    Signals that follow within seconds are the same wish, sent twice (a terminal signals the whole process group, and
    ``mlflow run`` signals its child again); a later one ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked_at: float | None = None

    def stop(signum: int, frame: FrameType | None) -> None:
        # Lightning puts this handler back when it ends, so resetting it would not be enough.
        nonlocal asked_at
        now = time.monotonic()
        if asked_at is None:
            asked_at = now
            if _wish is not None and _wish.signum is None:
                _wish.signum = signum
                ask_again(signum, STEP_SECONDS, _wish)
                return
            raise InterruptedRunError(signum)
        if now - asked_at > SAME_WISH_SECONDS:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def ask_again(signum: int, seconds: float, wish: Wish | None) -> None:
        def ask() -> None:
            nonlocal asked_at
            if wish is None or wish is _wish:
                asked_at = None
                os.kill(os.getpid(), signum)

        timer = threading.Timer(seconds, ask)
        timer.daemon = True
        timer.start()

    def unheard(unraisable: sys.UnraisableHookArgs) -> None:
        # The signal came while an object was being taken apart, from where no exception gets out: ask again.
        if isinstance(unraisable.exc_value, InterruptedRunError):
            ask_again(unraisable.exc_value.signum, AGAIN_SECONDS, _wish)
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, unheard
    before = {each: signal.signal(each, stop) for each in stopping()}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        sys.unraisablehook = hook


def ignore_stopping(but: signal.Signals | None = None) -> None:
    """Let no signal, or none but one, stop this process from now on, until ``interruptible`` ends."""
    if threading.current_thread() is threading.main_thread():
        for each in stopping():
            if each != but:
                signal.signal(each, signal.SIG_IGN)


def release(stop: BaseException) -> None:
    """Free what the interrupted calls held, before the last words are written.

    A signal may come in the middle of a query. Its open cursor would live as long as the exception, whose traceback
    holds its frame, and an SQLite store would be locked by this very process.
    """
    traceback.clear_frames(stop.__traceback__)
    gc.collect()


def follow_parent() -> None:
    """In a process that serves another: end with it, however it ends.

    A batch that is killed outright can't signal its jobs. They find out that they have another parent, and stop as
    at a signal, so that their runs are closed and can be resumed.
    """
    parent = serving_parent()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="topotrain-follow-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
