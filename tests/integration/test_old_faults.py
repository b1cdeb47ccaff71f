"""Faults of the older training stack, each with a test that would see it come back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import topotrain
from kit.recorded import artifact_json, fetch_artifact, metric_history, mlflow_client
from kit.waiting import PATIENCE
from topotrain.config import load_config
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.prepare import prepare_data
from topotrain.fields import LEARNING_RATE, SELECTION_METRIC, TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN
from topotrain.model.checkpoint import load_network, read_checkpoint
from topotrain.model.lightning import ScoringModule
from topotrain.model.network import TopoQANetwork
from topotrain.reports.summarise import summarise
from topotrain.training.network_shape import network_spec
from topotrain.training.resume import resume

QUIET = "mlflow.register=none"


def curve(result: topotrain.TrainResult, name: str) -> dict[int, float]:
    return metric_history(mlflow_client(result.tracking_uri), result.run_id, name)


def checkpoint(result: topotrain.TrainResult, name: str, folder: Path) -> Path:
    return fetch_artifact(mlflow_client(result.tracking_uri), result.run_id, f"checkpoints/{name}", folder)


def squared_errors(network: TopoQANetwork, store: PackedGraphs) -> list[float]:
    """Of each graph, scored alone."""
    errors = []
    for index in range(len(store)):
        batch = store.batch([index])
        with torch.no_grad():
            predicted = network(batch.x, batch.edge_index, batch.edge_attr, batch.batch, 1, batch.layout)
        errors.append(float((predicted - batch.y) ** 2))
    return errors


@pytest.fixture
def uneven(make_graph_set: Any, store_uri: str) -> tuple[topotrain.TrainResult, list[str]]:
    """Nine graphs in batches of four, four and one; validated on what it learns, so that the run improves."""
    graph_set = make_graph_set(train_targets=3, val_targets=1, decoys=3)
    overrides = [*graph_set.overrides, f"paths.val_labels={graph_set.train_labels}", "model.dropout=0"]
    overrides += ["trainer.num_epochs=6", "optimizer.learning_rate=0.002", "checkpoints.keep=3"]
    overrides += ["selection.spearman_min_delta=-1"]  # so that every change of a correlation shows
    return topotrain.fit(overrides=[*overrides, QUIET], tracking_uri=store_uri), overrides


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_every_graph_of_a_batch_is_trained_on(graph_set: Any) -> None:
    """Once only the first graph of each batch was: the loss must move with every label of the batch."""
    config = load_config(None, graph_set.overrides).config
    data = prepare_data(config)
    module = ScoringModule(TopoQANetwork(network_spec(data.schema, config)), config, data.module.train, data.module.val)
    batch = data.module.train.batch(range(len(data.module.train)))
    assert batch.num_graphs == 12
    batch.y.requires_grad_(True)
    module.training_step(batch, 0).backward()
    assert batch.y.grad is not None
    assert (batch.y.grad != 0).all()


def test_every_graph_of_a_batch_is_validated(uneven: Any, tmp_path: Path) -> None:
    """Once only the first graph of each batch was."""
    result, overrides = uneven
    network, _ = load_network(checkpoint(result, "last.ckpt", tmp_path))
    errors = squared_errors(network, prepare_data(load_config(None, overrides).config).module.val)
    assert len(errors) == 9
    recorded = curve(result, VAL_LOSS)[result.epochs - 1]
    assert recorded == pytest.approx(mean(errors), rel=1e-5)
    assert recorded != pytest.approx(mean(errors[::4]), rel=1e-2), "the first of each batch alone"


def test_validation_figures_do_not_weight_small_batches_like_full_ones(uneven: Any, tmp_path: Path) -> None:
    """Once a metric was the mean over batches, so that the one graph of the last batch counted as much as four."""
    result, overrides = uneven
    network, _ = load_network(checkpoint(result, "last.ckpt", tmp_path))
    errors = squared_errors(network, prepare_data(load_config(None, overrides).config).module.val)
    by_batch = mean([mean(errors[:4]), mean(errors[4:8]), errors[8]])
    recorded = curve(result, VAL_LOSS)[result.epochs - 1]
    assert recorded == pytest.approx(mean(errors), rel=1e-5)
    assert by_batch != pytest.approx(mean(errors), rel=1e-2)


def test_the_selection_metric_is_of_its_own_epoch(uneven: Any) -> None:
    """Once it took the Spearman correlation of the epoch before."""
    losses, ranks, metrics = (curve(uneven[0], name) for name in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC))
    for epoch, value in metrics.items():
        assert value == pytest.approx(losses[epoch] - (ranks[epoch] + 1), abs=1e-12)
    late = {epoch: losses[epoch] - (ranks[epoch - 1] + 1) for epoch in metrics if epoch}
    assert any(abs(metrics[epoch] - value) > 1e-6 for epoch, value in late.items()), "a constant rank could not tell"


def test_best_is_the_best_and_not_the_oldest_that_was_kept(uneven: Any, tmp_path: Path) -> None:
    """Once best.ckpt pointed at the oldest of the top three."""
    result, _ = uneven
    losses = curve(result, VAL_LOSS)
    ranked = sorted(losses, key=lambda epoch: (losses[epoch], epoch))[:3]
    assert ranked[0] != min(ranked), "a run whose best epoch is its oldest kept one could not tell"
    client = mlflow_client(result.tracking_uri)
    kept = artifact_json(client, result.run_id, "checkpoints/kept.json")
    assert [one["epoch"] for one in kept] == ranked
    assert result.best_checkpoint.endswith(f"/epoch_{ranked[0]:04d}.ckpt")
    assert (
        summarise(result.run_id, tracking_uri=result.tracking_uri)["best_checkpoint"]["uri"] == result.best_checkpoint
    )
    stored = read_checkpoint(checkpoint(result, Path(result.best_checkpoint).name, tmp_path))
    assert stored["epoch"] == ranked[0], "the file holds the weights of the epoch that its name says"


def test_resuming_takes_the_learning_rate_and_the_patience_that_are_configured(graph_set: Any, store_uri: str) -> None:
    """Once both came back from the checkpoint, whatever the configuration said."""
    overrides = [*graph_set.overrides, "optimizer.learning_rate=0.01", "scheduler.type=reduce_on_plateau", QUIET]
    first = topotrain.fit(overrides=overrides, tracking_uri=store_uri)
    assert first.epochs == 2
    # At this rate no weight moves, so that no epoch is better than the last.
    changed = ["optimizer.learning_rate=1.0e-30", "early_stopping.patience=3", "trainer.num_epochs=20"]
    second = resume(first.run_id, overrides=changed, tracking_uri=store_uri)
    assert isinstance(second, topotrain.TrainResult)
    rates = curve(second, LEARNING_RATE)
    assert [rates[0], rates[1], rates[2]] == [0.01, 0.01, 1e-30]
    assert second.epochs == second.best_epoch + 1 + 3


def test_the_seed_is_used_and_not_only_recorded(graph_set: Any, store_uri: str, tmp_path: Path) -> None:
    """Once seed=777 was written down, and 222 trained with."""

    def run(*overrides: str, **options: Any) -> topotrain.TrainResult:
        """One epoch at a rate that moves no weight."""
        still = (*graph_set.overrides, "trainer.num_epochs=1", "optimizer.learning_rate=1.0e-30", QUIET)
        return topotrain.fit(overrides=[*still, *overrides], tracking_uri=store_uri, **options)

    def weights(result: topotrain.TrainResult) -> torch.Tensor:
        content = read_checkpoint(checkpoint(result, "last.ckpt", tmp_path / result.run_id))
        return content["state_dict"]["network.node_embedding.weight"]

    plain, other = run(), run("seed=777")
    client = mlflow_client(store_uri)
    recorded = [client.get_run(result.run_id).data.params["dataloader.seed"] for result in (plain, other)]
    assert recorded == ["222", "777"]
    assert not torch.equal(weights(plain), weights(other)), "initial weights"

    begin = plain.best_checkpoint
    one, two = run(resume_from=begin), run("seed=777", resume_from=begin)
    assert torch.equal(weights(one), weights(plain))
    assert torch.equal(weights(one), weights(two))
    assert curve(one, VAL_LOSS) == curve(two, VAL_LOSS)
    assert curve(one, TRAIN_MSE) != curve(two, TRAIN_MSE), "order and dropout of an epoch"


@pytest.mark.parametrize("continue_on_error", [True, False])
def test_a_batch_with_a_failure_does_not_exit_0(
    graph_set: Any,
    store_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quick_python: str,
    continue_on_error: bool,
) -> None:
    """Once it did."""
    from topotrain.cli import main

    monkeypatch.setattr(sys, "executable", quick_python)  # what the jobs are started with
    manifest = {
        "shared": {"overrides": dict(override.split("=", 1) for override in [*graph_set.overrides, QUIET])},
        "jobs": [{"name": "bad", "overrides": {"optimizer.learning_rate": 1e30}}, {"name": "good"}],
        "continue_on_error": continue_on_error,
    }
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(SystemExit) as stop:
        main(["batch", "--manifest", str(tmp_path / "manifest.yaml"), "--tracking-uri", store_uri])
    assert stop.value.code == 2, capsys.readouterr().err
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "bad" in error


def test_tags_do_not_turn_tracking_off(finished: Any) -> None:
    """Once a run with mlflow.tags in its configuration was not tracked at all."""
    run = finished.run
    assert run.data.tags["team"] == "docking"
    assert len(curve(finished.result, VAL_LOSS)) == finished.result.epochs
    assert run.data.params["schema.edge.dim"] == "3"


KILLED_AT_THE_FIRST_STEP = """
import os, signal
from topotrain.cli import main
from topotrain.model.lightning import ScoringModule
ScoringModule.training_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_feature_metadata_is_there_before_the_first_step(graph_set: Any, store_uri: str, quick_python: str) -> None:
    """Once it was written only when a run had ended well; now a run that is killed at its first step has it too."""
    command = [quick_python, "-c", KILLED_AT_THE_FIRST_STEP, "run", "--tracking-uri", store_uri]
    for override in graph_set.overrides:
        command += ["--override", override]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    client = mlflow_client(store_uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "RUNNING"
    assert not client.get_metric_history(run.info.run_id, TRAIN_MSE)
    schema = artifact_json(client, run.info.run_id, "feature_metadata.json")
    assert schema["edge_schema"]["dim"] == 3
    assert schema["digest"] == run.data.params["schema.digest"] == run.data.tags["topotrain.schema_digest"]
