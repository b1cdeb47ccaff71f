"""The command lines of the older stack, run as they stand in people's scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.recorded import metric_history, mlflow_client
from kit.waiting import PATIENCE
from topotrain.fields import TAG_COMMAND, TAG_TRIAL_LABEL, VAL_LOSS

OLD_NAME = r"training_run_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
FLAT = """\
graph_dir: graphs
train_label_file: train.csv
val_label_file: val.csv
save_dir: training_runs
batch_size: 4
num_epochs: 2
learning_rate: 0.005
lr_scheduler_factor: 0.4
lr_scheduler_patience: 12
early_stopping_patience: 100
use_val_spearman_as_secondary: true
seed: 222
"""


class Checkout:
    """A folder laid out like a checkout: the code, the scripts, the recipes, a configuration and a store."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
        self.environment["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"

    @property
    def client(self) -> Any:
        return mlflow_client(self.uri)

    @property
    def runs(self) -> list[Any]:
        client = self.client
        return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))

    def start(self, line: str, folder: str = ".", **variables: str) -> subprocess.Popen[str]:
        """Begin a line, as a shell reads it."""
        return subprocess.Popen(
            ["sh", "-c", f"exec {line}"],
            cwd=self.folder / folder,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str, folder: str = ".", status: int = 0, **variables: str) -> str:
        """Run a line to its end; what it prints."""
        process = self.start(line, folder, **variables)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, f"{line}\n{out}\n{err}"
        assert "Traceback" not in err
        return out if status == 0 else err


@pytest.fixture
def checkout(root: Path, graph_set, _empty_store: Path, tmp_path: Path, quick_python: str) -> Checkout:
    folder = tmp_path / "check out"  # a path with a space, as users have them
    folder.mkdir()
    for name in ("scripts", "configs", "manifests"):
        shutil.copytree(root / name, folder / name)
    (folder / "src").symlink_to(root / "src")
    for name in ("graphs", "train.csv", "val.csv"):
        (folder / name).symlink_to(graph_set.root / name)
    (folder / "config.yaml").write_text(FLAT)
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    return Checkout(folder, quick_python)


def shorten(path: Path) -> dict[str, Any]:
    """Make a shipped recipe train on the small graphs for two epochs; gives the recipe as it was."""
    recipe = yaml.safe_load(path.read_text())
    small = {**recipe, "paths": {"graph": "../graphs", "train_labels": "../train.csv", "val_labels": "../val.csv"}}
    small["trainer"] = {**recipe.get("trainer", {}), "num_epochs": 2}
    path.write_text(yaml.safe_dump(small))
    return dict(recipe)


def test_run_a_flat_configuration_and_summarise_the_latest_run_directory(checkout: Checkout) -> None:
    run_id = checkout.run("python -m train_cli run --config config.yaml").strip()
    (run,) = checkout.runs
    assert run.info.run_id == run_id
    assert re.fullmatch(OLD_NAME, run.info.run_name)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "0.005"
    assert run.data.params["dataloader.batch_size"] == "4"

    summary = json.loads(checkout.run("python -m train_cli summarise --run-dir training_runs/latest"))
    assert summary["run_id"] == run_id
    assert summary["best_val_loss"] == run.data.metrics["best_val_loss"]
    by_name = f"python -m train_cli summarise --run-dir training_runs/{run.info.run_name}/"
    assert json.loads(checkout.run(by_name)) == summary
    assert not (checkout.folder / "training_runs").exists()


def test_run_a_recipe_with_another_seed(checkout: Checkout) -> None:
    recipe = shorten(checkout.folder / "configs" / "sched_boost.yaml")
    checkout.run("python -m train_cli run --config configs/sched_boost.yaml --override seed=777")
    (run,) = checkout.runs
    assert run.data.params["dataloader.seed"] == "777"
    assert run.data.params["scheduler.factor"] == str(recipe["scheduler"]["factor"])
    assert run.info.status == "FINISHED"


EPOCHS = 25


