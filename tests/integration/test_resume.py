"""Runs that go on: the same bits and the same points as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient

import topotrain
from kit.dying import die
from kit.graphs import PUBLISHED, RANKING, GraphSet, write_graph_set
from kit.holding import pausing
from kit.recorded import artifact_json, artifact_names, fetch_artifact, metric_history, mlflow_client
from topotrain.config.earlier import SINCE
from topotrain.errors import ConfigError, DataError, SchemaError, TrackingError
from topotrain.fields import (
    CONFIG_ARTIFACT,
    EPOCH_SECONDS,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TAG_CONTINUED_BY,
    TAG_PARAM_DRIFT,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
)
from topotrain.model.checkpoint import read_checkpoint
from topotrain.tracking.delivery import Delivery
from topotrain.tracking.opening import hold_run, reopen_run
from topotrain.tracking.recorder import Recorder
from topotrain.training.continuation import drift_tag
from topotrain.training.resume import AlreadyComplete, resume
from topotrain.training.training_run import TrainingRun

EPOCHS = 7
QUIET = "mlflow.register=none"
# A rate and a patience that let scheduler and ranks move within few epochs.
RECIPE = [
    *PUBLISHED,
    f"trainer.num_epochs={EPOCHS}",
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "checkpoints.keep=2",
    "mlflow.register=none",
]


def train(graph_set, uri: str, *overrides: str, **options: Any):
    return topotrain.fit(overrides=[*graph_set.overrides, *RECIPE, *overrides], tracking_uri=uri, **options)


def checkpoint(uri: str, run_id: str, name: str, folder: Path) -> dict[str, Any]:
    return read_checkpoint(fetch_artifact(mlflow_client(uri), run_id, f"checkpoints/{name}", folder / run_id))


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def points(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every point of every metric, doubled ones too; seconds are those of the clock."""
    client = mlflow_client(uri)
    names = set(client.get_run(run_id).data.metrics) - {EPOCH_SECONDS}
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name)) for name in names
    }


def assert_same(uri: str, straight: str, resumed: str, folder: Path) -> None:
    """Weights, optimiser, scheduler, selection and points are equal to the last bit."""
    one, other = (checkpoint(uri, run_id, "last.ckpt", folder) for run_id in (straight, resumed))
    assert same_tensors(one["state_dict"], other["state_dict"])
    left, right = (content["optimizer_states"][0]["state"] for content in (one, other))
    assert all(torch.equal(left[p][k], right[p][k]) for p in left for k in ("exp_avg", "exp_avg_sq"))
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert one["optimizer_states"][0]["param_groups"] == other["optimizer_states"][0]["param_groups"]
    assert points(uri, straight) == points(uri, resumed)
    client = mlflow_client(uri)
    seconds = metric_history(client, resumed, EPOCH_SECONDS)
    assert len(seconds) == len(client.get_metric_history(resumed, EPOCH_SECONDS)) == one["epoch"] + 1
    assert artifact_names(client, straight, "checkpoints") == artifact_names(client, resumed, "checkpoints")
    kept = [
        [(k["epoch"], k["val_loss"]) for k in artifact_json(client, run, "checkpoints/kept.json")]
        for run in (straight, resumed)
    ]
    assert kept[0] == kept[1]
    tags = [client.get_run(run).data.tags for run in (straight, resumed)]
    assert tags[0][TAG_BEST_EPOCH] == tags[1][TAG_BEST_EPOCH]


@pytest.fixture(scope="module")
def straight(_empty_store, tmp_path_factory):
    """A run that nothing interrupted, in a store that the tests of this module share."""
    import shutil

    root = tmp_path_factory.mktemp("straight")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    write_graph_set(root / "set")
    graph_set, uri = GraphSet(root / "set"), f"sqlite:///{root / 'mlflow.db'}"
    here = os.getcwd()
    os.chdir(root)
    try:
        yield graph_set, uri, train(graph_set, uri, run_name="straight")
    finally:
        os.chdir(here)


class _Killed(BaseException):
    pass


