"""One finished run that many tests look at (none of them changes it), and an MLflow server of a test's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.graphs import GraphSet, write_graph_set
from kit.group_server import GroupServer, in_use, require_postgresql, shared_group_server
from kit.holding import holding
from kit.recorded import local_artifact, mlflow_client
from kit.servers import Server


@dataclass(frozen=True)
class Finished:
    """A run of five epochs that kept two checkpoints, and what it was made from."""

    result: Any
    uri: str
    graph_set: Any
    artifacts: Path

    @property
    def run(self) -> Any:
        """The run as the server has it."""
        return self.client.get_run(self.result.run_id)

    @property
    def client(self) -> Any:
        return mlflow_client(self.uri)


EPOCHS = 5
KEEP = 2


@pytest.fixture(scope="session")
def finished(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Read only: tests that write make a run of their own."""
    import topotrain

    root = tmp_path_factory.mktemp("finished run")  # a path with a space, as users have them
    shutil.copyfile(_empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    write_graph_set(root / "set")
    graph_set = GraphSet(root / "set")
    config = root / "recipe.yaml"
    config.write_text("# my own words\ntrainer: {num_epochs: 99}\nmlflow: {tags: {team: docking}}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.chdir(root)
        result = topotrain.fit(
            config,
            overrides=[*graph_set.overrides, f"trainer.num_epochs={EPOCHS}", f"checkpoints.keep={KEEP}"],
            run_name="the finished one",
            notes="made for tests",
            trial_label="trial 7",
            tracking_uri=uri,
        )
    run = mlflow_client(uri).get_run(result.run_id)
    yield Finished(result, uri, graph_set, local_artifact(run, ""))


@pytest.fixture
def mlflow_server(store_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A running server with proxied artifacts over this test's store; mark the test ``server``."""
    one = Server(store_uri, tmp_path / "kept", tmp_path / "server.log")
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def server(mlflow_server: Server) -> str:
    """Its address."""
    return mlflow_server.address


@pytest.fixture(scope="session")
def _group_server(_shared_folder: Path) -> Iterator[GroupServer]:
    require_postgresql()
    with shared_group_server(_shared_folder) as one:
        yield one


@pytest.fixture
def group_server(_group_server: GroupServer, _shared_folder: Path) -> Iterator[GroupServer]:
    """The server of a group, as ``make server`` starts it; mark the test ``server``.

    It is the same for all tests: take experiments, models and users of your own.
    """
    with in_use(_shared_folder, alone=False):
        yield _group_server


@pytest.fixture
def group_server_alone(_group_server: GroupServer, _shared_folder: Path) -> Iterator[GroupServer]:
    """As ``group_server``, for a test that stops it, or puts something in the place of its data."""
    with in_use(_shared_folder, alone=True):
        yield _group_server


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file is there, trainings in processes of their own go through two epochs each, and wait."""
    file = tmp_path / "held"
    file.touch()
    for name, value in holding(file).items():
        monkeypatch.setenv(name, value)
    return file


@dataclass(frozen=True)
class StructureModel:
    """A model version that was trained on graphs of structures, the champion of its store."""

    root: Path
    uri: str

    @property
    def structures(self) -> Path:
        """Helix pairs of three targets, ``T1/m0.pdb`` and so on."""
        return self.root / "structures"

    @property
    def graphs(self) -> Path:
        return self.root / "graphs"


@pytest.fixture(scope="session")
def structure_model(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> StructureModel:
    """Read only: graphs of the default modules but for the topology, which takes most of the time."""
    import topotrain
    from kit.structures import write_models

    root = tmp_path_factory.mktemp("structure model")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    made = StructureModel(root, f"sqlite:///{root / 'mlflow.db'}")
    slides = (0.0, 1.0, 2.5, 4.0)
    for target, name in (("T1", "train"), ("T2", "train"), ("T3", "val")):
        keys = write_models(made.structures, slides, target)
        with (root / f"{name}.csv").open("a") as file:
            file.write("MODEL,dockq\n" if target != "T2" else "")
            file.writelines(f"{key},{1 - slide / 5}\n" for key, slide in zip(keys, slides, strict=True))
    topotrain.build_graphs(made.structures, made.graphs, topology_module="topology/none/v1")
    overrides = [f"paths.{key}={root / name}" for key, name in PATHS.items()]
    overrides += ["trainer.num_epochs=2", "checkpoints.keep=1", "dataloader.batch_size=4"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.chdir(root)
        topotrain.fit(overrides=overrides, tracking_uri=made.uri)
    return made


PATHS = {"graph": "graphs", "train_labels": "train.csv", "val_labels": "val.csv"}