def test_resume_a_killed_run_by_its_name(checkout: Checkout) -> None:
    config = checkout.folder / "config.yaml"
    config.write_text(FLAT.replace("num_epochs: 2", f"num_epochs: {EPOCHS}"))
    name = "training_run_2025-10-28_18-16-16"
    python = shlex.quote(sys.executable)
    process = checkout.start(f"{python} -m train_cli run --config config.yaml --run-name {name}")
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
    finally:
        timer.cancel()
    assert process.returncode == -signal.SIGKILL
    (cut,) = checkout.runs
    assert cut.info.status == "RUNNING", "nobody was there to close it"
    # The points of the last second may be missing; the journal has them.
    assert len(metric_history(checkout.client, cut.info.run_id, VAL_LOSS)) < EPOCHS

    assert (
        checkout.run("python -m train_cli resume --run-id training_run_2025-10-28_18-16-16").strip() == cut.info.run_id
    )
    (run,) = checkout.runs
    assert run.info.status == "FINISHED"
    points = checkout.client.get_metric_history(run.info.run_id, VAL_LOSS)
    assert sorted(point.step for point in points) == list(range(EPOCHS)), "every epoch once"


def test_monitor_follows_to_the_end(checkout: Checkout, finished_run: Any) -> None:
    """From src/ as the legacy scripts do, from the checkout, and as a module; a run that has ended is shown once."""
    told = [
        checkout.run(f"python monitor_best_model.py --run-id {finished_run.id} --follow", "src", **finished_run.store),
        checkout.run(f"python src/monitor_best_model.py --run-id {finished_run.id} --follow", **finished_run.store),
        checkout.run(f"python -m monitor_best_model --run-id {finished_run.id} --follow", **finished_run.store),
    ]
    assert told[0] == told[1] == told[2]
    assert finished_run.best_checkpoint in told[0]


class FinishedRun:
    def __init__(self, result: Any) -> None:
        self.id, self.best_checkpoint = result.run_id, result.best_checkpoint
        self.store = {"MLFLOW_TRACKING_URI": result.tracking_uri}


@pytest.fixture
def finished_run(graph_set, store_uri: str) -> FinishedRun:
    import topotrain

    return FinishedRun(topotrain.fit(overrides=[*graph_set.overrides, "mlflow.register=none"], tracking_uri=store_uri))


def test_batch_runs_a_manifest(checkout: Checkout) -> None:
    """The line as it is written, on the first job of the shipped manifest."""
    manifest = checkout.folder / "manifests" / "run_all.yaml"
    content = yaml.safe_load(manifest.read_text())
    content["jobs"] = content["jobs"][:1]
    manifest.write_text(yaml.safe_dump(content))
    shorten(manifest.parent / content["jobs"][0]["config"])
    table = checkout.run("python -m train_cli batch --manifest manifests/run_all.yaml")
    (parent,) = (run for run in checkout.runs if run.data.tags[TAG_COMMAND] == "batch")
    (child,) = (run for run in checkout.runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id)
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    assert content["jobs"][0]["name"] in table
    assert child.info.run_id in table


def test_run_training_sh(checkout: Checkout) -> None:
    line = "scripts/run_training.sh -c config.yaml --trial 'trial 7' --run-name 'by script'"
    checkout.run(f"{line} -- --override trainer.num_epochs=1 --override 'mlflow.tags.words=two  words' --notes 'so so'")
    (run,) = checkout.runs
    assert run.info.run_name == "by script"
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.num_epochs"] == "1"
    tags = run.data.tags
    assert (tags[TAG_TRIAL_LABEL], tags["words"]) == ("trial 7", "two  words")
    assert tags["mlflow.note.content"].startswith("so so\n"), "above the summary"


