"""The command line, called in this process."""

from __future__ import annotations

from typing import Any

from topotrain.cli import main


def exit_status(*arguments: Any) -> int:
    """What a command ends with."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