def cut_off(graph_set, uri, monkeypatch, where: str, epoch: int, *overrides: str, with_disk: bool = True) -> str:
    """A run whose process is gone at this point of this epoch: nothing after it is recorded, not even its end."""
    real = getattr(Recorder, where)
    seen: dict[str, Any] = {}

    def dying(self, *args, **kwargs):
        seen["run"] = self.run_id
        step = kwargs.get("step")
        name = Path(args[0]).name if where == "checkpoint" else None
        if (where == "epoch" and step == epoch) or (where == "checkpoint" and name == f"epoch_{epoch:04d}.ckpt"):
            raise _Killed
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, where, dying)
        patch.setattr(TrainingRun, "_end", lambda self, *_, **__: die(self.recorder, with_disk=with_disk))
        with pytest.raises(_Killed):
            train(graph_set, uri, *overrides)
    assert mlflow_client(uri).get_run(seen["run"]).info.status == "RUNNING"
    return seen["run"]


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_cut_off_in_any_epoch_it_ends_with_the_same_bits(straight, monkeypatch, tmp_path, epoch):
    """The checkpoint of the epoch is there, its points are not: the worst moment."""
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", epoch)
    result = resume(run_id, tracking_uri=uri)
    assert result.run_id == run_id
    assert mlflow_client(uri).get_run(run_id).info.status == "FINISHED"
    assert_same(uri, reference.run_id, run_id, tmp_path)
    assert result.metrics[EPOCH_SECONDS] > 0
    assert {k: v for k, v in result.metrics.items() if k != EPOCH_SECONDS} == {
        k: v for k, v in reference.metrics.items() if k != EPOCH_SECONDS
    }


def test_cut_off_between_a_checkpoint_and_its_copy(straight, monkeypatch, tmp_path):
    """The kept copy of epoch 0 was never written; the last checkpoint is it."""
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "checkpoint", 0)
    assert artifact_names(mlflow_client(uri), run_id, "checkpoints") == {"last.ckpt"}
    resume(run_id, tracking_uri=uri)
    assert_same(uri, reference.run_id, run_id, tmp_path)


@pytest.mark.parametrize(
    "recipe",
    [
        ["trainer.accumulate_grad_batches=2"],
        ["early_stopping.patience=2"],
        ["selection.primary_metric=selection_metric", "dataloader.num_workers=1"],
    ],
)
def test_other_recipes_go_on_to_the_same_bits_too(straight, monkeypatch, tmp_path, recipe):
    graph_set, uri, _ = straight
    reference = train(graph_set, uri, *recipe)
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 1, *recipe)
    resume(run_id, tracking_uri=uri)
    assert_same(uri, reference.run_id, run_id, tmp_path)
    if recipe == ["early_stopping.patience=2"]:
        assert reference.epochs < EPOCHS


