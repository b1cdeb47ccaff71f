"""Compare settings on targets left out of training: every fold's test targets are seen by no choice of that fold.

Targets are dealt into folds; a fold's targets are the test set, the next fold's first three are validation (they
steer the scheduler, stopping and the choice of checkpoint), the rest is training.

python benchmarks/cross_validation.py --graphs DIR --labels train.csv val.csv --arm defaults \
    --arm "old: trainer.accumulate_grad_batches=16 optimizer.learning_rate=0.005 optimizer.weight_decay=0"
"""

from __future__ import annotations

import argparse
import csv
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from holdout import COLUMNS, baselines, metrics_of

import topotrain
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import Sample, Split, read_split
from topotrain.model.checkpoint import load_network
from topotrain.scoring.scorer import Scorer

VAL_TARGETS = 3


@dataclass(frozen=True)
class Fold:
    """Three splits of one fold."""

    train: Split
    val: Split
    test: Split


def make_folds(samples: Sequence[Sample], num_folds: int) -> list[Fold]:
    """Deal targets into folds, in alphabetical order."""
    targets = sorted({sample.target for sample in samples})
    dealt = [targets[number::num_folds] for number in range(num_folds)]

    def split(name: str, names: set[str]) -> Split:
        chosen = tuple(sample for sample in samples if sample.target in names)
        return Split(name, chosen, len(chosen), ())

    folds = []
    for number, held_out in enumerate(dealt):
        test, val = set(held_out), set(dealt[(number + 1) % num_folds][:VAL_TARGETS])
        folds.append(Fold(split("train", set(targets) - test - val), split("val", val), split("test", test)))
    return folds


def write_labels(split: Split, path: Path) -> Path:
    """A label file of a split."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(sample.key, repr(sample.dockq), sample.target) for sample in split.samples]
        csv.writer(file).writerows([("MODEL", "dockq", "target"), *rows])
    return path


def score_fold(graphs: Path, fold: Fold, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Train on one fold and score its test targets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        result = topotrain.fit(
            None,
            overrides=[
                f"paths.graph={graphs}",
                f"paths.train_labels={write_labels(fold.train, folder / 'train.csv')}",
                f"paths.val_labels={write_labels(fold.val, folder / 'val.csv')}",
                f"dataloader.seed={seed}",
                "mlflow.register=none",
                *overrides,
            ],
            tracking_uri=uri,
        )
        local = mlflow.artifacts.download_artifacts(result.best_checkpoint, dst_path=name, tracking_uri=uri)
        scorer = Scorer(*load_network(Path(local)))
        return metrics_of(np.array(scorer.score([sample.graph for sample in fold.test.samples])), fold.test)


def show(name: str, rows: Sequence[dict[str, float]]) -> str:
    """Mean and standard error over rows."""
    error = np.sqrt(max(len(rows) - 1, 1))
    cells = [f"{np.mean([r[c] for r in rows]):.4f}±{np.std([r[c] for r in rows]) / error:.4f}" for c in COLUMNS]
    return f"| {name} | {len(rows)} | " + " | ".join(cells) + " |"


def main() -> None:
    """Train every arm on every fold and seed, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--labels", type=Path, nargs="+", required=True)
    parser.add_argument("--arm", action="append", default=[], help="NAME, or 'NAME: key=value key=value'")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[222])
    arguments = parser.parse_args()
    directory = GraphDirectory(arguments.graphs)
    samples = [s for path in arguments.labels for s in read_split("all", directory, path).samples]
    folds = make_folds(samples, arguments.folds)
    print("| settings | runs | " + " | ".join(COLUMNS) + " |\n|---|---|" + "---|" * len(COLUMNS), flush=True)
    for name in baselines(folds[0].train, folds[0].test):
        print(show(name, [baselines(fold.train, fold.test)[name] for fold in folds]), flush=True)
    for arm in arguments.arm or ["defaults"]:
        name, _, settings = arm.partition(":")
        rows = [
            score_fold(directory.root, fold, seed, shlex.split(settings)) for seed in arguments.seeds for fold in folds
        ]
        print(show(name, rows), flush=True)


if __name__ == "__main__":
    main()
