"""The MLflow Project, the lock, and the commands that the README writes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.projects import _project_spec
from mlflow.tracking import MlflowClient
from mlflow.utils.environment import _PythonEnv
from packaging.requirements import Requirement

from kit.waiting import PATIENCE
from topotrain.fields import TAG_COMMAND, TAG_STATUS_NOTE

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("MLproject", "conda.yaml", "pyproject.toml", "requirements.lock", "configs", "manifests")


def locked(root: Path) -> list[str]:
    lines = (root / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_conda_yaml_lists_the_lock(root: Path) -> None:
    conda = yaml.safe_load((root / "conda.yaml").read_text())
    assert conda["dependencies"][-1]["pip"] == locked(root)


def test_the_lock_pins_every_dependency_exactly(root: Path) -> None:
    pins = locked(root)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins), pins
    names = {normal(pin.split("==")[0]) for pin in pins}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["label"], *extras["server"]]
    assert {normal(re.split("[<>=[]", requirement)[0]) for requirement in wanted} <= names


def test_what_tests_add_is_pinned_and_needs_nothing_more(root: Path) -> None:
    """``make train`` installs none of it; ``make test`` what the extras pin, whose own needs are locked already."""
    lines = (root / "requirements-test.lock").read_text().splitlines()
    added = [line for line in lines if line and not line.startswith("#")]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(added) == set(extras["ray"])
    pinned = {normal(pin.split("==")[0]) for pin in locked(root)}
    assert not {normal(pin.split("==")[0]) for pin in added} & pinned
    needs = [Requirement(text) for pin in added for text in metadata.requires(pin.split("==")[0]) or []]
    assert {normal(one.name) for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})} <= pinned
    makefile = (root / "Makefile").read_text()
    assert re.search(r"^train: install  ##", makefile, re.M)
    assert re.search(r"^test: install-tests  ##", makefile, re.M)
    assert "pip install --quiet -r requirements-test.lock" in makefile


def test_mlflow_reads_conda_yaml_as_an_environment(root: Path) -> None:
    environment = _PythonEnv.from_conda_yaml(str(root / "conda.yaml"))
    assert environment.python.startswith("3.11.")
    assert environment.dependencies == locked(root)


def test_every_entry_point_has_text_parameters_with_defaults(root: Path) -> None:
    project = _project_spec.load_project(str(root))
    entry_points = {"main", "train", "resume", "batch", "summarise", "monitor", "leaderboard", "build-graphs", "score"}
    entry_points |= {"evaluate", "promote", "tune"}
    assert entry_points <= set(project._entry_points)
    for name in project._entry_points:
        entry = project.get_entry_point(name)
        for parameter in entry.parameters.values():
            assert parameter.type == "string"
            assert parameter.default is not None
    assert project.get_entry_point("main").command == project.get_entry_point("train").command


def test_makefile_and_ci_install_from_the_lock(root: Path) -> None:
    assert "pip install --quiet -r requirements.lock" in (root / "Makefile").read_text()
    assert "make test" in (root / ".ci" / "run").read_text()
    assert "pip install" not in (root / ".ci" / "run").read_text()


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the project, so that a run can't read what only this checkout has; its code is that of here."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(source, copy / name)
    (copy / "src").symlink_to(root / "src")
    return copy


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(project: Path, store_uri: str, quick_python: str) -> Shell:
    """A function that runs a command in the copy of the project, on this test's store."""

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": store_uri}
        environment.pop("PYTHONPATH", None)
        environment.update(variables)
        folders = [str(Path(quick_python).parent), str(Path(sys.executable).parent), environment["PATH"]]
        environment["PATH"] = os.pathsep.join(folders)
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    return run


@pytest.fixture
def mlflow_run(shell: Shell) -> Shell:
    """A function that runs an entry point of the copy."""

    def run(entry: str, *parameters: str, **options: str) -> subprocess.CompletedProcess[str]:
        given = [word for parameter in parameters for word in ("-P", parameter)]
        command = ("mlflow", "run", ".", "-e", entry, "--env-manager", "local")
        return shell(*command, "--experiment-name", "dynamic_topoqa", *given, **options)

    return run


