"""Training runs: the same seed gives the same bits, metrics are exact, and every end leaves a closed run."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topotrain
from kit.graphs import NO_DROPOUT, PUBLISHED, RANKING
from kit.recorded import local_artifact, metric_history, mlflow_client
from kit.waiting import PATIENCE, wait_for
from topotrain.config import load_config, validate
from topotrain.data.prepare import prepare_data
from topotrain.errors import ConfigError, DataError, InterruptedRunError, SchemaError, TrainingError
from topotrain.fields import SELECTION_METRIC, TAG_STATUS_NOTE, TRAIN_MSE, VAL_LOSS, VAL_PEARSON, VAL_SPEARMAN
from topotrain.metrics.ranking import epoch_metrics
from topotrain.model.checkpoint import load_network, read_checkpoint
from topotrain.model.lightning import ScoringModule
from topotrain.tracking.store import Store
from topotrain.training.fit import Limits, TrainResult

QUIET = "mlflow.register=none"


def artifact(result: TrainResult, name: str) -> Path:
    run = mlflow_client(result.tracking_uri).get_run(result.run_id)
    found = local_artifact(run, name)
    assert found, f"{name} is not there"
    return Path(found)


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return read_checkpoint(artifact(result, "checkpoints/last.ckpt"))["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def history(result: TrainResult, name: str) -> dict[int, float]:
    return metric_history(mlflow_client(result.tracking_uri), result.run_id, name)


def the_run(uri: str) -> Any:
    """The only run of a store."""
    client = mlflow_client(uri)
    runs = list(client.search_runs([e.experiment_id for e in client.search_experiments()]))
    assert len(runs) == 1
    return runs[0]


def test_two_runs_give_the_same_bits_and_another_seed_gives_others(graph_set, store_uri):
    def run(*overrides: str) -> TrainResult:
        return topotrain.fit(overrides=[*graph_set.overrides, QUIET, *overrides], tracking_uri=store_uri)

    first = run()
    torch.manual_seed(99)  # whatever happened in the process before
    np.random.seed(5)
    second, other, worker = run(), run("seed=7"), run("dataloader.num_workers=1")
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))
    assert same(weights(first), weights(worker))
    for name in (TRAIN_MSE, VAL_LOSS, SELECTION_METRIC):
        assert history(first, name) == history(second, name) == history(worker, name)


@pytest.mark.parametrize(("batch_size", "pooling"), [(1, "max"), (3, "mean"), (64, "add")])
def test_epoch_metrics_are_those_of_the_whole_validation_set(make_graph_set, store_uri, batch_size, pooling):
    graph_set = make_graph_set(train_targets=2, val_targets=3, decoys=4)  # 12 graphs: 3 leaves none over, 64 is all
    overrides = [*graph_set.overrides, QUIET, f"dataloader.batch_size={batch_size}"]
    overrides += [f"model.pooling_type={pooling}"]
    result = topotrain.fit(overrides=overrides, tracking_uri=store_uri)
    network, _ = load_network(artifact(result, "checkpoints/last.ckpt"))
    assert network.spec.pooling_type == pooling
    store = prepare_data(load_config(None, overrides).config).module.val
    # In the run's own batches: new weights score nearly alike, and a correlation shows how they were rounded.
    batches = [store.batch(range(i, min(i + batch_size, len(store)))) for i in range(0, len(store), batch_size)]
    with torch.no_grad():
        parts = [network(b.x, b.edge_index, b.edge_attr, b.batch, b.num_graphs, b.layout) for b in batches]
    predicted = torch.cat(parts)
    expected, undefined = epoch_metrics(predicted.double().numpy(), store.y.double().numpy(), store.targets)
    assert undefined == []
    for name, value in expected.items():
        assert history(result, name)[result.epochs - 1] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_other_precisions_train_nearly_alike(graph_set, store_uri, precision):
    """Lightning turns batches into some of them, and PyG's layers take those that the chunks do not."""

    def loss(*overrides: str) -> float:
        extra = [*NO_DROPOUT, "trainer.num_epochs=1", QUIET, *overrides]
        return topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri).metrics[TRAIN_MSE]

    assert loss(f"trainer.precision={precision}") == pytest.approx(loss(), rel=1e-6 if precision == "64-true" else 0.05)


