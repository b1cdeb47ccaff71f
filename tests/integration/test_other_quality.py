"""A network that learns another quality than DockQ: its name goes wherever DockQ is shown, its digests are its own."""

from __future__ import annotations

import csv
import logging
from typing import Any

import pytest

import topotrain
from kit.graphs import GraphSet
from kit.recorded import artifact_json, local_artifact, mlflow_client
from kit.runs import HandMadeRun, epoch
from topotrain.cli import main
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import SplitRules, read_split
from topotrain.errors import DataError
from topotrain.evaluation.evaluate import evaluate
from topotrain.scoring.load import load_scorer
from topotrain.tracking.store import Store
from topotrain.training.resume import resume


def with_lddt(graph_set: GraphSet) -> list[str]:
    """Give both label files the form of a spreadsheet and one more quality; overrides that learn it."""
    for path in (graph_set.train_labels, graph_set.val_labels):
        rows = list(csv.DictReader(path.open()))
        lines = ["Target;Model;DockQ;lDDT"]
        for row in rows:
            target, model = row["MODEL"].split("/")
            lines.append(f"{target};{model}.pdb;{row['dockq']};{1 - float(row['dockq']):.4f}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-16")
    return [*graph_set.overrides, "labels.column=LDDT"]


@pytest.fixture
def learned(graph_set: GraphSet, store_uri: str) -> Any:
    """A run that learned lDDT."""
    return topotrain.fit(None, overrides=with_lddt(graph_set), tracking_uri=store_uri)


def command(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def test_the_name_goes_wherever_dockq_is_shown(learned, graph_set, store_uri, tmp_path, capsys, caplog):
    client = mlflow_client(store_uri)
    run = client.get_run(learned.run_id)
    assert run.data.params["labels.column"] == "lddt"
    assert artifact_json(client, learned.run_id, "feature_metadata.json")["label_column"] == "lddt"
    version = client.get_model_version_by_alias("topoqa", "candidate")
    assert version.tags["label_column"] == "lddt"
    assert learned.quality == "lddt"
    scorer = load_scorer("models:/topoqa@candidate", Store.open(store_uri))
    assert scorer.schema.label_column == "lddt"

    table = tmp_path / "t.csv"
    data = ("--graphs", graph_set.graphs, "--labels", graph_set.val_labels)
    uri = ("--model", "models:/topoqa@candidate", "--tracking-uri", store_uri)
    command("predict", *data, *uri, "--out", table, "--rank")
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == ["MODEL", "TARGET", "PRED_LDDT", "lddt", "RANK"]
    truth = read_split("val", GraphDirectory(graph_set.graphs), graph_set.val_labels, SplitRules(column="lddt"))
    expected = {sample.key: sample.dockq for sample in truth.samples}
    assert {row["MODEL"]: float(row["lddt"]) for row in rows if row["lddt"]} == expected
    capsys.readouterr()
    command("metrics", "--predictions", table)
    command("evaluate", *data, *uri)
    command("describe", "models:/topoqa@candidate", "--tracking-uri", store_uri)
    shown = capsys.readouterr().out
    assert "ranking loss (lddt), mean" in shown
    assert "the mean true lddt of these data" in shown
    assert "predicted lddt of interface graphs" in shown
    assert "label lddt" in client.get_model_version("topoqa", version.version).tags["topotrain.eval_targets"]
    for word in ("DockQ", "dockq", "0.23", "hits", "ROC"):
        assert word not in shown
    page = local_artifact(client.get_run(learned.run_id), "evaluation/figures.html").read_text()
    assert "predicted lddt" in page
    assert "predicted DockQ" not in page


def test_the_served_model_answers_by_the_name(learned, graph_set, store_uri):
    import mlflow

    mlflow.set_tracking_uri(store_uri)
    served = mlflow.pyfunc.load_model("models:/topoqa@candidate")
    import pandas as pd

    answer = served.predict(pd.DataFrame({"path": [str(graph_set.graphs / "T0" / "m0.pt")]}))
    assert list(answer.columns) == ["pred_lddt", "error"]
    assert served.metadata.get_output_schema().input_names() == ["pred_lddt", "error"]


def test_another_column_is_other_data(learned, graph_set, store_uri):
    with pytest.raises(DataError, match=r"data\.digest .*expected the same graphs and labels"):
        resume(learned.run_id, overrides=["labels.column=dockq", "trainer.num_epochs=3"], tracking_uri=store_uri)
    went_on = resume(learned.run_id, overrides=["trainer.num_epochs=3"], tracking_uri=store_uri)
    assert went_on.quality == "lddt"


def test_equal_values_in_another_column_are_other_data(graph_set):
    path = graph_set.root / "same.csv"
    path.write_text("MODEL,dockq,lddt\nT0/m0,0.5,0.5\n")
    directory = GraphDirectory(graph_set.graphs)
    assert read_split("x", directory, path).digest != read_split("x", directory, path, SplitRules(column="lddt")).digest


def test_labels_without_the_column_are_refused(learned, graph_set, store_uri):
    graph_set.val_labels.write_text("MODEL,dockq\nV0/m0,0.5\n")
    with pytest.raises(DataError, match=r"no column lddt \(found: MODEL, dockq\)"):
        evaluate(graphs=str(graph_set.graphs), labels=str(graph_set.val_labels), tracking_uri=store_uri)


def test_a_run_of_dockq_says_nothing_new(graph_set, store_uri, caplog):
    done = topotrain.fit(None, overrides=graph_set.overrides, tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    assert "label_column" not in artifact_json(client, done.run_id, "feature_metadata.json")
    assert "label_column" not in client.get_model_version_by_alias("topoqa", "candidate").tags
    assert "train: 3 targets: T0 (4 decoys), T1 (4 decoys), T2 (4 decoys)" in caplog.text


def test_runs_of_two_qualities_are_ranked_apart(learned, graph_set, store_uri):
    from topotrain.reports.leaderboard import leaderboard

    topotrain.fit(None, overrides=[*graph_set.overrides, "labels.column=dockq"], tracking_uri=store_uri)
    rows = leaderboard(tracking_uri=store_uri)
    assert [row["rank"] for row in rows] == [1, 1]
    assert len({row["validation_digest"] for row in rows}) == 2


def test_runs_of_two_qualities_side_by_side_are_said(store_uri, caplog):
    """Of runs that do not say what they were validated on, as those of before."""
    from topotrain.reports.leaderboard import leaderboard

    for column in ("dockq", "lddt"):
        HandMadeRun(store_uri, column, changed={"labels.column": column}).epochs(epoch(0.1))
    with caplog.at_level(logging.WARNING):
        leaderboard(tracking_uri=store_uri)
    assert "runs that learned dockq, lddt are ranked together" in caplog.text