@pytest.mark.long
def test_a_killed_process_goes_on_through_the_command_line(straight, tmp_path, quick_python):
    """SIGKILL in the middle, twice, then the command that the run itself suggested."""
    graph_set, uri, _ = straight
    recipe = [*graph_set.overrides, *RECIPE, "trainer.num_epochs=30", "early_stopping.patience=40"]
    options = [part for override in recipe for part in ("--override", override)]
    reference = topotrain.fit(overrides=recipe, tracking_uri=uri)
    command = [sys.executable, "-m", "topotrain", "run", "--tracking-uri", uri, "--run-name", "plug pulled", *options]
    suggested = None
    for latest in (11, 22):  # epochs: it waits there for a kill that is late
        process = subprocess.Popen(
            suggested or command,
            **{"stderr": subprocess.PIPE, "text": True, "cwd": tmp_path},
            env=os.environ | pausing(f"epoch {latest}/"),
        )
        assert process.stderr is not None
        epochs = 0
        for line in process.stderr:
            if "to resume: topotrain" in line:
                suggested = [quick_python, "-m", *line.split("to resume: ")[1].split()]
            epochs += line.startswith("epoch ")
            if epochs == 4:
                os.kill(process.pid, signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL, line
    assert suggested is not None
    done = subprocess.run(suggested, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    assert mlflow_client(uri).get_run(run_id).info.run_name == "plug pulled"
    assert_same(uri, reference.run_id, run_id, tmp_path)
    again = subprocess.run(suggested, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert again.stderr == "run plug pulled is complete after 30 epochs; nothing is left to do\n"


def test_an_earlier_checkpoint_opens_a_new_run_with_the_history_up_to_there(straight, tmp_path):
    graph_set, uri, reference = straight
    client = mlflow_client(uri)
    before = points(uri, reference.run_id)
    assert reference.best_epoch < EPOCHS - 1
    result = resume("straight", checkpoint="best", tracking_uri=uri)
    assert isinstance(result, topotrain.TrainResult)
    assert result.run_id != reference.run_id
    run = client.get_run(result.run_id)
    assert run.data.tags[TAG_RESUMED_FROM] == run.data.tags["mlflow.parentRunId"] == reference.run_id
    assert run.data.tags[TAG_RESUMED_CHECKPOINT] == f"epoch_{reference.best_epoch:04d}.ckpt"
    assert run.data.tags["topotrain.command"] == "resume"
    original = client.get_run(reference.run_id)
    assert original.data.tags[TAG_CONTINUED_BY] == result.run_id
    assert points(uri, reference.run_id) == before
    # Nothing was changed, so the new run is the old one over again.
    assert points(uri, result.run_id) == before
    last = [checkpoint(uri, run_id, "last.ckpt", tmp_path) for run_id in (reference.run_id, result.run_id)]
    assert same_tensors(last[0]["state_dict"], last[1]["state_dict"])
    assert run.data.params == original.data.params
    assert artifact_names(client, result.run_id, "") >= {"config", "checkpoints", "feature_metadata.json", "figures"}


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_s_checkpoints_are_listed_once(straight, monkeypatch, which):
    graph_set, uri, _ = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 3)
    listed, real = [], MlflowClient.list_artifacts

    def list_artifacts(self, run_id, path=None):
        listed.append(path)
        return real(self, run_id, path)

    monkeypatch.setattr(MlflowClient, "list_artifacts", list_artifacts)
    resume(run_id, checkpoint=which, tracking_uri=uri)
    assert listed.count("checkpoints") == 1


def test_what_is_recorded_already_is_not_recorded_again(straight, monkeypatch):
    """Neither points nor checkpoints, but for those of the epochs that follow."""
    graph_set, uri, _ = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", EPOCHS - 1)
    written, real = [], Delivery._write

    def write(self, kept, artifact):
        written.append(Path(artifact).name)
        real(self, kept, artifact)

    monkeypatch.setattr(Delivery, "_write", write)
    resume(run_id, tracking_uri=uri)
    assert [name for name in written if not name.endswith(".png")] == ["kept.json"]


def test_a_file_and_a_name_stand_for_checkpoints_too(straight, tmp_path):
    graph_set, uri, reference = straight
    name = f"epoch_{reference.best_epoch:04d}.ckpt"
    path = fetch_artifact(mlflow_client(uri), reference.run_id, f"checkpoints/{name}", tmp_path)
    for given in (str(path), name, f"runs:/{reference.run_id}/checkpoints/{name}"):
        result = resume(reference.run_id, checkpoint=given, overrides=["trainer.num_epochs=3"], tracking_uri=uri)
        assert result.epochs == max(3, reference.best_epoch + 1)


def test_a_checkpoint_of_an_older_training_step_goes_on_and_says_what_that_means(straight, tmp_path, caplog):
    _, uri, reference = straight
    name = f"epoch_{reference.best_epoch:04d}.ckpt"
    path = fetch_artifact(mlflow_client(uri), reference.run_id, f"checkpoints/{name}", tmp_path)
    said = "of another topotrain (0.0.9)"
    assert resume(reference.run_id, checkpoint=str(path), tracking_uri=uri).epochs == EPOCHS
    assert said not in caplog.text
    content = torch.load(path, weights_only=True)
    del content["step"]
    content["topotrain_version"] = "0.0.9"
    for group in content["optimizer_states"][0]["param_groups"]:
        group["fused"] = None
    torch.save(content, path)
    assert resume(reference.run_id, checkpoint=str(path), tracking_uri=uri).epochs == EPOCHS
    assert caplog.text.count(said) == 1


def test_a_run_recorded_before_there_were_more_keys_goes_on_as_what_it_was(straight, monkeypatch, tmp_path):
    """Its recipe and its checkpoint lack them: network, loss and optimiser are those of then; nothing has drifted."""
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 2)
    client = mlflow_client(uri)
    artifacts = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    recipe, last = artifacts / CONFIG_ARTIFACT, artifacts / "checkpoints" / "last.ckpt"
    content, written = torch.load(last, weights_only=True), yaml.safe_load(recipe.read_text())
    for nested in (content["config"], written):
        for section, keys in SINCE.items():
            for key in keys:
                del nested[section][key]
        del nested["loss"]
    for key in ("contact_term", "derived_inputs", "pooled_inputs", "input_clamp", "decorrelated_inputs"):
        del content["model_hyperparameters"][key]
    torch.save(content, last)
    recipe.write_text(yaml.safe_dump(written))
    resume(run_id, tracking_uri=uri)
    assert_same(uri, reference.run_id, run_id, tmp_path)
    assert TAG_PARAM_DRIFT not in client.get_run(run_id).data.tags


@pytest.mark.parametrize(
    ("name", "said"),
    [("third_best", "has kept 2 checkpoints"), ("epoch_0099.ckpt", "no checkpoint"), ("nowhere.ckpt", "one of epoch_")],
)
def test_a_checkpoint_that_is_not_there(straight, name, said):
    _, uri, reference = straight
    with pytest.raises(TrackingError, match=said):
        resume(reference.run_id, checkpoint=name, tracking_uri=uri)


def test_a_checkpoint_that_can_not_be_read_names_the_way_out(straight, tmp_path):
    _, uri, reference = straight
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"half of")
    with pytest.raises(DataError, match="--checkpoint best"):
        resume(reference.run_id, checkpoint=str(broken), tracking_uri=uri)


