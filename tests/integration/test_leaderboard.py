"""``leaderboard``: who is ranked, by what, with which metrics, and how much is fetched for it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
import uuid
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy.event
from mlflow.tracking import MlflowClient
from rich.console import Console
from sqlalchemy.engine import Engine

from kit.recorded import experiment_id, mlflow_client
from kit.runs import DIGEST, HandMadeRun, epoch, silent_beat
from topotrain.cli import main
from topotrain.config import SelectionConfig
from topotrain.errors import TrackingError
from topotrain.fields import BEST_OF
from topotrain.reports.leaderboard import COLUMNS, leaderboard
from topotrain.reports.leaderboard_view import as_columns, as_csv, show_tables
from topotrain.tracking import runs
from topotrain.tracking.store import Store


def names(rows: list[dict[str, Any]]) -> list[tuple[int | None, str]]:
    return [(row["rank"], row["run_name"]) for row in rows]


def test_every_primary_metric_has_a_best_value():
    assert set(BEST_OF) == set(SelectionConfig.model_fields["primary_metric"].annotation.__args__)


@pytest.fixture
def board(store_uri: str) -> str:
    """Runs of both primary metrics, of every kind that is no training run, and some without a metric."""
    # The best epoch is neither the last one nor the one of the best Spearman.
    HandMadeRun(store_uri, "second").epochs(epoch(0.5, 0.9), epoch(0.2, 0.3), epoch(0.4, 0.1)).end()
    HandMadeRun(store_uri, "first", command="resume").epochs(epoch(0.1), epoch(0.3)).end("KILLED")
    HandMadeRun(store_uri, "fresh")
    HandMadeRun(store_uri, "third", experiment="another").epochs(epoch(0.6))
    # By val_loss these two would come in the other order, and before all others.
    HandMadeRun(store_uri, "by selection 2", primary="selection_metric").epochs(epoch(0.01, 0.0)).end()
    HandMadeRun(store_uri, "by selection 1", primary="selection_metric").epochs(
        epoch(0.02, 0.9), epoch(0.01, 0.1)
    ).end()
    HandMadeRun(store_uri, "bad input", params=False).end("FAILED")
    for command in ("evaluate", "summarise", "leaderboard", "batch", "r", "register", None):
        HandMadeRun(store_uri, f"no training: {command}", command=command).epochs(epoch(0.0))
    deleted = HandMadeRun(store_uri, "deleted").epochs(epoch(0.0))
    deleted.client.delete_run(deleted.run_id)
    return store_uri


def test_who_is_ranked_by_what(board):
    rows = leaderboard(tracking_uri=board)
    assert names(rows) == [
        (1, "first"),
        (2, "second"),
        (3, "third"),
        (None, "fresh"),
        (1, "by selection 1"),
        (2, "by selection 2"),
        (None, "bad input"),
    ]
    assert [row["primary_metric"] for row in rows] == ["val_loss"] * 4 + ["selection_metric"] * 2 + [None]
    assert names(leaderboard(tracking_uri=board, experiment="another")) == [(1, "third")]
    with pytest.raises(TrackingError, match="'nowhere'"):
        leaderboard(tracking_uri=board, experiment="nowhere")


def test_runs_on_other_validation_data_are_ranked_apart_and_trials_not_at_all(store_uri):
    old, new = ({"data.validation_digest": letter * 64, "data.num_val": "7"} for letter in "ab")
    for number, (name, value, params) in enumerate(
        [("worse", 0.3, old), ("tiny", 0.01, new), ("better", 0.2, old), ("from before", 0.05, {})]
    ):
        run = HandMadeRun(store_uri, name, changed=params, start_time=1000 + number)
        run.epochs(epoch(value)).end()
    trial = HandMadeRun(store_uri, "trial", changed=old).epochs(epoch(0.001)).end()
    trial.client.set_tag(trial.run_id, "topotrain.trial", "fast_dev_run=True")
    rows = leaderboard(tracking_uri=store_uri)
    assert names(rows) == [(1, "better"), (2, "worse"), (1, "tiny"), (1, "from before")], "data used last come first"
    assert [row["validation_digest"] for row in rows] == ["a" * 12, "a" * 12, "b" * 12, None]
    assert len(as_columns(rows).split("\n\n")) == 3
    assert "validated on 7 graphs of demo (bbbbbbbbbbbb)" in as_columns(rows)
    everything = leaderboard(tracking_uri=store_uri, trials=True)
    assert names(everything)[0] == (1, "trial")
    assert [row["run_name"] for row in everything if row["trial"]] == ["trial"]
    assert ", a trial" in as_columns(everything)


def test_figures_are_those_of_the_best_epoch(board):
    rows = {row["run_name"]: row for row in leaderboard(tracking_uri=board)}
    second = rows["second"]
    assert (second["best_epoch"], second["epochs"]) == (1, 3)
    assert (second["primary_value"], second["val_loss"]) == (0.2, 0.2)
    assert (second["val_spearman_corr"], second["val_ranking_loss"]) == (0.3, 0.4)
    selected = rows["by selection 1"]
    assert (selected["primary_value"], selected["val_loss"], selected["best_epoch"]) == (0.02 - 0.9, 0.02, 0)
    assert second["edge_module"] == "edge/test/v1"
    assert (second["edge_dim"], second["node_dim"]) == (3, 5)
    assert second["schema_digest"] == DIGEST[:12]
    assert 0 <= second["age_seconds"] < 600
    for name in ("fresh", "bad input"):
        missing = [key for key in ("primary_value", "val_loss", "val_spearman_corr", "val_ranking_loss", "best_epoch")]
        assert {rows[name][key] for key in missing} == {None}
        assert rows[name]["epochs"] == 0
    assert all(tuple(row) == COLUMNS for row in rows.values())


def test_versions_and_aliases_of_the_best_epoch(store_uri):
    run = HandMadeRun(store_uri, "one").epochs(epoch(0.3), epoch(0.1), epoch(0.2)).end()
    other = HandMadeRun(store_uri, "two").epochs(epoch(0.2)).end()
    made = run.register([0, 1])
    other.register([0], model="another model")
    for alias in ("champion", "candidate"):
        run.client.set_registered_model_alias("topoqa", alias, made[1])
    run.client.set_registered_model_alias("topoqa", "old", made[0])
    one, two = leaderboard(tracking_uri=store_uri)
    assert (one["model_version"], one["aliases"]) == (f"models:/topoqa/{made[1]}", ["candidate", "champion"])
    assert (two["model_version"], two["aliases"]) == ("models:/another model/1", [])


def test_status_and_life(store_uri):
    HandMadeRun(store_uri, "alive").epochs(epoch(0.1))
    HandMadeRun(store_uri, "dead", heartbeat=silent_beat()).epochs(epoch(0.2))
    rows = leaderboard(tracking_uri=store_uri)
    assert [(row["status"], row["alive"]) for row in rows] == [("RUNNING", True), ("RUNNING", False)]
    assert "RUNNING (no sign of life)" in as_columns(rows).splitlines()[3]


def test_ties_go_to_the_earlier_run(store_uri):
    for name, start in (("later", 2_000_000), ("earlier", 1_000_000)):
        HandMadeRun(store_uri, name, start_time=start).epochs(epoch(0.1))
    assert names(leaderboard(tracking_uri=store_uri)) == [(1, "earlier"), (2, "later")]


def test_formats(board, capsys):
    rows = leaderboard(tracking_uri=board)
    for form in ("json", "csv", "table"):
        capsys.readouterr()
        main(["leaderboard", "--format", form, "--tracking-uri", board, "--limit", "3"])
        out, err = capsys.readouterr()
        assert err == "there are more runs ranked by val_loss: --limit shows more\n"
        if form == "json":
            told = json.loads(out, parse_constant=pytest.fail)
            assert names(told) == [row for row in names(rows) if row[1] != "fresh"]
            assert told[-1]["val_loss"] is None
        elif form == "csv":
            told = list(csv.DictReader(io.StringIO(out)))
            assert list(told[0]) == list(COLUMNS)
            assert float(told[1]["val_spearman_corr"]) == 0.3
            assert told[-1]["rank"] == told[-1]["val_loss"] == ""
        else:
            lines = out.splitlines()
            assert lines[0] == "ranked by val_loss (lower is better)"
            assert lines[2].startswith("1     first (")
            assert "ranked by selection_metric (lower is better)" in lines
            assert "0.2000  0.2000    0.300     0.400" in lines[3]
            assert "\x1b" not in out


def test_an_empty_board(store_uri):
    rows = leaderboard(tracking_uri=store_uri)
    assert rows == []
    assert as_columns(rows) == "no training run\n"
    assert as_csv(rows) == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize("width", [60, 250])
def test_a_terminal_shows_everything_whatever_its_width(board, width):
    out = io.StringIO()
    rows = leaderboard(tracking_uri=board)
    show_tables(rows, Console(file=out, width=width, force_terminal=True, color_system=None))
    folded = "".join(out.getvalue().split())
    for row in rows:
        assert row["run_id"][:8] in folded
        assert (row["schema_digest"] or "") in folded


MANY = 1150


def many_runs(uri: str) -> None:
    """Runs of one epoch written straight into the database; the oldest is the best, all others get worse with age."""
    client = mlflow_client(uri)
    home = experiment_id(client, uri, "many")
    template = HandMadeRun(uri, "template", experiment="many")
    client.delete_run(template.run_id)
    now = int(time.time() * 1000)
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        kept = database.execute("SELECT * FROM runs WHERE run_uuid = ?", [template.run_id])
        fields = [column[0] for column in kept.description]
        row = dict(zip(fields, kept.fetchone(), strict=True))
        for number in range(MANY):
            run_id = uuid.uuid4().hex
            start = now - number * 1000
            value = 0.001 if number == MANY - 1 else 0.1 + number / 10_000
            made = {**row, "run_uuid": run_id, "name": f"run {number}", "start_time": start, "experiment_id": int(home)}
            made |= {"status": "FINISHED", "lifecycle_stage": "active"}
            marks = ", ".join("?" * len(fields))
            database.execute(f"INSERT INTO runs ({', '.join(fields)}) VALUES ({marks})", [made[f] for f in fields])
            database.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                [("topotrain.command", "run", run_id), ("topotrain.best_epoch", "0", run_id)],
            )
            database.execute(
                "INSERT INTO params (key, value, run_uuid) VALUES ('selection.primary_metric', 'val_loss', ?)", [run_id]
            )
            for table in ("metrics", "latest_metrics"):
                database.executemany(
                    f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 0, 0, ?)",
                    [(key, value, start, run_id) for key in ("val_loss", "best_val_loss", "val_spearman_corr")],
                )
    database.close()


def test_beyond_a_thousand_runs(store_uri, monkeypatch):
    many_runs(store_uri)
    client = mlflow_client(store_uri)
    pages: list[int] = []
    original = type(client).search_runs

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        page = original(self, *arguments, **options)
        pages.extend([len(page)] if page else [])
        return page

    monkeypatch.setattr(type(client), "search_runs", counted)
    start = time.monotonic()
    top = leaderboard(limit=10, tracking_uri=store_uri)
    seconds = time.monotonic() - start
    assert names(top)[:3] == [(1, f"run {MANY - 1}"), (2, "run 0"), (3, "run 1")]
    assert len(top) == 10
    assert sum(pages) == 11, "one more than is shown"
    assert seconds < 60  # half a second on an idle machine

    pages.clear()
    everything = leaderboard(limit=None, tracking_uri=store_uri)
    assert len(everything) == MANY
    assert [row["rank"] for row in everything] == list(range(1, MANY + 1))
    assert names(everything)[-1] == (MANY, f"run {MANY - 2}")
    assert pages[:2] == [1000, MANY - 1000]


def test_pages_are_fetched_when_they_are_needed(store_uri, monkeypatch):
    for number in range(5):
        HandMadeRun(store_uri, str(number), start_time=1000 + number)
    monkeypatch.setattr(runs, "PAGE", 2)
    found = [run.name for run in Store.open(store_uri).runs.best_first("val_loss", None, "by hand")]
    assert found == ["0", "1", "2", "3", "4"]


def statistics(uri: str) -> list[Any]:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
            return []
        return database.execute("SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY 1, 2").fetchall()


def test_a_store_that_grew_is_ordered_without_going_through_it_for_each_run(store_uri):
    """Without statistics SQLite goes through all values of the metric once for every run: 2,000 runs took 0.2 s."""
    Store.open(store_uri)
    before = statistics(store_uri)
    many_runs(store_uri)
    store, plans = Store.open(store_uri), list[str]()
    grown = statistics(store_uri)
    assert {table for table, _, _ in grown} >= {"runs", "latest_metrics", "params", "tags"} and grown != before

    def explained(connection: Any, cursor: Any, statement: str, given: Any, context: Any, many: bool) -> None:
        if "ORDER BY clause_1" in statement:
            plan = connection.connection.dbapi_connection.execute(f"EXPLAIN QUERY PLAN {statement}", given)
            plans.extend(step for *_, step in plan.fetchall())

    sqlalchemy.event.listen(Engine, "before_cursor_execute", explained)
    try:
        assert len(store.runs.best_first("val_loss", None, limit=10)) == 10
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", explained)
    assert plans
    assert not [step for step in plans if step.startswith("SCAN anon")], plans

    HandMadeRun(store_uri, "one more")
    Store.open(store_uri)
    assert statistics(store_uri) == grown, "looked at again when it has grown tenfold"


def test_a_store_that_is_being_written_is_opened_all_the_same(store_uri, monkeypatch):
    many_runs(store_uri)
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert Store.open(store_uri).runs.best_first("val_loss", None, limit=3)
        writer.rollback()
    assert "latest_metrics" not in {table for table, _, _ in statistics(store_uri)}


def test_the_rows_that_are_shown_are_all_that_is_asked_for(store_uri, monkeypatch):
    for number in range(12):
        HandMadeRun(store_uri, str(number)).epochs(epoch(0.1 + number / 100), epoch(0.5)).end()
    asked: list[str] = []

    def count(name: str) -> None:
        real = getattr(MlflowClient, name)

        def counted(self: Any, *given: Any, **more: Any) -> Any:
            asked.append(name)
            return real(self, *given, **more)

        monkeypatch.setattr(MlflowClient, name, counted)

    for name in ("search_runs", "get_metric_history", "get_run", "list_artifacts"):
        count(name)
    assert len(leaderboard(limit=4, tracking_uri=store_uri)) == 4
    assert asked.count("search_runs") == 5, "one for each way to rank, and two for which data there are"
    assert asked.count("get_metric_history") <= 4 * 3
    assert not {"get_run", "list_artifacts"} & set(asked)
