"""From Python as from the shell: the same functions, the same lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import topotrain
from kit.runs import HandMadeRun, epoch

FUNCTIONS = {
    "fit",
    "resume",
    "batch",
    "tune",
    "build_graphs",
    "label",
    "score",
    "predict",
    "evaluate",
    "metrics",
    "leaderboard",
}


def test_every_function_is_listed_before_it_is_used() -> None:
    script = (
        "import sys, topotrain\n"
        "assert not {'torch', 'mlflow', 'pandas'} & set(sys.modules)\n"
        f"assert {FUNCTIONS!r} <= set(dir(topotrain)), dir(topotrain)\n"
        "import topotrain.metrics.ranking\n"
        f"assert all(callable(getattr(topotrain, name)) for name in {FUNCTIONS!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.long
def test_fit_shows_the_lines_of_the_shell(progress: bool, graph_set: Any, store_uri: str) -> None:
    options = f"overrides={[*graph_set.overrides, 'trainer.num_epochs=2']!r}, tracking_uri={store_uri!r}"
    script = f"import topotrain\nresult = topotrain.fit({options}, progress={progress})\nprint(result.run_id)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
    wanted = ["run training_run_", "to resume: topotrain resume", "epoch 0/1  train_mse", "registered topoqa versions"]
    assert [line in done.stderr for line in wanted] == [progress] * 4, done.stderr
    assert done.stderr.count("epoch 1/1") == int(progress)


@pytest.mark.long
def test_who_has_set_up_logging_gets_each_line_once(graph_set: Any, store_uri: str) -> None:
    options = f"overrides={[*graph_set.overrides, 'trainer.num_epochs=1']!r}, tracking_uri={store_uri!r}"
    script = (
        "import logging, topotrain\n"
        "logging.basicConfig(level=logging.INFO, format='mine %(message)s')\n"
        f"topotrain.fit({options})\n"
        "logger = logging.getLogger('topotrain')\n"
        "assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 0/0") == done.stderr.count("mine epoch 0/0") == 1


def test_the_leaderboard_as_a_table(store_uri: str) -> None:
    HandMadeRun(store_uri, "a").epochs(epoch(0.2)).end()
    HandMadeRun(store_uri, "b").epochs(epoch(0.1)).end()
    rows = topotrain.leaderboard(tracking_uri=store_uri)
    table = topotrain.leaderboard(tracking_uri=store_uri, as_frame=True)
    assert isinstance(table, pd.DataFrame)
    assert list(table["run_name"]) == [row["run_name"] for row in rows] == ["b", "a"]
    assert list(table.columns) == list(rows[0])


def test_metrics_are_those_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("target,model,pred_dockq,true_dockq\nT,a,0.1,0.2\nT,b,0.5,0.9\nT,c,0.3,0.1\n")
    found = topotrain.metrics(path)  # type: ignore[operator]
    assert found == topotrain.ranking_metrics(str(path))
    assert found["all"]["mean_ranking_loss"] == 0.0