def test_a_checkpoint_of_another_run_is_refused(straight, tmp_path):
    graph_set, uri, reference = straight
    other = train(graph_set, uri, "trainer.num_epochs=1")
    path = fetch_artifact(mlflow_client(uri), other.run_id, "checkpoints/last.ckpt", tmp_path)
    with pytest.raises(TrackingError, match=f"checkpoint of run {other.run_id}.*--resume-from"):
        resume(reference.run_id, checkpoint=str(path), tracking_uri=uri)


def test_kept_checkpoints_that_are_gone_are_no_longer_kept(straight, monkeypatch, tmp_path, caplog):
    """Somebody tidied the artifacts up; what is left is enough to go on with."""
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 4)
    from topotrain.tracking.store import Store

    client = mlflow_client(uri)
    store = Store.open(uri)
    recorder = reopen_run(store, hold_run(store, run_id))
    for name in artifact_names(client, run_id, "checkpoints") - {"last.ckpt"}:
        recorder.remove(f"checkpoints/{name}")
    die(recorder)
    assert artifact_names(client, run_id, "checkpoints") == {"last.ckpt"}
    result = resume(run_id, tracking_uri=uri)
    assert "no longer there" in caplog.text
    assert result.best_epoch >= 4
    assert points(uri, run_id)["val_loss"] == points(uri, reference.run_id)["val_loss"]


def test_overrides_win_and_counters_are_kept(straight, monkeypatch, tmp_path, caplog):
    graph_set, uri, _ = straight
    # Of this seed the first epoch is the best of the first four, so that every counter has counted.
    patience = ("scheduler.patience=50", "early_stopping.patience=50")
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 2, "seed=2", *patience)
    stored = checkpoint(uri, run_id, "last.ckpt", tmp_path / "before")
    assert (stored["selection"]["waited"], stored["lr_schedulers"][0]["num_bad_epochs"]) == (2, 2)
    caplog.clear()
    changes = {
        "optimizer.learning_rate": "0.003",
        "scheduler.factor": "0.5",
        "scheduler.patience": "1",
        "early_stopping.patience": "9",
        "trainer.num_epochs": "4",
    }
    result = resume(run_id, overrides=[f"{k}={v}" for k, v in changes.items()], tracking_uri=uri)
    assert result.run_id == run_id
    assert result.epochs == 4
    client = mlflow_client(uri)
    rates = metric_history(client, run_id, "learning_rate")
    assert [rates[0], rates[1], rates[2], rates[3]] == [0.01, 0.01, 0.01, 0.003]
    drift = json.loads(client.get_run(run_id).data.tags[TAG_PARAM_DRIFT])
    assert {one["key"]: one["to"] for one in drift} == changes
    assert {one["epoch"] for one in drift} == {3}
    for key, value in changes.items():
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"{key}: ")]
        assert len(lines) == 1
        assert f"-> {value}" in lines[0]
    now = checkpoint(uri, run_id, "last.ckpt", tmp_path / "after")
    scheduler = now["lr_schedulers"][0]
    assert (scheduler["factor"], scheduler["patience"]) == (0.5, 1)
    assert scheduler["last_epoch"] == stored["lr_schedulers"][0]["last_epoch"] + 1  # a counter, not a setting
    assert scheduler["best"] == stored["lr_schedulers"][0]["best"]
    assert now["selection"]["waited"] == 3
    # The next resume stands on what was changed, and needs no override again.
    more = resume(run_id, overrides=["trainer.num_epochs=5"], tracking_uri=uri)
    # Three bad epochs are more than the new patience of one; had the counter begun anew, it would not have run out.
    assert metric_history(client, run_id, "learning_rate")[4] == pytest.approx(0.003 * 0.5)
    assert more.epochs == 5
    assert len(json.loads(client.get_run(run_id).data.tags[TAG_PARAM_DRIFT])) == len(changes) + 1


