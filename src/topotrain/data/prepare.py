"""A run's data, from the configuration's paths to packed graphs and one schema."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from topotrain.config import TrainConfig
from topotrain.data.column_statistics import ColumnStatistics, column_statistics
from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.module import GraphDataModule
from topotrain.data.split import Split, SplitRules, leaked_targets, read_splits
from topotrain.data.stored_schema import stored_schema
from topotrain.fields import DEMO
from topotrain.progress import Track
from topotrain.schema.check import expect
from topotrain.schema.feature_schema import FeatureSchema


@dataclass(frozen=True)
class PreparedData:
    """Everything a run needs to know of its data.

    Attributes:
        schema: resolved from every graph of both splits.
        train: training split.
        val: validation split.
        module: batches.
        label_paths: label file of each split.
        graph_dir: where the graphs are.
        notes: what else the user should know of them.
    """

    schema: FeatureSchema
    train: Split
    val: Split
    module: GraphDataModule
    label_paths: dict[str, Path]
    graph_dir: Path
    notes: tuple[str, ...] = ()

    def columns(self) -> tuple[ColumnStatistics, ColumnStatistics]:
        """Statistics of the node and of the edge columns over the training graphs."""

        def compute() -> list[dict[str, Any]]:
            return [columns.to_dict() for columns in column_statistics(self.module.train)]

        nodes, edges = self.train.store.remembered("columns", self.train.content_digest, compute)
        return ColumnStatistics.from_dict(nodes), ColumnStatistics.from_dict(edges)

    @property
    def digest(self) -> str:
        """Digest over both splits (``data.digest``)."""
        return hashlib.sha256(f"train {self.train.digest}\nval {self.val.digest}".encode()).hexdigest()

    @property
    def warnings(self) -> list[str]:
        """What the user should know before the first step."""
        lines = [*self.schema.notes, *self.notes]
        leaked = leaked_targets(self.train, self.val)
        if leaked:
            lines.append(
                f"{len(leaked)} targets are in both label files, so validation metrics are too good (a leak): "
                + ", ".join(leaked)
            )
        for split in (self.train, self.val):
            lines += [f"{split.name}: {line}" for line in split.warnings]
            if split.missing:
                lines.append(f"{split.name}: {len(split.missing)} of {split.total} decoys have no usable graph")
        return lines

    def coverage(self) -> dict[str, Any]:
        """The content of ``dataset_coverage.json``."""
        return {"train": self.train.coverage(), "val": self.val.coverage()}


def prepare_data(config: TrainConfig, progress: Track | None = None) -> PreparedData:
    """Read labels and graphs, resolve the schema, pack the graphs.

    Raises:
        DataError: bad files or labels.
        SchemaError: graphs that disagree, or a configuration that contradicts them.
    """
    paths = config.paths
    if paths.graph == DEMO:
        demo = demo_paths()
        graph_dir, train_labels, val_labels = demo.graphs, demo.train_labels, demo.val_labels
    else:
        graph_dir, train_labels, val_labels = Path(paths.graph), Path(paths.train_labels), Path(paths.val_labels)
    directory = GraphDirectory(graph_dir)
    cache = Path(paths.cache) if paths.cache else None
    rules = SplitRules(
        fail_on_missing=config.coverage.fail_on_missing,
        minimum_percent=config.coverage.minimum_percent,
        column=config.labels.column,
    )
    label_paths = {"train": train_labels, "val": val_labels}
    train, val = read_splits(directory, label_paths, rules, cache=cache, progress=progress)
    schema = stored_schema(
        train.store,
        [sample.position for split in (train, val) for sample in split.samples],
        metadata_path=Path(paths.metadata) if paths.metadata else None,
        summary_path=Path(paths.summary) if paths.summary else None,
        use_layer_norm=config.edge_schema.use_layer_norm,
    )
    schema = replace(schema, label_column=config.labels.column)
    expect(schema, config.edge_schema.expectations())
    module = GraphDataModule(train.packed(schema), val.packed(schema), config.dataloader)
    return PreparedData(schema, train, val, module, label_paths, directory.root)