def test_selection_metric_is_of_the_same_epoch(finished):
    losses, ranks, metrics = (history(finished.result, n) for n in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC))
    assert len(set(ranks.values())) > 1, "equal correlations could not tell one epoch from the next"
    for epoch, value in metrics.items():
        assert value == pytest.approx(losses[epoch] - max(0.0, ranks[epoch]), abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.1 - 0.6),
        ({"spearman_weight": 0.5}, 0.1 - 0.3),
        ({"spearman_min_delta": 0.2}, 0.1 - 0.4),
        ({"spearman_min_delta": 0.7}, 0.1),  # never worse than val_loss
        ({"spearman_min_delta": -0.2, "spearman_weight": 2.0}, 0.1 - 1.6),
        ({"use_val_spearman": False}, 0.1),
    ],
)
def test_selection_metric_settings(settings, expected):
    assert validate({"selection": settings}).selection.metric(0.1, 0.6) == pytest.approx(expected, abs=1e-12)


def test_train_mse_counts_every_graph_once(make_graph_set, store_uri):
    """At a rate too small to learn anything and without dropout, it is the mean over the training set."""
    graph_set = make_graph_set(decoys=3)  # 9 training graphs: 4, 4 and 1
    extra = [*NO_DROPOUT, "dataloader.batches=random", "optimizer.learning_rate=1e-12", "trainer.num_epochs=1", QUIET]
    overrides = [*graph_set.overrides, *extra]
    result = topotrain.fit(overrides=overrides, tracking_uri=store_uri)
    network, _ = load_network(artifact(result, "checkpoints/last.ckpt"))
    store = prepare_data(load_config(None, overrides).config).module.train
    assert len(store) == 9
    batch = store.batch(range(9))
    with torch.no_grad():
        predicted = network(batch.x, batch.edge_index, batch.edge_attr, batch.batch, 9, batch.layout)
    errors = ((predicted - batch.y) ** 2).double()
    assert history(result, TRAIN_MSE)[0] == pytest.approx(float(errors.mean()), abs=1e-7)
    by_batch = errors[:8].mean() / 2 + errors[8] / 2  # what a mean over unequal batches could give
    assert abs(float(by_batch) - float(errors.mean())) > 1e-4


def test_accumulating_batches_steps_less_often(graph_set, store_uri):
    """12 graphs in batches of 4, accumulated over all 3 with the gradients averaged = one batch of 12."""
    extra = [*PUBLISHED, *NO_DROPOUT, "trainer.num_epochs=1", QUIET]

    def run(*overrides: str) -> dict[str, torch.Tensor]:
        return weights(topotrain.fit(overrides=[*graph_set.overrides, *extra, *overrides], tracking_uri=store_uri))

    accumulated = run("trainer.accumulate_grad_batches=3")
    whole = run("dataloader.batch_size=12")
    stepwise = run()
    # Adam's first step is one learning rate for every weight whose gradient is not tiny.
    rate = load_config().config.optimizer.learning_rate

    def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max(float((one[name] - other[name]).abs().median()) for name in one)

    assert largest_difference(accumulated, whole) < rate / 100
    assert largest_difference(stepwise, accumulated) > rate, "three steps go further than one"


def test_it_can_memorise(make_graph_set, store_uri):
    graph_set = make_graph_set(train_targets=1, val_targets=1, decoys=4)
    extra = [
        *("trainer.num_epochs=60", "model.dropout=0", "dataloader.batch_size=4", "optimizer.learning_rate=0.01"),
        *(f"paths.val_labels={graph_set.train_labels}", "early_stopping.patience=200", "checkpoints.keep=1", QUIET),
    ]
    result = topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri)
    curve = history(result, VAL_LOSS)
    assert curve[0] > 0.01
    assert result.metrics[VAL_LOSS] < 0.002
    assert result.metrics[VAL_SPEARMAN] > 0.95


def test_input_scaling_is_fitted_on_training_graphs_alone(finished):
    train = list(prepare_data(load_config(None, finished.graph_set.overrides).config).train.graphs())
    x, edge_attr = (torch.cat([getattr(graph, name) for graph in train]).double() for name in ("x", "edge_attr"))
    state = weights(finished.result)
    torch.testing.assert_close(state["network.node_scaling.mean"], x.mean(0).float())
    deviation = edge_attr.std(0, unbiased=False).float()
    torch.testing.assert_close(state["network.edge_scaling.scale"], deviation)


