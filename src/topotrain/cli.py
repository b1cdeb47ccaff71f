"""The command line: each command a few lines over a callable."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from topotrain.errors import (
    EXIT_FAULT,
    EXIT_USER,
    ConfigError,
    DataError,
    InterruptedRunError,
    TopotrainError,
    UnfinishedBatchError,
)
from topotrain.files import write_text
from topotrain.signals import follow_parent
from topotrain.text import as_json as to_json
from topotrain.version import __version__

if TYPE_CHECKING:
    from topotrain.training.fit import TrainResult

TRACKING_URI = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; by default mlflow.db in the current directory."
)
# For commands that need no store, so that every command takes the same option.
UNUSED_URI = click.option("--tracking-uri", metavar="URI", expose_value=False, hidden=True)
RUN = click.option(
    "--run-id", "--run", "run_id", metavar="RUN", default=None, help="Id, prefix of one, name, or latest."
)
OVERRIDES = click.option(
    "--overrides", default="", hidden=True, help="Several overrides in one text, split as a shell splits."
)
EXPERIMENT = click.option("--experiment", metavar="NAME", help="Look in this experiment only.")

FORMAT = click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(["table", "json", "csv"])
)
_SUFFIX = {"table": "txt", "json": "json", "csv": "csv"}


def _flag(*names: str, text: str) -> Any:
    """A flag that an entry point of MLproject can write out as true or false."""
    return click.option(*names, type=click.BOOL, is_flag=False, flag_value=True, default=False, help=text)


PER_TARGET = _flag("--per-target", text="Table and CSV: a row for each target (JSON has them).")
UNVERIFIED = _flag("--allow-unverified", text="Graphs whose columns nobody names are checked by width alone.")


class Number(click.ParamType[int | float | None]):
    """A whole number of batches, or a fraction of them."""

    name = "N|FRACTION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float | None:
        """``10`` stays whole; ``0.1`` is a tenth."""
        if value == "":  # how an entry point of MLproject leaves an option out
            return None
        try:
            number = int(value) if str(value).isdigit() else float(value)
        except ValueError:
            number = -1
        if not ((isinstance(number, int) and number > 0) or 0.0 < number <= 1.0):
            self.fail(f"{value!r}; expected a whole number of batches or a fraction between 0 and 1", param, ctx)
        return number


class Commands(click.Group):
    """Lists commands in the order of work, and knows other names for some."""

    aliases: ClassVar[dict[str, str]] = {"train": "run", "summarize": "summarise"}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Also by another name."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they are defined."""
        return list(self.commands)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog='Completion: eval "$(_TOPOTRAIN_COMPLETE=bash_source topotrain)" (or zsh_source, fish_source).',
)
@click.version_option(__version__, prog_name="topotrain")
def cli() -> None:
    """Train graph networks that score models (decoys) of protein complexes.

    \b
    topotrain run                                  train on the demo data set
    topotrain run --config configs/default.yaml    train by a configuration
    topotrain summarise --run-id latest            what the run achieved, as JSON
    topotrain monitor --follow                     where the run stands, until it ends
    topotrain leaderboard                          runs side by side
    topotrain ui                                   curves, pictures, model versions
    """


