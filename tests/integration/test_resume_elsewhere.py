"""A run goes on where nothing but the tracking address is known, and under ``mlflow run``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import topotrain
from kit.recorded import fetch_artifact, mlflow_client
from topotrain.model.checkpoint import read_checkpoint


def last_weights(uri: str, run_id: str, folder: Path):
    return read_checkpoint(fetch_artifact(mlflow_client(uri), run_id, "checkpoints/last.ckpt", folder / run_id))[
        "state_dict"
    ]


def kill_after(command: list[str], epochs: int, folder: Path, environment: dict[str, str] | None = None) -> None:
    """Start a training in a folder and kill it, and all it started, when it tells this many epochs."""
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True, env=environment
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if sum(one.startswith("epoch ") for one in told) == epochs:
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, "".join(told)


@pytest.mark.server
def test_on_a_second_machine_that_has_only_the_address(server, make_graph_set, tmp_path, monkeypatch, quick_python):
    first, second = tmp_path / "first machine", tmp_path / "second machine"
    first.mkdir()
    second.mkdir()
    there = make_graph_set("first machine/set")
    recipe = [*there.overrides, "trainer.num_epochs=12", "early_stopping.patience=20"]
    monkeypatch.chdir(first)
    reference = topotrain.fit(overrides=recipe, tracking_uri=server, run_name="straight")
    options = [part for override in recipe for part in ("--override", override)]
    command = [sys.executable, "-m", "topotrain", "run", "--tracking-uri", server, "--run-name", "moved", *options]
    kill_after(command, 4, first)
    monkeypatch.chdir(second)
    shutil.rmtree(first)
    here = make_graph_set("data of the second machine")

    def resume(*overrides: str) -> subprocess.CompletedProcess[str]:
        options = [part for override in overrides for part in ("--override", override)]
        command = [quick_python, "-m", "topotrain", "resume", "--run-id", "moved", "--tracking-uri", server, *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=second)

    refused = resume()
    assert refused.returncode == 2
    assert str(there.graphs) in refused.stderr
    done = resume(*(override for override in here.overrides if override.startswith("paths.")))
    assert done.returncode == 0, done.stderr
    run = mlflow_client(server).get_run(done.stdout.strip())
    assert (run.info.run_name, run.info.status) == ("moved", "FINISHED")
    one, other = (last_weights(server, r, tmp_path / "got") for r in (reference.run_id, run.info.run_id))
    assert all(one[name].equal(other[name]) for name in one)
    assert not list(second.iterdir())


@pytest.mark.project
def test_under_mlflow_run(root, graph_set, store_uri, tmp_path, quick_python):
    """``-P run_id`` makes a continuation, ``--run-id`` goes on with the run itself."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store_uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    mlflow = ["-m", "mlflow", "run", str(root), "--env-manager", "local"]
    epochs = ["trainer.num_epochs=8", "mlflow.register=none"]
    overrides = " ".join(f"'{override}'" for override in [*graph_set.overrides, *epochs])
    reference = topotrain.fit(overrides=[*graph_set.overrides, *epochs], tracking_uri=store_uri)
    train = [sys.executable, *mlflow, "-e", "train", "-P", f"overrides={overrides}", "-P", "run_name=cut off"]
    kill_after(train, 3, tmp_path, environment)
    client = mlflow_client(store_uri)
    experiment = ["0"]
    environment["PATH"] = f"{Path(quick_python).parent}{os.pathsep}{environment['PATH']}"
    (cut,) = client.search_runs(experiment, "attributes.run_name = 'cut off'")
    assert cut.info.status == "RUNNING"
    for extra in (["-P", "run_id=cut off"], ["--run-id", cut.info.run_id]):
        done = subprocess.run(
            [quick_python, *mlflow, "-e", "resume", *extra], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    original = client.get_run(cut.info.run_id)
    continuation = client.get_run(original.data.tags["topotrain.continued_by"])
    assert continuation.data.tags["topotrain.resumed_from"] == cut.info.run_id
    assert len(client.search_runs(experiment)) == 2
    want = last_weights(store_uri, reference.run_id, tmp_path)
    for run in (original, continuation):
        assert run.info.status == "FINISHED"
        got = last_weights(store_uri, run.info.run_id, tmp_path)
        assert all(want[name].equal(got[name]) for name in want)
        assert len(client.get_metric_history(run.info.run_id, "val_loss")) == 8