@pytest.mark.project
def test_mlflow_run_trains_end_to_end(mlflow_run: Shell, store_uri: str, graph_set) -> None:
    overrides = " ".join(map(shlex.quote, [*graph_set.overrides, "mlflow.tags.note=two words"]))
    done = mlflow_run("train", "config=configs/default.yaml", f"overrides={overrides}")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(store_uri, store_uri)
    experiment = client.get_experiment_by_name("dynamic_topoqa")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.experiment_id == experiment.experiment_id
    assert run.info.status == "FINISHED"
    assert run.data.tags[TAG_COMMAND] == "run"
    assert run.data.tags["note"] == "two words"
    assert run.info.run_name.startswith("training_run_")
    assert run.data.params["schema.edge.dim"] == "3"
    assert run.data.params["config"].strip("'") == "configs/default.yaml"
    assert len(client.get_metric_history(run.info.run_id, "val_loss")) == 2
    assert client.get_model_version_by_alias("topoqa", "candidate").run_id == run.info.run_id

    report = mlflow_run("summarise")
    assert report.returncode == 0, report.stderr
    summary = json.loads(report.stdout)
    assert summary["run_id"] == run.info.run_id
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(r.data.tags[TAG_COMMAND] for r in runs) == ["run", "summarise"]
    (report_run,) = (r for r in runs if r.data.tags[TAG_COMMAND] == "summarise")
    printed = mlflow.artifacts.load_dict(f"{report_run.info.artifact_uri}/summarise.json")
    assert printed == summary

    followed = mlflow_run("monitor", "follow=true", "format=json", "interval=0.5")
    assert followed.returncode == 0, followed.stderr
    (state,) = map(json.loads, followed.stdout.splitlines())
    assert state == {key: summary[key] for key in state}
    board = mlflow_run("leaderboard", "format=csv", "experiment=dynamic_topoqa")
    assert board.returncode == 0, board.stderr
    header, *rows = board.stdout.splitlines()
    assert len(rows) == 1, "reports are no training runs"
    assert rows[0].startswith(f"1,{run.info.run_id},")
    runs = client.search_runs([experiment.experiment_id])
    kept = {r.data.tags[TAG_COMMAND]: r.info.artifact_uri for r in runs}
    assert mlflow.artifacts.load_text(f"{kept['monitor']}/monitor.json") == followed.stdout
    assert mlflow.artifacts.load_text(f"{kept['leaderboard']}/leaderboard.csv") == board.stdout


@pytest.mark.project
def test_mlflow_run_evaluates_and_promotes(shell: Shell, mlflow_run: Shell, store_uri: str, graph_set) -> None:
    overrides = " ".join(map(shlex.quote, graph_set.overrides))
    trained = shell("sh", "-c", f"python -m topotrain run --overrides '{overrides}'", PYTHONPATH="src")
    assert trained.returncode == 0, trained.stderr
    data = (f"graphs={graph_set.graphs}", f"labels={graph_set.val_labels}", "format=json")
    judged = mlflow_run("evaluate", *data)
    assert judged.returncode == 0, judged.stderr
    report = json.loads(judged.stdout)
    promoted = mlflow_run("promote", "reason=two words", "gates='val_loss < 9' eval_mse<=1")
    assert promoted.returncode == 0, promoted.stderr
    client = MlflowClient(store_uri, store_uri)
    champion = client.get_model_version_by_alias("topoqa", "champion")
    assert str(champion.version) == report["model"]["version"]
    assert champion.tags["topotrain.promoted_reason"] == "two words"
    runs = client.search_runs([client.get_experiment_by_name("dynamic_topoqa").experiment_id])
    assert sorted(r.data.tags[TAG_COMMAND] for r in runs) == ["evaluate", "promote", "run"]


