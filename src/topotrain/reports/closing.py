"""The last lines of a training run: what came out, and where to look."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from topotrain.config import mask_credentials
from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN

if TYPE_CHECKING:
    from topotrain.training.fit import TrainResult


def closing_lines(result: TrainResult) -> list[str]:
    """What to print when a run has ended."""
    figures = result.metrics
    uri = shlex.quote(mask_credentials(result.tracking_uri))
    lines = [
        f"done: {result.epochs} epochs, best epoch {result.best_epoch}: val_loss {figures[VAL_LOSS]:.4f}, "
        f"Spearman {figures[VAL_SPEARMAN]:.3f}, ranking loss {figures[VAL_RANKING_LOSS]:.3f}",
        f"run {result.run_name} ({result.run_id}), tracked at {mask_credentials(result.tracking_uri)}",
        f"  summary:   {program()} summarise --run-id {result.run_id} --tracking-uri {uri}",
    ]
    if result.page:
        lines.append(f"  web page:  {result.page}")
    else:
        lines.append(
            f"  web page:  {program()} ui --tracking-uri {uri}   then open "
            f"http://127.0.0.1:5000/#/experiments/{result.experiment_id}/runs/{result.run_id}"
        )
    return lines


def resume_command(run_id: str, tracking_uri: str) -> str:
    """The command that goes on with a run."""
    return f"{program()} resume --run-id {run_id} --tracking-uri {shlex.quote(mask_credentials(tracking_uri))}"


def program() -> str:
    """How the user's shell calls this program: by its path where its environment, here, is not activated."""
    here = Path(sys.executable).parent / "topotrain"
    if "VIRTUAL_ENV" not in os.environ and here.is_relative_to(Path.cwd()) and here.exists():
        return str(here.relative_to(Path.cwd()))
    return "topotrain"
