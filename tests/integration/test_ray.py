"""A real Ray of two nodes on this machine: batches, graphs and scores on it, and what is lost with a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

import topotrain
from kit.ray_nodes import RayNodes
from kit.recorded import mlflow_client
from kit.run_contents import contents, leases, weights
from kit.waiting import PATIENCE, wait_for
from topotrain.fields import TAG_BATCH_JOB

pytestmark = [pytest.mark.server, pytest.mark.long]
pytest.importorskip("ray", reason="Ray is not installed")
EPOCHS = 60  # of some hundredths of a second: enough to be caught in the middle of them


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """Two nodes of one core each."""
    cluster = RayNodes()
    try:
        cluster.start("head")
        cluster.start("second")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def on_ray(nodes: RayNodes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a command that is to run on the nodes."""
    for name, value in nodes.variables.items():
        monkeypatch.setenv(name, value)
    return ["--engine", "ray", "--address", nodes.address]


def write_manifest(graph_set: Any, *jobs: dict[str, Any]) -> Path:
    epochs = {"trainer.num_epochs": EPOCHS, "early_stopping.patience": EPOCHS, "checkpoints.keep": 1}
    overrides = [*graph_set.overrides, *(f"{key}={value}" for key, value in epochs.items())]
    path = graph_set.root.parent / "many.yaml"
    content = {"shared": {"overrides": overrides}, "jobs": list(jobs), "continue_on_error": True}
    path.write_text(yaml.safe_dump(content))
    return path


def children(uri: str) -> dict[str, Any]:
    client = mlflow_client(uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {run.data.tags[TAG_BATCH_JOB]: run for run in runs if TAG_BATCH_JOB in run.data.tags}


def test_the_trials_of_a_tuning_run_on_the_nodes(on_ray: list[str], graph_set: Any, server: str) -> None:
    """Folds, which lie in the cache directory that all see, and the winner's model."""
    space = graph_set.root.parent / "space.yaml"
    space.write_text("optimizer.learning_rate: {log: [1e-4, 1e-2]}\n")
    overrides = [word for one in (*graph_set.overrides, "trainer.num_epochs=1") for word in ("-o", one)]
    command = [sys.executable, "-m", "topotrain", "tune", "--space", str(space), "--trials", "1", "--folds", "2"]
    command += [*overrides, "--jobs", "2", "--tracking-uri", server, *on_ray]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-2:] for line in done.stdout.splitlines()[1:]] == [["2", "runs"]]
    runs = children(server)
    assert set(runs) == {"trial_000_seed_222_fold_1", "trial_000_seed_222_fold_2", "winner"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert mlflow_client(server).get_model_version_by_alias("topoqa", "candidate").run_id == runs["winner"].info.run_id


def epochs_of(uri: str, name: str) -> int:
    run = children(uri).get(name)
    return len(mlflow_client(uri).get_metric_history(run.info.run_id, "val_loss")) if run else 0


def trainings(nodes: RayNodes, node: str) -> list[psutil.Process]:
    found = []
    for process in nodes.processes(node):
        try:
            if {"topotrain", "--run-id"} <= {*process.cmdline()} or "run" in process.cmdline()[3:4]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_batch_outlives_its_driver_and_a_node(
    graph_set: Any, server: str, nodes: RayNodes, on_ray: list[str]
) -> None:
    """Jobs stop with the driver; resumed, they go on, also after a node is lost; to the same bits as undisturbed."""
    manifest = write_manifest(graph_set, {"name": "one", "overrides": {"seed": 1}}, {"name": "two"})
    command = [sys.executable, "-m", "topotrain", "batch", "--manifest", str(manifest), "--tracking-uri", server]
    command += ["--jobs", "2", *on_ray]

    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: min(epochs_of(server, "one"), epochs_of(server, "two")) >= 2)
    under_way = trainings(nodes, "head") + trainings(nodes, "second")
    assert len(under_way) == 2
    first.kill()
    first.communicate()
    assert not psutil.wait_procs(under_way, timeout=30)[1], "an orphan"
    assert [run.info.status for run in children(server).values()] == ["KILLED", "KILLED"], "they closed themselves"

    second = subprocess.Popen([*command, "--resume"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reached = {name: epochs_of(server, name) for name in ("one", "two")}
    wait_for(lambda: all(epochs_of(server, name) > reached[name] for name in reached))
    assert len(trainings(nodes, "second")) == 1
    nodes.kill("second")
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    assert err.count("its node was lost; another goes on with run") == 1, err
    assert "Traceback" not in err
    assert all(line.startswith(("name ", "one ", "two ")) for line in out.splitlines()), out
    runs = children(server)
    lost = "one" if "one: its node was lost" in err else "two"
    run_id = runs[lost].info.run_id
    assert len(mlflow_client(server).search_runs([runs[lost].info.experiment_id])) == 3, "a batch and its two jobs"

    overrides = yaml.safe_load(manifest.read_text())["shared"]["overrides"]
    if lost == "one":
        overrides.append("seed=1")
    alone = topotrain.fit(overrides=overrides, tracking_uri=server, progress=False)
    there, undisturbed = contents(server, run_id), contents(server, alone.run_id)
    for part in ("status", "params", "points", "inputs"):
        assert there[part] == undisturbed[part], part
    for file, state in weights(server, alone.run_id).items():
        other = weights(server, run_id)[file]
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items()), file
    assert not leases(server, run_id)
