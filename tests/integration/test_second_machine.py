"""A second machine that has the tracking URI and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from kit.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.server
def test_reports_need_the_tracking_uri_alone(mlflow_server, make_graph_set, tmp_path, quick_python):
    """Trained through a server with proxied artifacts, from directories that are gone when the reports are asked."""
    graph_set = make_graph_set("training machine/set")
    home, elsewhere = tmp_path / "training machine", tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": str(home / "cache")}
    (home / "tmp").mkdir()
    trained = [quick_python, "-m", "topotrain", "run", "--run-name", "far away", "--tracking-uri"]
    trained += [mlflow_server.address, *(part for override in graph_set.overrides for part in ("-o", override))]
    done = subprocess.run(trained, cwd=home, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    shutil.rmtree(home)

    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_server.address}

    def asked(*arguments: str, module: str = "topotrain") -> str:
        told = subprocess.run(
            [quick_python, "-m", module, *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert told.returncode == 0, told.stderr
        assert told.stderr == ""
        return told.stdout

    summary = json.loads(asked("summarise", "--run-dir", "training_runs/far away"))
    jsonschema.validate(summary, json.loads((ROOT / "docs" / "summary.schema.json").read_text()))
    assert summary["run_id"] == run_id
    assert summary["schema"]["edge_schema"]["dim"] == 3
    assert summary["config"]["trainer"]["num_epochs"] == 2
    assert summary["dataset_coverage"]["val"]["total"] == 8
    assert len(summary["top_checkpoints"]) == 2
    assert summary["best_checkpoint"]["local_path"] is None
    assert summary["warnings"] == []

    state = json.loads(asked("--run-id", run_id[:10], "--follow", "--format", "json", module="monitor_best_model"))
    assert state == {key: summary[key] for key in state}
    assert summary["best_checkpoint"]["uri"] in asked("monitor", "--run-id", "latest")

    (row,) = json.loads(asked("leaderboard", "--format", "json"))
    assert (row["rank"], row["run_id"], row["status"]) == (1, run_id, "FINISHED")
    assert row["primary_value"] == row["val_loss"] == summary["best_val_loss"]
    assert row["val_spearman_corr"] == summary["best_metrics"]["val_spearman_corr"]
    assert (row["model_version"], row["aliases"]) == (summary["top_checkpoints"][0]["model_version"], ["candidate"])
    assert (row["edge_module"], row["edge_dim"], row["node_dim"]) == ("edge/test/v1", 3, 5)
    assert summary["schema"]["digest"].startswith(row["schema_digest"])
    assert list(elsewhere.iterdir()) == []