@pytest.mark.project
def test_run_all_sh_runs_everything_that_is_shipped(checkout: Checkout, graph_set) -> None:
    """Three recipes with three seeds each, from another folder than the checkout."""
    settings = [one for one in graph_set.overrides if one.startswith("paths.")]
    settings += ["trainer.num_epochs=1", "checkpoints.keep=1", "mlflow.register=none"]
    small = " ".join(f"--override {shlex.quote(one)}" for one in settings)
    checkout.run(f"../scripts/run_all.sh --jobs 2 {small}", "configs", MLFLOW_TRACKING_URI=checkout.uri)
    (parent,) = (run for run in checkout.runs if run.data.tags[TAG_COMMAND] == "batch")
    children = [run for run in checkout.runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 9
    assert {run.info.status for run in checkout.runs} == {"FINISHED"}
    assert sorted({run.data.params["dataloader.seed"] for run in children}) == ["1337", "222", "777"]
    recipes = {tuple(run.data.params[key] for key in RECIPE_KEYS) for run in children}
    assert len(recipes) == 3, "each seed with each recipe"


RECIPE_KEYS = ("optimizer.learning_rate", "dataloader.batch_size", "scheduler.factor", "scheduler.patience")


@pytest.fixture
def told(checkout: Checkout) -> Checkout:
    """A checkout whose .venv/bin/python only tells how it was called."""
    python = checkout.folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "${PYTHONPATH%%:*}" "$PWD" "$@"\n')
    python.chmod(0o755)
    return checkout


def test_the_scripts_take_the_checkout_s_own_python_and_code_and_stay_where_they_are(told: Checkout) -> None:
    src, here = str(told.folder / "src"), str(told.folder)
    shown = told.run("scripts/run_training.sh -c a.yaml -- --override 'x=1 2' -c '*'").splitlines()
    assert shown[:6] == [src, here, "-m", "train_cli", "run", "--config"]
    assert shown[6] == "a.yaml"
    assert shown[-4:] == ["--override", "x=1 2", "-c", "*"]
    shown = told.run("../scripts/run_all.sh --jobs 2 'a  b'", "configs").splitlines()
    manifest = str(told.folder / "manifests" / "run_all.yaml")
    assert shown == [src, f"{here}/configs", "-m", "train_cli", "batch", "--manifest", manifest, "--jobs", "2", "a  b"]


def test_the_scripts_work_through_a_link(told: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "train"
    link.symlink_to(told.folder / "scripts" / "run_training.sh")
    assert told.run(f"{shlex.quote(str(link))} -c a.yaml").splitlines()[0] == str(told.folder / "src")


@pytest.mark.parametrize("script", ["run_training.sh", "run_all.sh"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_scripts_help(told: Checkout, script: str, option: str) -> None:
    shown = told.run(f"scripts/{script} {option}")
    assert shown.startswith(f"usage: scripts/{script} ")
    assert f"\n  scripts/{script} " in shown, "an example"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "no configuration; expected -c CONFIG"),
        ("-c", "-c has no value"),
        ("-c a.yaml --trial", "--trial has no value"),
        ("-c a.yaml --epochs 3", "unknown option --epochs; expected -c, --trial, --run-name, or --"),
        ("a.yaml", "unknown option a.yaml"),
        ("-- -c a.yaml", "no configuration"),
    ],
)
def test_the_script_says_in_one_line_what_is_wrong(told: Checkout, arguments: str, words: str) -> None:
    (line,) = told.run(f"scripts/run_training.sh {arguments}", status=2).splitlines()
    assert line.startswith(f"error: {words}")
    assert "; see " in line


def test_a_relative_configuration_is_sought_here_then_in_the_checkout(told: Checkout) -> None:
    line = "../scripts/run_training.sh --config configs/default.yaml"
    assert str(told.folder / "configs" / "default.yaml") in told.run(line, "configs").splitlines()
    (told.folder / "configs" / "configs").mkdir()
    (told.folder / "configs" / "configs" / "default.yaml").touch()
    assert "configs/default.yaml" in told.run(line, "configs").splitlines()


@pytest.mark.parametrize("script", ["run_training.sh -c a.yaml", "run_all.sh"])
def test_the_program_s_exit_status_is_the_script_s(told: Checkout, script: str) -> None:
    python = told.folder / "other python"
    python.write_text("#!/bin/sh\nexit 143\n")
    python.chmod(0o755)
    told.run(f"scripts/{script}", status=143, PYTHON=str(python))
