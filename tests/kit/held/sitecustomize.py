"""Programs that wait for a test; Python imports this at its start where its folder is in ``PYTHONPATH``.

However fast a machine is, what is held has not ended when the test looks. See ``kit.holding``.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

AT_START = 1  # a run seeds its generators once before its epochs, each of which does so again
EPOCHS = 2
LONGEST = 120.0  # seconds: a test that waits for longer has failed

_seeded = _renamed = 0


def is_asked() -> bool:
    """Whether a signal has asked this program to stop."""
    wish = sys.modules["topotrain.signals"]._wish
    return wish is not None and wish.signum is not None


def is_held() -> bool:
    """Whether the test holds this training, and no signal has asked it to stop."""
    try:
        whom = Path(os.environ["TESTS_HOLD"]).read_text()
    except (KeyError, FileNotFoundError):
        return False
    return whom in " ".join(sys.argv) and not is_asked()


def wait_in_epoch(event: str, given: tuple[Any, ...]) -> None:
    """Where an epoch begins, wait as long as the test wants."""
    global _seeded
    if event != "os.putenv" or given[0] != b"PL_GLOBAL_SEED":
        return
    _seeded += 1
    while _seeded > AT_START + EPOCHS and is_held():
        time.sleep(0.02)


def wait_for_signal() -> None:
    """Wait until one comes."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end and not is_asked():
        time.sleep(0.02)


class Pausing:
    """Standard error that, once a line that fits has been written, waits for a signal."""

    def __init__(self, stream: Any, pattern: str) -> None:
        self._stream, self._pattern, self._due = stream, re.compile(pattern), False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._due = self._due or bool(self._pattern.match(text))
        return int(self._stream.write(text))

    def flush(self) -> None:
        self._stream.flush()
        if self._due:
            self._due = False
            wait_for_signal()


def wait_at_rename(event: str, given: tuple[Any, ...]) -> None:
    """Where a file gets its name, wait for a signal if so many of its kind have theirs."""
    global _renamed
    number, _, suffix = os.environ["TESTS_PAUSE_AT_FILE"].partition(" ")
    if event == "os.rename" and os.fsdecode(given[1]).endswith(suffix):
        _renamed += 1
        if _renamed == int(number):
            wait_for_signal()


sys.addaudithook(wait_in_epoch)
if "TESTS_PAUSE_AT_LINE" in os.environ:
    sys.stderr = Pausing(sys.stderr, os.environ["TESTS_PAUSE_AT_LINE"])
if "TESTS_PAUSE_AT_FILE" in os.environ:
    sys.addaudithook(wait_at_rename)
