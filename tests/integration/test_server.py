"""Training through a real MLflow server with proxied artifacts, seen live from elsewhere."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import mlflow
import pytest

from kit.recorded import mlflow_client, point_mlflow_at
from topotrain.reports.monitor import monitor
from topotrain.reports.summarise import summarise


@pytest.mark.server
def test_a_run_is_seen_live_and_used_through_the_server(server, graph_set, tmp_path, monkeypatch, quick_python):
    """Curves and the best checkpoint are there while it trains; model and artifacts come through the server."""
    command = [quick_python, "-m", "topotrain", "run", "--tracking-uri", server]
    for override in [*graph_set.overrides, "trainer.num_epochs=12", "early_stopping.patience=20"]:
        command += ["--override", override]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    client = mlflow_client(server)
    live: set[int] = set()
    while training.poll() is None:
        for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
            points = client.get_metric_history(run.info.run_id, "val_loss")
            if run.info.status == "RUNNING" and points:
                live.add(len(points))
                state = monitor(run.info.run_id, tracking_uri=server)
                if len(points) > 1:  # within one epoch
                    assert state["best_metrics"]["val_loss"] <= min(point.value for point in points[:-1])
                    assert state["best_checkpoint"]["uri"].endswith(f"epoch_{state['best_epoch']:04d}.ckpt")
        time.sleep(0.05)
    out, err = training.communicate()
    assert training.returncode == 0, err
    assert live, "no point was seen while the run was running"
    assert server in err  # the page's address

    document = summarise("latest", tracking_uri=server)
    assert document["run_id"] == out.strip()
    assert document["progress"]["epochs_completed"] == 12
    assert document["schema"]["edge_schema"]["dim"] == 3
    assert document["best_checkpoint"]["local_path"] is None
    point_mlflow_at(server)
    local = mlflow.artifacts.download_artifacts(document["best_checkpoint"]["uri"], dst_path=str(tmp_path / "got"))
    assert Path(local).stat().st_size > 100_000
    kept = {Path(item.path).name for item in client.list_artifacts(out.strip(), "checkpoints")}
    assert kept == {"last.ckpt", "kept.json", *(Path(one["checkpoint"]).name for one in document["top_checkpoints"])}
    model = mlflow.pyfunc.load_model("models:/topoqa@candidate")
    assert model.predict(model.input_example)["pred_dockq"].between(0, 1).all()
    assert not any(path.name in ("mlruns", "mlartifacts", "mlflow.db") for path in elsewhere.iterdir())