@cli.command()
@click.option("--config", "-c", type=str, default=None, metavar="PATH", help="YAML; by default the defaults.")
@click.option(
    "--override", "-o", "override", multiple=True, metavar="K=V", help="Dotted key and YAML value; repeatable."
)
@OVERRIDES
@click.option("--run-name", default=None, help="By default training_run_ and the time.")
@click.option("--notes", default=None, help="Text shown on the run's page.")
@click.option("--trial-label", default=None, help="Kept as the tag topotrain.trial_label.")
@click.option(
    "--resume-from",
    metavar="CKPT",
    default=None,
    help="Begin with the weights of a checkpoint file, runs:/ID/checkpoints/NAME, or models:/NAME@alias.",
)
@click.option("--parent-run-id", default=None, hidden=True, help="The batch that this run is part of.")
@_flag("--fast-dev-run", text="One training and one validation batch; registers nothing.")
@click.option("--limit-train-batches", type=Number(), default=None, help="Use only so many; registers nothing.")
@click.option("--limit-val-batches", type=Number(), default=None, help="Use only so many; registers nothing.")
@TRACKING_URI
def run(
    config: str | None,
    override: Sequence[str],
    overrides: str,
    run_name: str | None,
    notes: str | None,
    trial_label: str | None,
    resume_from: str | None,
    parent_run_id: str | None,
    fast_dev_run: bool,
    limit_train_batches: int | float | None,
    limit_val_batches: int | float | None,
    tracking_uri: str | None,
) -> None:
    """Train one network (alias: train). Prints the run's id.

    \b
    topotrain run
    topotrain run --config configs/default.yaml --override trainer.num_epochs=20 --override seed=777
    topotrain run --override paths.graph=graphs --override paths.train_labels=train.csv \\
                  --override paths.val_labels=val.csv
    """
    from topotrain.training.fit import Limits, fit

    result = fit(
        config or None,
        overrides=[*_split(overrides), *override],
        run_name=run_name or None,
        notes=notes or None,
        trial_label=trial_label or None,
        resume_from=resume_from or None,
        parent_run_id=parent_run_id or None,
        take_alias=not parent_run_id,
        limits=Limits(fast_dev_run, limit_train_batches, limit_val_batches),
        tracking_uri=tracking_uri or None,
    )
    _tell_result(result)


@cli.command()
@click.option("--manifest", "-m", required=True, metavar="PATH", help="YAML: jobs, shared, continue_on_error.")
@click.option("--override", "-o", "override", multiple=True, metavar="K=V", help="For every job; repeatable.")
@OVERRIDES
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Jobs at once.")
@_flag("--resume", text="Only what an earlier batch of this manifest did not finish.")
@click.option("--run-name", default=None, help="Of the batch's own run; by default the manifest's file name.")
@TRACKING_URI
def batch(
    manifest: str,
    override: Sequence[str],
    overrides: str,
    jobs: int,
    resume: bool,
    run_name: str | None,
    tracking_uri: str | None,
) -> None:
    """Run a manifest's jobs as the children of one run. Prints a table of what came out.

    \b
    topotrain batch --manifest manifests/run_all.yaml --jobs 2
    topotrain batch --manifest manifests/run_all.yaml --override trainer.num_epochs=20
    topotrain batch --manifest manifests/run_all.yaml --resume
    """
    from topotrain.batches.batch import batch as run_batch
    from topotrain.batches.display import failure_line, summary_lines

    result = run_batch(
        manifest,
        overrides=[*_split(overrides), *override],
        jobs=jobs,
        resume=resume,
        run_name=run_name or None,
        tracking_uri=tracking_uri or None,
    )
    click.echo("\n".join(summary_lines(result.jobs)))
    click.echo(f"batch {result.run_name} ({result.run_id}); best job: {result.best or 'none'}", err=True)
    if result.unfinished:
        raise UnfinishedBatchError(failure_line(result.jobs), result.exit_status)


