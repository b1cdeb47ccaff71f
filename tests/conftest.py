"""Fixtures: small graph sets, and for every test a tracking store of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TOPOTRAIN_SHARED_DATA", ROOT.parent / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--write-pictures`` makes the pictures of docs/images anew."""
    parser.addoption("--write-pictures", action="store_true", help="Write the pictures of docs/images anew.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process of the suite is left alone with one at the end."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("project", "server", "browser")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real input beside the checkout; not part of the project, so tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real input is absent ({SHARED_DATA})")
    return SHARED_DATA


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees another's run, store, cache or log handlers."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing else; making one takes seconds, copying one does not."""
    from filelock import FileLock

    from topotrain.tracking.store import open_store

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base  # one for all processes of the suite
    path = shared / "template" / "mlflow.db"
    with FileLock(shared / "template.lock"):
        if not path.exists():
            open_store(f"sqlite:///{path}")
            # Fold the write-ahead log into the file, so that the file alone is the database.
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
    return path


@pytest.fixture
def store_uri(_empty_store: Path, tmp_path: Path) -> str:
    """The tracking URI of a fresh store that belongs to this test."""
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@dataclass(frozen=True)
class GraphSet:
    """A small labelled graph directory."""

    root: Path

    @property
    def graphs(self) -> Path:
        return self.root / "graphs"

    @property
    def sidecar(self) -> Path:
        return self.graphs / "graph_metadata.json"

    @property
    def train_labels(self) -> Path:
        return self.root / "train.csv"

    @property
    def val_labels(self) -> Path:
        return self.root / "val.csv"

    @property
    def overrides(self) -> list[str]:
        """Overrides that train on this set for a moment."""
        return [
            f"paths.graph={self.graphs}",
            f"paths.train_labels={self.train_labels}",
            f"paths.val_labels={self.val_labels}",
            "trainer.num_epochs=2",
            "trainer.accumulate_grad_batches=1",
            "dataloader.batch_size=4",
        ]

    def edit_sidecar(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change graph_metadata.json in place."""
        content = json.loads(self.sidecar.read_text())
        edit(content)
        self.sidecar.write_text(json.dumps(content))


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


def write_graph_set(
    root: Path,
    *,
    node_dim: int = 5,
    edge_dim: int = 3,
    train_targets: int = 3,
    val_targets: int = 2,
    decoys: int = 4,
    sidecar: bool = True,
    module: str = "edge/test/v1",
    seed: int = 0,
) -> None:
    """Write graphs by target, label files and (optionally) a sidecar; DockQ can be read off the first edge column."""
    import numpy as np
    import torch
    from torch_geometric.data import Data

    rng = np.random.default_rng(seed)
    entries: dict[str, Any] = {}
    for split, count in (("train", train_targets), ("val", val_targets)):
        lines = ["MODEL,dockq"]
        for target in range(count):
            folder = root / "graphs" / f"{split[0].upper()}{target}"
            folder.mkdir(parents=True)
            for decoy in range(decoys):
                key = f"{folder.name}/m{decoy}"
                dockq = round(float(rng.random()), 4)
                num_nodes, num_edges = int(rng.integers(4, 8)), int(rng.integers(6, 14))
                edge_attr = rng.normal(size=(num_edges, edge_dim))
                edge_attr[:, 0] = dockq + rng.normal(0, 0.05, num_edges)
                data = Data(
                    x=torch.from_numpy(rng.normal(size=(num_nodes, node_dim)).astype("float32")),
                    edge_index=torch.from_numpy(rng.integers(0, num_nodes, size=(2, num_edges))),
                    edge_attr=torch.from_numpy(edge_attr.astype("float32")),
                )
                torch.save(data, folder / f"m{decoy}.pt")
                entries[key] = {
                    "edge_module": module,
                    "edge_params": {"cutoff": 10.0, "jobs": 4},
                    "edge_metadata": {
                        "edge_count": num_edges,
                        "feature_dim": edge_dim,
                        "edge_feature_variant": f"test_{edge_dim}",
                    },
                    "node_feature_columns": [f"n{i}" for i in range(node_dim)],
                    "edge_feature_columns": [f"e{i}" for i in range(edge_dim)],
                }
                lines.append(f"{key},{dockq}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    if sidecar:
        (root / "graphs" / "graph_metadata.json").write_text(json.dumps({"_builder": "test", **entries}))
