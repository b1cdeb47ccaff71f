"""Trainings that wait for a test; Python imports this at its start where its folder is in ``PYTHONPATH``.

However fast a machine is, what is held has not ended when the test looks. See ``kit.holding``.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

AT_START = 1  # a run seeds its generators once before its epochs, each of which does so again
EPOCHS = 2

_seeded = 0


def is_held() -> bool:
    """Whether the test holds this training, and no signal has asked it to stop."""
    try:
        whom = Path(os.environ["TESTS_HOLD"]).read_text()
    except (KeyError, FileNotFoundError):
        return False
    wish = sys.modules["topotrain.signals"]._wish
    return whom in " ".join(sys.argv) and (wish is None or wish.signum is None)


def wait_in_epoch(event: str, given: tuple[Any, ...]) -> None:
    """Where an epoch begins, wait as long as the test wants."""
    global _seeded
    if event != "os.putenv" or given[0] != b"PL_GLOBAL_SEED":
        return
    _seeded += 1
    while _seeded > AT_START + EPOCHS and is_held():
        time.sleep(0.02)


sys.addaudithook(wait_in_epoch)
