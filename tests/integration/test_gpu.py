"""Training on a CUDA device: the same function as on the CPU, the same bits every time, and runs that go on."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import topotrain
from kit.recorded import fetch_artifact, mlflow_client
from topotrain.data.prepare import prepare_data
from topotrain.errors import ConfigError
from topotrain.fields import EPOCH_SECONDS
from topotrain.model.checkpoint import load_network, read_checkpoint
from topotrain.training.resume import resume

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.long,
]
EPOCHS = 6
RECIPE = [
    "trainer.accelerator=gpu",
    f"trainer.num_epochs={EPOCHS}",
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "early_stopping.patience=99",
]


def train(graph_set, uri: str, *overrides: str) -> Any:
    return topotrain.fit(overrides=[*graph_set.overrides, *RECIPE, *overrides], tracking_uri=uri)


def last_checkpoint(uri: str, run_id: str, folder: Path) -> Path:
    return fetch_artifact(mlflow_client(uri), run_id, "checkpoints/last.ckpt", folder / run_id)


def points(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = mlflow_client(uri)
    names = set(client.get_run(run_id).data.metrics) - {EPOCH_SECONDS}
    return {name: sorted((p.step, p.value) for p in client.get_metric_history(run_id, name)) for name in names}


def assert_same(uri: str, first: str, second: str, folder: Path) -> None:
    """Weights, optimiser and points are equal to the last bit."""
    one, other = (read_checkpoint(last_checkpoint(uri, run, folder)) for run in (first, second))
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    left, right = (content["optimizer_states"][0]["state"] for content in (one, other))
    assert left and all(torch.equal(left[p][k], right[p][k]) for p in left for k in left[p])
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert points(uri, first) == points(uri, second)


@pytest.mark.parametrize(
    "recipe",
    [
        [],
        ["model.pooling_type=max"],
        ["model.pooling_type=add", "dataloader.num_workers=1"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-mixed", "model.pooling_type=max"],
        ["trainer.precision=16-mixed"],
    ],
)
def test_two_runs_are_equal_to_the_last_bit(graph_set, store_uri, tmp_path, recipe):
    first, second = (train(graph_set, store_uri, *recipe) for _ in range(2))
    assert_same(store_uri, first.run_id, second.run_id, tmp_path)
    losses = [loss for _, loss in points(store_uri, first.run_id)["train_mse"]]
    assert min(losses) < losses[0], "it has to learn something"


@pytest.mark.parametrize(("precision", "within"), [("32", 1e-4), ("bf16-mixed", 0.02)])
def test_the_curve_is_the_cpu_s(graph_set, store_uri, precision, within):
    """Without dropout, whose draws differ between devices."""
    recipe = ["model.dropout=0", "optimizer.learning_rate=0.001"]
    on_cpu = train(graph_set, store_uri, *recipe, "trainer.accelerator=cpu")
    on_gpu = train(graph_set, store_uri, *recipe, f"trainer.precision={precision}")
    expected, found = (points(store_uri, run.run_id) for run in (on_cpu, on_gpu))
    for name in ("train_mse", "val_loss"):
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected[name]], rel=within)


def cut_off(graph_set, uri: str, folder: Path, signum: int, *overrides: str) -> int:
    """The exit status of a run whose process gets a signal in the third epoch."""
    options = [part for one in (*graph_set.overrides, *RECIPE, *overrides) for part in ("--override", one)]
    process = subprocess.Popen(
        [sys.executable, "-m", "topotrain", "run", "--tracking-uri", uri, *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/") and "step" in line:
            os.kill(process.pid, signum)
            break
    process.stderr.read()
    return process.wait()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(graph_set, store_uri, tmp_path, precision, signum, status):
    """From its last epoch, or from the step at which it was stopped."""
    recipe = [f"trainer.precision={precision}", "logging.log_every_n_steps=1"]
    straight = train(graph_set, store_uri, *recipe)
    assert cut_off(graph_set, store_uri, tmp_path, signum, *recipe) == status
    resumed = resume("latest", tracking_uri=store_uri)
    assert resumed.run_id != straight.run_id
    assert_same(store_uri, straight.run_id, resumed.run_id, tmp_path)


@pytest.mark.parametrize(("first", "then"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_run_goes_on_on_the_other_device(graph_set, store_uri, tmp_path, first, then):
    begun = train(graph_set, store_uri, f"trainer.accelerator={first}", "trainer.num_epochs=3")
    more = [f"trainer.accelerator={then}", f"trainer.num_epochs={EPOCHS}"]
    resumed = resume(begun.run_id, overrides=more, tracking_uri=store_uri)
    assert resumed.epochs == EPOCHS
    assert [step for step, _ in points(store_uri, resumed.run_id)["val_loss"]] == list(range(EPOCHS))


def test_scores_are_those_of_the_training_device(graph_set, store_uri, tmp_path):
    run = train(graph_set, store_uri)
    table = tmp_path / "scores.csv"
    topotrain.predict("models:/topoqa@candidate", graph_set.graphs, table, tracking_uri=store_uri)
    best = f"checkpoints/{run.best_checkpoint.rpartition('/')[2]}"
    network, _ = load_network(fetch_artifact(mlflow_client(store_uri), run.run_id, best, tmp_path / "best"))
    data = prepare_data(topotrain.load_config(None, graph_set.overrides).config).module.val
    batch, network = data.batch(range(len(data))).to("cuda"), network.to("cuda")
    with torch.no_grad():
        found = network(
            *(batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs), layout=batch.layout
        )
    with table.open(newline="") as file:
        scores = {row["MODEL"]: float(row["PRED_DOCKQ"]) for row in csv.DictReader(file)}
    assert found.tolist() == pytest.approx([scores[key] for key in data.keys], abs=2e-6)
    judged = topotrain.evaluate(
        model="models:/topoqa@candidate",
        graphs=str(graph_set.graphs),
        labels=str(graph_set.val_labels),
        tracking_uri=store_uri,
    )
    assert judged.reports


def test_too_little_memory_is_one_line(graph_set, store_uri):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        with pytest.raises(ConfigError, match=r"memory.*lower dataloader.batch_size \(now 4\)"):
            train(graph_set, store_uri)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no CUDA device beside another")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_two_devices_train_together(graph_set, store_uri, tmp_path, precision):
    recipe = ["trainer.devices=2", f"trainer.precision={precision}"]
    first, second = (train(graph_set, store_uri, *recipe) for _ in range(2))
    assert_same(store_uri, first.run_id, second.run_id, tmp_path)
    alike = [*recipe, "model.dropout=0", "optimizer.learning_rate=0.001"]
    one, two = (train(graph_set, store_uri, *alike, f"trainer.devices={number}") for number in (1, 2))
    expected, found = (points(store_uri, run.run_id)["val_loss"] for run in (one, two))
    within = 1e-4 if precision == "32" else 0.02
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=within)


def test_more_devices_than_there_are_is_one_line(graph_set, store_uri):
    with pytest.raises(ConfigError, match="trainer"):
        train(graph_set, store_uri, f"trainer.devices={torch.cuda.device_count() + 1}")
