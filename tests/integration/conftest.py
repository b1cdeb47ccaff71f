"""One finished run that many tests look at (none of them changes it), and an MLflow server of a test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
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
    from topotrain.tracking.runs import local_artifact
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


class Server:
    """A server on loopback that keeps artifacts itself; it can be stopped and started again at the same address."""

    START_SECONDS = 120

    def __init__(self, store_uri: str, artifacts: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.store_uri, self.artifacts, self.log = store_uri, artifacts, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store_uri, "--workers", "1"]
        command += ["--artifacts-destination", str(self.artifacts), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + self.START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=2).read()
                return
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.5)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signum)
            self._process.wait(timeout=30)
            self._process = None


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
def graph_kit() -> Any:
    """``write_graph_set`` and ``GraphSet``, for fixtures that live longer than a test."""
    return _tests_conftest()


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