def test_a_rate_that_is_asked_for_wins_over_the_schedulers_even_where_it_is_the_configured_one(
    straight, monkeypatch, caplog
):
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 4)
    client = mlflow_client(uri)
    lowered = metric_history(client, reference.run_id, "learning_rate")[5]
    assert lowered < 0.01  # the configured rate
    caplog.clear()
    resume(run_id, overrides=["optimizer.learning_rate=0.01"], tracking_uri=uri)
    assert metric_history(client, run_id, "learning_rate")[5] == 0.01
    (drift,) = json.loads(client.get_run(run_id).data.tags[TAG_PARAM_DRIFT])
    assert (drift["key"], drift["from"], drift["to"]) == ("optimizer.learning_rate", json.dumps(lowered), "0.01")
    told = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("epoch ")]
    assert told == ["5/6", "6/6"]  # what was told before is not told again


def test_a_cosine_is_that_of_the_recipe_of_today_and_goes_on_from_no_rate(straight, monkeypatch, tmp_path):
    """Three steps an epoch: with as many epochs it is cut off without a trace, with another number it is another."""
    graph_set, uri, _ = straight
    client = mlflow_client(uri)
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 2, *RANKING)
    assert checkpoint(uri, run_id, "last.ckpt", tmp_path)["lr_schedulers"] == []
    resume(run_id, overrides=["optimizer.learning_rate=0.01"], tracking_uri=uri)
    assert_same(uri, train(graph_set, uri, *RANKING).run_id, run_id, tmp_path / "ended")
    assert TAG_PARAM_DRIFT not in client.get_run(run_id).data.tags, "it is the configured rate"
    resume(run_id, overrides=["trainer.num_epochs=10", "optimizer.learning_rate=0.02"], tracking_uri=uri)
    rates = metric_history(client, run_id, "learning_rate")

    def cosine(epoch: int, epochs: int, rate: float) -> Any:
        return pytest.approx(rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * (1 if epoch else 1 / 2))

    assert [rates[epoch] for epoch in range(EPOCHS)] == [cosine(epoch, EPOCHS, 0.01) for epoch in range(EPOCHS)]
    assert [rates[epoch] for epoch in (7, 8, 9)] == [cosine(epoch, 10, 0.02) for epoch in (7, 8, 9)]


def test_another_scheduler_takes_over_and_another_optimiser_is_refused(straight):
    graph_set, uri, reference = straight
    done = train(graph_set, uri, "trainer.num_epochs=2")
    with pytest.raises(ConfigError, match=r"optimizer\.type is adamw, and the checkpoint's is adam"):
        resume(done.run_id, overrides=["trainer.num_epochs=4", "optimizer.type=adamw"], tracking_uri=uri)
    resume(done.run_id, overrides=["trainer.num_epochs=4", "scheduler.type=cosine"], tracking_uri=uri)
    resume(done.run_id, overrides=["trainer.num_epochs=5", "scheduler.type=reduce_on_plateau"], tracking_uri=uri)
    rates = metric_history(mlflow_client(uri), done.run_id, "learning_rate")
    cosine = [0.01 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in (6, 9, 11)]
    assert [rates[2], rates[3], rates[4]] == pytest.approx(cosine), "from where the cosine had come to"


