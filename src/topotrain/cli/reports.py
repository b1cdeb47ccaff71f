"""Commands that show what is there: summarise, monitor, leaderboard, schema, ui."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from topotrain.cli.options import (
    CACHE,
    EXPERIMENT,
    RUN,
    TRACKING_URI,
    UNUSED_URI,
    InputPath,
    LastPart,
    Seconds,
    Whole,
    flag,
    form_option,
    option,
    run_option,
)
from topotrain.cli.output import artifact_name, deliver, say
from topotrain.cli.startup import heavy_imports

REQUEST_SECONDS = 10  # a server that hangs would else hold MLflow up for six minutes before anything could be said


@click.command()
@RUN
@option("--run-dir", type=LastPart(), help="A legacy run directory: its last part is the run.")
@EXPERIMENT
@TRACKING_URI
def summarise(run_id: str | None, run_dir: str | None, experiment: str | None, tracking_uri: str | None) -> None:
    """Print one run as JSON: best score, checkpoint, schema, configuration.

    \b
    topotrain summarise --run-id latest
    topotrain summarise --run-id 1f0c9a2e | jq .best_val_loss
    """
    with heavy_imports():
        import topotrain.tracking.store  # noqa: F401 (with the rest)
        from topotrain.reports.summarise import summarise as summarise_run
        from topotrain.text import as_json as to_json
        from topotrain.tracking.report_run import keep_report

    document = summarise_run(run_id or run_dir or "latest", experiment=experiment, tracking_uri=tracking_uri)
    text = to_json(document)
    deliver(text)
    keep_report("summarise", text, "summarise.json", tracking_uri)


@click.command()
@run_option("As for summarise; by default latest.", default="latest")
@flag("--follow", "-f", help="Until the run ends: in place on a terminal, elsewhere one line for each change.")
@option(
    "--interval",
    type=Seconds(),
    default=5.0,
    show_default=True,
    help="Seconds between questions to the server.",
)
@form_option("table", "json")
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
    with heavy_imports():
        import topotrain.tracking.store  # noqa: F401 (with the rest)
        from topotrain.invocation import wait_at_most
        from topotrain.reports.monitor import monitor as look
        from topotrain.reports.monitor_view import page, show_changes
        from topotrain.signals import interruptible
        from topotrain.text import as_json as to_json
        from topotrain.tracking.report_run import keep_report

    where = {"experiment": experiment, "tracking_uri": tracking_uri}
    if follow:
        wait_at_most(REQUEST_SECONDS)
        with interruptible():  # leaves the terminal as it was
            text = show_changes(run_id, form, deliver, interval=interval, **where)
    else:
        state = look(run_id, **where)
        text = to_json(state) if form == "json" else page(state)
        deliver(text)
    keep_report("monitor", text, artifact_name("monitor", form), tracking_uri)


@click.command()
@option("--limit", type=Whole(0), default=20, show_default=True, help="Runs of each group; 0 for all.")
@form_option("table", "json", "csv")
@flag("--all", "trials", help="Trials too: runs with --fast-dev-run or --limit-....")
@EXPERIMENT
@TRACKING_URI
def leaderboard(limit: int, form: str, trials: bool, experiment: str | None, tracking_uri: str | None) -> None:
    """Show training runs side by side, best first, by each run's primary metric.

    Metrics are those of each run's best epoch. Runs of other primary metrics or validation data are ranked apart.

    \b
    topotrain leaderboard
    topotrain leaderboard --limit 50 --format csv > runs.csv
    """
    with heavy_imports():
        import topotrain.tracking.store  # noqa: F401 (with the rest)
        from topotrain.reports.leaderboard import leaderboard as board
        from topotrain.reports.leaderboard_view import as_columns, as_csv, show_tables
        from topotrain.text import as_json as to_json
        from topotrain.tracking.report_run import keep_report

    rows = board(limit=limit or None, experiment=experiment, trials=trials, tracking_uri=tracking_uri)
    text = {"table": as_columns, "csv": as_csv, "json": to_json}[form](rows)
    if form == "table" and sys.stdout.isatty():
        show_tables(rows)
    else:
        deliver(text)
    keep_report("leaderboard", text, artifact_name("leaderboard", form), tracking_uri)


@click.command()
@click.argument("graph_dir", type=InputPath())
@click.option("--json", "as_json", is_flag=True, help="Print feature_metadata.json.")
@CACHE
@UNUSED_URI
def schema(graph_dir: str, as_json: bool, cache: str | None) -> None:
    """Show the feature schema of a graph directory, without training.

    The graphs are packed for training on the way, where they are not yet: the next time nothing is read again.

    \b
    topotrain schema graphs/
    topotrain schema graphs/ --json > feature_metadata.json
    """
    from topotrain.data.stored_schema import inspect_directory
    from topotrain.progress import track
    from topotrain.reports.schema_table import schema_lines
    from topotrain.text import as_json as to_json

    resolved = inspect_directory(Path(graph_dir), track, Path(cache) if cache else None)
    if as_json:
        deliver(to_json(resolved.to_dict()))
    else:
        deliver("\n".join(schema_lines(resolved)) + "\n")


@click.command()
@option("--host", default="127.0.0.1", show_default=True)
@option("--port", default=5000, show_default=True, type=Whole(1, most=65535))
@TRACKING_URI
def ui(host: str, port: int, tracking_uri: str | None) -> None:
    """Open MLflow's web page on the current store.

    \b
    topotrain ui
    topotrain ui --port 5001 --tracking-uri sqlite:////data/mlflow.db
    """
    from topotrain.tracking.ui import serve_page

    serve_page(tracking_uri, host, port, say)
