"""Labels joined with graphs: a split of the data, and how much of it is usable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.labels import Label, read_labels, target_of, two_values
from topotrain.data.packed_graphs import Sample
from topotrain.errors import DataError
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
    """

    name: str
    samples: tuple[Sample, ...]
    total: int
    missing: tuple[str, ...]

    @property
    def targets(self) -> list[str]:
        """Every target, sorted."""
        return sorted({sample.target for sample in self.samples})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, labels, targets and tensors; independent of order and of where the files lie."""
        parts = sorted(_fingerprint(sample) for sample in self.samples)
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
    progress: Track | None = None,
) -> Split:
    """Read a label file and every graph it names.

    Args:
        name: ``train`` or ``val``, for messages.
        directory: where the graphs are.
        label_path: the label file.
        fail_on_missing: whether one label without a usable graph is an error.
        minimum_percent: the least share of labels that must have one.
        progress: wraps the iteration to show how far it is.

    Raises:
        DataError: malformed labels, ambiguous names, too few usable graphs, or (``fail_on_missing``) any missing.
    """
    labels = read_labels(label_path)
    found, missing = match_labels(directory, labels, label_path)
    total = len(found) + len(missing)
    samples: list[Sample] = []
    for key, label in progress(found, len(found), f"reading {name} graphs") if progress else found:
        try:
            graph = read_graph(directory.path(key), key)
        except DataError as error:
            if fail_on_missing:
                raise
            missing.append(f"{label.model} ({error})")
            continue
        samples.append(Sample(graph, label.dockq, target_of(label, key)))
    split = Split(name, tuple(samples), total, tuple(missing))
    _check_coverage(split, directory, label_path, fail_on_missing, minimum_percent)
    return split


def leaked_targets(train: Split, val: Split) -> list[str]:
    """Targets that are in both splits: what is learned of one decoy is then judged on its siblings."""
    return sorted(set(train.targets) & set(val.targets))


def match_labels(
    directory: GraphDirectory, labels: Sequence[Label], label_path: Path
) -> tuple[list[tuple[str, Label]], list[str]]:
    """Find the graph of each label.

    Returns:
        Key and label of those that have one, and the others' ``MODEL`` as written.

    Raises:
        DataError: a name fits two graphs, or two labels of one graph differ.
    """
    found: dict[str, Label] = {}
    missing: list[str] = []
    for label in labels:
        key = directory.resolve(label.model)
        if key is None:
            missing.append(label.model)
            continue
        earlier = found.setdefault(key, label)
        if earlier.dockq != label.dockq:
            raise two_values(label_path, key, earlier, label)
    return list(found.items()), missing


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
