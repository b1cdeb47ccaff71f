"""Commands on models: evaluate, promote, metrics, predict, describe, verify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topotrain.cli import completion
from topotrain.cli.options import (
    EXPERIMENT,
    PER_TARGET,
    RUN_OF_MODEL,
    TRACKING_URI,
    UNUSED_URI,
    UNVERIFIED,
    InputPath,
    Whole,
    Words,
    engine_options,
    flag,
    form_option,
    graphs_option,
    jobs_option,
    model_option,
    option,
    target_options,
)
from topotrain.cli.output import artifact_name, deliver, say, say_outcome
from topotrain.cli.startup import heavy_imports
from topotrain.errors import ConfigError

if TYPE_CHECKING:
    from topotrain.cluster.workers import EngineName

LABELS = option(
    "--labels",
    type=InputPath("demo"),
    default="demo",
    show_default=True,
    metavar="CSV",
    help="Labels; demo: its hold-out targets.",
)


@click.command()
@model_option("By default the champion of topoqa, else its candidate, else starter.")
@RUN_OF_MODEL
@graphs_option("Graph directory.")
@LABELS
@target_options
@form_option("table", "json", "csv")
@PER_TARGET
@UNVERIFIED
@EXPERIMENT
@TRACKING_URI
def evaluate(
    model: str | None,
    run_id: str | None,
    graphs: str,
    labels: str,
    target_level: int | None,
    target_pattern: str | None,
    form: str,
    per_target: bool,
    allow_unverified: bool,
    experiment: str | None,
    tracking_uri: str | None,
) -> None:
    """Judge a model on labelled graphs, beside free baselines, and log the verdict.

    \b
    topotrain evaluate --model models:/topoqa@champion
    topotrain evaluate --model models:/topoqa/3 --graphs graphs/ --labels test.csv
    topotrain evaluate --run-id latest --format json | jq .figures.model.mean_ranking_loss
    """
    with heavy_imports():
        from topotrain.data.targets import TargetRule
        from topotrain.evaluation.evaluate import evaluate as evaluate_model
        from topotrain.progress import track
        from topotrain.tracking.report_run import keep_report

    evaluation = evaluate_model(
        model=model,
        run=run_id,
        graphs=graphs,
        labels=labels,
        targets=TargetRule(target_level, target_pattern),
        allow_unverified=allow_unverified,
        experiment=experiment,
        tracking_uri=tracking_uri,
        progress=track,
    )
    text = evaluation.text(form, per_target=per_target)
    deliver(text)
    if evaluation.run_id:
        say(f"verdict: run {evaluation.run_id}, artifacts evaluation/")
    keep_report("evaluate", text, artifact_name("evaluate", form), tracking_uri)


@click.command()
@click.argument("first", shell_complete=completion.models)
@click.argument("second", shell_complete=completion.models)
@graphs_option("Graph directory.")
@option("--other-graphs", type=InputPath(), metavar="DIR", help="Of the second, where its features are others.")
@LABELS
@target_options
@form_option("table", "json", "csv")
@click.option("--allow-unverified", is_flag=True, help="Check graphs without column names by width alone.")
@EXPERIMENT
@TRACKING_URI
def compare(
    first: str,
    second: str,
    target_level: int | None,
    target_pattern: str | None,
    form: str,
    tracking_uri: str | None,
    **settings: Any,
) -> None:
    """Compare two models target by target on the same labelled graphs: is one better, or is it chance?

    A model is models:/NAME/VERSION, models:/NAME@alias, a run, or a local folder; or several with commas between, the
    seeds of one recipe, whose values are averaged.

    \b
    topotrain compare models:/topoqa@champion models:/topoqa@candidate --graphs graphs/ --labels test.csv
    topotrain compare first second                                    # two runs, on the demo hold-out
    topotrain compare a1,a2,a3 b1,b2,b3 --graphs bands/ --other-graphs scales/ --labels test.csv
    """
    with heavy_imports():
        from topotrain.data.targets import TargetRule
        from topotrain.evaluation.compare import compare as compare_models
        from topotrain.progress import track
        from topotrain.tracking.report_run import keep_report

    rule = TargetRule(target_level, target_pattern)
    found = compare_models(first, second, targets=rule, tracking_uri=tracking_uri, progress=track, **settings)
    text = found.text(form)
    deliver(text)
    keep_report("compare", text, artifact_name("compare", form), tracking_uri)


@click.command()
@option(
    "--model",
    "model_name",
    default="topoqa",
    show_default=True,
    metavar="NAME",
    help="Registered model.",
    shell_complete=completion.model_names,
)
@option("--version", metavar="N", help="By default the one with the alias candidate.")
@RUN_OF_MODEL
@option("--alias", default="champion", show_default=True, metavar="NAME", help="The alias to move.")
@option("--gate", "gate", multiple=True, metavar="EXPR", help="Such as val_loss<0.06; repeatable.")
@option("--gates", type=Words("expressions"), default="", hidden=True)
@flag("--dry-run", help="Decide, and change nothing.")
@flag("--force", help="Move the alias though the gate refuses; needs --reason.")
@option("--reason", default="", metavar="TEXT", help="Kept with the version.")
@flag("--rollback", help="Put back the version that the present one replaced.")
@EXPERIMENT
@TRACKING_URI
def promote(
    model_name: str,
    version: str | None,
    run_id: str | None,
    alias: str,
    gate: Sequence[str],
    gates: Sequence[str],
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
    with heavy_imports():
        from topotrain.evaluation.promote import promote as promote_version
        from topotrain.evaluation.promote import rollback as roll_back
        from topotrain.tracking.report_run import keep_report

    all_gates = [*gates, *gate]
    if rollback:
        if version or run_id or all_gates or force:
            raise ConfigError("--rollback is given with a version, a run, a gate or --force", "--rollback alone")
        promotion = roll_back(model_name, alias=alias, dry_run=dry_run, reason=reason, tracking_uri=tracking_uri)
    else:
        promotion = promote_version(
            model_name,
            version=version,
            run=run_id,
            alias=alias,
            gates=all_gates,
            dry_run=dry_run,
            force=force,
            reason=reason,
            experiment=experiment,
            tracking_uri=tracking_uri,
        )
    deliver(promotion.text)
    keep_report("promote", promotion.text, "promote.txt", tracking_uri)
    promotion.check()


@click.command()
@option(
    "--predictions", type=InputPath(), required=True, metavar="CSV", help="Columns target,model,pred_dockq,true_dockq."
)
@form_option("table", "json", "csv")
@PER_TARGET
@UNUSED_URI
def metrics(predictions: str, form: str, per_target: bool) -> None:
    """Compute ranking metrics of any predictions, for each data set of the column dataset, if there.

    \b
    topotrain metrics --predictions predictions.csv
    topotrain metrics --predictions predictions.csv --format json | jq '.all.mean_ranking_loss'
    """
    from topotrain.evaluation.predictions_file import ranking_metrics
    from topotrain.evaluation.table import render

    deliver(render(ranking_metrics(predictions), form, "dataset", per_target=per_target))


@click.command()
@model_option("Or a local folder; by default the champion of topoqa, else its candidate, else starter.")
@graphs_option("Every graph below it is scored.")
@option("--out", type=click.Path(), required=True, metavar="CSV|PARQUET", help="The table; its suffix says which kind.")
@option("--labels", type=InputPath(), metavar="CSV", help="Adds the true quality, and targets where it names them.")
@target_options
@flag("--rank", help="Rank the graphs of each target.")
@UNVERIFIED
@option("--batch-size", type=Whole(1), help="Graphs scored at a time, by default 8; changes no score.")
@flag("--strict", help="One graph that can't be scored is an error (exit 2).")
@jobs_option("Processes.")
@engine_options
@TRACKING_URI
def predict(
    model: str | None,
    graphs: str,
    out: str,
    labels: str | None,
    target_level: int | None,
    target_pattern: str | None,
    rank: bool,
    allow_unverified: bool,
    batch_size: int | None,
    strict: bool,
    jobs: int,
    engine: EngineName,
    address: str | None,
    tracking_uri: str | None,
) -> None:
    """Score a directory of graphs with a model.

    \b
    topotrain predict --model models:/topoqa@champion --graphs graphs/ --out predictions.csv --rank
    topotrain predict --model models:/topoqa/3 --graphs graphs/ --labels test.csv --out predictions.parquet
    """
    with heavy_imports():
        from topotrain.data.targets import TargetRule
        from topotrain.progress import counter
        from topotrain.scoring.predict_directory import predict_directory
        from topotrain.scoring.scorer import SCORING_BATCH
        from topotrain.signals import interruptible
        from topotrain.text import as_json as to_json
        from topotrain.tracking.report_run import keep_report

    with interruptible(), counter("scoring") as progress:
        done = predict_directory(
            model,
            Path(graphs),
            Path(out),
            labels=Path(labels) if labels else None,
            targets=TargetRule(target_level, target_pattern),
            rank=rank,
            allow_unverified=allow_unverified,
            batch_size=batch_size or SCORING_BATCH,
            strict=strict,
            jobs=jobs,
            engine=engine,
            address=address,
            progress=progress,
            tracking_uri=tracking_uri,
        )
    say_outcome(done.failures, f"{done.num_scored} graphs scored")
    report = {"model": done.model, "graphs": graphs, "out": out, "scored": done.num_scored, "failed": done.failures}
    keep_report("predict", to_json(report), "predict.json", tracking_uri)


@click.command()
@click.argument("model", type=str, shell_complete=completion.models)
@click.option("--json", "as_json", is_flag=True, help="Schema and recipe in full.")
@TRACKING_URI
def describe(model: str, as_json: bool, tracking_uri: str | None) -> None:
    """Show a model version's story: aliases, tags, data, metrics, configuration, code.

    \b
    topotrain describe models:/topoqa@champion
    topotrain describe models:/topoqa/3 --json | jq .recipe.data.digest
    """
    with heavy_imports():
        import topotrain.tracking.store  # noqa: F401 (with the rest)
        from topotrain.reports.describe import describe as describe_model
        from topotrain.reports.describe import story
        from topotrain.text import as_json as to_json

    document = describe_model(model, tracking_uri)
    deliver(to_json(document) if as_json else story(document))


@click.command()
@click.argument("model", type=str, shell_complete=completion.models)
@TRACKING_URI
def verify(model: str, tracking_uri: str | None) -> None:
    """Say whether a version's files are those that were registered (exit 2 if not); none of them is run.

    \b
    topotrain verify models:/topoqa@champion
    topotrain verify models:/topoqa/3 && mlflow models serve -m models:/topoqa/3 --env-manager local
    """
    with heavy_imports():
        import topotrain.tracking.store  # noqa: F401 (with the rest)
        from topotrain.reports.verify import verify as verify_model

    done = verify_model(model, tracking_uri)
    deliver(f"{done.uri}: {done.files} files as they were registered, SHA-256 {done.digest}\n")
