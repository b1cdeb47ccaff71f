"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topotrain.text import MISSING


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