def test_a_finished_run_can_be_given_more_epochs(straight, tmp_path):
    graph_set, uri, reference = straight
    short = train(graph_set, uri, "trainer.num_epochs=3")
    assert isinstance(resume(short.run_id, tracking_uri=uri), AlreadyComplete)
    longer = resume(short.run_id, overrides=[f"trainer.num_epochs={EPOCHS}"], tracking_uri=uri)
    assert longer.run_id == short.run_id
    assert_same(uri, reference.run_id, short.run_id, tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.hidden_dim=16", "hidden_dim is 32 in the checkpoint and 16 here"),
        ("model.attention_head=2", "attention_head is 8 in the checkpoint and 2 here"),
        ("model.pooling_type=add", "pooling_type is mean in the checkpoint and add here"),
        ("optimizer.learning_rat=1", "did you mean"),
    ],
)
def test_an_override_that_changes_the_shape_is_refused(straight, override, said):
    _, uri, reference = straight
    with pytest.raises(ConfigError, match=said):
        resume(reference.run_id, overrides=["trainer.num_epochs=9", override], tracking_uri=uri)
    assert mlflow_client(uri).get_run(reference.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("override", ["model.hidden_dim=16", "edge_schema.use_layer_norm=false"])
def test_another_shape_is_refused_of_a_complete_run_too(straight, override):
    _, uri, reference = straight
    with pytest.raises(ConfigError, match=r"another shape: \w+ is \w+ in the checkpoint and \w+ here"):
        resume(reference.run_id, overrides=[override], tracking_uri=uri)


def test_a_change_is_told_once_however_often_the_run_is_cut_off_after_it(straight, monkeypatch):
    graph_set, uri, _ = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 2)
    with monkeypatch.context() as patch:  # cut off again, before an epoch has ended

        def fail(*_: Any) -> None:
            raise RuntimeError("out of memory")

        patch.setattr("topotrain.training.training_run.TrainingRun._train", fail)
        with pytest.raises(RuntimeError):
            resume(run_id, overrides=["optimizer.learning_rate=0.003"], tracking_uri=uri)
    resume(run_id, tracking_uri=uri)
    drift = json.loads(mlflow_client(uri).get_run(run_id).data.tags[TAG_PARAM_DRIFT])
    assert drift == [{"epoch": 3, "key": "optimizer.learning_rate", "from": "0.01", "to": "0.003"}]
    assert metric_history(mlflow_client(uri), run_id, "learning_rate")[3] == 0.003


def test_many_changes_stay_readable():
    tag = "[]"
    for epoch in range(40):  # between two machines, to and fro
        moved = {"epoch": epoch, "key": "paths.graph", "from": f"/{'a' * 150}", "to": f"/{'b' * 150}"}
        tag = drift_tag(tag, [moved])
    assert len(tag) <= 8000
    assert json.loads(tag)[-1] == moved
    assert json.loads(drift_tag(f"{tag[:7990]} ... (cut)", [moved])) == [moved]


def test_other_graphs_are_refused_with_both_sides(straight, make_graph_set):
    _, uri, reference = straight
    more = ["trainer.num_epochs=9"]

    def given(other: Any) -> list[str]:
        return [o for o in other.overrides if o.startswith("paths.")] + more

    wider = make_graph_set("wider", edge_dim=4)
    with pytest.raises(SchemaError, match=r"edge dim: 3 against 4.*unexpected \[\"e3\"\]"):
        resume(reference.run_id, overrides=given(wider), tracking_uri=uri)
    other = make_graph_set("other", seed=5)
    with pytest.raises(DataError, match=r"data.digest [0-9a-f]{12}, the checkpoint's have [0-9a-f]{12}"):
        resume(reference.run_id, overrides=given(other), tracking_uri=uri)
    same = make_graph_set("moved")
    assert resume(reference.run_id, overrides=given(same), checkpoint="best", tracking_uri=uri).epochs == 9


