"""How this program was called, and how it is called again: every look at the environment."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from topotrain.credentials import mask_credentials


def resume_command(run_id: str, tracking_uri: str) -> str:
    """The command that goes on with a run."""
    return f"{program()} resume --run-id {run_id} --tracking-uri {shlex.quote(mask_credentials(tracking_uri))}"


def program() -> str:
    """How the user's shell calls this program: by its path where its environment, here, is not activated."""
    here = Path(sys.executable).parent / "topotrain"
    if "VIRTUAL_ENV" not in os.environ and here.is_relative_to(Path.cwd()) and here.exists():
        return str(here.relative_to(Path.cwd()))
    return "topotrain"
