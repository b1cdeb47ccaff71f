"""Texts that are numbers: ASCII digits as people write them, nothing that only a program takes for one.

Python reads ``0_7``, digits of other scripts and a number of any length, and ``1e400`` as infinity.
"""

from __future__ import annotations

import math
import re

from topotrain.limits import DIGITS

LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
NEVER_TOO_LONG = 32  # characters: asking the environment takes longer than reading the number
MOST_KEPT = 18  # digits of a number in a tag or a parameter


def number(text: str) -> float:
    """A number, or NaN for anything else, one too long or too large among it."""
    if (len(text) > NEVER_TOO_LONG and len(text) > DIGITS.value) or not NUMBER.fullmatch(text):
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def reads_as_number(text: str) -> bool:
    """Whether everybody takes a text for the same number; 010 is eight to some."""
    return not math.isnan(number(text)) and not LEADING_ZERO.match(text)


def whole(text: str | None) -> int | None:
    """A whole number, not negative, out of a tag or a parameter; ``None`` where there is none."""
    return int(text) if text is not None and len(text) <= MOST_KEPT and text.isascii() and text.isdecimal() else None