def test_a_run_that_is_alive_is_left_alone_unless_forced(straight, monkeypatch):
    from topotrain.tracking.heartbeat import sign_of_life

    graph_set, uri, _ = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 1)
    mlflow_client(uri).set_tag(run_id, "topotrain.heartbeat", json.dumps(sign_of_life()))
    with pytest.raises(TrackingError, match="still being trained.*--force"):
        resume(run_id, tracking_uri=uri)
    assert resume(run_id, force=True, tracking_uri=uri).epochs == EPOCHS


def test_a_run_without_a_checkpoint(graph_set, store_uri):
    with pytest.raises(TrackingError, match="no training run"):
        resume(tracking_uri=store_uri)
    with pytest.raises(DataError):
        topotrain.fit(
            overrides=["paths.graph=nowhere", "paths.train_labels=a", "paths.val_labels=b"], tracking_uri=store_uri
        )
    with pytest.raises(TrackingError, match="no checkpoint yet.*topotrain run"):
        resume(tracking_uri=store_uri)


def test_under_mlflow_run_the_run_made_for_it_becomes_the_continuation(straight, monkeypatch, tmp_path):
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 3)
    client = mlflow_client(uri)
    before = points(uri, run_id)
    made = client.create_run(client.get_run(run_id).info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = resume(run_id)
    assert result.run_id == made
    tags = client.get_run(made).data.tags
    assert tags[TAG_RESUMED_FROM] == tags["mlflow.parentRunId"] == run_id
    assert client.get_run(run_id).data.tags[TAG_CONTINUED_BY] == made
    assert points(uri, run_id) == before
    assert_same(uri, reference.run_id, made, tmp_path)


def test_mlflow_run_with_a_run_id_goes_on_with_that_run(straight, monkeypatch, tmp_path):
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "epoch", 2)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert resume().run_id == run_id
    assert "MLFLOW_RUN_ID" not in os.environ
    assert_same(uri, reference.run_id, run_id, tmp_path)


def test_mlflow_run_with_a_run_id_and_an_earlier_checkpoint_opens_a_new_run(straight, monkeypatch):
    _, uri, reference = straight
    before = points(uri, reference.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", reference.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    first = artifact_json(mlflow_client(uri), reference.run_id, "checkpoints/kept.json")[-1]
    assert first["epoch"] < EPOCHS - 1
    result = resume(checkpoint=first["file"])
    assert result.run_id != reference.run_id
    assert mlflow_client(uri).get_run(result.run_id).data.tags[TAG_RESUMED_FROM] == reference.run_id
    assert points(uri, reference.run_id) == before
    assert "MLFLOW_RUN_ID" not in os.environ


def test_versions_of_both_parts_are_ranked_together(graph_set, store_uri):
    recipe = [*graph_set.overrides, "checkpoints.keep=2", "optimizer.learning_rate=0.002"]
    first = topotrain.fit(overrides=[*recipe, "trainer.num_epochs=2"], tracking_uri=store_uri)
    result = resume(first.run_id, overrides=["trainer.num_epochs=5"], tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    versions = {v.version: v.tags for v in client.search_model_versions("name = 'topoqa'")}
    ranked = {tags["rank"]: (number, tags["epoch"]) for number, tags in versions.items()}
    assert ranked.pop("not kept")
    kept = artifact_json(client, result.run_id, "checkpoints/kept.json")
    assert {rank: epoch for rank, (_, epoch) in ranked.items()} == {str(k["rank"]): str(k["epoch"]) for k in kept}
    assert len({tags["epoch"] for tags in versions.values()}) == len(versions)  # none is registered twice
    best = client.get_model_version_by_alias("topoqa", "candidate").version
    assert str(best) == str(ranked["1"][0]) == result.model_versions[0]


def test_a_batch_keeps_the_alias_to_itself(graph_set, store_uri, monkeypatch):
    first = topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1"], tracking_uri=store_uri)
    monkeypatch.setenv("TOPOTRAIN_SERVES", str(os.getpid()))
    arguments = ("--run-id", first.run_id, "--override", "trainer.num_epochs=3", "--tracking-uri", store_uri)
    done = subprocess.run([sys.executable, "-m", "topotrain", "resume", *arguments], check=False)  # a process of ours
    assert done.returncode == 0
    client = mlflow_client(store_uri)
    assert len(client.search_model_versions("name='topoqa'")) == 3
    best = client.get_run(first.run_id).data.tags[TAG_BEST_CHECKPOINT]
    assert best != "checkpoints/epoch_0000.ckpt", "there is a better one"
    assert str(client.get_model_version_by_alias("topoqa", "candidate").version) == first.model_versions[0]


def test_fine_tuning_begins_with_the_weights_and_keeps_its_own_recipe(straight, make_graph_set, tmp_path):
    graph_set, uri, reference = straight
    other = make_graph_set("other", seed=7)
    source = f"runs:/{reference.run_id}/checkpoints/last.ckpt"
    still = [
        *PUBLISHED,
        "optimizer.learning_rate=1e-12",
        "optimizer.weight_decay=0",
        "trainer.num_epochs=1",
        "mlflow.register=none",
    ]
    result = topotrain.fit(overrides=[*other.overrides, *still], resume_from=source, tracking_uri=uri)
    weights = [checkpoint(uri, r, "last.ckpt", tmp_path)["state_dict"] for r in (reference.run_id, result.run_id)]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-9) for name in weights[0])  # scaling too
    run = mlflow_client(uri).get_run(result.run_id)
    assert run.data.tags[TAG_RESUMED_FROM] == reference.run_id
    assert run.data.tags[TAG_RESUMED_CHECKPOINT] == source
    assert run.data.tags["topotrain.command"] == "run"
    assert run.data.params["optimizer.learning_rate"] == "1e-12"
    assert list(metric_history(mlflow_client(uri), result.run_id, "val_loss")) == [0]
    path = fetch_artifact(mlflow_client(uri), reference.run_id, "checkpoints/last.ckpt", tmp_path / "file")
    again = topotrain.fit(overrides=[*other.overrides, *still], resume_from=str(path), tracking_uri=uri)
    assert again.metrics["val_loss"] == result.metrics["val_loss"]


