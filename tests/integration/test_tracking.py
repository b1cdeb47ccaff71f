"""What a run holds on the server (CONTRACT section 7), where the server is, and what an outage costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import topotrain
from kit.dying import ended
from kit.recorded import experiment_id, local_artifact, metric_history, mlflow_client
from kit.waiting import PATIENCE, wait_for
from topotrain.config import load_config
from topotrain.errors import TrackingError
from topotrain.fields import (
    BASELINE_PREFIX,
    BEST_SELECTION_METRIC,
    BEST_VAL_LOSS,
    SELECTION_METRIC,
    TAG_HEARTBEAT,
    VAL_LOSS,
)
from topotrain.model.checkpoint import read_checkpoint
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.tracking import database as database_module
from topotrain.tracking import shipping, sync
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.delivery import Delivery
from topotrain.tracking.new_versions import NewVersions
from topotrain.tracking.opening import open_run
from topotrain.tracking.recorder import DatasetFacts, Recorder
from topotrain.tracking.store import Store

EVERY_EPOCH = (
    *("train_mse", "val_loss", "val_pearson_corr", "val_spearman_corr", "val_ranking_loss"),
    *("selection_metric", "learning_rate", "epoch_seconds"),
)


def ignore(line: str) -> None:
    """A ``say`` that says nothing."""


def test_status_and_names(finished):
    run = finished.run
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "the finished one"
    assert finished.client.get_experiment(run.info.experiment_id).name == "dynamic_topoqa"
    assert "mlartifacts" in run.info.artifact_uri
    assert run.info.end_time >= run.info.start_time


def test_parameters_are_the_whole_resolved_configuration(finished):
    params = finished.run.data.params
    config = yaml.safe_load((finished.artifacts / "config" / "config.yaml").read_text())
    dotted = {f"{section}.{key}" for section, values in config.items() for key in values} - {"mlflow.tags"}
    assert dotted <= set(params)
    assert "mlflow.tags.team" in params
    assert params["trainer.num_epochs"] == "5"
    assert params["checkpoints.keep"] == "2"
    assert params["selection.use_val_spearman"] == "true"
    assert not [key for key in params if "." not in key], "an undotted key can collide with those of mlflow run"


def test_parameters_of_schema_and_data(finished):
    params = finished.run.data.params
    schema = FeatureSchema.from_dict(json.loads((finished.artifacts / "feature_metadata.json").read_text()))
    for key, value in {
        "schema.edge.dim": "3",
        "schema.edge.module": "edge/test/v1",
        "schema.edge.variant": "test_3",
        "schema.node.dim": "5",
        "schema.digest": schema.digest,
        "data.num_train": "12",
        "data.num_val": "8",
    }.items():
        assert params[key] == value, key
    assert {"schema.edge.alias", "schema.source", "data.digest"} <= set(params)
    state = read_checkpoint(finished.artifacts / "checkpoints" / "last.ckpt")["state_dict"]
    buffers = ("scaling.mean", "scaling.scale", "node_weight", "mean_size")
    learned = sum(v.numel() for k, v in state.items() if not k.endswith(buffers))
    assert params["model.num_parameters"] == str(learned)


def test_tags(finished):
    tags = finished.run.data.tags
    assert tags["topotrain.command"] == "run"
    assert tags["topotrain.schema_digest"] == finished.run.data.params["schema.digest"]
    assert tags["topotrain.best_epoch"] == str(finished.result.best_epoch)
    assert tags["topotrain.best_checkpoint"] == f"checkpoints/epoch_{finished.result.best_epoch:04d}.ckpt"
    assert tags["topotrain.trial_label"] == "trial 7"
    assert tags["mlflow.note.content"].startswith("made for tests\n\n")
    assert tags["team"] == "docking"
    assert "topotrain.status_note" not in tags
    assert "topotrain.resumed_from" not in tags


def test_git_commit_is_told(finished, root):
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)

    tags = finished.run.data.tags
    if git("rev-parse", "HEAD").returncode:
        assert "topotrain.git_commit" not in tags
    else:
        assert len(tags["topotrain.git_commit"]) == 40
        assert git("cat-file", "-t", tags["topotrain.git_commit"]).stdout == "commit\n"
        assert tags["topotrain.git_dirty"] in ("true", "false")


def test_heartbeat_says_who_and_when(finished):
    beat = json.loads(finished.run.data.tags[TAG_HEARTBEAT])
    assert beat["host"] == socket.gethostname()
    assert beat["pid"] == os.getpid()
    assert beat["process_start"] < time.time()
    from datetime import datetime

    at = datetime.fromisoformat(beat["time"]).timestamp()
    assert finished.run.info.start_time / 1000 - 2 <= at <= time.time()


def test_metrics_have_one_point_an_epoch(finished):
    for name in EVERY_EPOCH:
        points = finished.client.get_metric_history(finished.result.run_id, name)
        assert [point.step for point in points] == [0, 1, 2, 3, 4], name
    others = {name for name in finished.run.data.metrics if not name.startswith(BASELINE_PREFIX)}
    assert others == {*EVERY_EPOCH, BEST_VAL_LOSS, BEST_SELECTION_METRIC}


@pytest.mark.parametrize(("name", "best"), [(VAL_LOSS, BEST_VAL_LOSS), (SELECTION_METRIC, BEST_SELECTION_METRIC)])
def test_best_figures_are_logged_as_they_improve(finished, name, best):
    curve = metric_history(finished.client, finished.result.run_id, name)
    expected, lowest = {}, float("inf")
    for epoch, value in curve.items():
        if value < lowest:
            expected[epoch] = lowest = value
    assert metric_history(finished.client, finished.result.run_id, best) == expected


def test_inputs_are_data_sets_with_digests(finished):
    inputs = {one.tags[0].value: one.dataset for one in finished.run.inputs.dataset_inputs}
    assert set(inputs) == {"training", "validation"}
    assert inputs["training"].digest != inputs["validation"].digest
    for one in inputs.values():
        assert 0 < len(one.digest) <= 36
    assert json.loads(inputs["training"].profile)["num_graphs"] == 12
    assert json.loads(inputs["training"].source)["uri"] == str(finished.graph_set.train_labels)


def test_artifacts(finished):
    found = {p.relative_to(finished.artifacts).as_posix() for p in finished.artifacts.rglob("*") if p.is_file()}
    epochs = _kept_epochs(finished)
    assert {name for name in found if name.startswith("checkpoints/")} == {
        "checkpoints/last.ckpt",
        "checkpoints/kept.json",
        *(f"checkpoints/epoch_{epoch:04d}.ckpt" for epoch in epochs),
    }
    assert {
        "config/config.yaml",
        "config/original_config.yaml",
        "feature_metadata.json",
        "dataset_coverage.json",
    } <= found
    assert [name for name in found if name.startswith("figures/") and name.endswith(".png")]
    assert [name for name in found if name.startswith("environment/")]
    assert not [name for name in found if name.endswith((".part", ".tmp")) or "/.topotrain-" in f"/{name}"]
    assert json.loads((finished.artifacts / "dataset_coverage.json").read_text()) == {
        "train": {"total": 12, "usable": 12, "coverage": 1.0, "missing": []},
        "val": {"total": 8, "usable": 8, "coverage": 1.0, "missing": []},
    }


def test_the_configuration_artifacts(finished):
    original = (finished.artifacts / "config" / "original_config.yaml").read_text()
    assert original.startswith("# my own words\n")
    resolved = load_config(finished.artifacts / "config" / "config.yaml").config
    assert resolved.trainer.num_epochs == 5
    assert resolved.mlflow.tags == {"team": "docking"}
    assert Path(resolved.paths.graph).is_absolute()


def test_the_kept_checkpoints_are_the_best(finished):
    curve = metric_history(finished.client, finished.result.run_id, VAL_LOSS)
    ranked = sorted(curve, key=lambda epoch: (curve[epoch], epoch))
    assert _kept_epochs(finished) == ranked[:2]
    for epoch in ranked[:2]:
        content = read_checkpoint(finished.artifacts / "checkpoints" / f"epoch_{epoch:04d}.ckpt")
        assert content["epoch"] == epoch
    assert read_checkpoint(finished.artifacts / "checkpoints" / "last.ckpt")["epoch"] == 4


def _kept_epochs(finished: Any) -> list[int]:
    return [one["epoch"] for one in json.loads((finished.artifacts / "checkpoints" / "kept.json").read_text())]


def test_checkpoints_carry_schema_and_recipe(finished):
    schema = json.loads((finished.artifacts / "feature_metadata.json").read_text())
    for path in (finished.artifacts / "checkpoints").glob("*.ckpt"):
        content = read_checkpoint(path)  # weights_only: nothing of it is executed
        assert content["feature_metadata"] == schema
        assert content["config"]["trainer"]["num_epochs"] == 5
        assert content["data_digest"] == finished.run.data.params["data.digest"]
        assert content["optimizer_states"]


def test_versions_and_their_tags(finished):
    versions = finished.client.search_model_versions("name = 'topoqa'")
    by_rank = {version.tags["rank"]: version for version in versions}
    assert sorted(by_rank) == ["1", "2"]
    for (rank, version), epoch in zip(sorted(by_rank.items()), _kept_epochs(finished), strict=True):
        tags = version.tags
        assert tags["epoch"] == str(epoch)
        for name in ("val_loss", "val_spearman_corr", "selection_metric"):
            assert float(tags[name]) == metric_history(finished.client, finished.result.run_id, name)[epoch]
        assert tags["run_id"] == version.run_id == finished.result.run_id
        assert tags["schema_digest"] == finished.run.data.params["schema.digest"]
        assert finished.result.model_versions[int(rank) - 1] == str(version.version)
    candidate = finished.client.get_model_version_by_alias("topoqa", "candidate")
    assert candidate.version == by_rank["1"].version
    assert "champion" not in finished.client.get_registered_model("topoqa").aliases


def test_each_version_is_a_logged_model_of_the_run(finished):
    models = finished.client.search_logged_models([finished.result.experiment_id])
    assert {model.source_run_id for model in models} == {finished.result.run_id}
    assert {model.tags["epoch"] for model in models} == {str(epoch) for epoch in _kept_epochs(finished)}
    assert {str(model.status) for model in models} == {"READY"}


@pytest.mark.parametrize("named", [None, "by mlflow run --run-name"])
def test_a_run_of_mlflow_run_is_adopted(graph_set, store_uri, monkeypatch, named):
    client = mlflow_client(store_uri)
    elsewhere = client.create_experiment("chosen by mlflow run", artifact_location=None)
    made = client.create_run(elsewhere, run_name=named)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", elsewhere)
    client.log_param(made.info.run_id, "config", "configs/default.yaml")  # as mlflow run does before the child starts
    result = topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1", "mlflow.register=none"])
    assert result.run_id == made.info.run_id
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert len(runs) == 1
    assert runs[0].info.experiment_id == elsewhere
    assert runs[0].info.status == "FINISHED"
    if named:
        assert runs[0].info.run_name == named
    else:
        assert runs[0].info.run_name.startswith("training_run_")
    assert runs[0].info.run_name == runs[0].data.tags["mlflow.runName"] == result.run_name
    assert Store(client).runs.find(result.run_name).run_id == made.info.run_id
    # A second fit of the same process, with the variable of mlflow run gone, opens a run of its own.
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_run_to_adopt_that_is_not_there(store_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TrackingError, match="MLFLOW_RUN_ID"):
        open_run(Store.open(store_uri), "e", command="run")


def test_a_run_that_topotrain_recorded_is_not_adopted_again(store_uri, monkeypatch):
    first = open_run(Store.open(store_uri), "e", command="run")
    ended(first)
    monkeypatch.setenv("MLFLOW_RUN_ID", first.run_id)
    with pytest.raises(TrackingError, match="already"):
        open_run(Store.open(store_uri), "e", command="run")
    assert mlflow_client(store_uri).get_run(first.run_id).info.status == "FINISHED"


OPTION, YAML, VARIABLE = "sqlite:////a/option.db", "sqlite:////a/yaml.db", "sqlite:////a/variable.db"


@pytest.mark.parametrize(
    ("option", "configured", "variable", "adopted", "expected", "lines"),
    [
        (OPTION, YAML, VARIABLE, False, OPTION, 0),
        (None, YAML, VARIABLE, False, YAML, 0),
        (None, None, VARIABLE, False, VARIABLE, 0),
        (None, None, None, False, None, 0),
        (OPTION, YAML, VARIABLE, True, VARIABLE, 1),
        (None, YAML, VARIABLE, True, VARIABLE, 1),
        (None, None, VARIABLE, True, VARIABLE, 0),
        (VARIABLE, None, VARIABLE, True, VARIABLE, 0),
        (None, YAML, None, True, YAML, 0),
        (None, "http://host:5000", VARIABLE, False, "http://host:5000", 0),
    ],
)
def test_which_store_wins(monkeypatch, tmp_path, option, configured, variable, adopted, expected, lines):
    if variable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    if adopted:
        monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    said: list[str] = []
    found = resolve_tracking_uri(option, configured, said.append)
    assert found == (expected or f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(said) == lines, said


@pytest.mark.parametrize(
    ("asked", "expected", "lines"),
    [
        ("sqlite:///x.db", "sqlite:///{here}/x.db", 0),
        ("sqlite:///../x.db", "sqlite:///{above}/x.db", 0),
        ("runs.db", "sqlite:///{here}/runs.db", 0),
        ("mlruns", "sqlite:///{here}/mlruns/mlflow.db", 1),
        ("./mlruns/", "sqlite:///{here}/mlruns/mlflow.db", 1),
        ("/data/mlruns", "sqlite:////data/mlruns/mlflow.db", 1),
        ("file:///data/mlruns", "sqlite:////data/mlruns/mlflow.db", 1),
        ("file:///data/ml%20runs", "sqlite:////data/ml runs/mlflow.db", 1),
        ("file:mlruns", "sqlite:///{here}/mlruns/mlflow.db", 1),
        ("file:./mlruns", "sqlite:///{here}/mlruns/mlflow.db", 1),
        ("http://localhost:5000", "http://localhost:5000", 0),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db", 0),
    ],
)
def test_a_uri_does_not_depend_on_the_directory_afterwards(tmp_path, asked, expected, lines):
    said: list[str] = []
    found = resolve_tracking_uri(asked, None, said.append)
    assert found == expected.format(here=tmp_path, above=tmp_path.parent)
    assert len(said) == lines, said


def test_credentials_are_not_said(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    said: list[str] = []
    resolve_tracking_uri("https://you:hidden@other", None, said.append)
    assert len(said) == 1
    assert "secret" not in said[0]
    assert "hidden" not in said[0]


def _open_fresh(uri: str, begin: Callable[[], bool], results: Any) -> None:
    wait_for(begin, every=0.01)
    try:
        number = Store.open(uri).runs.experiment_id("the same one")
        mlflow_client(uri).create_run(number)
        results.put(number)
    except BaseException as error:  # noqa: BLE001 (told to the parent)
        results.put(error)


def test_processes_that_create_one_fresh_store_at_once(tmp_path, monkeypatch):
    """After one was killed in the middle of it; and the late ones come while the tables are being made."""
    database = tmp_path / "a fresh one" / "mlflow.db"
    uri = f"sqlite:///{database}"

    real = database_module.MlflowClient

    def half_made(tracking_uri: str) -> Any:
        if "mode=memory" in tracking_uri:
            return real(tracking_uri=tracking_uri)
        Path(tracking_uri.removeprefix("sqlite:///")).write_bytes(b"half a database")
        raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MlflowClient", half_made)
        with pytest.raises(TrackingError):
            Store.open(uri)
    assert not database.exists(), "half a database looks like a whole one"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    aside = database.with_name(".mlflow.db.new")

    def being_made() -> bool:
        try:
            return aside.stat().st_size > len(b"half a database")
        except FileNotFoundError:
            return database.exists()

    starts: list[Callable[[], bool]] = [lambda: True, lambda: True, being_made, database.exists]
    workers = [context.Process(target=_open_fresh, args=(uri, start, results)) for start in starts]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join(PATIENCE)
    assert len(set(found)) == 1, found
    client = mlflow_client(uri)
    assert len(client.search_runs([found[0]])) == 4
    assert client.get_experiment(found[0]).artifact_location == (database.parent / "mlartifacts").as_uri()


@pytest.mark.parametrize("kept", ["nothing", "as made", b"no database", b"", "of another store"])
def test_tables_are_made_once_and_copied_whatever_became_of_what_is_kept(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(database_module, "cache_dir", lambda: tmp_path / "cache")
    made: list[str] = []
    monkeypatch.setattr(
        database_module, "_made_by_mlflow", lambda real=database_module._made_by_mlflow: made.append("") or real()
    )
    if kept != "nothing":
        Store.open(f"sqlite:///{tmp_path / 'before' / 'mlflow.db'}")
        (tables,) = (tmp_path / "cache").rglob("*.db")
        if isinstance(kept, bytes):
            tables.write_bytes(kept)
        elif kept == "of another store":
            tables.write_bytes((tmp_path / "before" / "mlflow.db").read_bytes())
    made.clear()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    uri = f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}"
    ended(open_run(Store.open(uri), "tests", command="run"))
    assert len(made) == (0 if kept == "as made" else 1)
    (first,) = [one for one in mlflow_client(uri).search_experiments() if one.name == "Default"]
    assert Path(first.artifact_location) == tmp_path / "here" / "mlruns" / "0"
    assert {path.name for path in (tmp_path / "here").iterdir()} <= {
        "mlflow.db",
        "mlflow.db-wal",
        "mlflow.db-shm",
        "mlflow.db.lock",
    }


def test_tables_that_can_not_be_kept_are_made_each_time(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setattr(database_module, "cache_dir", lambda: tmp_path / "cache")
    assert Store.open(f"sqlite:///{tmp_path / 'mlflow.db'}").runs.experiment_id("one") == "1"


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"\0" * 4096])
def test_a_file_that_is_no_database(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(TrackingError, match="can't be used"):
        Store.open(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_deleted_experiment_is_not_used(store_uri):
    client = mlflow_client(store_uri)
    client.delete_experiment(experiment_id(client, store_uri, "gone"))
    with pytest.raises(TrackingError, match="'gone' was deleted"):
        open_run(Store.open(store_uri), "gone", command="run")
    assert client.search_runs(["0"]) == []


@pytest.fixture
def recorder(store_uri):
    made = open_run(Store.open(store_uri), "tests", command="run", run_name="recorded")
    yield made
    ended(made)


def test_a_parameter_too_long_says_where_it_is(recorder):
    recorder.params({"a.long": "x" * 6001, "a.full": "y" * 6000, "a.short": ""}, see="config/config.yaml")
    recorder.flush()
    params = mlflow_client(recorder.uri).get_run(recorder.run_id).data.params
    assert params["a.full"] == "y" * 6000
    assert params["a.short"] == ""
    assert "config/config.yaml" in params["a.long"]
    assert len(params["a.long"]) < 200


def test_many_parameters_and_tags(recorder):
    recorder.params({f"p.{i}": str(i) for i in range(250)}, see="x")
    recorder.tags({f"t.{i}": str(i) for i in range(250)})
    recorder.flush()
    data = mlflow_client(recorder.uri).get_run(recorder.run_id).data
    assert {f"p.{i}" for i in range(250)} <= set(data.params)
    assert {f"t.{i}" for i in range(250)} <= set(data.tags)


def test_a_tag_too_long_says_that_it_is_cut(recorder):
    recorder.tags({"long": "x" * 9000})
    recorder.flush()
    value = mlflow_client(recorder.uri).get_run(recorder.run_id).data.tags["long"]
    assert len(value) == 8000
    assert value.endswith("(cut)")


def test_what_the_server_refuses_is_the_user_s_error_and_holds_nothing_up(recorder):
    recorder.params({"a.b": "1"}, see="x")
    recorder.params({"a.b": "2"}, see="x")
    recorder.tags({"later": "1"})
    with pytest.raises(TrackingError, match="refused parameters"):
        recorder.flush()
    assert recorder.complete
    assert mlflow_client(recorder.uri).get_run(recorder.run_id).data.tags["later"] == "1"


class Outage:
    """A client that answers to nobody while ``down``, and remembers the order of what it took."""

    def __init__(self, client: MlflowClient) -> None:
        self.client, self.down, self.taken = client, False, []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        def guarded(*arguments: Any, **options: Any) -> Any:
            if self.down:
                raise MlflowException("Connection refused")  # INTERNAL_ERROR, as for a dead server
            self.taken.append((name, options))
            return call(*arguments, **options)

        return guarded if callable(call) else call


def test_an_outage_loses_nothing_and_keeps_the_order(recorder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(shipping, "FIRST_WAIT", 0.01)
    outage = Outage(recorder._delivery._client)
    monkeypatch.setattr(recorder._delivery, "_client", outage)
    artifact = tmp_path / "notes.txt"
    recorder.metrics({"loss": 0.0}, step=0)
    assert recorder.flush()
    outage.down = True
    for step in (1, 2, 3):
        recorder.metrics({"loss": float(step)}, step=step)
        recorder.tags({"last": str(step)})
        artifact.unlink(missing_ok=True)
        artifact.write_text(str(step))
        recorder.file(artifact, "notes")
    recorder.params({"a.b": "1"}, see="x")
    assert not recorder.flush(0.1)
    assert recorder.journal is not None
    assert len(list((recorder.journal / "files").iterdir())) == 1, "what is replaced is not kept"
    assert [r.levelname for r in caplog.records].count("WARNING") == 1, "an outage is reported once"
    outage.down = False
    recorder.metrics({"loss": 4.0}, step=4)
    assert recorder.flush()
    client = outage.client
    points = client.get_metric_history(recorder.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, float(step)) for step in range(5)]
    run = client.get_run(recorder.run_id)
    assert run.data.tags["last"] == "3"
    assert run.data.params["a.b"] == "1"
    assert Path(str(local_artifact(run, "notes/notes.txt"))).read_text() == "3"
    assert [r.getMessage() for r in caplog.records].count("the tracking server answers again; nothing was lost") == 1


def test_an_outage_during_training_costs_nothing(graph_set, store_uri, monkeypatch, caplog):
    """The server is away from the first to the fourth epoch, while checkpoints come and go."""
    real_epoch, real_deliver, down = Recorder.epoch, Delivery.deliver, [False]

    def epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        if step == 1:
            assert self.flush()
        down[0] = 1 <= step < 4
        real_epoch(self, values, step, **more)
        if step == 1:
            self._shipper.flush(0.1)  # so that it is noticed

    def deliver(self: Delivery, group: Any) -> None:
        if down[0]:
            raise OSError("no route to the store")
        real_deliver(self, group)

    monkeypatch.setattr(Recorder, "epoch", epoch)
    monkeypatch.setattr(Delivery, "deliver", deliver)
    monkeypatch.setattr(shipping, "SECONDS_APART", 0.01)
    monkeypatch.setattr(shipping, "FIRST_WAIT", 0.01)
    extra = ["trainer.num_epochs=6", "checkpoints.keep=1", "mlflow.register=none", "selection.primary_metric=val_loss"]
    # Each epoch is the best so far, so that each writes a checkpoint and drops the one before.
    from topotrain.model.lightning import ScoringModule

    original = ScoringModule._publish

    def falling(self: ScoringModule, metrics: dict[str, float]) -> None:
        if VAL_LOSS in metrics:
            metrics[VAL_LOSS] = 1.0 - 0.1 * self.current_epoch
        original(self, metrics)

    monkeypatch.setattr(ScoringModule, "_publish", falling)
    result = topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    for name in EVERY_EPOCH:
        steps = [point.step for point in client.get_metric_history(result.run_id, name)]
        assert steps == [0, 1, 2, 3, 4, 5], name
    names = {entry.path for entry in client.list_artifacts(result.run_id, "checkpoints")}
    assert names == {"checkpoints/last.ckpt", "checkpoints/kept.json", "checkpoints/epoch_0005.ckpt"}
    assert run.data.tags["topotrain.best_epoch"] == "5"
    assert any("answers again" in record.getMessage() for record in caplog.records)


def test_short_epochs_share_a_call_and_checkpoints_come_first(recorder, tmp_path, monkeypatch):
    watched = Outage(recorder._delivery._client)
    monkeypatch.setattr(recorder._delivery, "_client", watched)
    last, run_id = tmp_path / "last.ckpt", recorder.run_id
    assert recorder.flush()
    written: list[str] = []
    real = Delivery._write

    def write(self: Delivery, kept: str, artifact: str) -> None:
        written.append(artifact)
        calls = [options["metrics"] for name, options in watched.taken if name == "log_batch"]
        taken = [point.step for points in calls for point in points]
        assert max(taken, default=-1) < int(self._journal.path(kept).read_text()), "points come after their checkpoint"
        real(self, kept, artifact)

    monkeypatch.setattr(Delivery, "_write", write)
    for step in range(5):
        last.unlink(missing_ok=True)
        last.write_text(str(step))
        recorder.checkpoint(last)
        recorder.epoch({"loss": float(step)}, step=step, tags={"topotrain.best_epoch": str(step)})
    recorder.params({"a.b": "1"}, see="x")
    assert recorder.flush()
    client = watched.client
    assert set(written) == {"checkpoints/last.ckpt"}
    assert len(written) < 5
    assert Path(str(local_artifact(client.get_run(run_id), "checkpoints/last.ckpt"))).read_text() == "4"
    assert sum(name == "log_batch" for name, _ in watched.taken) < 5
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [0, 1, 2, 3, 4]
    assert client.get_run(run_id).data.tags["topotrain.best_epoch"] == "4"


def test_epochs_a_second_apart_are_delivered_as_they_end(recorder):
    client = mlflow_client(recorder.uri)
    for step in range(2):
        recorder.epoch({"loss": 0.0}, step=step)
        wait_for(lambda step=step: len(client.get_metric_history(recorder.run_id, "loss")) == step + 1)


def test_many_epochs_of_a_moment_are_within_what_a_call_may_carry(recorder):
    for step in range(400):
        recorder.epoch({f"m{i}": 0.0 for i in range(10)}, step=step)
    ended(recorder)
    assert recorder.complete
    assert len(mlflow_client(recorder.uri).get_metric_history(recorder.run_id, "m9")) == 400


def test_what_an_epoch_dropped_is_removed_after_its_points(recorder, tmp_path):
    client = mlflow_client(recorder.uri)
    for step in range(3):
        kept = tmp_path / f"epoch_{step:04d}.ckpt"
        kept.write_text("weights")
        recorder.checkpoint(kept)
        dropped = [f"checkpoints/epoch_{step - 1:04d}.ckpt"] if step else []
        recorder.epoch({"loss": 0.0}, step=step, removed=dropped)
    ended(recorder, "KILLED", "a note")
    assert [one.path for one in client.list_artifacts(recorder.run_id, "checkpoints")] == [
        "checkpoints/epoch_0002.ckpt"
    ]
    assert [point.step for point in client.get_metric_history(recorder.run_id, "loss")] == [0, 1, 2]


def test_a_file_replaces_one_of_the_same_name(recorder, tmp_path):
    local = tmp_path / "last.ckpt"
    for content in ("one", "two"):
        local.unlink(missing_ok=True)
        local.write_text(content)
        recorder.file(local, "checkpoints")
    local.unlink()
    assert recorder.flush()

    written = local_artifact(mlflow_client(recorder.uri).get_run(recorder.run_id), "checkpoints/last.ckpt")
    assert Path(str(written)).read_text() == "two"
    recorder.remove("checkpoints/last.ckpt")
    recorder.remove("checkpoints/last.ckpt")  # what is gone is gone
    assert recorder.flush()
    assert mlflow_client(recorder.uri).list_artifacts(recorder.run_id, "checkpoints") == []


@pytest.mark.parametrize("step", ["_model", "_upload", "_link", "_register"])
def test_an_outage_while_versions_are_registered_costs_nothing(graph_set, store_uri, monkeypatch, caplog, step):
    """The server goes away at one step of the first version, and answers again at the next."""
    real, away = getattr(NewVersions, step), [True]

    def once(self: NewVersions, *given: Any) -> Any:
        if away:
            away.clear()
            raise MlflowException("Connection refused")
        return real(self, *given)

    monkeypatch.setattr(NewVersions, step, once)
    monkeypatch.setattr(shipping, "FIRST_WAIT", 0.01)
    extra = ["checkpoints.keep=2", "selection.primary_metric=val_loss"]
    result = topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri)
    assert any("answers again" in record.getMessage() for record in caplog.records)
    client = mlflow_client(store_uri)
    versions = sorted(client.search_model_versions("name = 'topoqa'"), key=lambda version: int(version.version))
    assert [version.tags["rank"] for version in versions] == ["2", "1"], "the newest is the best"
    assert result.model_versions == ["2", "1"]
    assert str(client.get_model_version_by_alias("topoqa", "candidate").version) == "2"
    models = client.search_logged_models([result.experiment_id])
    assert [str(model.status) for model in models] == ["READY", "READY"], "none is made twice"
    for version in versions:
        files = {entry.path for entry in client.list_logged_model_artifacts(version.source.removeprefix("models:/"))}
        assert "MLmodel" in files


def test_a_registry_that_never_answers_leaves_a_journal(graph_set, store_uri, monkeypatch, caplog):
    def away(self: NewVersions, *given: Any) -> Any:
        raise MlflowException("Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(NewVersions, "_model", away)
        result = topotrain.fit(overrides=[*graph_set.overrides, "mlflow.flush_timeout=0.2"], tracking_uri=store_uri)
    assert result.model_versions == []
    assert result.journal is not None
    done = sync.deliver(result.journal)
    assert done.run_id == result.run_id
    client = mlflow_client(store_uri)
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert len(client.search_model_versions("name = 'topoqa'")) == 2
    assert not result.journal.exists()


@pytest.mark.parametrize("away", [False, True])
def test_a_removal_that_the_store_refuses_holds_nothing_up(recorder, monkeypatch, away):
    def refuse(*_: Any) -> None:
        raise OSError("500 Server Error: AccessDenied")

    with monkeypatch.context() as patch:
        artifacts = recorder._delivery._artifacts
        patch.setattr(artifacts, "delete_artifacts", refuse)
        if away:
            patch.setattr(artifacts, "list_artifacts", refuse)
        recorder.remove("checkpoints/epoch_0000.ckpt")
        recorder.metrics({"loss": 1.0}, step=1)
        assert recorder.flush(0.2) is not away  # from a server that is away it is asked again
    recorder.metrics({"loss": 2.0}, step=2)
    assert recorder.flush()
    assert [p.step for p in mlflow_client(recorder.uri).get_metric_history(recorder.run_id, "loss")] == [1, 2]


def test_a_data_set_that_another_run_records_at_the_same_moment(recorder, store_uri, monkeypatch):
    """MLflow finds that it is new, and when it inserts it, it is not."""
    facts = [
        DatasetFacts(
            name="train",
            context="training",
            digest="0123456789abcdef",
            source="/somewhere",
            profile={"graphs": 3},
        )
    ]
    other = open_run(recorder.store, "tests", command="run")
    real = MlflowClient.log_inputs
    others: list[Recorder] = [other]

    def overtaken(self, run_id, **inputs):
        if not others:
            return real(self, run_id, **inputs)
        real(self, others.pop().run_id, **inputs)
        raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest", 1000)

    monkeypatch.setattr(MlflowClient, "log_inputs", overtaken)
    recorder.datasets(facts)
    assert recorder.flush()
    other.datasets([])
    ended(other)
    assert recorder.flush()
    for run_id in (recorder.run_id, other.run_id):
        (used,) = mlflow_client(store_uri).get_run(run_id).inputs.dataset_inputs
        assert used.dataset.name == "train"


def test_json_artifacts_keep_names_and_letters(recorder):
    recorder.json({"Å": [1, None]}, "deep/er/file.json")
    recorder.flush()
    artifacts = recorder.store.artifacts
    assert artifacts.json(recorder.run_id, "deep/er/file.json") == {"Å": [1, None]}
    assert artifacts.json(recorder.run_id, "deep/er/other.json") is None


@pytest.fixture
def runs(store_uri):
    """Five runs of two experiments, the last one an evaluation; start times a second apart."""
    client = mlflow_client(store_uri)
    first = experiment_id(client, store_uri, "first")
    second = experiment_id(client, store_uri, "second")
    made = {}
    for number, (key, experiment, name, command) in enumerate(
        [
            ("alpha", first, "alpha", "run"),
            ("twin one", first, "twin", "run"),
            ("twin two", second, "twin", "resume"),
            ("it's", second, "it's", "run"),
            ("other", first, "other", "evaluate"),
        ]
    ):
        tags = {"topotrain.command": command}
        run = client.create_run(experiment, start_time=1_000_000 + 1000 * number, run_name=name, tags=tags)
        made[key] = run.info.run_id
    return client, made


def test_runs_are_found(runs):
    client, made = runs
    assert Store(client).runs.find(made["alpha"]).run_id == made["alpha"]
    assert Store(client).runs.find(made["alpha"][:8]).run_id == made["alpha"]
    assert Store(client).runs.find(made["alpha"][:31]).run_id == made["alpha"]
    assert Store(client).runs.find("alpha").run_id == made["alpha"]
    assert Store(client).runs.find("it's").run_id == made["it's"]
    assert Store(client).runs.find("latest").run_id == made["it's"], "an evaluation is no training run"
    assert Store(client).runs.find("other").run_id == made["other"], "but it has a name"


def test_the_experiment_narrows(runs):
    client, made = runs
    assert Store(client).runs.find("twin", "first").run_id == made["twin one"]
    assert Store(client).runs.find("twin", "second").run_id == made["twin two"]
    assert Store(client).runs.find("latest", "first").run_id == made["twin one"]
    with pytest.raises(TrackingError, match="no experiment 'third'"):
        Store(client).runs.find("latest", "third")
    with pytest.raises(TrackingError, match="only experiment 'second'"):
        Store(client).runs.find("alpha", "second")


def test_an_ambiguous_name_lists_the_candidates(runs):
    client, made = runs
    with pytest.raises(TrackingError) as caught:
        Store(client).runs.find("twin")
    assert made["twin one"] in str(caught.value)
    assert made["twin two"] in str(caught.value)
    assert made["alpha"] not in str(caught.value)


def test_a_deleted_run_is_not_found(runs):
    client, made = runs
    client.delete_run(made["alpha"])
    for asked in (made["alpha"], made["alpha"][:10], "alpha"):
        with pytest.raises(TrackingError, match="no run"):
            Store(client).runs.find(asked)


@pytest.mark.parametrize("asked", ["", "nobody", "f" * 32, "abc", "100%", "a'b\"c", "'; drop", "_" * 8, "läuft"])
def test_a_run_that_is_not_there(runs, asked):
    with pytest.raises(TrackingError, match="no run"):
        Store(runs[0]).runs.find(asked)


def test_a_short_prefix_is_no_prefix(runs):
    client, made = runs
    with pytest.raises(TrackingError, match="no run"):
        Store(client).runs.find(made["alpha"][:7])


def test_latest_on_an_empty_store(store_uri):
    with pytest.raises(TrackingError, match="no training run"):
        Store.open(store_uri).runs.find("latest")
