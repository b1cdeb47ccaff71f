"""Numbers and durations as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MISSING = "-"
MINUTE, HOUR, DAY = 60, 3600, 86400


def status(run: Mapping[str, Any]) -> str:
    """A run's status; of one that says it is running though no process works on it, that too."""
    silent = run["status"] == "RUNNING" and not run["alive"]
    return f"{run['status']} (no sign of life)" if silent else str(run["status"])


def number(value: float | None, digits: int = 4) -> str:
    """A number with some decimals; a missing one is a dash, never 0."""
    return MISSING if value is None else f"{value:.{digits}f}"


def short(value: float | str | None) -> str:
    """A setting as short as it can be."""
    if value is None:
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """A time span in its two largest units, such as ``3 min 20 s``."""
    if seconds is None:
        return MISSING
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, name, below, below_name in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"
