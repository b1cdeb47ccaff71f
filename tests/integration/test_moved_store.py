"""A store that was moved: the folder that is not there is named, by every command that needs it, and pointed at."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import topotrain
from kit.commands import exit_status
from kit.recorded import mlflow_client
from topotrain.errors import TrackingError


@pytest.fixture(scope="module")
def original(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with the store of one run of two epochs, the run's id, and the folder of its graphs."""
    from kit.graphs import GraphSet, write_graph_set

    root = tmp_path_factory.mktemp("moved stores")
    first = root / "a b"
    first.mkdir()
    shutil.copyfile(_empty_store, first / "mlflow.db")
    write_graph_set(root / "set")
    overrides = [*GraphSet(root / "set").overrides, "trainer.num_epochs=2", "mlflow.register=best"]
    result = topotrain.fit(overrides=overrides, run_name="one", tracking_uri=f"sqlite:///{first / 'mlflow.db'}")
    return first, result.run_id, str(root / "set" / "graphs")


@pytest.fixture
def moved(original: tuple[Path, str, str], tmp_path: Path) -> Any:
    """The same store in another place, its own gone; afterwards it is back."""
    first, run_id, graphs = original
    second = tmp_path / "second"
    shutil.copytree(first, second)
    aside = first.with_name("aside")
    first.rename(aside)
    yield first, second, run_id, graphs
    if first.is_symlink():
        first.unlink()
    elif first.exists():
        shutil.rmtree(first)
    aside.rename(first)


def said(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = exit_status(*arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_every_command_names_the_folder(moved: Any, capsys: Any, tmp_path: Path) -> None:
    first, second, run_id, graphs = moved
    uri = ("--tracking-uri", f"sqlite:///{second / 'mlflow.db'}")
    commands = [
        ("resume", "--run-id", "one", "--override", "trainer.num_epochs=3"),
        ("describe", "models:/topoqa@candidate"),
        ("evaluate", "--model", "models:/topoqa/1", "--graphs", graphs),
        ("evaluate", "--run-id", "one", "--graphs", graphs),
        ("predict", "--model", "models:/topoqa@candidate", "--graphs", graphs, "--out", str(tmp_path / "p.csv")),
        ("score", graphs, "--model", "models:/topoqa@candidate"),
        ("run", "--resume-from", f"runs:/{run_id}/checkpoints/last.ckpt", "--override", "trainer.num_epochs=1"),
    ]
    for command in commands:
        status, out, err = said(capsys, *command, *uri)
        assert status == 2, command
        assert out == ""
        error = err.splitlines()[-1]
        assert error.startswith(f"error: artifact folder {first / 'mlartifacts'} is not there"), (command, error)
        assert f"but {second / 'mlartifacts'} is" in error
        assert "train it anew" not in error
    for command in (("summarise", "--run-id", "one"), ("monitor", "--run-id", "one")):
        status, out, _ = said(capsys, *command, *uri)
        assert status == 0
        assert f"artifact folder {first / 'mlartifacts'} is not there" in out
    assert said(capsys, "leaderboard", *uri)[0] == 0


def test_the_link_that_is_suggested_is_enough(moved: Any, capsys: Any) -> None:
    first, second, run_id, _ = moved
    uri = f"sqlite:///{second / 'mlflow.db'}"
    with pytest.raises(TrackingError) as error:
        topotrain.resume("one", overrides=["trainer.num_epochs=3"], tracking_uri=uri)
    command = re.search(r"or link it: (.+?); or see", str(error.value))
    assert command
    subprocess.run(["bash", "-c", command[1]], check=True, timeout=60)
    assert shlex.split(command[1])[-1] == str(first / "mlartifacts")
    result = topotrain.resume("one", overrides=["trainer.num_epochs=3"], tracking_uri=uri)
    assert (result.run_id, result.epochs) == (run_id, 3)
    assert topotrain.describe("models:/topoqa@candidate", uri)["name"] == "topoqa"
    assert not [line for line in topotrain.summarise("one", tracking_uri=uri)["warnings"] if "artifact folder" in line]


def test_the_statements_of_the_guide_are_enough(moved: Any, root: Path, monkeypatch: Any) -> None:
    first, second, run_id, _ = moved
    section = (root / "docs" / "operating.md").read_text().partition("## A store that was moved")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for word, folder in (("old", first), ("new", second)):
        code = code.replace(f'"file:///{word}/mlartifacts"', repr((folder / "mlartifacts").as_uri()))
    monkeypatch.chdir(second)
    exec(compile(code, "operating.md", "exec"), {})  # noqa: S102 (our own page)
    uri = f"sqlite:///{second / 'mlflow.db'}"
    result = topotrain.resume("one", overrides=["trainer.num_epochs=3"], tracking_uri=uri)
    assert (result.run_id, result.epochs) == (run_id, 3)
    assert topotrain.describe("models:/topoqa/1", uri)["version"] == "1"
    run = mlflow_client(uri).get_run(run_id)
    assert run.info.artifact_uri.startswith((second / "mlartifacts").as_uri() + "/")
    assert not first.exists()


def test_a_new_run_says_that_its_artifacts_go_to_the_old_place(moved: Any, caplog: Any) -> None:
    from topotrain.tracking.store import Store

    first, second, _, _ = moved
    Store.open(f"sqlite:///{second / 'mlflow.db'}").runs.experiment_id("dynamic_topoqa")
    assert "artifacts of experiment 'dynamic_topoqa' go to a folder that is made anew" in caplog.text
    assert str(first / "mlartifacts") in caplog.text


def test_a_single_folder_that_is_missing_is_named(original: Any, tmp_path: Path) -> None:
    first, run_id, _ = original
    folder, aside = first / "mlartifacts" / run_id, first / "aside"
    folder.rename(aside)
    try:
        with pytest.raises(TrackingError, match=f"artifact folder {re.escape(str(folder))} is not there;"):
            topotrain.resume("one", overrides=["trainer.num_epochs=3"], tracking_uri=f"sqlite:///{first / 'mlflow.db'}")
        assert not folder.exists()
    finally:
        aside.rename(folder)