@pytest.mark.project
def test_mlflow_run_of_a_batch(mlflow_run: Shell, project: Path, store_uri: str, graph_set) -> None:
    """The run that MLflow made is the parent, its children stay beside it; resumed, a new one stands for the old."""
    manifest = project / "manifests" / "two words.yaml"
    jobs = [{"name": "good"}, {"name": "bad", "overrides": {"paths.graph": "absent"}}]
    manifest.write_text(yaml.safe_dump({"shared": {"overrides": graph_set.overrides}, "jobs": jobs}))
    given = ("manifest=manifests/two words.yaml", "overrides=trainer.num_epochs=1", "jobs=2")
    done = mlflow_run("batch", *given)
    assert done.returncode != 0
    client = MlflowClient(store_uri, store_uri)
    experiment = client.get_experiment_by_name("dynamic_topoqa").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == {"two words", "good", "bad"}, done.stderr
    parent = runs["two words"]
    assert (parent.data.tags[TAG_COMMAND], parent.info.status) == ("batch", "FAILED")
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in ("good", "bad")} == {parent.info.run_id}
    assert len(client.get_metric_history(runs["good"].info.run_id, "val_loss")) == 1, (
        "the command line wins over shared"
    )

    manifest.write_text(manifest.read_text().replace("absent", str(graph_set.graphs)))
    again = mlflow_run("batch", *given, "resume=true")
    assert again.returncode == 0, again.stderr
    assert "(earlier)" in again.stdout
    newest = client.search_runs([experiment], "tags.`topotrain.command` = 'batch'")[0]
    assert newest.data.tags["topotrain.resumed_from"] == parent.info.run_id
    assert client.get_run(parent.info.run_id).data.tags["topotrain.continued_by"] == newest.info.run_id
    (made,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{newest.info.run_id}'")
    assert (made.info.run_name, made.info.status) == ("bad", "FINISHED")


@pytest.mark.project
def test_mlflow_run_of_a_tuning(mlflow_run: Shell, project: Path, store_uri: str, graph_set) -> None:
    """The run that MLflow made is the parent; resumed, a new one goes on for it."""
    (project / "rates.yaml").write_text("optimizer.learning_rate: {log: [1e-4, 1e-2]}\n")
    overrides = " ".join(map(shlex.quote, [*graph_set.overrides, "trainer.num_epochs=1", "model.attention_head=2"]))
    given = ("space=rates.yaml", f"overrides={overrides}", "pruner=none")
    done = mlflow_run("tune", *given, "trials=1")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(store_uri, store_uri)
    experiment = client.get_experiment_by_name("dynamic_topoqa").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == {"rates", "trial_000"}, done.stderr
    parent = runs["rates"]
    assert (parent.data.tags[TAG_COMMAND], parent.info.status) == ("tune", "FINISHED")
    assert runs["trial_000"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (project / "rates_winner.yaml").is_file()

    again = mlflow_run("tune", *given, "trials=2", "resume=true")
    assert again.returncode == 0, again.stderr
    newest = client.search_runs([experiment], "tags.`topotrain.command` = 'tune'")[0]
    assert newest.data.tags["topotrain.resumed_from"] == parent.info.run_id
    (made,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{newest.info.run_id}'")
    assert (made.info.run_name, made.info.status) == ("trial_001", "FINISHED")
    assert mlflow.artifacts.load_dict(f"{newest.info.artifact_uri}/tune_summary.json")["trials"][0]["number"] == 0


@pytest.mark.project
def test_mlflow_run_with_bad_input_fails_with_one_line(mlflow_run: Shell, store_uri: str) -> None:
    bad = "overrides=paths.graph=/nowhere paths.train_labels=/nowhere/t.csv paths.val_labels=/nowhere/v.csv"
    done = mlflow_run("train", bad)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: /nowhere: no such directory; expected a directory of graphs (.pt); check paths.graph"]
    client = MlflowClient(store_uri, store_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("dynamic_topoqa").experiment_id])
    assert run.info.status == "FAILED"
    assert "/nowhere" in run.data.tags[TAG_STATUS_NOTE]


NOT_RUN_HERE = ("make ", "topotrain ui")  # the first runs this suite, the second serves until it is ended


def readme_blocks() -> list[list[str]]:
    """The README's shell blocks, each a list of commands; comments and continued lines are folded away."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [re.sub(r"\\\n\s*", " ", block).splitlines() for block in blocks]
    commands = [[line.split("  #")[0].strip() for line in block] for block in lines]
    return [[line for line in block if line and not line.startswith(NOT_RUN_HERE)] for block in commands]


TRUSTED = "topotrain demo-structures --out complexes"  # begins what a model is used for that `make train` left


@pytest.mark.project
@pytest.mark.parametrize("block", [block for block in readme_blocks() if block], ids=lambda block: block[0])
def test_readme_commands_run_as_written(shell: Shell, project: Path, block: list[str]) -> None:
    """In order, with few structures; where a line leaves the epochs to the default, there is one.

    What scores structures is trained with the defaults, as `make train` does.
    """
    if block[0] == TRUSTED:
        trained = shell("topotrain", "run", PYTHONPATH="src")
        assert trained.returncode == 0, trained.stderr
    elif any(line.startswith("topotrain label") for line in block):
        block = [TRUSTED, *block]
    recipe = project / "configs" / "default.yaml"
    shortened = re.sub(r"num_epochs: (?:\d+|null)", "num_epochs: 1", recipe.read_text())
    assert shortened != recipe.read_text()
    recipe.write_text(shortened)
    for line in block:
        program = line.split()[0]
        assert program in ("mlflow", "topotrain"), line
        assert "num_epochs" not in line, "readers are shown no shortened training"
        command = f"{line} --override trainer.num_epochs=1" if line.startswith("topotrain run") else line
        done = shell("sh", "-c", command, PYTHONPATH="src")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        for folder in project.glob("complexes/*/*/"):
            for structure in sorted(folder.iterdir(), key=lambda file: file.name != "d12.pdb")[2:]:
                structure.unlink()
    if (report := project / "report.html").is_file():
        assert len(list((project / "annotated").rglob("*.pdb"))) == 8
        assert "1BGS_AE" in report.read_text()


def test_readme_blocks_are_found() -> None:
    assert sum(len(block) for block in readme_blocks()) >= 8


@pytest.mark.project
def test_python_examples_run_as_written(root: Path, shell: Shell) -> None:
    """Those of the README train, find the run and use the model; those of the documentation follow in one program."""
    pages = [root / "README.md", root / "docs" / "runs.md"]  # those on using a model have tests of their own
    blocks = [b for page in pages for b in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)]
    assert len(blocks) == 3
    done = shell("python", "-c", "\n".join(blocks), PYTHONPATH="src")
    assert done.returncode == 0, done.stderr
    assert "checkpoints/epoch_000" in done.stdout


def test_make_targets_of_the_readme_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", (root / "README.md").read_text(), flags=re.MULTILINE))
    assert {"train", "test"} <= named <= targets
