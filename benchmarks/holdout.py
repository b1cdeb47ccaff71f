"""Train with several seeds, score held-out targets, and print a table next to two free baselines.

python benchmarks/holdout.py --graphs DIR --train train.csv --val val.csv --test test.csv --seeds 222 777 1337
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np

import topotrain
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import Split, read_split
from topotrain.metrics.ranking import (
    Values,
    by_target,
    mean_ranking_loss,
    mean_squared_error,
    pearson,
    spearman,
)
from topotrain.model.checkpoint import load_network
from topotrain.scoring.scorer import Scorer

COLUMNS = ("mse", "pearson", "spearman", "ranking_loss")


def metrics_of(predicted: Values, split: Split) -> dict[str, float]:
    """MSE and pooled Pearson over decoys; Spearman and ranking loss as means over targets."""
    true = np.array([sample.dockq for sample in split.samples])
    targets = [sample.target for sample in split.samples]
    per_target = [spearman(predicted[rows], true[rows]) or 0.0 for rows in by_target(targets).values()]
    return {
        "mse": mean_squared_error(predicted, true),
        "pearson": pearson(predicted, true) or 0.0,
        "spearman": float(np.mean(per_target)),
        "ranking_loss": mean_ranking_loss(predicted, true, targets),
    }


def baselines(train: Split, split: Split) -> dict[str, dict[str, float]]:
    """The mean of training, and the number of edges (its error after a linear fit on training)."""
    mean = float(np.mean([sample.dockq for sample in train.samples]))
    x = train.sizes[1]
    y = np.array([sample.dockq for sample in train.samples])
    slope, intercept = np.polyfit(x, y, 1)
    edges = split.sizes[1]
    return {
        "mean of training": metrics_of(np.full(len(split.samples), mean), split),
        "number of edges": metrics_of(slope * edges + intercept, split),
    }


def train_and_score(arguments: argparse.Namespace, seed: int, splits: Sequence[Split], folder: Path) -> list[Values]:
    """Scores of each split by the best checkpoint of one run."""
    overrides = [
        f"paths.graph={arguments.graphs}",
        f"paths.train_labels={arguments.train}",
        f"paths.val_labels={arguments.val}",
        f"dataloader.seed={seed}",
        "mlflow.register=none",
        *arguments.override,
    ]
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    result = topotrain.fit(arguments.config, overrides=overrides, tracking_uri=uri)
    local = mlflow.artifacts.download_artifacts(result.best_checkpoint, dst_path=str(folder), tracking_uri=uri)
    scorer = Scorer(*load_network(Path(local)))
    return [np.array(scorer.score(list(split.graphs()))) for split in splits]


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("graphs", "train", "val", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--config", default=None)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    arguments = parser.parse_args()
    for name in ("graphs", "train", "val", "test"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    directory = GraphDirectory(arguments.graphs)
    train, val, test = (read_split(name, directory, getattr(arguments, name)) for name in ("train", "val", "test"))
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for split in (val, test):
        rows[split.name] = baselines(train, split)
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for split, scores in zip(
                (val, test), train_and_score(arguments, seed, (val, test), Path(folder)), strict=True
            ):
                rows[split.name][f"seed {seed}"] = metrics_of(scores, split)
    for name, table in rows.items():
        seeds = [row for label, row in table.items() if label.startswith("seed")]
        table["mean of seeds"] = {column: float(np.mean([row[column] for row in seeds])) for column in COLUMNS}
        print(f"\n{name}: {len({s.target for s in (val if name == 'val' else test).samples})} targets")
        print(f"{'':<18}" + "".join(f"{column:>14}" for column in COLUMNS))
        for label, row in table.items():
            print(f"{label:<18}" + "".join(f"{row[column]:>14.4f}" for column in COLUMNS))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
