"""Trainings in processes of their own that do not end before a test lets them."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = str(Path(__file__).parent / "held")
VARIABLE = "TESTS_HOLD"


def holding(file: Path) -> dict[str, str]:
    """Variables of the environment: a training goes through two epochs, then waits while there is such a file.

    A signal that asks it to stop is heeded meanwhile. A text in the file names whom it is for: those that have it in
    their command line.
    """
    folders = [FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(folders), VARIABLE: str(file)}
