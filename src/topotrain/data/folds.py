"""Folds of a label file for cross-validation, cut between targets, never between the decoys of one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from topotrain.config import TrainConfig
from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import read_labels
from topotrain.data.matching import match_labels
from topotrain.data.split import SplitRules, check_coverage, target_of
from topotrain.data.targets import Targets
from topotrain.errors import DataError
from topotrain.fields import DEMO
from topotrain.files import cache_dir, make_whole
from topotrain.reading.csv_file import read_csv
from topotrain.text import as_csv, one_line


@dataclass(frozen=True)
class Fold:
    """One fold: two label files, to train on and to validate on.

    Attributes:
        number: from 1.
        train_labels: the other folds' rows.
        val_labels: the fold's own rows.
        targets: the fold's own targets, sorted.
    """

    number: int
    train_labels: Path
    val_labels: Path
    targets: tuple[str, ...]


def deal_targets(decoys: Mapping[str, int], num_folds: int) -> list[list[str]]:
    """Deal targets into folds of about as many decoys.

    The target with the most decoys goes first, each to the fold that has the fewest so far: the same targets are
    always dealt in the same way.

    Args:
        decoys: number of decoys of each target.
        num_folds: how many folds; at most as many as there are targets.

    Returns:
        The targets of each fold, sorted.
    """
    dealt: list[list[str]] = [[] for _ in range(num_folds)]
    sizes = [0] * num_folds
    for target in sorted(decoys, key=lambda name: (-decoys[name], name)):
        fewest = min(range(num_folds), key=lambda fold: (sizes[fold], len(dealt[fold]), fold))
        dealt[fewest].append(target)
        sizes[fewest] += decoys[target]
    return [sorted(names) for names in dealt]


def make_folds(config: TrainConfig, num_folds: int, cache: Path | None = None) -> list[Fold]:
    """Cut a recipe's training labels into folds; its validation labels stay as they are, for a last look.

    Rows are copied as they are, other columns too, into files below the user's cache directory, in a folder whose name
    follows from the labels: the same on every machine.

    Args:
        config: names graphs and labels.
        num_folds: how many; 2 or more.
        cache: where to keep the files; by default the user's cache directory.

    Raises:
        DataError: fewer targets than folds, malformed labels, missing graphs, or files that can't be written.
    """
    demo = demo_paths() if config.paths.graph == DEMO else None
    graphs, path = (
        (demo.graphs, demo.train_labels) if demo else (Path(config.paths.graph), Path(config.paths.train_labels))
    )
    lines = _targets_of_lines(config, graphs, path)
    counts = Counter(lines.values())
    if len(counts) < num_folds:
        raise DataError(
            f"{path}: {len(counts)} targets ({', '.join(sorted(counts))}) can't make {num_folds} folds",
            "as many targets as folds, or more",
            "take fewer --folds",
        )
    dealt = deal_targets(counts, num_folds)
    file = read_csv(path, config.labels.column)
    # By the words of the labels alone: a run of another machine is to find the same name.
    rows = [[str(line), *row] for line, row in file.rows if line in lines]
    text = as_csv([file.header, *rows]) + repr(dealt)
    name = f"{path.stem}-{num_folds}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    root = (cache or cache_dir()) / "folds" / name
    try:
        if not root.exists():
            make_whole(root, lambda folder: write_folds(folder, path, config.labels.column, lines, dealt))
    except OSError as error:
        raise DataError(
            f"{root}: folds can't be written ({one_line(error)})",
            "a cache directory that can be written",
            "set XDG_CACHE_HOME",
        ) from None
    return [
        Fold(number, _train(root, number), _val(root, number), tuple(names))
        for number, names in enumerate(dealt, start=1)
    ]


def write_folds(
    folder: Path, labels: Path, column: str, lines: Mapping[int, str], dealt: Sequence[Sequence[str]]
) -> None:
    """Two label files for each fold, its own rows and those of the others, as they are.

    Args:
        folder: where ``fold_N_train.csv`` and ``fold_N_val.csv`` go.
        labels: the label file.
        column: of the quality.
        lines: target of each line that counts.
        dealt: targets of each fold.

    Raises:
        DataError: the label file is malformed.
        OSError: they can't be written.
    """
    file = read_csv(labels, column)
    for number, names in enumerate(dealt, start=1):
        inside = [row for line, row in file.rows if lines.get(line) in names]
        outside = [row for line, row in file.rows if line in lines and lines[line] not in names]
        for label_file, content in ((_val(folder, number), inside), (_train(folder, number), outside)):
            label_file.write_text(as_csv([file.header, *content]), encoding="utf-8")


def _train(folder: Path, number: int) -> Path:
    return folder / f"fold_{number}_train.csv"


def _val(folder: Path, number: int) -> Path:
    return folder / f"fold_{number}_val.csv"


def _targets_of_lines(config: TrainConfig, graphs: Path, path: Path) -> dict[int, str]:
    """The target of each line of the label file that names a graph."""
    rules = SplitRules(config.coverage.fail_on_missing, config.coverage.minimum_percent, config.labels.column)
    directory = GraphDirectory(graphs)
    targets = Targets(directory.root, directory.keys, None, labelled=True)
    matched = match_labels(directory, targets, read_labels(path, rules.column), path)
    check_coverage(matched.missing, matched.total, directory, path, rules)
    return {label.line: target_of(label, key, targets).name for key, label in matched.found.items()}
