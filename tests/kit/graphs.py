"""Small labelled graph sets, made in moments."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import pack
from topotrain.schema.feature_schema import FeatureSchema

# Kinds of network, loss, batches, optimiser, scheduler: as published, and, on a set of a few decoys each, the defaults.
PUBLISHED = (
    *("model.pooling_type=mean", "model.num_layers=2", "model.contact_potential=false", "model.contact_term=false"),
    *("model.derived_inputs=false", "model.pooled_inputs=0", "model.embedding_dropout=0.0", "model.head_dropout=0.0"),
    *("model.input_scaling=standard", "model.input_clamp=null", "dataloader.batches=random", "loss.rank_weight=0.0"),
    *("optimizer.type=adam", "scheduler.type=reduce_on_plateau"),
)
NO_DROPOUT = ("model.dropout=0", "model.embedding_dropout=0", "model.head_dropout=0", "model.pooled_inputs_dropout=0")
RANKING = (
    *("model.pooling_type=scaled_add", "model.num_layers=1", "model.contact_term=true", "model.derived_inputs=true"),
    *("model.pooled_inputs=16", "model.embedding_dropout=0.2", "model.head_dropout=0.2"),
    *("model.input_scaling=decorrelated", "model.input_clamp=6.0", "dataloader.batches=by_target"),
    *("dataloader.decoys_per_target=2", "loss.rank_weight=0.1", "optimizer.type=adamw", "scheduler.type=cosine"),
    "scheduler.warmup_steps=3",
)


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


def packed_graphs(graphs: Sequence[Graph], schema: FeatureSchema, *labels: Sequence[Any], **more: Any) -> PackedGraphs:
    """Graphs that lie in memory."""
    packed = [pack(graph) for graph in graphs]
    return PackedGraphs(
        lambda positions: [packed[i] for i in positions], [graph.key for graph in graphs], schema, *labels, **more
    )
