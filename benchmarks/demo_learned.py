"""Is the demo data set learned? The default configuration with several seeds, next to what needs no network.

python benchmarks/demo_learned.py [--seeds 222 777 1337] [--json FILE]

Two things need no network: predicting the mean of the training labels, and the best single raw feature: of the means
and sums of all node and edge columns and the numbers of nodes and edges, the one whose Spearman correlation with
DockQ, mean over training targets, is largest in size. Its error is that of a straight line fitted on training.
Docked decoys are shown apart too. Hold-out targets are for a last look: no choice belongs on their metrics.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from holdout import COLUMNS, baselines, metrics_of, train_and_score

from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import Split, read_split
from topotrain.data.stored_schema import inspect_directory
from topotrain.metrics.ranking import Values, by_target, spearman

MIN_DOCKED = 3  # docked decoys of a target that are ranked among themselves


def raw_features(split: Split, node_columns: list[str], edge_columns: list[str]) -> dict[str, Values]:
    """{name: (num_decoys,)} pooled columns."""
    graphs = list(split.graphs())
    found = {
        "number of nodes": np.array([len(graph.x) for graph in graphs], dtype=np.float64),
        "number of edges": np.array([graph.edge_index.shape[1] for graph in graphs], dtype=np.float64),
    }
    for kind, columns, tensors in (
        ("node", node_columns, [graph.x for graph in graphs]),
        ("edge", edge_columns, [graph.edge_attr for graph in graphs]),
    ):
        for pooling in ("mean", "sum"):
            pooled = np.array([getattr(np, pooling)(tensor.numpy().astype(np.float64), axis=0) for tensor in tensors])
            found |= {f"{pooling} of {kind} {name}": pooled[:, place] for place, name in enumerate(columns)}
    return found


def correlation(values: Values, split: Split) -> float:
    """Spearman with DockQ, mean over targets."""
    true = np.array([sample.dockq for sample in split.samples])
    groups = by_target([sample.target for sample in split.samples]).values()
    return float(np.mean([spearman(values[rows], true[rows]) or 0.0 for rows in groups]))


@dataclass(frozen=True)
class Raw:
    """One raw feature as a predictor.

    Attributes:
        name: of the feature.
        node_columns: of the graphs.
        edge_columns: of the graphs.
        sign: 1 if more is better, else -1.
        line: slope and intercept of a straight line to DockQ.
    """

    name: str
    node_columns: list[str]
    edge_columns: list[str]
    sign: float
    line: tuple[float, float]

    @classmethod
    def best(cls, train: Split, node_columns: list[str], edge_columns: list[str]) -> Raw:
        """The one that ranks training targets best, in either direction."""
        features = raw_features(train, node_columns, edge_columns)
        ranked = {name: correlation(values, train) for name, values in features.items()}
        name = max(ranked, key=lambda name: abs(ranked[name]))
        slope, intercept = np.polyfit(features[name], [sample.dockq for sample in train.samples], 1)
        return cls(name, node_columns, edge_columns, float(np.sign(ranked[name])), (slope, intercept))

    def metrics_of(self, split: Split) -> dict[str, float]:
        """Error of the line; ranks by the feature itself."""
        values = raw_features(split, self.node_columns, self.edge_columns)[self.name]
        return {
            **metrics_of(self.sign * values, split),
            "mse": metrics_of(self.line[0] * values + self.line[1], split)["mse"],
        }


def only(split: Split, rows: list[int]) -> Split:
    """Some decoys of a split."""
    return replace(split, samples=tuple(split.samples[row] for row in rows))


def docked_rows(split: Split, kinds: Mapping[str, str]) -> list[int]:
    """Places of docked decoys, of targets with enough of them."""
    rows = [place for place, sample in enumerate(split.samples) if kinds[sample.key] == "docking"]
    counted = by_target([split.samples[row].target for row in rows])
    enough = {target for target, places in counted.items() if len(places) >= MIN_DOCKED}
    return [row for row in rows if split.samples[row].target in enough]


def read_kinds(paths: Iterable[Path]) -> dict[str, str]:
    """{MODEL: kind} of label files."""
    kinds: dict[str, str] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            kinds |= {row["MODEL"]: row["kind"] for row in csv.DictReader(file)}
    return kinds


def tables(arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """{split: {row: metrics}}."""
    paths = demo_paths()
    directory = GraphDirectory(paths.graphs)
    labels = {"train": paths.train_labels, "val": paths.val_labels, "holdout": paths.holdout_labels}
    splits = {name: read_split(name, directory, path) for name, path in labels.items()}
    schema = inspect_directory(paths.graphs)
    columns = list(schema.node_columns or ()), list(schema.edge_columns or ())
    train = splits.pop("train")
    baseline = Raw.best(train, *columns)
    predictions: dict[str, dict[str, Values]] = {split.name: {} for split in splits.values()}
    with tempfile.TemporaryDirectory() as folder:
        setting = argparse.Namespace(
            graphs=paths.graphs,
            train=paths.train_labels,
            val=paths.val_labels,
            config=None,
            override=arguments.override,
        )
        for seed in arguments.seeds:
            began = time.perf_counter(), time.process_time()
            scores = train_and_score(setting, seed, tuple(splits.values()), Path(folder))
            wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
            print(f"seed {seed}: trained and scored in {wall:.0f} s, {cpu:.0f} s of processor time")
            for split, values in zip(splits.values(), scores, strict=True):
                predictions[split.name][f"network, seed {seed}"] = values
    kinds = read_kinds(labels.values())
    result = {}
    for split in splits.values():
        every = list(range(len(split.samples)))
        for title, rows in ((split.name, every), (f"{split.name}, docked", docked_rows(split, kinds))):
            part = only(split, rows)
            table = baselines(train, part) | {f"{baseline.name} (best raw feature)": baseline.metrics_of(part)}
            table |= {label: metrics_of(values[rows], part) for label, values in predictions[split.name].items()}
            networks = [row for label, row in table.items() if label.startswith("network")]
            table["network, mean of seeds"] = {c: float(np.mean([row[c] for row in networks])) for c in COLUMNS}
            result[f"{title} ({len(part.targets)} targets, {len(rows)} decoys)"] = table
    return result


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    arguments = parser.parse_args()
    result = tables(arguments)
    for title, table in result.items():
        print(f"\n| {title} | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        for label, row in table.items():
            print(f"| {label} | {' | '.join(f'{row[column]:.3f}' for column in COLUMNS)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
