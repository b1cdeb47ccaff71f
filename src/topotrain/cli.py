"""The command line: each command a few lines over a callable."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from topotrain import __version__
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
from topotrain.training.signals import follow_parent

if TYPE_CHECKING:
    from topotrain.training.fit import TrainResult

TRACKING_URI = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; by default mlflow.db in the current directory."
)
# For commands that need no store, so that every command takes the same option.
UNUSED_URI = click.option("--tracking-uri", metavar="URI", expose_value=False, hidden=True)
EXPERIMENT = click.option("--experiment", metavar="NAME", help="Look in this experiment only.")


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
    topotrain ui                                   curves, pictures, model versions
    """


@cli.command()
@click.option("--config", "-c", type=str, default=None, metavar="PATH", help="YAML; by default the defaults.")
@click.option(
    "--override", "-o", "override", multiple=True, metavar="K=V", help="Dotted key and YAML value; repeatable."
)
@click.option("--overrides", default="", hidden=True, help="Several overrides in one text, split as a shell splits.")
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
@click.option(
    "--fast-dev-run",
    type=click.BOOL,
    is_flag=False,
    flag_value=True,
    default=False,
    help="One training and one validation batch; registers nothing.",
)
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
@click.option("--overrides", default="", hidden=True, help="Several overrides in one text, split as a shell splits.")
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Jobs at once.")
@click.option(
    "--resume",
    type=click.BOOL,
    is_flag=False,
    flag_value=True,
    default=False,
    help="Only what an earlier batch of this manifest did not finish.",
)
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
    from topotrain.reports.batch_table import failure_line, summary_lines
    from topotrain.training.batch import batch as run_batch

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
@click.option("--run-id", "--run", "run_id", metavar="RUN", default=None, help="Id, prefix of one, name, or latest.")
@click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    metavar="NAME|PATH",
    help="last, best, second_best, third_best, a checkpoint's name, or a file.",
)
@click.option("--override", "-o", "override", multiple=True, metavar="K=V", help="Wins over the run's own; repeatable.")
@click.option("--overrides", default="", hidden=True, help="Several overrides in one text, split as a shell splits.")
@click.option("--run-name", default=None, help="Of a new run, where one is opened.")
@click.option(
    "--force", type=click.BOOL, is_flag=False, flag_value=True, default=False, help="Even if the run seems alive."
)
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
    from topotrain.training.resume import NothingLeft
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
    if isinstance(result, NothingLeft):
        click.echo(f"run {result.run_name} is complete after {result.epochs} epochs; nothing is left to do", err=True)
        click.echo(result.run_id)
    else:
        _tell_result(result)


@cli.command()
@click.option("--run-id", "--run", "run_id", metavar="RUN", default=None, help="Id, prefix of one, name, or latest.")
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
    text = _as_json(document)
    _deliver(text, None)
    keep_report("summarise", text, "summarise.json", tracking_uri)


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
        _deliver(_as_json(resolved.to_dict()), None)
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
    _tell(report.failures, f"{len(report.built)} graphs built, {len(report.kept)} kept; see {summary}")
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
    from topotrain.features import label_models
    from topotrain.features.table import merged_labels
    from topotrain.progress import counter

    with counter("labelling") as progress:
        report = label_models(Path(models), Path(native), progress)
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
    from topotrain.features.table import module_lines

    modules = list_modules(kind)
    if as_json:
        _deliver(_as_json([asdict(module) for module in modules]), None)
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
    from topotrain.scoring.score import score_structures, scores_csv
    from topotrain.tracking.store import open_store, resolve_tracking_uri

    uri = resolve_tracking_uri(tracking_uri or None, None, logging.getLogger("topotrain").info)
    open_store(uri, create=False)
    with counter("building graphs") as progress:
        report = score_structures(Path(structures), model, jobs=jobs, progress=progress)
    text = scores_csv(report.rows)
    _deliver(text, out)
    _tell(report.failures, f"{len(report.rows)} structures scored")
    keep_report("score", text, "scores.csv", tracking_uri)


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
    from topotrain.reports.closing import closing_lines

    for line in closing_lines(result):
        click.echo(line, err=True)
    click.echo(result.run_id)


def _as_json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


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
