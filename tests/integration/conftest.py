"""One finished run that many tests look at; none of them changes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


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
        from topotrain.tracking.store import open_store

        return open_store(self.uri)


EPOCHS = 5
KEEP = 2


@pytest.fixture(scope="session")
def finished(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Read only: tests that write make a run of their own."""
    import topotrain
    from topotrain.tracking.search import local_artifact
    from topotrain.tracking.store import open_store

    root = tmp_path_factory.mktemp("finished run")  # a path with a space, as users have them
    shutil.copyfile(_empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    base = _tests_conftest()
    base.write_graph_set(root / "set")
    graph_set = base.GraphSet(root / "set")
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
    run = open_store(uri).get_run(result.run_id)
    folder = local_artifact(run, "")
    assert folder is not None
    yield Finished(result, uri, graph_set, Path(folder))


def _tests_conftest() -> Any:
    """The conftest above this one: both are called ``conftest``, so it is found by its file."""
    import importlib.util
    import sys

    name = "topotrain_tests_conftest"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parents[1] / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
