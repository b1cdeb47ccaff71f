"""Commands that train: run, batch, resume."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from topotrain.cli.options import (
    EXPERIMENT,
    RUN,
    TAKE_CANDIDATE,
    TRACKING_URI,
    InputPath,
    Number,
    engine_options,
    flag,
    jobs_option,
    option,
    override_options,
)
from topotrain.cli.output import say
from topotrain.cli.startup import heavy_imports
from topotrain.errors import UndeliveredError, UnfinishedBatchError
from topotrain.invocation import program, serving_parent, sync_advice

if TYPE_CHECKING:
    from topotrain.cluster.workers import EngineName
    from topotrain.training.fit import TrainResult
    from topotrain.training.register import TakeCandidate
    from topotrain.training.resume import AlreadyComplete


@click.command()
@option("--config", "-c", type=InputPath(), metavar="PATH", help="YAML; by default the defaults.")
@override_options("Dotted key and YAML value; repeatable.")
@option("--run-name", help="By default training_run_ and the time.")
@option("--notes", help="Text shown on the run's page.")
@option("--trial-label", help="Kept as the tag topotrain.trial_label.")
@option(
    "--resume-from",
    metavar="CKPT",
    help="Begin with the weights of a checkpoint file, runs:/ID/checkpoints/NAME, or models:/NAME@alias.",
)
@option("--parent-run-id", hidden=True, help="The batch that this run is part of.")
@flag("--fast-dev-run", help="One training and one validation batch; registers nothing.")
@option("--limit-train-batches", type=Number(), help="Use only so many; registers nothing.")
@option("--limit-val-batches", type=Number(), help="Use only so many; registers nothing.")
@TAKE_CANDIDATE
@flag(
    "--continue",
    "go_on",
    help="Go on with the run of this name and recipe if it was cut off, say so if it is complete, else begin it.",
)
@flag("--offline", help="Need no server; deliver the run later with: topotrain sync.")
@TRACKING_URI
def run(
    config: str | None,
    override: Sequence[str],
    overrides: Sequence[str],
    run_name: str | None,
    notes: str | None,
    trial_label: str | None,
    resume_from: str | None,
    parent_run_id: str | None,
    fast_dev_run: bool,
    limit_train_batches: int | float | None,
    limit_val_batches: int | float | None,
    take_candidate: bool,
    offline: bool,
    go_on: bool,
    tracking_uri: str | None,
) -> None:
    """Train one network (alias: train). Prints the run's id.

    \b
    topotrain run
    topotrain run --config configs/default.yaml --override trainer.num_epochs=20 --override seed=777
    topotrain run --override paths.graph=graphs --override paths.train_labels=train.csv \\
                  --override paths.val_labels=val.csv
    topotrain run --run-name one --continue        # the same line again, each time that it was cut off
    """
    with heavy_imports():
        from topotrain.training.fit import Limits, fit
        from topotrain.training.fit_or_resume import fit_or_resume

    _leave_to_rank_0()
    begin = fit_or_resume if go_on else fit
    result = begin(
        config,
        overrides=[*overrides, *override],
        run_name=run_name,
        notes=notes,
        trial_label=trial_label,
        resume_from=resume_from,
        parent_run_id=parent_run_id,
        take_candidate=_rule(take_candidate, parent_run_id),
        limits=Limits(fast_dev_run, limit_train_batches, limit_val_batches),
        offline=offline,
        tracking_uri=tracking_uri,
    )
    _print_end(result)


@click.command()
@option(
    "--manifest", "-m", type=InputPath(), required=True, metavar="PATH", help="YAML: jobs, shared, continue_on_error."
)
@override_options("For every job; repeatable.")
@jobs_option("Jobs at once.")
@engine_options
@flag("--resume", help="Only what an earlier batch of this manifest did not finish.")
@option("--run-name", help="Of the batch's own run; by default the manifest's file name.")
@TAKE_CANDIDATE
@TRACKING_URI
def batch(
    manifest: str,
    override: Sequence[str],
    overrides: Sequence[str],
    jobs: int,
    engine: EngineName,
    address: str | None,
    resume: bool,
    run_name: str | None,
    take_candidate: bool,
    tracking_uri: str | None,
) -> None:
    """Run a manifest's jobs as the children of one run. Prints a table of what came out.

    \b
    topotrain batch --manifest manifests/run_all.yaml --jobs 2
    topotrain batch --manifest manifests/run_all.yaml --override trainer.num_epochs=20
    topotrain batch --manifest manifests/run_all.yaml --resume
    topotrain batch --manifest manifests/run_all.yaml --engine ray --address head:6379 --jobs 16
    """
    with heavy_imports():
        from topotrain.batches.batch import batch as run_batch
        from topotrain.batches.display import failure_line, summary_lines

    result = run_batch(
        manifest,
        overrides=[*overrides, *override],
        jobs=jobs,
        engine=engine,
        address=address,
        resume=resume,
        run_name=run_name,
        take_candidate=take_candidate,
        tracking_uri=tracking_uri,
    )
    click.echo("\n".join(summary_lines(result.jobs)))
    say(f"batch {result.run_name} ({result.run_id}); best job: {result.best or 'none'}")
    if result.unfinished:
        raise UnfinishedBatchError(failure_line(result.jobs), result.exit_status)
    if result.ensemble:
        say(f"ensemble: {result.ensemble}; its story: topotrain describe {result.ensemble}")
    if result.no_ensemble is not None:
        raise result.no_ensemble
    if result.undelivered is not None:
        raise UndeliveredError(result.undelivered, sync_advice())


@click.command()
@RUN
@option(
    "--checkpoint",
    default="last",
    show_default=True,
    metavar="NAME|PATH",
    help="last, best, second_best, third_best, a checkpoint's name, or a file.",
)
@override_options("Wins over the run's own; repeatable.")
@option("--run-name", help="Of a new run, where one is opened.")
@flag("--force", help="Even if the run seems alive.")
@TAKE_CANDIDATE
@EXPERIMENT
@TRACKING_URI
def resume(
    run_id: str | None,
    checkpoint: str,
    override: Sequence[str],
    overrides: Sequence[str],
    run_name: str | None,
    force: bool,
    take_candidate: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Resume a run that was interrupted, or begin a new run at an earlier checkpoint. Prints the run's id.

    \b
    topotrain resume --run-id latest
    topotrain resume --run-id 1f0c9a2e --override trainer.num_epochs=200
    topotrain resume --run-id first --checkpoint best --override optimizer.learning_rate=0.0001
    """
    with heavy_imports():
        from topotrain.training.resume import resume as resume_run

    _leave_to_rank_0()
    result = resume_run(
        run_id,
        checkpoint=checkpoint,
        overrides=[*overrides, *override],
        run_name=run_name,
        force=force,
        take_candidate=_rule(take_candidate, serving_parent()),
        experiment=experiment,
        tracking_uri=tracking_uri,
    )
    _print_end(result)


