"""``summarise``: every number is the server's, its shape is the documented one, and it says what is the matter."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jsonschema
import pytest
import yaml

from kit.runs import HandMadeRun, epoch, silent_beat
from topotrain.fields import BEST_OF, CONFIG_ARTIFACT, EPOCH_METRICS, TAG_BEST_EPOCH, TAG_HEARTBEAT, TAG_PARAM_DRIFT
from topotrain.reports.monitor import monitor
from topotrain.reports.monitor_view import page
from topotrain.reports.summarise import summarise
from topotrain.tracking.heartbeat import sign_of_life

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "summary.schema.json").read_text())


def summary_of(run: str, uri: str) -> dict[str, Any]:
    """The document, strictly JSON and as its schema says."""
    document = summarise(run, tracking_uri=uri)
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture(scope="module")
def finished_summary(finished: Any) -> dict[str, Any]:
    return summary_of(finished.result.run_id, finished.uri)


def test_the_schema_is_a_schema_and_refuses(finished_summary):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    refused = [
        {key: value for key, value in finished_summary.items() if key != "progress"},
        {**finished_summary, "surprise": 1},
        {**finished_summary, "best_epoch": "4"},
        {**finished_summary, "best_checkpoint": {"uri": "/a/path", "local_path": None}},
        {**finished_summary, "recent_metrics": [{"val_loss": 0.5}]},
    ]
    for document in refused:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, SCHEMA)


def test_figures_are_the_server_s_to_the_last_digit(finished, finished_summary):
    client, run_id = finished.client, finished.result.run_id
    points = {name: {p.step: p.value for p in client.get_metric_history(run_id, name)} for name in EPOCH_METRICS}
    assert [row["epoch"] for row in finished_summary["recent_metrics"]] == list(range(5))
    for row in finished_summary["recent_metrics"]:
        assert row == {"epoch": row["epoch"], **{name: points[name][row["epoch"]] for name in EPOCH_METRICS}}
    assert finished_summary["latest_metrics"] == finished.run.data.metrics
    for name, best in BEST_OF.items():
        assert finished_summary[best] == min(points[name].values())
    best = finished_summary["best_epoch"]
    assert best == min(points["val_loss"], key=points["val_loss"].__getitem__)
    assert finished_summary["best_metrics"] == {name: points[name][best] for name in EPOCH_METRICS}
    seconds = points["epoch_seconds"].values()
    assert finished_summary["progress"] == {
        "epochs_completed": 5,
        "epochs_total": 5,
        "percent": 100.0,
        "average_epoch_seconds": sum(seconds) / 5,
        "eta_seconds": 0.0,
    }
    for row in finished_summary["top_checkpoints"]:
        for name in ("val_loss", "val_spearman_corr", "selection_metric"):
            assert row[name] == points[name][row["epoch"]]


def test_checkpoints_and_their_versions(finished, finished_summary):
    first, second = finished_summary["top_checkpoints"]
    assert (first["rank"], second["rank"]) == (1, 2)
    assert first["epoch"] == finished_summary["best_epoch"]
    assert first["checkpoint"] == finished_summary["best_checkpoint"]["uri"] == finished.result.best_checkpoint
    assert Path(finished_summary["best_checkpoint"]["local_path"]).is_file()
    best, other = finished.result.model_versions
    assert (first["model_version"], first["aliases"]) == (f"models:/topoqa/{best}", ["candidate"])
    assert (second["model_version"], second["aliases"]) == (f"models:/topoqa/{other}", [])


def test_the_recipe_has_types(finished, finished_summary):
    config = finished_summary["config"]
    assert config["trainer"]["num_epochs"] == 5
    assert config["selection"]["use_val_spearman"] is True
    assert config["mlflow"]["tags"] == {"team": "docking"}
    assert config["paths"]["graph"] == str(finished.graph_set.graphs)
    assert "schema" not in config
    learned = finished_summary["learning_parameters"]
    assert learned["learning_rate"] == config["optimizer"]["learning_rate"]
    assert learned["learning_rate_at_best_epoch"] == finished_summary["best_metrics"]["learning_rate"]
    assert learned["batch_size"] == 4
    assert learned["seed"] == config["dataloader"]["seed"]
    assert learned["scheduler"] == config["scheduler"]
    assert learned["early_stopping"] == config["early_stopping"]
    assert finished_summary["data"] == {
        "num_train": 12,
        "num_val": 8,
        "digest": finished.run.data.params["data.digest"],
    }
    assert finished_summary["num_parameters"] == int(finished.run.data.params["model.num_parameters"])
    assert finished_summary["schema"]["digest"] == finished.run.data.tags["topotrain.schema_digest"]
    assert finished_summary["dataset_coverage"]["train"]["total"] == 12
    assert finished_summary["lineage"] == {
        "resumed_from": None,
        "resumed_checkpoint": None,
        "continued_by": None,
        "param_drift": [],
        "parent_run_id": None,
        "children": [],
    }
    assert finished_summary["warnings"] == []


def test_without_artifacts_the_recipe_is_told_from_the_parameters(store_uri):
    run = HandMadeRun(store_uri, num_epochs=7)
    config = summary_of(run.run_id, store_uri)["config"]
    expected = run.config.to_dict()
    expected["mlflow"].pop("tags")  # an empty mapping has no parameter
    assert config == expected


def test_the_learning_rate_is_that_of_the_best_epoch(store_uri):
    rates = [epoch(0.3, rate=0.01), epoch(0.1, rate=0.004), epoch(0.2, rate=0.001)]
    document = summary_of(HandMadeRun(store_uri).epochs(*rates).run_id, store_uri)
    assert document["best_epoch"] == 1
    assert document["learning_parameters"]["learning_rate_at_best_epoch"] == 0.004
    assert document["latest_metrics"]["learning_rate"] == 0.001


@pytest.mark.parametrize(("best", "rate", "patience"), [(1, 0.01, 12), (2, 0.002, 12), (5, 0.0005, 3)])
def test_settings_that_a_resume_changed_are_those_of_the_best_epoch(store_uri, best, rate, patience):
    """Resumed before epoch 2 and before epoch 4, each time with other settings."""
    drift = [
        {"epoch": 2, "key": "optimizer.learning_rate", "from": "0.01", "to": "0.002"},
        {"epoch": 4, "key": "optimizer.learning_rate", "from": "0.002", "to": "0.0005"},
        {"epoch": 4, "key": "scheduler.patience", "from": "12", "to": "3"},
    ]
    run = HandMadeRun(store_uri).tag(param_drift=json.dumps(drift))
    run.epochs(*(epoch(0.1 if number == best else 0.2 + number / 10) for number in range(6)))
    changed = run.config.to_dict()
    changed["optimizer"]["learning_rate"], changed["scheduler"]["patience"] = 0.0005, 3
    run.client.log_text(run.run_id, yaml.safe_dump(changed), "config/config.yaml")
    document = summary_of(run.run_id, store_uri)
    assert document["best_epoch"] == best
    assert document["learning_parameters"]["learning_rate"] == rate
    assert document["learning_parameters"]["scheduler"]["patience"] == patience
    assert document["config"]["optimizer"]["learning_rate"] == 0.0005
    assert document["lineage"]["param_drift"] == drift


def test_recent_metrics_are_the_last_ten(store_uri):
    run = HandMadeRun(store_uri).epochs(*(epoch(1 / (n + 1)) for n in range(13)))
    assert [row["epoch"] for row in summary_of(run.run_id, store_uri)["recent_metrics"]] == list(range(3, 13))


def test_a_run_that_stopped_early_is_complete(store_uri):
    run = HandMadeRun(store_uri, num_epochs=50).epochs(epoch(0.1), epoch(0.2), epoch(0.3)).end()
    progress = summary_of(run.run_id, store_uri)["progress"]
    assert (progress["epochs_completed"], progress["epochs_total"], progress["percent"]) == (3, 50, 100.0)


def test_progress_of_a_live_run(store_uri):
    run = HandMadeRun(store_uri, num_epochs=8).epochs(epoch(0.1, seconds=2.0), epoch(0.2, seconds=4.0))
    document = summary_of(run.run_id, store_uri)
    assert document["alive"] is True
    assert document["progress"] == {
        "epochs_completed": 2,
        "epochs_total": 8,
        "percent": 25.0,
        "average_epoch_seconds": 3.0,
        "eta_seconds": 18.0,
    }


@pytest.mark.parametrize("command", ["summarise", "batch", "run", None])
def test_what_is_not_known_is_null_never_0(store_uri, command):
    """A report's run, a batch's parent, a run that failed before it was configured, a stranger."""
    run = HandMadeRun(store_uri, command=command, params=False).end("FAILED")
    document = summary_of(run.run_id, store_uri)
    known = {"run_id", "run_name", "status", "alive", "warnings", "lineage", "progress", "learning_parameters", "data"}
    empty = {key: value for key, value in document.items() if key not in known}
    assert all(value is None or value in ([], {}) for value in empty.values()), empty
    assert document["progress"].pop("epochs_completed") == 0
    for part in ("progress", "learning_parameters", "data"):
        assert set(document[part].values()) == {None}


def test_not_a_number_is_null(store_uri):
    run = HandMadeRun(store_uri).epochs(epoch(0.2), {**epoch(0.3), "val_pearson_corr": float("nan")})
    document = summary_of(run.run_id, store_uri)
    assert document["recent_metrics"][1]["val_pearson_corr"] is None
    assert document["latest_metrics"]["val_pearson_corr"] is None


def test_lineage(store_uri):
    parent = HandMadeRun(store_uri, "parent", command="batch")
    tags = {"mlflow.parentRunId": parent.run_id, "topotrain.resumed_from": "abc"}
    child = HandMadeRun(store_uri, "child", tags=tags).tag(continued_by="def", resumed_checkpoint="last.ckpt")
    HandMadeRun(store_uri, "second child", tags={"mlflow.parentRunId": parent.run_id}).end("KILLED")
    lineage = summary_of(child.run_id, store_uri)["lineage"]
    assert lineage == {
        "resumed_from": "abc",
        "resumed_checkpoint": "last.ckpt",
        "continued_by": "def",
        "param_drift": [],
        "parent_run_id": parent.run_id,
        "children": [],
    }
    children = summary_of(parent.run_id, store_uri)["lineage"]["children"]
    assert [(one["run_name"], one["status"]) for one in children] == [("child", "RUNNING"), ("second child", "KILLED")]


RESUME = "resume with: topotrain resume --run-id {id}"


@pytest.mark.parametrize(
    ("epochs", "status", "beat", "tags", "warnings"),
    [
        (0, "RUNNING", "here", {}, ["no checkpoint yet", "run in progress"]),
        (1, "RUNNING", "here", {}, ["run in progress"]),
        (1, "RUNNING", "silent", {}, ["interrupted; " + RESUME]),
        (0, "RUNNING", "silent", {}, ["no checkpoint yet", "interrupted; no epoch to resume from"]),
        (1, "KILLED", "here", {"status_note": "interrupted by signal 15"}, ["interrupted; " + RESUME]),
        (1, "FAILED", "here", {"status_note": "interrupted by signal 2"}, ["interrupted; " + RESUME]),
        (1, "FAILED", "here", {"status_note": "TrainingError: boom"}, ["failed: TrainingError: boom", RESUME]),
        (0, "FAILED", "here", {}, ["no checkpoint yet", "failed"]),
        (1, "KILLED", "here", {"continued_by": "abc"}, ["continued by run abc"]),
        (1, "FINISHED", "here", {}, []),
    ],
)
def test_warnings(store_uri, epochs, status, beat, tags, warnings):
    heartbeat = silent_beat() if beat == "silent" else sign_of_life()
    run = HandMadeRun(store_uri, heartbeat=heartbeat).epochs(*[epoch(0.1)] * epochs).tag(**tags)
    if status != "RUNNING":
        run.end(status)
    document = summary_of(run.run_id, store_uri)
    assert document["warnings"] == [text.format(id=run.run_id) for text in warnings]
    assert document["alive"] is (status == "RUNNING" and beat == "here")
    knows = status == "FINISHED" or (document["alive"] and epochs > 0)
    assert (document["progress"]["eta_seconds"] is not None) is knows


def test_labels_without_graphs_are_a_warning(store_uri):
    run = HandMadeRun(store_uri).epochs(epoch(0.1)).end()
    whole = {"total": 4, "usable": 4, "coverage": 1.0, "missing": []}
    part = {"total": 10, "usable": 8, "coverage": 0.8, "missing": ["a", "b"]}
    run.client.log_dict(run.run_id, {"train": part, "val": whole}, "dataset_coverage.json")
    assert summary_of(run.run_id, store_uri)["warnings"] == ["2 of 10 train labels have no usable graph"]


def test_an_index_that_is_never_whole_costs_only_itself(store_uri, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    run = HandMadeRun(store_uri).epochs(epoch(0.1))
    run.client.log_text(run.run_id, '[{"rank": 1, "ep', "checkpoints/kept.json")
    document = summary_of(run.run_id, store_uri)
    assert document["top_checkpoints"] == []
    assert document["best_checkpoint"]["uri"].endswith("epoch_0000.ckpt")


MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
ODD_SECTIONS = "optimizer: text\nscheduler: 5\nselection: {primary_metric: [1]}\ndataloader: {seed: {a: 1}}"
ODD_EPOCHS = ("abc", "[1]", "-5", "0", ".nan", ".inf", "true", "9" * 300, "1" + ":59" * 50_000)
DEEP, LONG, HOST = "[" * 100_000, "[" + "9" * 5000 + "]", socket.gethostname()
PLANTED = {
    CONFIG_ARTIFACT: [
        *(f"trainer: {{num_epochs: {value}}}" for value in ODD_EPOCHS),
        *(MERGES, "trainer: &a {num_epochs: *a}", ODD_SECTIONS, "- a list", "model: {dropout: 2024-01-01}", DEEP),
    ],
    "checkpoints/kept.json": [
        *("5", "[1]", "[{}]", "[NaN]", "[null]", '{"a": 1}', DEEP, LONG),
        *('[{"rank": 1, "epoch": "x", "file": "a"}]', '[{"rank": 1, "epoch": 1, "file": "../x"}]'),
    ],
    "feature_metadata.json": ["5", "[1]", '"x"', '{"a": 1e400}', "{", DEEP, LONG],
    "dataset_coverage.json": [
        *("5", '{"train": 5}', '{"train": {"total": "x"}}', '{"train": {"total": NaN, "usable": 1}}', DEEP),
    ],
    TAG_PARAM_DRIFT: [
        *("5", "null", "[1]", "[" * 4000, '[{"epoch": 1}]', '[{"epoch": "x", "key": 5, "from": 1}]'),
        '[{"epoch": 1, "key": "trainer.num_epochs", "from": "' + "9" * 4000 + '", "to": "1"}]',
    ],
    TAG_HEARTBEAT: [
        *("5", "[]", "[" * 4000, '{"host": "a", "pid": 1e400, "process_start": 1, "time": "2024-01-01"}'),
        f'{{"host": "{HOST}", "pid": {"9" * 30}, "process_start": -1, "time": "2024-01-01"}}',
    ],
    TAG_BEST_EPOCH: ["x", "9" * 5000, "²", "1_0", "-1"],
}


@pytest.mark.parametrize("place", PLANTED)
def test_what_somebody_else_put_there_costs_only_itself(
    place: str, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topotrain.tracking.artifacts.time.sleep", lambda _: None)
    made = HandMadeRun(store_uri).epochs(epoch(0.2), epoch(0.1))
    artifacts = Path(url2pathname(urlsplit(made.client.get_run(made.run_id).info.artifact_uri).path))
    for content in PLANTED[place]:
        if place.startswith("topotrain."):
            made.client.set_tag(made.run_id, place, content)
        else:
            (artifacts / place).parent.mkdir(parents=True, exist_ok=True)
            (artifacts / place).write_text(content)
        assert summary_of(made.run_id, store_uri)["run_id"] == made.run_id
        if place == CONFIG_ARTIFACT:
            assert page(monitor(made.run_id, tracking_uri=store_uri))