def test_fine_tuning_drops_out_as_its_own_configuration_says(straight, tmp_path):
    graph_set, uri, reference = straight
    source = f"runs:/{reference.run_id}/checkpoints/last.ckpt"
    rates = (0.25, 0.6)
    runs = [
        train(graph_set, uri, "trainer.num_epochs=1", f"model.dropout={rate}", resume_from=source) for rate in rates
    ]
    files = [checkpoint(uri, run.run_id, "last.ckpt", tmp_path) for run in runs]
    assert tuple(content["model_hyperparameters"]["dropout"] for content in files) == rates
    assert runs[0].metrics["train_mse"] != runs[1].metrics["train_mse"]


def test_fine_tuning_from_a_model_version(graph_set, store_uri):
    first = topotrain.fit(overrides=graph_set.overrides, tracking_uri=store_uri)
    source = "models:/topoqa@candidate"
    second = topotrain.fit(overrides=[*graph_set.overrides, QUIET], resume_from=source, tracking_uri=store_uri)
    tags = mlflow_client(store_uri).get_run(second.run_id).data.tags
    assert (tags[TAG_RESUMED_FROM], tags[TAG_RESUMED_CHECKPOINT]) == (first.run_id, source)
    with pytest.raises(ConfigError, match="hidden_dim is 32 in the checkpoint and 8 here"):
        topotrain.fit(
            overrides=[*graph_set.overrides, "model.hidden_dim=8"], resume_from=source, tracking_uri=store_uri
        )
    with pytest.raises(TrackingError, match="can't be fetched"):
        topotrain.fit(overrides=graph_set.overrides, resume_from="models:/nobody@here", tracking_uri=store_uri)
    with pytest.raises(TrackingError, match="runs:/RUN_ID/checkpoints/NAME"):
        topotrain.fit(overrides=graph_set.overrides, resume_from="runs:/x", tracking_uri=store_uri)


def test_fine_tuning_on_other_features_names_the_columns(straight, make_graph_set):
    _, uri, reference = straight
    wider = make_graph_set("wider", node_dim=6)
    with pytest.raises(SchemaError, match=r"node dim: 5 against 6.*unexpected \[\"n5\"\]"):
        topotrain.fit(
            overrides=wider.overrides, resume_from=f"runs:/{reference.run_id}/checkpoints/last.ckpt", tracking_uri=uri
        )