def _leave_to_rank_0() -> None:
    """Where ``torchrun`` or ``srun`` started this process as another rank: train as rank 0 says, and end."""
    from topotrain.training.follower import follow_outer

    status = follow_outer()
    if status is not None:
        raise click.exceptions.Exit(status)


def _rule(take_candidate: bool, parent: object) -> TakeCandidate:
    """A batch gives the alias to its best child."""
    return "never" if parent is not None else "always" if take_candidate else "if_better"


def _print_end(result: TrainResult | AlreadyComplete) -> None:
    from topotrain.training.resume import AlreadyComplete

    if isinstance(result, AlreadyComplete):
        say(f"run {result.run_name} is complete after {result.epochs} epochs; nothing is left to do")
        click.echo(result.run_id)
        return
    for line in _closing_lines(result):
        say(line)
    click.echo(result.run_id)
    if result.journal is not None:
        raise UndeliveredError(result.journal, sync_advice(result.journal))


def _closing_lines(result: TrainResult) -> list[str]:
    """What to print when a run has ended."""
    from topotrain.credentials import mask_uri
    from topotrain.fields import DEMO, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN

    metrics = result.metrics
    uri = shlex.quote(mask_uri(result.tracking_uri))
    lines = [
        f"done: {result.epochs} epochs, best epoch {result.best_epoch}: val_loss {metrics[VAL_LOSS]:.4f}, "
        f"Spearman {metrics[VAL_SPEARMAN]:.3f}, ranking loss {metrics[VAL_RANKING_LOSS]:.3f} ({result.quality})",
        f"run {result.run_name} ({result.run_id}), "
        + (f"tracked at {mask_uri(result.tracking_uri)}" if result.journal is None else f"kept in {result.journal}"),
    ]
    if result.journal is not None:
        return lines
    if result.page:
        lines.append(f"web page: {result.page}")
    chosen = f"--run-id {result.run_id} --tracking-uri {uri}"
    if not result.model_versions:
        return [*lines, f"next: {program()} summarise {chosen}"]
    labelled = "" if result.graphs == DEMO else f" --graphs {shlex.quote(result.graphs)} --labels LABELS.csv"
    return [*lines, f"next, on complexes that it has not seen: {program()} evaluate {chosen}{labelled}"]