@cli.command()
@RUN
@click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    metavar="NAME|PATH",
    help="last, best, second_best, third_best, a checkpoint's name, or a file.",
)
@click.option("--override", "-o", "override", multiple=True, metavar="K=V", help="Wins over the run's own; repeatable.")
@OVERRIDES
@click.option("--run-name", default=None, help="Of a new run, where one is opened.")
@_flag("--force", text="Even if the run seems alive.")
@EXPERIMENT
@TRACKING_URI
def resume(
    run_id: str | None,
    checkpoint: str,
    override: Sequence[str],
    overrides: str,
    run_name: str | None,
    force: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Go on with a run that was cut off, or from an earlier checkpoint as a new run. Prints the run's id.

    \b
    topotrain resume --run-id latest
    topotrain resume --run-id 1f0c9a2e --override trainer.num_epochs=200
    topotrain resume --run-id first --checkpoint best --override optimizer.learning_rate=0.0001
    """
    from topotrain.training.resume import AlreadyComplete
    from topotrain.training.resume import resume as resume_run

    result = resume_run(
        run_id or None,
        checkpoint=checkpoint or "last",
        overrides=[*_split(overrides), *override],
        run_name=run_name or None,
        force=force,
        experiment=experiment or None,
        tracking_uri=tracking_uri or None,
    )
    if isinstance(result, AlreadyComplete):
        click.echo(f"run {result.run_name} is complete after {result.epochs} epochs; nothing is left to do", err=True)
        click.echo(result.run_id)
    else:
        _tell_result(result)


@cli.command()
@RUN
@click.option("--run-dir", metavar="PATH", default=None, help="A run directory of old: its last part is the run.")
@EXPERIMENT
@TRACKING_URI
def summarise(run_id: str | None, run_dir: str | None, experiment: str | None, tracking_uri: str | None) -> None:
    """Print one run as JSON: best score, checkpoint, schema, configuration.

    \b
    topotrain summarise --run-id latest
    topotrain summarise --run-id 1f0c9a2e | jq .best_val_loss
    """
    from topotrain.reports.printed import keep_report
    from topotrain.reports.summarise import summarise as summarise_run

    if not run_id and not run_dir:
        run_id = "latest"
    document = summarise_run(
        run_id or Path(str(run_dir)).name, experiment=experiment or None, tracking_uri=tracking_uri or None
    )
    text = to_json(document)
    _deliver(text, None)
    keep_report("summarise", text, "summarise.json", tracking_uri)


@cli.command()
@click.option(
    "--run-id", "--run", "run_id", metavar="RUN", default="latest", help="As for summarise; by default latest."
)
@_flag("--follow", "-f", text="Go on until the run ends: in place on a terminal, elsewhere one line for each change.")
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds between questions to the server.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@EXPERIMENT
@TRACKING_URI
def monitor(
    run_id: str, follow: bool, interval: float, form: str, experiment: str | None, tracking_uri: str | None
) -> None:
    """Show a run's best checkpoint, where it is, what learned it, progress, warnings.

    \b
    topotrain monitor --run-id latest --follow
    topotrain monitor --run-id 1f0c9a2e --format json | jq -r .best_checkpoint.uri
    """
    from topotrain.reports.monitor import monitor as look
    from topotrain.reports.monitor_view import page, show_changes
    from topotrain.reports.printed import keep_report
    from topotrain.signals import interruptible

    run_id, where = run_id or "latest", {"experiment": experiment or None, "tracking_uri": tracking_uri or None}
    if follow:
        # A server that hangs would hold MLflow up for six minutes before anything could be said.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        with interruptible():  # leaves the terminal as it was
            text = show_changes(run_id, form, lambda part: _deliver(part, None), interval=interval, **where)
    else:
        state = look(run_id, **where)
        text = to_json(state) if form == "json" else page(state)
        _deliver(text, None)
    keep_report("monitor", text, "monitor.json" if form == "json" else "monitor.txt", tracking_uri)


@cli.command()
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Runs of each group; 0 for all.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@EXPERIMENT
@TRACKING_URI
def leaderboard(limit: int, form: str, experiment: str | None, tracking_uri: str | None) -> None:
    """Show training runs side by side, best first, by each run's primary metric.

    Figures are those of each run's best epoch. Runs of different primary metrics are ranked apart.

    \b
    topotrain leaderboard
    topotrain leaderboard --limit 50 --format csv > runs.csv
    """
    from topotrain.reports.leaderboard import leaderboard as board
    from topotrain.reports.leaderboard_view import as_columns, as_csv, show_tables
    from topotrain.reports.printed import keep_report

    rows = board(limit=limit or None, experiment=experiment or None, tracking_uri=tracking_uri or None)
    text = {"table": as_columns, "csv": as_csv, "json": to_json}[form](rows)
    if form == "table" and sys.stdout.isatty():
        show_tables(rows)
    else:
        _deliver(text, None)
    keep_report("leaderboard", text, f"leaderboard.{'txt' if form == 'table' else form}", tracking_uri)


@cli.command()
@click.argument("graph_dir", type=str)
@click.option("--json", "as_json", is_flag=True, help="Print feature_metadata.json.")
@UNUSED_URI
def schema(graph_dir: str, as_json: bool) -> None:
    """Show the feature schema of a graph directory, without training.

    \b
    topotrain schema graphs/
    topotrain schema graphs/ --json > feature_metadata.json
    """
    from topotrain.data.prepare import inspect_directory
    from topotrain.progress import track

    resolved = inspect_directory(Path(graph_dir), track)
    if as_json:
        _deliver(to_json(resolved.to_dict()), None)
        return
    from topotrain.reports.schema_table import schema_lines

    click.echo("\n".join(schema_lines(resolved)))


@cli.command("build-graphs")
@click.argument("structures", type=str)
@click.option("--out", required=True, metavar="DIR", help="Graph directory; graphs that are there unchanged are kept.")
@click.option("--edge-module", metavar="ID", default=None, help="Such as edge/legacy_band/v11 (the default).")
@click.option("--node-module", metavar="ID", default=None, help="Such as node/dssp_topo_merge/v1 (the default).")
@click.option("--topology-module", metavar="ID", default=None, help="Such as topology/none/v1.")
@click.option("--interface-module", metavar="ID", default=None, help="Such as interface/polar_cutoff/v1 (the default).")
@click.option("--set", "settings", multiple=True, metavar="KIND.PARAM=V", help="A module's parameter; repeatable.")
@click.option("--sets", default="", hidden=True, help="Several settings in one text, split as a shell splits.")
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--strict", is_flag=True, help="One structure that fails is an error (exit 2).")
@TRACKING_URI
def build_graphs(
    structures: str,
    out: str,
    edge_module: str | None,
    node_module: str | None,
    topology_module: str | None,
    interface_module: str | None,
    settings: Sequence[str],
    sets: str,
    jobs: int,
    strict: bool,
    tracking_uri: str | None,
) -> None:
    """Build interface graphs from PDB or mmCIF files (plain or gzip), flat or by target.

    \b
    topotrain build-graphs structures/ --out graphs/ --jobs 4
    topotrain build-graphs structures/ --out graphs/ --edge-module edge/multi_scale/v24 --set interface.cutoff=14
    """
    from topotrain.features import build_graphs as build
    from topotrain.progress import counter
    from topotrain.reports.printed import keep_report

    chosen = dict(_key_value(text) for text in [*_split(sets), *settings])
    with counter("building graphs") as progress:
        report = build(
            Path(structures),
            Path(out),
            edge_module=edge_module or None,
            node_module=node_module or None,
            topology_module=topology_module or None,
            interface_module=interface_module or None,
            settings=chosen,
            jobs=jobs,
            strict=strict,
            progress=progress,
        )
    summary = report.summary_path
    click.echo(f"summary: {summary}", err=True)
    _tell(report.failures, f"{len(report.built)} graphs built, {len(report.kept)} kept")
    keep_report("build-graphs", summary.read_text(encoding="utf-8"), "build-graphs.json", tracking_uri)
    if not report.num_graphs:
        raise DataError(f"{structures}: no structure gave a graph", "at least one", f"see {summary}")


@cli.command()
@click.argument("models", type=str)
@click.option("--native", required=True, metavar="FILE", help="The native structure of the models' target.")
@click.option("--out", default=None, metavar="CSV", help="Labels file to add to; by default printed.")
@UNUSED_URI
def label(models: str, native: str, out: str | None) -> None:
    """Add DockQ and the CAPRI class of models to a labels file.

    \b
    topotrain label structures/1AY7 --native natives/1AY7.pdb --out labels.csv
    """
    from topotrain.features import label_decoys
    from topotrain.features.labels_file import merged_labels
    from topotrain.progress import counter

    with counter("labelling") as progress:
        report = label_decoys(Path(models), Path(native), progress)
    _tell(report.failures, f"{len(report.rows)} models labelled")
    if not report.rows:
        raise DataError(f"{models}: no model could be labelled", "models of the native's complex", "see above for why")
    _deliver(merged_labels(report.rows, Path(out) if out else None), out)


@cli.command()
@click.option("--kind", type=click.Choice(["interface", "topology", "node", "edge"]), default=None)
@click.option("--json", "as_json", is_flag=True, help="Columns and parameters too.")
@UNUSED_URI
def features(kind: str | None, as_json: bool) -> None:
    """List the feature modules that are installed.

    \b
    topotrain features
    topotrain features --kind edge --json
    """
    from dataclasses import asdict

    from topotrain.features import list_modules
    from topotrain.features.listing import module_lines

    modules = list_modules(kind)
    if as_json:
        _deliver(to_json([asdict(module) for module in modules]), None)
    else:
        click.echo("\n".join(module_lines(modules)))


@cli.command()
@click.argument("structures", type=str)
@click.option("--model", default="models:/topoqa@candidate", show_default=True, metavar="URI", help="Of the registry.")
@click.option("--out", default=None, metavar="CSV", help="By default printed.")
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@TRACKING_URI
def score(structures: str, model: str, out: str | None, jobs: int, tracking_uri: str | None) -> None:
    """Score structure files with a model, ranked within each target.

    \b
    topotrain score structures/ --model models:/topoqa@candidate --out scores.csv
    """
    from topotrain.progress import counter
    from topotrain.reports.printed import keep_report
    from topotrain.scoring.score_table import scores_csv
    from topotrain.scoring.structures import score_structures

    with counter("building graphs") as progress:
        report = score_structures(
            Path(structures), model, jobs=jobs, progress=progress, tracking_uri=tracking_uri or None
        )
    text = scores_csv(report.rows)
    _deliver(text, out)
    _tell(report.failures, f"{len(report.rows)} structures scored")
    keep_report("score", text, "scores.csv", tracking_uri)


@cli.command()
@click.option("--model", default=None, metavar="URI", help="By default models:/topoqa@candidate.")
@click.option("--run-id", "--run", "run_id", metavar="RUN", default=None, help="Instead: a run's best version.")
@click.option("--graphs", default="demo", show_default=True, metavar="DIR", help="Graph directory.")
@click.option("--labels", default="demo", show_default=True, metavar="CSV", help="Labels; demo: its hold-out targets.")
@FORMAT
@PER_TARGET
@UNVERIFIED
@EXPERIMENT
@TRACKING_URI
def evaluate(
    model: str | None,
    run_id: str | None,
    graphs: str,
    labels: str,
    form: str,
    per_target: bool,
    allow_unverified: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Judge a model on labelled graphs, beside two free baselines, and log the verdict.

    \b
    topotrain evaluate --model models:/topoqa@champion
    topotrain evaluate --model models:/topoqa/3 --graphs graphs/ --labels test.csv
    topotrain evaluate --run-id latest --format json | jq .figures.model.mean_ranking_loss
    """
    from topotrain.evaluation.evaluate import evaluate as evaluate_model
    from topotrain.progress import track
    from topotrain.reports.printed import keep_report

    evaluation = evaluate_model(
        model=model or None,
        run=run_id or None,
        graphs=graphs or "demo",
        labels=labels or "demo",
        allow_unverified=allow_unverified,
        experiment=experiment or None,
        tracking_uri=tracking_uri or None,
        progress=track,
    )
    text = evaluation.text(form, per_target=per_target)
    _deliver(text, None)
    if evaluation.run_id:
        click.echo(f"verdict and figures: run {evaluation.run_id}, artifacts evaluation/", err=True)
    keep_report("evaluate", text, f"evaluate.{_SUFFIX[form]}", tracking_uri)


@cli.command()
@click.option("--model", "model_name", default="topoqa", show_default=True, metavar="NAME", help="Registered model.")
@click.option("--version", default=None, metavar="N", help="By default the one with the alias candidate.")
@click.option("--run-id", "--run", "run_id", default=None, metavar="RUN", help="Instead: a run's best version.")
@click.option("--alias", default="champion", show_default=True, metavar="NAME", help="The alias to move.")
@click.option("--gate", "gates", multiple=True, metavar="EXPR", help="Such as val_loss<0.06; repeatable.")
@click.option("--gates", "gates_text", default="", hidden=True, help="Several in one text, split as a shell splits.")
@_flag("--dry-run", text="Decide, and change nothing.")
@_flag("--force", text="Move the alias though the gate refuses; needs --reason.")
@click.option("--reason", default="", metavar="TEXT", help="Kept with the version.")
@_flag("--rollback", text="Put back the version that the present one replaced.")
@EXPERIMENT
@TRACKING_URI
def promote(
    model_name: str,
    version: str | None,
    run_id: str | None,
    alias: str,
    gates: Sequence[str],
    gates_text: str,
    dry_run: bool,
    force: bool,
    reason: str,
    rollback: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Move an alias to a version if the gate holds (exit 3 if not).

    \b
    The default gate: evaluated on the same data as the version that has the alias, with the same targets;
    mean ranking loss and Spearman not worse, one of them better.
    \b
    topotrain promote --model topoqa
    topotrain promote --model topoqa --version 4 --gate "val_loss<0.06" --dry-run
    topotrain promote --model topoqa --rollback
    """
    from topotrain.evaluation.promote import promote as promote_version
    from topotrain.evaluation.promote import rollback as roll_back
    from topotrain.reports.printed import keep_report

    all_gates = [*_split(gates_text), *gates]
    if rollback:
        if version or run_id or all_gates or force:
            raise ConfigError("--rollback is given with a version, a run, a gate or --force", "--rollback alone")
        promotion = roll_back(
            model_name, alias=alias, dry_run=dry_run, reason=reason, tracking_uri=tracking_uri or None
        )
    else:
        promotion = promote_version(
            model_name,
            version=version or None,
            run=run_id or None,
            alias=alias,
            gates=all_gates,
            dry_run=dry_run,
            force=force,
            reason=reason,
            experiment=experiment or None,
            tracking_uri=tracking_uri or None,
        )
    _deliver(promotion.text, None)
    keep_report("promote", promotion.text, "promote.txt", tracking_uri)
    promotion.check()


@cli.command()
@click.option("--predictions", required=True, metavar="CSV", help="Columns target,model,pred_dockq,true_dockq.")
@FORMAT
@PER_TARGET
@UNUSED_URI
def metrics(predictions: str, form: str, per_target: bool) -> None:
    """Compute ranking metrics of anybody's predictions, for each data set of the column dataset, if there.

    \b
    topotrain metrics --predictions predictions.csv
    topotrain metrics --predictions predictions.csv --format json | jq '.all.mean_ranking_loss'
    """
    from topotrain.evaluation.predictions_file import judge_predictions, read_predictions
    from topotrain.evaluation.table import render

    judgements = judge_predictions(read_predictions(Path(predictions)))
    documents = {dataset: judgement.to_dict() for dataset, judgement in judgements.items()}
    _deliver(render(documents, form, "dataset", per_target=per_target), None)


@cli.command()
@click.option("--model", default="models:/topoqa@champion", show_default=True, metavar="URI", help="Or a local folder.")
@click.option("--graphs", default="demo", show_default=True, metavar="DIR", help="Every graph below it is scored.")
@click.option("--out", required=True, metavar="CSV|PARQUET", help="The table; its suffix says which kind.")
@click.option("--labels", metavar="CSV", default=None, help="Adds true DockQ, and targets where it names them.")
@_flag("--rank", text="Rank the graphs of each target.")
@UNVERIFIED
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Changes no score.")
@_flag("--strict", text="One graph that can't be scored is an error (exit 2).")
@TRACKING_URI
def predict(
    model: str,
    graphs: str,
    out: str,
    labels: str | None,
    rank: bool,
    allow_unverified: bool,
    batch_size: int,
    strict: bool,
    tracking_uri: str | None,
) -> None:
    """Score a directory of graphs with a model.

    \b
    topotrain predict --model models:/topoqa@champion --graphs graphs/ --out predictions.csv --rank
    topotrain predict --model models:/topoqa/3 --graphs graphs/ --labels test.csv --out predictions.parquet
    """
    from topotrain.progress import counter
    from topotrain.reports.printed import keep_report
    from topotrain.scoring.predict_directory import predict_directory
    from topotrain.signals import interruptible

    with interruptible(), counter("scoring") as progress:
        done = predict_directory(
            model,
            Path(graphs),
            Path(out),
            labels=Path(labels) if labels else None,
            rank=rank,
            allow_unverified=allow_unverified,
            batch_size=batch_size,
            strict=strict,
            progress=progress,
            tracking_uri=tracking_uri or None,
        )
    _tell(done.failures, f"{done.num_scored} graphs scored")
    report = {"model": model, "graphs": graphs, "out": out, "scored": done.num_scored, "failed": done.failures}
    keep_report("predict", to_json(report), "predict.json", tracking_uri)


@cli.command()
@click.argument("model", type=str)
@click.option("--json", "as_json", is_flag=True, help="Schema and recipe in full.")
@TRACKING_URI
def describe(model: str, as_json: bool, tracking_uri: str | None) -> None:
    """Tell a model version's story: aliases, tags, data, figures, configuration, code.

    \b
    topotrain describe models:/topoqa@champion
    topotrain describe models:/topoqa/3 --json | jq .recipe.data.digest
    """
    from topotrain.reports.describe import describe as describe_model
    from topotrain.reports.describe import story

    document = describe_model(model, tracking_uri or None)
    _deliver(to_json(document) if as_json else story(document), None)


@cli.command("import-checkpoint")
@click.argument("path", type=str)
@click.option("--model-name", required=True, metavar="NAME", help="Registered model that gets a new version.")
@click.option(
    "--pooling", type=click.Choice(["mean", "add"]), default=None, help="By default what the file says, else mean."
)
@click.option("--metadata", metavar="JSON", default=None, help="feature_metadata.json, where the file holds none.")
@TRACKING_URI
def import_checkpoint(
    path: str, model_name: str, pooling: str | None, metadata: str | None, tracking_uri: str | None
) -> None:
    """Register the network of a Lightning checkpoint of the original TopoQA. Prints the version's URI.

    \b
    topotrain import-checkpoint topoqa.ckpt --model-name published --pooling mean
    topotrain import-checkpoint old.ckpt --model-name topoqa --metadata feature_metadata.json
    """
    from topotrain.scoring.import_checkpoint import import_checkpoint as import_file

    done = import_file(
        Path(path),
        model_name,
        pooling=pooling,
        metadata=Path(metadata) if metadata else None,
        tracking_uri=tracking_uri or None,
    )
    click.echo(f"imported by run {done.run_id}; its story: topotrain describe {done.version}", err=True)
    click.echo(done.version)


@cli.command("demo-graphs")
@click.option("--out", required=True, metavar="DIR", help="A folder that does not exist yet.")
@UNUSED_URI
def demo_graphs(out: str) -> None:
    """Write the demo data set: graphs of real complexes' decoys, metadata, label files.

    \b
    topotrain demo-graphs --out demo
    """
    from topotrain.data.demo import write_demo

    write_demo(Path(out).absolute())
    click.echo(f"wrote graphs/, train.csv, val.csv and holdout.csv below {out}", err=True)


@cli.command("demo-structures")
@click.option("--out", required=True, metavar="DIR", help="A folder that does not exist yet.")
@UNUSED_URI
def demo_structures(out: str) -> None:
    """Write the structures of the demo data set as PDB files: decoys by split and target, and the natives.

    \b
    topotrain demo-structures --out complexes
    topotrain score complexes/holdout --out scores.csv
    topotrain label complexes/holdout/1BGS_AE --native complexes/natives/1BGS_AE.pdb
    """
    from topotrain.data.demo import write_demo_structures

    write_demo_structures(Path(out).absolute())
    click.echo(f"wrote train/, val/, holdout/ and natives/ below {out}", err=True)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@TRACKING_URI
def ui(host: str, port: int, tracking_uri: str | None) -> None:
    """Open MLflow's web page on the current store.

    \b
    topotrain ui
    topotrain ui --port 5001 --tracking-uri sqlite:////data/mlflow.db
    """
    from topotrain.tracking.ui import serve_page

    serve_page(tracking_uri or None, host, port, lambda line: click.echo(line, err=True))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"overrides {text!r}: {error}", "key=value pairs, quoted as for a shell") from None


def _key_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"setting {text!r} is malformed", "kind.parameter=value", "write e.g. interface.cutoff=14")
    return key, value


def _deliver(text: str, out: str | None) -> None:
    """To a file, whole or not at all; without one, to standard output."""
    if out:
        write_text(text, Path(out))
    else:
        click.echo(text, nl=False)


def _tell(failures: Mapping[str, str], done: str) -> None:
    for line in failures.values():
        click.echo(f"failed: {line}", err=True)
    click.echo(f"{done}, {len(failures)} failed", err=True)


def _tell_result(result: TrainResult) -> None:
    for line in _closing_lines(result):
        click.echo(line, err=True)
    click.echo(result.run_id)


def _closing_lines(result: TrainResult) -> list[str]:
    """What to print when a run has ended."""
    from topotrain.credentials import mask_credentials
    from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
    from topotrain.invocation import program

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the status of docs/runs.md."""
    _log_to_stderr()
    follow_parent()
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        cli.main(args=given or ["--help"], prog_name="topotrain", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "topotrain"
        _fail(f"{error.format_message().rstrip('.')}; see {command} --help", EXIT_USER)
    except TopotrainError as error:
        _fail(str(error), error.exit_code)
    except InterruptedRunError as stop:
        _fail(f"interrupted by signal {stop.signum}", stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        logging.getLogger("topotrain").exception("a fault of topotrain; please report it with the lines below")
        sys.exit(EXIT_FAULT)


def _fail(message: str, status: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("topotrain")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    main()