def test_input_scaling_and_layer_norm_are_choices(graph_set, store_uri):
    extra = ["trainer.num_epochs=1", "model.input_scaling=none", "edge_schema.use_layer_norm=false", QUIET]
    result = topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri)
    network, schema = load_network(artifact(result, "checkpoints/last.ckpt"))
    assert (network.node_scaling.mean == 0).all()
    assert (network.edge_scaling.scale == 1).all()
    assert not schema.use_layer_norm
    assert not any(isinstance(part, torch.nn.LayerNorm) for part in network.edge_encoder.modules())


def test_undefined_correlations_are_zero_with_one_warning(make_graph_set, store_uri, caplog):
    graph_set = make_graph_set(val_targets=1, decoys=1)
    result = topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=3", QUIET], tracking_uri=store_uri)
    assert history(result, VAL_SPEARMAN) == {0: 0.0, 1: 0.0, 2: 0.0}
    told = [record.getMessage() for record in caplog.records if "is undefined" in record.getMessage()]
    assert len(told) == 2
    assert sum(VAL_PEARSON in line for line in told) == 1


def test_early_stopping_and_the_scheduler(graph_set, store_uri):
    extra = [*PUBLISHED, "trainer.num_epochs=40", "early_stopping.patience=4", "scheduler.patience=1", QUIET]
    extra.append("optimizer.learning_rate=0.005")
    result = topotrain.fit(overrides=[*graph_set.overrides, *extra], tracking_uri=store_uri)
    curve = history(result, VAL_LOSS)
    assert result.best_epoch == min(curve, key=lambda epoch: (curve[epoch], epoch))
    assert result.epochs == len(curve) == result.best_epoch + 5 < 40
    # The rate of each epoch is what torch's scheduler makes of the losses before it.
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.4, patience=1)
    expected = {}
    for epoch, loss in curve.items():
        expected[epoch] = optimizer.param_groups[0]["lr"]
        scheduler.step(loss)
    assert history(result, "learning_rate") == expected
    assert len(set(expected.values())) > 1


def test_the_rate_of_a_cosine_is_that_of_its_formula_at_every_step(make_graph_set, store_uri, monkeypatch):
    """Five batches of a target each, accumulated by two: three steps an epoch, and a rise of an eighth of all."""
    graph_set = make_graph_set(train_targets=5, val_targets=1, decoys=2)
    rates, batches = [], []
    step, training_step = torch.optim.AdamW.step, ScoringModule.training_step

    def noted(self, closure=None):
        loss = step(self, closure)
        rates.append([group["lr"] for group in self.param_groups])
        return loss

    def seen(self, batch, batch_idx):
        batches.append(batch.index.tolist())
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr(ScoringModule, "training_step", seen)
    settings = ["trainer.num_epochs=8", "trainer.accumulate_grad_batches=2", "dataloader.batch_size=2"]
    settings += ["optimizer.learning_rate=0.01", "early_stopping.patience=9", QUIET]
    result = topotrain.fit(overrides=[*graph_set.overrides, *RANKING, *settings], tracking_uri=store_uri)
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * n / 24)) * min(1, (n + 1) / 3) for n in range(24)]
    assert rates == [[pytest.approx(rate)] * 2 for rate in expected]
    assert history(result, "learning_rate") == pytest.approx({epoch: expected[3 * epoch] for epoch in range(8)})
    epochs = [batches[first : first + 5] for first in range(0, 20, 5)]
    assert [sorted(map(sorted, epoch)) for epoch in epochs] == [[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]] * 4
    assert len({str(epoch) for epoch in epochs}) == 4, "another order at every epoch"


