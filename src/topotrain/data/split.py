"""Labels joined with graphs: a split of the data, and how much of it is usable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.labels import Label, read_labels
from topotrain.data.matching import match_labels
from topotrain.data.packed_graphs import Sample
from topotrain.data.targets import COLUMN, SOURCES, Target, TargetRule, Targets, target_line, target_warnings
from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN
from topotrain.progress import Track
from topotrain.schema.values import SHOWN_GRAPHS


@dataclass(frozen=True)
class Split:
    """One label file with the graphs it names.

    Attributes:
        name: ``train`` or ``val``.
        samples: the labelled graphs, in the order of the label file.
        total: rows of the label file.
        missing: decoys without a usable graph, as written, with the reason.
        column: which quality was read.
        targets_by: where the targets were read, for messages.
        warnings: what should be looked at.
    """

    name: str
    samples: tuple[Sample, ...]
    total: int
    missing: tuple[str, ...]
    column: str = DOCKQ_COLUMN
    targets_by: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def targets(self) -> list[str]:
        """Every target, sorted."""
        return sorted({sample.target for sample in self.samples})

    @property
    def target_line(self) -> str:
        """The targets with their counts."""
        return target_line(sample.target for sample in self.samples)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, labels, targets and tensors; independent of order and of where the files lie.

        A quality other than DockQ is part of it.
        """
        parts = sorted(_fingerprint(sample) for sample in self.samples)
        if self.column != DOCKQ_COLUMN:
            parts.append(self.column)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def label_digest(self) -> str:
        """SHA-256 over names, labels and targets alone."""
        rows = sorted(f"{sample.graph.key}\0{sample.dockq!r}\0{sample.target}" for sample in self.samples)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def coverage(self) -> dict[str, Any]:
        """This split's part of ``dataset_coverage.json``; ``coverage`` is the usable fraction."""
        usable = self.total - len(self.missing)
        return {
            "total": self.total,
            "usable": usable,
            "coverage": usable / self.total,
            "missing": list(self.missing),
        }


def read_split(
    name: str,
    directory: GraphDirectory,
    label_path: Path,
    *,
    fail_on_missing: bool = True,
    minimum_percent: float = 0.0,
    column: str = DOCKQ_COLUMN,
    rule: TargetRule | None = None,
    progress: Track | None = None,
) -> Split:
    """Read a label file and every graph it names.

    Args:
        name: ``train`` or ``val``, for messages.
        directory: where the graphs are.
        label_path: the label file.
        fail_on_missing: whether one label without a usable graph is an error.
        minimum_percent: the least share of labels that must have one.
        column: which quality is read.
        rule: where targets are written, for labels without a target.
        progress: wraps the iteration to show how far it is.

    Raises:
        DataError: malformed labels, ambiguous names, too few usable graphs, or (``fail_on_missing``) any missing.
    """
    labels = read_labels(label_path, column)
    targets = Targets(directory.root, directory.keys, rule, labelled=True)
    matched = match_labels(directory, targets, labels, label_path)
    missing = list(matched.missing)
    samples: list[Sample] = []
    used: dict[str, Target] = {}
    found = matched.found.items()
    for key, label in progress(found, len(found), f"reading {name} graphs") if progress else found:
        try:
            graph = read_graph(directory.path(key), key)
        except DataError as error:
            if fail_on_missing:
                raise
            missing.append(f"{label.model} ({error})")
            continue
        used[key] = target_of(label, key, targets)
        samples.append(Sample(graph, label.dockq, used[key].name))
    split = Split(
        name,
        tuple(samples),
        matched.total,
        tuple(missing),
        column=column,
        targets_by=_sources(used.values()),
        warnings=(*matched.warnings, *target_warnings(used)),
    )
    _check_coverage(split, directory, label_path, fail_on_missing, minimum_percent)
    return split


def target_of(label: Label | None, key: str, targets: Targets) -> Target:
    """A decoy's target: the label's own column, else what its path says."""
    return Target(label.target, COLUMN) if label is not None and label.target else targets.by_key[key]


def _sources(targets: Iterable[Target]) -> str:
    """Where targets were read, the label column first."""
    found = {target.source for target in targets}
    return " or ".join(sorted(found, key=lambda source: (SOURCES.index(source) if source in SOURCES else 1, source)))


def leaked_targets(train: Split, val: Split) -> list[str]:
    """Targets that are in both splits: what is learned of one decoy is then judged on its siblings."""
    return sorted(set(train.targets) & set(val.targets))


def _check_coverage(
    split: Split, directory: GraphDirectory, label_path: Path, fail_on_missing: bool, minimum_percent: float
) -> None:
    shown = ", ".join(split.missing[:SHOWN_GRAPHS])
    more = f" and {len(split.missing) - SHOWN_GRAPHS} more" if len(split.missing) > SHOWN_GRAPHS else ""
    absent = f"{len(split.missing)} of {split.total} decoys have no graph below {directory.root}: {shown}{more}"
    what = f"{label_path}: {absent}"
    if split.missing and (fail_on_missing or not split.samples):
        do = "build them" if not split.samples else "build them, or set coverage.fail_on_missing: false"
        raise DataError(what, "a graph for every label", do)
    percent = 100.0 * split.coverage()["coverage"]
    if percent < minimum_percent:
        raise DataError(
            f"{what} ({percent:.1f} % usable)",
            f"at least {minimum_percent:g} %",
            "build them, or lower coverage.minimum_percent",
        )


def _fingerprint(sample: Sample) -> str:
    digest = hashlib.sha256()
    graph = sample.graph
    digest.update(f"{graph.key}\0{sample.dockq!r}\0{sample.target}\0".encode())
    for tensor in (graph.x, graph.edge_index, graph.edge_attr):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
