"""Fixtures: small graph sets, and for every test a tracking store of its own."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.graphs import GraphSet, write_graph_set
from kit.quick_python import QuickPython
from kit.strict_skips import (  # noqa: F401 (pytest calls the hooks)
    pytest_make_collect_report,
    pytest_runtest_makereport,
    reference_data,
    skip_without_reference_data,
)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # where it was not set, too late for torch to see
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a suite in the background, and of all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("long", "project", "server", "browser")  # markers
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--write-pictures`` makes the pictures of docs/images anew."""
    parser.addoption("--write-pictures", action="store_true", help="Write the pictures of docs/images anew.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process of the suite is left alone with one at the end."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in LONG))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real input beside the checkout; not part of the project, so tests that need it skip without it."""
    place = reference_data()
    if place is None or not place.is_dir():
        skip_without_reference_data()
    return place


@pytest.fixture(scope="session")
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of the suite."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(_shared_folder: Path) -> Iterator[None]:
    """One cache for all processes of the suite, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_shared_folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(_shared_folder / f"state-{os.getpid()}"))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees another's run, store, cache or log handlers."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-state")))
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("topotrain")
    before = (list(logger.handlers), logger.level, logger.propagate)
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.INFO)
    _reset_mlflow()
    yield
    _reset_mlflow()
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def _reset_mlflow() -> None:
    """Forget which store the last test (or the session's template) pointed MLflow's globals at."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
    # MLflow keeps an engine, with open files, for every database that a process has seen.
    for room in ("tracking", "model_registry"):
        module = sys.modules.get(f"mlflow.store.{room}.sqlalchemy_store")
        for engine in getattr(getattr(module, "SqlAlchemyStore", None), "_engine_map", {}).values():
            engine.dispose()


@pytest.fixture(scope="session")
def _empty_store(_shared_folder: Path) -> Path:
    """A database with MLflow's tables and nothing else; making one takes seconds, copying one does not."""
    from filelock import FileLock

    from kit.recorded import make_database

    path = _shared_folder / "template" / "mlflow.db"
    with FileLock(_shared_folder / "template.lock"):
        if not path.exists():
            make_database(path)
    return path


@pytest.fixture(scope="session")
def quick_python() -> Iterator[str]:
    """What to start the program with, in place of ``sys.executable``, where the interpreter is not the point."""
    with QuickPython() as one:
        yield str(one.path)


@pytest.fixture
def store_uri(_empty_store: Path, tmp_path: Path) -> str:
    """The tracking URI of a fresh store that belongs to this test."""
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def make_graph_set(tmp_path: Path) -> Callable[..., GraphSet]:
    """A function that writes a graph set: 3 training and 2 validation targets of 4 decoys by default."""

    def make(name: str = "set", **options: Any) -> GraphSet:
        root = tmp_path / name
        write_graph_set(root, **options)
        return GraphSet(root)

    return make


@pytest.fixture
def graph_set(make_graph_set: Callable[..., GraphSet]) -> GraphSet:
    """The default small graph set."""
    return make_graph_set()