@pytest.mark.parametrize("recipe", [PUBLISHED, RANKING], ids=["published", "ranking"])
@pytest.mark.parametrize(
    "limits", [Limits(fast_dev_run=True), Limits(train_batches=1, val_batches=0.5)], ids=["fast_dev_run", "limits"]
)
def test_cut_short_runs_register_nothing(graph_set, store_uri, limits, recipe):
    result = topotrain.fit(overrides=[*graph_set.overrides, *recipe], limits=limits, tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    assert result.model_versions == []
    assert client.search_registered_models() == []
    assert client.search_logged_models([result.experiment_id]) == []
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert result.epochs == (1 if limits.fast_dev_run else 2)
    assert artifact(result, "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("limits", [Limits(train_batches=0.1), Limits(val_batches=0.1)])
def test_limits_that_leave_no_batch_are_the_user_s_error(graph_set, store_uri, limits):
    with pytest.raises(ConfigError, match="limit_"):
        topotrain.fit(overrides=graph_set.overrides, limits=limits, tracking_uri=store_uri)
    assert the_run(store_uri).info.status == "FAILED"


def test_a_loss_that_is_not_finite_stops_with_advice(graph_set, store_uri):
    with pytest.raises(TrainingError, match=r"loss is nan.*learning_rate"):
        topotrain.fit(overrides=[*graph_set.overrides, "optimizer.learning_rate=1e30"], tracking_uri=store_uri)
    run = the_run(store_uri)
    assert run.info.status == "FAILED"
    assert "TrainingError" in run.data.tags[TAG_STATUS_NOTE]
    assert "learning_rate" in run.data.tags[TAG_STATUS_NOTE]


def _truncated_graph(graph_set: Any) -> list[str]:
    path = next((graph_set.graphs / "V1").glob("*.pt"))
    path.write_bytes(path.read_bytes()[:200])
    return []


def _label_out_of_range(graph_set: Any) -> list[str]:
    graph_set.val_labels.write_text("MODEL,dockq\nV0/m0,1.5\n")
    return []


def _contradiction(graph_set: Any) -> list[str]:
    return ["edge_schema.dim=77"]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_truncated_graph, DataError),
        (_label_out_of_range, DataError),
        (_contradiction, SchemaError),
    ],
)
def test_bad_input_leaves_a_failed_run(graph_set, store_uri, spoil, error):
    overrides = [*graph_set.overrides, *spoil(graph_set)]
    with pytest.raises(error) as caught:
        topotrain.fit(overrides=overrides, tracking_uri=store_uri)
    run = the_run(store_uri)
    assert run.info.status == "FAILED"
    assert str(caught.value) in run.data.tags[TAG_STATUS_NOTE]


@pytest.mark.parametrize("tag", ["a!b", "n" * 300])
def test_a_tag_that_mlflow_refuses_leaves_no_running_run(graph_set, store_uri, tag):
    from topotrain.errors import TopotrainError

    config = {**load_config(None, graph_set.overrides).config.to_dict(), "mlflow": {"tags": {tag: "x"}}}
    with pytest.raises(TopotrainError, match="tags"):
        topotrain.fit(config, tracking_uri=store_uri)
    assert the_run(store_uri).info.status == "FAILED"


def test_a_fault_of_ours_is_closed_as_failed(graph_set, store_uri, monkeypatch):
    from topotrain.training import callbacks

    monkeypatch.setattr(callbacks, "write_kept_index", lambda selection, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        topotrain.fit(overrides=graph_set.overrides, tracking_uri=store_uri)
    assert the_run(store_uri).info.status == "FAILED"


def test_sigint_in_process_closes_as_killed_and_saves_models(graph_set, store_uri, monkeypatch):
    from topotrain.training.callbacks import EpochLines

    def interrupt(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EpochLines, "on_train_epoch_start", interrupt)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError) as stop:
        topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=9"], tracking_uri=store_uri)
    assert stop.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    run = the_run(store_uri)
    assert run.info.status == "KILLED"
    assert "signal 2" in run.data.tags[TAG_STATUS_NOTE]
    client = mlflow_client(store_uri)
    versions = client.search_model_versions("name = 'topoqa'")
    assert {version.tags["epoch"] for version in versions} == {"0", "1"}
    assert "candidate" not in client.get_registered_model("topoqa").aliases


