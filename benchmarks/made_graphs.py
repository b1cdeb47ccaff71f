"""Labelled graphs of given sizes, made fast: as many and as wide as a question needs.

python benchmarks/made_graphs.py --out DIR --graphs 1000 --nodes 40 --edges 128 --node-dim 172 --edge-dim 24

Contacts are drawn at random, each as two edges, one either way, which carry equal attributes as real ones do
(``--directed``: different ones). The numbers of nodes and edges vary around what was asked for by ``--spread``. DockQ
can be learned: it is read off a graph's first edge column. Nine tenths of the targets are for training.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

DECOYS = 100  # of a target, where there are enough graphs
RECIPE = "recipe.json"


@dataclass(frozen=True)
class Shape:
    """How large graphs are.

    Attributes:
        nodes: of a graph, on average.
        edges: of a graph, on average; both directions of a contact count.
        node_dim: node columns.
        edge_dim: edge columns.
        spread: how far the two numbers vary, as a share.
        directed: whether the two directions of a contact carry different attributes.
    """

    nodes: int = 40
    edges: int = 128
    node_dim: int = 172
    edge_dim: int = 24
    spread: float = 0.25
    directed: bool = False

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.edges} edges, {self.node_dim}+{self.edge_dim} columns"


DEMO = Shape()
LARGE = Shape(nodes=100, edges=700)
WIDE = Shape(edge_dim=434)
LARGE_WIDE = Shape(nodes=100, edges=700, edge_dim=434)
SHAPES = {"demo": DEMO, "large": LARGE, "wide": WIDE}


@dataclass(frozen=True)
class Made:
    """A directory of graphs with its label files."""

    graphs: Path
    train_labels: Path
    val_labels: Path

    @property
    def overrides(self) -> list[str]:
        """Of a configuration that trains on them."""
        return [
            f"paths.graph={self.graphs}",
            f"paths.train_labels={self.train_labels}",
            f"paths.val_labels={self.val_labels}",
        ]


def make_graph(shape: Shape, rng: np.random.Generator, dockq: float) -> Data:
    """One graph; every number in it is drawn anew."""
    low, high = 1 - shape.spread, 1 + shape.spread
    nodes = max(2, round(shape.nodes * rng.uniform(low, high)))
    contacts = max(1, round(shape.edges * rng.uniform(low, high) / 2))
    source = rng.integers(0, nodes, contacts)
    target = (source + rng.integers(1, nodes, contacts)) % nodes  # another node
    edge_index = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    drawn = 2 * contacts if shape.directed else contacts
    edge_attr = rng.standard_normal((drawn, shape.edge_dim), dtype=np.float32)
    edge_attr[:, 0] = dockq + 0.05 * edge_attr[:, 0]
    if not shape.directed:
        edge_attr = np.concatenate([edge_attr, edge_attr])
    x = rng.standard_normal((nodes, shape.node_dim), dtype=np.float32)
    return Data(x=torch.from_numpy(x), edge_index=torch.from_numpy(edge_index), edge_attr=torch.from_numpy(edge_attr))


def make_graphs(shape: Shape, number: int, seed: int = 0) -> Iterator[tuple[Data, float]]:
    """Graphs and their DockQ."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        dockq = round(float(rng.random()), 4)
        yield make_graph(shape, rng, dockq), dockq


def make_batch(shape: Shape, number: int, seed: int = 0) -> tuple[Batch, Tensor]:
    """Graphs as PyG's batch, and (number,) DockQ."""
    graphs, dockq = zip(*make_graphs(shape, number, seed), strict=True)
    return Batch.from_data_list(list(graphs)), torch.tensor(dockq)


def write_set(root: Path, shape: Shape, number: int, *, sidecar: bool = True, seed: int = 0) -> Made:
    """Write graphs by target, two label files and (optionally) a sidecar; a folder that has them already is kept.

    Args:
        root: of the graphs and the label files.
        shape: of the graphs.
        number: of graphs, at least 4.
        sidecar: whether to write ``graph_metadata.json``.
        seed: of everything drawn.
    """
    made = Made(root / "graphs", root / "train.csv", root / "val.csv")
    recipe = {"shape": asdict(shape), "number": number, "sidecar": sidecar, "seed": seed}
    note = root / RECIPE
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == recipe:
        return made
    shutil.rmtree(root, ignore_errors=True)
    decoys = min(DECOYS, max(2, number // 10))
    num_val = max(1, round(-(-number // decoys) / 10))
    entries: dict[str, Any] = {"_builder": "made"}
    rows: dict[Path, list[str]] = {made.train_labels: ["MODEL,dockq"], made.val_labels: ["MODEL,dockq"]}
    for place, (graph, dockq) in enumerate(make_graphs(shape, number, seed)):
        target, decoy = divmod(place, decoys)
        key = f"T{target:05d}/m{decoy:03d}"
        path = made.graphs / f"{key}.pt"
        if decoy == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(graph, path)
        rows[made.val_labels if target < num_val else made.train_labels].append(f"{key},{dockq}")
        entries[key] = sidecar_entry(shape, graph)
    for path, lines in rows.items():
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if sidecar:
        (made.graphs / "graph_metadata.json").write_text(json.dumps(entries), encoding="utf-8")
    note.write_text(json.dumps(recipe), encoding="utf-8")
    return made


@cache
def column_names(prefix: str, width: int) -> list[str]:
    """One list for all graphs."""
    return [f"{prefix}{column}" for column in range(width)]


def sidecar_entry(shape: Shape, graph: Data) -> dict[str, Any]:
    """What ``graph_metadata.json`` says of a graph."""
    return {
        "edge_module": "edge/made/v1",
        "edge_params": {"cutoff": 10.0, "jobs": 4},
        "edge_metadata": {
            "edge_count": int(graph.edge_index.shape[1]),
            "feature_dim": shape.edge_dim,
            "edge_feature_variant": f"made_{shape.edge_dim}",
        },
        "node_feature_columns": column_names("n", shape.node_dim),
        "edge_feature_columns": column_names("e", shape.edge_dim),
    }


def add_shape(parser: argparse.ArgumentParser) -> None:
    """The options that make a shape."""
    for name in ("nodes", "edges", "node-dim", "edge-dim"):
        default = getattr(DEMO, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default, help="of made graphs (%(default)s)")
    parser.add_argument("--spread", type=float, default=DEMO.spread, help="how far sizes vary (%(default)s)")
    parser.add_argument("--directed", action="store_true", help="the two directions of a contact differ")


def shape_of(given: argparse.Namespace) -> Shape:
    """The shape that was asked for."""
    return Shape(given.nodes, given.edges, given.node_dim, given.edge_dim, given.spread, given.directed)


def main() -> None:
    """Make a directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--graphs", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--no-sidecar", action="store_true", help="without graph_metadata.json")
    parser.add_argument("--seed", type=int, default=0)
    add_shape(parser)
    given = parser.parse_args()
    made = write_set(given.out, shape_of(given), given.graphs, sidecar=not given.no_sidecar, seed=given.seed)
    print(made.graphs, made.train_labels, made.val_labels, sep="\n")


if __name__ == "__main__":
    main()
