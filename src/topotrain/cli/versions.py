"""Commands that make model versions of what was trained before: ensemble, import-checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from topotrain.cli import completion
from topotrain.cli.options import EXPERIMENT, TRACKING_URI, InputPath, Text, Words, option
from topotrain.cli.output import say
from topotrain.cli.startup import heavy_imports


@click.command()
@click.argument("members", nargs=-1, shell_complete=completion.models)
@option(
    "--from-batch",
    metavar="RUN",
    help="The best version of each job of a batch.",
    shell_complete=completion.runs,
)
@option("--members", "more", type=Words("versions and runs"), default="", hidden=True)
@option(
    "--name",
    default="topoqa",
    show_default=True,
    metavar="NAME",
    help="Registered model that gets a new version.",
    shell_complete=completion.model_names,
)
@option("--run-name", type=Text(), metavar="TEXT", help="By default ensemble_of_N.")
@click.option(
    "--take-candidate", is_flag=True, help="It becomes the candidate even where it is not known to be better."
)
@EXPERIMENT
@TRACKING_URI
def ensemble(
    members: Sequence[str],
    from_batch: str | None,
    more: Sequence[str],
    name: str,
    run_name: str | None,
    take_candidate: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Register several models as one, which gives the mean of their scores and how far these lie apart.

    A member is models:/NAME/VERSION, models:/NAME@alias, or a run, whose best version is meant. All have the same
    features; they differ in their seeds, say, or in their training data. Prints the version's URI.

    \b
    topotrain ensemble models:/topoqa/3 models:/topoqa/6 models:/topoqa/9
    topotrain ensemble --from-batch five_seeds
    """
    with heavy_imports():
        from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
        from topotrain.scoring.ensemble import ensemble as make_ensemble

    done = make_ensemble(
        [*members, *more],
        from_batch=from_batch,
        name=name,
        run_name=run_name,
        experiment=experiment,
        take_candidate=take_candidate,
        tracking_uri=tracking_uri,
    )
    if done.metrics:
        shown = ((VAL_LOSS, "val_loss"), (VAL_SPEARMAN, "Spearman"), (VAL_RANKING_LOSS, "ranking loss"))
        figures = ", ".join(f"{words} {done.metrics[metric]:.4f}" for metric, words in shown)
        say(f"on the validation data of its members: {figures}")
    say(f"ensemble of {len(done.members)} by run {done.run_id}; its story: topotrain describe {done.version}")
    click.echo(done.version)


@click.command("import-checkpoint")
@click.argument("path", type=InputPath())
@option("--model-name", required=True, metavar="NAME", help="Registered model that gets a new version.")
@option("--pooling", type=click.Choice(["mean", "add"]), help="By default what the file says, else mean.")
@option("--metadata", type=InputPath(), metavar="JSON", help="feature_metadata.json, where the file holds none.")
@TRACKING_URI
def import_checkpoint(
    path: str, model_name: str, pooling: str | None, metadata: str | None, tracking_uri: str | None
) -> None:
    """Register the network of a Lightning checkpoint of the original TopoQA. Prints the version's URI.

    \b
    topotrain import-checkpoint topoqa.ckpt --model-name published --pooling mean
    topotrain import-checkpoint old.ckpt --model-name topoqa --metadata feature_metadata.json
    """
    with heavy_imports():
        from topotrain.scoring.import_checkpoint import import_checkpoint as import_file

    done = import_file(
        Path(path),
        model_name,
        pooling=pooling,
        metadata=Path(metadata) if metadata else None,
        tracking_uri=tracking_uri,
    )
    say(f"imported by run {done.run_id}; its story: topotrain describe {done.version}")
    click.echo(done.version)
