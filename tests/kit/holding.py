"""Programs in processes of their own that do not end before a test lets them."""

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
    return _with(VARIABLE, str(file))


def pausing(line: str) -> dict[str, str]:
    """Variables of the environment: once a program has said such a line, it waits for a signal.

    Args:
        line: a regular expression for its beginning.
    """
    return _with("TESTS_PAUSE_AT_LINE", line)


def pausing_at_file(number: int, suffix: str) -> dict[str, str]:
    """Variables of the environment: before a program has so many files that end so, it waits for a signal."""
    return _with("TESTS_PAUSE_AT_FILE", f"{number} {suffix}")


def _with(name: str, value: str) -> dict[str, str]:
    folders = [FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(folders), name: value}
