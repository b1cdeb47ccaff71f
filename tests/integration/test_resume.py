"""Runs that go on: the same bits and the same points as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import topotrain
from topotrain.errors import ConfigError, DataError, SchemaError, TrackingError
from topotrain.fields import (
    EPOCH_SECONDS,
    TAG_BEST_EPOCH,
    TAG_CONTINUED_BY,
    TAG_PARAM_DRIFT,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
)
from topotrain.tracking.search import artifact_json, artifact_names, fetch_artifact, metric_history
from topotrain.tracking.store import open_store
from topotrain.training.checkpoints import read_checkpoint
from topotrain.training.resume import NothingLeft, resume

EPOCHS = 7
# A rate and a patience that let scheduler and ranks move within few epochs.
RECIPE = [
    f"trainer.num_epochs={EPOCHS}",
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "checkpoints.keep=2",
    "mlflow.register=none",
]


def train(graph_set, uri: str, *overrides: str, **options: Any):
    return topotrain.fit(overrides=[*graph_set.overrides, *RECIPE, *overrides], tracking_uri=uri, **options)


def checkpoint(uri: str, run_id: str, name: str, folder: Path) -> dict[str, Any]:
    return read_checkpoint(fetch_artifact(open_store(uri), run_id, f"checkpoints/{name}", folder / run_id))


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def points(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every point of every metric, doubled ones too; seconds are those of the clock."""
    client = open_store(uri)
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
    client = open_store(uri)
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
    import importlib.util
    import shutil

    root = tmp_path_factory.mktemp("straight")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    spec = importlib.util.spec_from_file_location("_base", Path(__file__).resolve().parents[1] / "conftest.py")
    base = importlib.util.module_from_spec(spec)
    sys.modules["_base"] = base
    spec.loader.exec_module(base)
    base.write_graph_set(root / "set")
    graph_set, uri = base.GraphSet(root / "set"), f"sqlite:///{root / 'mlflow.db'}"
    here = os.getcwd()
    os.chdir(root)
    try:
        yield graph_set, uri, train(graph_set, uri, run_name="straight")
    finally:
        os.chdir(here)


class _Killed(BaseException):
    pass


def cut_off(graph_set, uri, monkeypatch, where: str, epoch: int, *overrides: str) -> str:
    """A run whose process is gone at this point of this epoch: nothing after it is recorded, not even its end."""
    from topotrain.tracking.recorder import Recorder

    real = getattr(Recorder, where)
    seen: dict[str, Any] = {}

    def dying(self, *args, **kwargs):
        seen["run"] = self.run_id
        step = kwargs.get("step")
        name = Path(args[0]).name if where == "file" else None
        if (where == "metrics" and step == epoch) or (where == "file" and name == f"epoch_{epoch:04d}.ckpt"):
            raise _Killed
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, where, dying)
        patch.setattr(Recorder, "close", lambda self, *a: self._heartbeat.stop())
        with pytest.raises(_Killed):
            train(graph_set, uri, *overrides)
    client = open_store(uri)
    client.delete_tag(seen["run"], "topotrain.heartbeat")
    # The process that began it is this one, which is alive: make the run as old as a dead one.
    client.set_tag(
        seen["run"],
        "topotrain.heartbeat",
        json.dumps({"host": "gone", "pid": 1, "process_start": 0, "time": "2020-01-01T00:00:00+00:00"}),
    )
    assert client.get_run(seen["run"]).info.status == "RUNNING"
    return seen["run"]


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_cut_off_in_any_epoch_it_ends_with_the_same_bits(straight, monkeypatch, tmp_path, epoch):
    """The checkpoint of the epoch is there, its points are not: the worst moment."""
    graph_set, uri, reference = straight
    run_id = cut_off(graph_set, uri, monkeypatch, "metrics", epoch)
    result = resume(run_id, tracking_uri=uri)
    assert result.run_id == run_id
    assert open_store(uri).get_run(run_id).info.status == "FINISHED"
    assert_same(uri, reference.run_id, run_id, tmp_path)
    assert result.metrics[EPOCH_SECONDS] > 0
    assert {k: v for k, v in result.metrics.items() if k != EPOCH_SECONDS} == {
        k: v for k, v in reference.metrics.items() if k != EPOCH_SECONDS
    }