def test_sigterm_of_the_program_exits_143(graph_set, store_uri):
    command = [sys.executable, "-m", "topotrain", "run", "--tracking-uri", store_uri]
    for override in [*graph_set.overrides, "trainer.num_epochs=100000", "early_stopping.patience=100000"]:
        command += ["--override", override]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if line.startswith("epoch 3/"):
                process.send_signal(signal.SIGTERM)
                break
        out, err = process.communicate()
    finally:
        timer.cancel()
    assert process.returncode == 143, "".join(lines) + err
    assert out == ""
    assert "Traceback" not in "".join(lines) + err
    assert err.strip().splitlines()[-1] == "error: interrupted by signal 15"
    run = the_run(store_uri)
    assert run.info.status == "KILLED"
    kept = json.loads(Path(local_artifact(run, "checkpoints/kept.json")).read_text())
    versions = mlflow_client(store_uri).search_model_versions("name = 'topoqa'")
    assert {version.tags["epoch"] for version in versions} == {str(one["epoch"]) for one in kept}
    assert {version.tags["rank"] for version in versions} == {"1", "2", "3"}


def test_training_outside_the_main_thread(graph_set, store_uri):
    """Signals are the main thread's business; fit works elsewhere all the same."""
    results: list[Any] = []

    def work() -> None:
        try:
            overrides = [*graph_set.overrides, "trainer.num_epochs=1", QUIET]
            results.append(topotrain.fit(overrides=overrides, tracking_uri=store_uri))
        except Exception as error:  # noqa: BLE001 (reported below)
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert isinstance(results[0], TrainResult), results


@pytest.mark.parametrize(("register", "count"), [("best", 1), ("none", 0)])
def test_what_is_registered(graph_set, store_uri, register, count):
    result = topotrain.fit(overrides=[*graph_set.overrides, f"mlflow.register={register}"], tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    assert len(result.model_versions) == count
    versions = client.search_model_versions("")
    assert len(versions) == count
    if count:
        assert versions[0].tags["epoch"] == str(result.best_epoch)
        assert str(client.get_model_version_by_alias("topoqa", "candidate").version) == result.model_versions[0]


def test_a_run_that_fails_does_not_become_the_candidate(graph_set, store_uri):
    client = mlflow_client(store_uri)
    first = topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1"], tracking_uri=store_uri)
    with pytest.raises(TrainingError):
        topotrain.fit(
            overrides=[*graph_set.overrides, "optimizer.learning_rate=1e30"],
            take_candidate="always",
            tracking_uri=store_uri,
        )
    assert client.get_model_version_by_alias("topoqa", "candidate").run_id == first.run_id


@pytest.mark.parametrize("name", ["o'neill.v2 (50 %)"])
def test_any_registered_name_that_mlflow_takes(graph_set, store_uri, name):
    config = load_config(None, [*graph_set.overrides, "trainer.num_epochs=1"]).config.to_dict()
    config["mlflow"] |= {"model_name": name, "register": "best"}
    result = topotrain.fit(config, tracking_uri=store_uri)
    client = mlflow_client(store_uri)
    assert str(client.get_model_version_by_alias(name, "candidate").version) == result.model_versions[0]


def test_the_result_says_what_the_server_says(finished):
    result = finished.result
    assert result.epochs == 5
    assert result.run_name == "the finished one"
    assert result.best_checkpoint == f"runs:/{result.run_id}/checkpoints/epoch_{result.best_epoch:04d}.ckpt"
    curve = history(result, VAL_LOSS)
    assert result.metrics[VAL_LOSS] == min(curve.values()) == curve[result.best_epoch]
    assert Store.open(finished.uri).runs.find("latest").run_id == result.run_id


def test_overrides_with_a_validated_configuration_are_refused(graph_set):
    with pytest.raises(ConfigError):
        topotrain.fit(load_config(None, graph_set.overrides), overrides=["seed=1"])


def test_nothing_is_left_behind(graph_set, store_uri, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path.name for path in Path.cwd().iterdir()}
    threads = threading.active_count()
    topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1"], tracking_uri=store_uri)
    assert [path.name for path in scratch.iterdir() if path.name.startswith("topotrain")] == []
    assert {path.name for path in Path.cwd().iterdir()} == before
    wait_for(lambda: threading.active_count() <= threads, threading.enumerate)
    assert not [thread for thread in threading.enumerate() if thread.name == "topotrain-heartbeat"]
