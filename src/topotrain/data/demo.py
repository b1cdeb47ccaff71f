"""The demo data set: small synthetic interface graphs that the package makes itself from a seed.

Each target is a pair of flat square lattices of residues that face each other; a decoy slides one of them away
from its place. DockQ falls with the distance slid, and the features are measured on the lattices with noise. The
graphs look like interface graphs and can be learned, but they are not proteins.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from topotrain.errors import DataError
from topotrain.fields import SIDECAR_NAME, SUMMARY_NAME
from topotrain.files import make_new, make_whole

VERSION = "synthetic-v1"
SEED = 20251
NUM_TARGETS = {"train": 12, "val": 3}
DECOYS = 20
CUTOFF = 10.0  # Angstrom, between lattice points of different sides
SPACING = 5.5  # Angstrom, between neighbours of one side
NODE_COLUMNS = ["hydropathy", "charge", "exposure", "num_contacts", "side"]
EDGE_COLUMNS = ["distance", "inverse_distance", "complementarity"]
EDGE_MODULE = "edge/synthetic_lattice/v1"


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo data set lies on disk."""

    graphs: Path
    train_labels: Path
    val_labels: Path


def demo_paths(cache_dir: Path | None = None) -> DemoPaths:
    """The demo data set, made on first use.

    Args:
        cache_dir: where to keep it; by default the user's cache directory.
    """
    root = (cache_dir or Path(platformdirs.user_cache_dir("topotrain"))) / f"demo-{VERSION}"
    if not root.exists():
        try:
            make_whole(root, make_demo)
        except OSError as error:
            raise DataError(
                f"{root}: the demo data set can't be written ({error})",
                "a cache directory that can be written",
                "set XDG_CACHE_HOME",
            ) from None
    return DemoPaths(root / "graphs", root / "train.csv", root / "val.csv")


def write_demo(out: Path) -> None:
    """Write the demo data set to a folder that does not exist yet.

    Raises:
        DataError: the folder exists, or can't be written.
    """
    make_new(out, make_demo)


def make_demo(root: Path) -> None:
    """Write graphs, metadata and label files below ``root``; the same values on every call."""
    import torch
    from torch_geometric.data import Data

    rng = np.random.default_rng(SEED)
    sidecar: dict[str, Any] = {}
    graphs = root / "graphs"
    for split, num_targets in NUM_TARGETS.items():
        rows: list[tuple[str, float]] = []
        for number in range(num_targets):
            target = f"{'L' if split == 'train' else 'V'}{number:02d}"
            (graphs / target).mkdir(parents=True)
            lattice = _Lattice(rng)
            for decoy in range(DECOYS):
                key = f"{target}/slide_{decoy:02d}"
                fields, dockq = lattice.decoy(rng, decoy / (DECOYS - 1))
                metadata = {"edge_module": EDGE_MODULE, "edge_params": {"cutoff": CUTOFF}}
                tensors = {name: torch.from_numpy(value) for name, value in fields.items()}
                torch.save(Data(**tensors, metadata=metadata), graphs / f"{key}.pt")
                sidecar[key] = _sidecar_entry(len(fields["edge_attr"]))
                rows.append((key, round(dockq, 4)))
        with (root / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("MODEL", "dockq"), *rows])
    (graphs / SIDECAR_NAME).write_text(json.dumps(sidecar), encoding="utf-8")
    _write_summary(graphs)


class _Lattice:
    """One target: two sides of residues with fixed properties, in their native place."""

    def __init__(self, rng: np.random.Generator) -> None:
        size = int(rng.integers(4, 7))
        grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2) * SPACING
        bumps = rng.normal(0.0, 0.6, size=(2, len(grid)))
        self.lower = np.column_stack([grid, bumps[0]])
        self.upper = np.column_stack([grid, 6.5 + bumps[1]])
        hydropathy, charge = rng.normal(size=len(grid)), rng.normal(size=len(grid))
        noise = rng.normal(0.0, 0.4, size=(2, len(grid)))
        self.hydropathy = np.concatenate([hydropathy, hydropathy + noise[0]])  # like faces like
        self.charge = np.concatenate([charge, -charge + noise[1]])  # and charges face their opposites

    def decoy(self, rng: np.random.Generator, amount: float) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """One decoy; ``amount`` in [0, 1] is how far it slides, 0 being native."""
        angle = rng.uniform(0, 2 * math.pi)
        slide = 16.0 * amount * np.array([math.cos(angle), math.sin(angle), 0.0]) + [0, 0, 1.5 * amount * rng.random()]
        points = np.concatenate([self.lower, self.upper + slide])
        side = np.repeat([0, 1], len(self.lower))
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        contact = (distance < CUTOFF) & (side[:, None] != side[None])
        kept = np.flatnonzero(contact.any(axis=1))
        edge_index = np.stack(np.nonzero(contact[np.ix_(kept, kept)]))
        source, target = kept[edge_index[0]], kept[edge_index[1]]
        length = distance[source, target]
        matched = self.hydropathy[source] * self.hydropathy[target] - self.charge[source] * self.charge[target]
        exposure = rng.random(len(kept))
        node = [self.hydropathy[kept], self.charge[kept], exposure, contact.sum(axis=1)[kept], side[kept]]
        fields: dict[str, npt.NDArray[Any]] = {
            "x": np.column_stack(node).astype(np.float32),
            "edge_index": edge_index.astype(np.int64),
            "edge_attr": np.column_stack([length, 1.0 / length, matched]).astype(np.float32),
        }
        return fields, 1.0 / (1.0 + (16.0 * amount / 5.0) ** 2)


def _sidecar_entry(edge_count: int) -> dict[str, Any]:
    return {
        "edge_module": EDGE_MODULE,
        "edge_params": {"cutoff": CUTOFF},
        "edge_metadata": {
            "edge_count": edge_count,
            "feature_dim": len(EDGE_COLUMNS),
            "edge_feature_variant": "synthetic_lattice_v1",
        },
        "node_feature_columns": NODE_COLUMNS,
        "edge_feature_columns": EDGE_COLUMNS,
    }


def _write_summary(graphs: Path) -> None:
    logs = graphs / "logs" / "graph_builder.2025-01-01_00-00-00"
    logs.mkdir(parents=True)
    module = {
        "id": EDGE_MODULE,
        "alias": "synthetic lattice",
        "summary": "distances and complementarity of facing lattice points",
        "defaults": {"cutoff": CUTOFF},
    }
    content = {"edge": {"output_dir": "../..", "edge_feature_dim": len(EDGE_COLUMNS)}, "modules": {"edge": module}}
    (logs / SUMMARY_NAME).write_text(json.dumps(content), encoding="utf-8")
