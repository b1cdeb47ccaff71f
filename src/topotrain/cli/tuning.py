"""The command that looks for better settings: tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from topotrain.cli.options import (
    TAKE_CANDIDATE,
    TRACKING_URI,
    Duration,
    InputPath,
    Whole,
    engine_options,
    flag,
    jobs_option,
    option,
    override_options,
)
from topotrain.cli.output import say
from topotrain.cli.startup import heavy_imports
from topotrain.errors import UndeliveredError, UnfinishedBatchError
from topotrain.invocation import program, sync_advice

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")


@click.command()
@option(
    "--space", "-s", type=InputPath(), required=True, metavar="PATH", help="YAML: keys, each with a range or choices."
)
@option("--trials", "-n", type=Whole(1, "TRIALS"), required=True, help="How many, earlier ones included.")
@option("--config", "-c", type=InputPath(), metavar="PATH", help="The recipe that is varied; by default the defaults.")
@override_options("Of the recipe; repeatable.")
@jobs_option("Runs at once.")
@engine_options
@option("--timeout", type=Duration(), metavar="TIME", help="After this no further trial begins: 2h, 90m, 1h30m, 45s.")
@option("--sampler", default="tpe", show_default=True, type=click.Choice(SAMPLERS), help="How trials are suggested.")
@option("--pruner", default="median", show_default=True, type=click.Choice(PRUNERS), help="How bad ones are stopped.")
@option("--metric", metavar="NAME", help="What is compared; by default the primary metric.")
@option("--seeds", default=1, show_default=True, type=Whole(1, "PARTS"), help="Runs of each trial; their mean counts.")
@option("--folds", type=Whole(2, "PARTS"), help="Compare by folds of the training labels, cut between targets.")
@flag("--resume", help="Go on with an earlier tuning of the same.")
@option("--out", metavar="PATH", help="The winning configuration; by default SPACE_winner.yaml.")
@option("--run-name", help="Of the tuning's own run; by default the space's file name.")
@TAKE_CANDIDATE
@TRACKING_URI
def tune(override: Sequence[str], overrides: Sequence[str], **settings: Any) -> None:
    """Look for better settings: trials as the children of one run. Prints a table of them.

    \b
    topotrain tune --space configs/spaces/default.yaml --trials 20 --jobs 2
    topotrain tune --space configs/spaces/default.yaml --trials 20 --jobs 2 --resume
    topotrain tune --space configs/spaces/default.yaml --trials 20 --folds 5 --pruner none
    """
    with heavy_imports():
        from topotrain.batches.tune import tune as run_tuning
        from topotrain.batches.tune_report import failure_line, table_lines

    result = run_tuning(overrides=[*overrides, *override], **settings)
    click.echo("\n".join(table_lines(result)))
    if result.config is not None and result.winner is not None:
        say(f"tuning {result.run_name} ({result.run_id}); best: trial {result.best}, {result.winner_words}")
        say(f"  its configuration: {program()} run --config {result.config}")
    if result.exit_status:
        raise UnfinishedBatchError(failure_line(result), result.exit_status)
    if result.undelivered is not None:
        raise UndeliveredError(result.undelivered, sync_advice())
