"""Labels joined with graphs: a split of the data, and how much of it is usable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph
from topotrain.data.labels import Label, read_labels
from topotrain.data.matching import Matched, match_labels
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import KnownGraph
from topotrain.data.store import GraphStore
from topotrain.data.store_build import update_digest
from topotrain.data.targets import COLUMN, SOURCES, Target, TargetRule, Targets, target_line, target_warnings
from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN
from topotrain.progress import Track
from topotrain.schema.feature_schema import FeatureSchema, GraphFacts
from topotrain.schema.values import SHOWN_GRAPHS


@dataclass(frozen=True)
class Sample:
    """One labelled graph.

    Attributes:
        key: path below its directory, without suffix.
        position: in the store.
        dockq: true DockQ, or another quality.
        target: what it is a decoy of.
    """

    key: str
    position: int
    dockq: float
    target: str


@dataclass(frozen=True)
class Split:
    """One label file with the graphs it names.

    Attributes:
        name: ``train`` or ``val``.
        store: holds the graphs.
        samples: the labelled graphs, in the order of the label file.
        total: rows of the label file.
        missing: decoys without a usable graph, as written, with the reason.
        column: which quality was read.
        targets_by: where the targets were read, for messages.
        warnings: what should be looked at.
    """

    name: str
    store: GraphStore
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

    @property
    def sizes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Nodes and edges of each graph, both (num_graphs,)."""
        rows = self.store.index.rows[[sample.position for sample in self.samples]]
        return rows["num_nodes"].astype(np.float64), rows["num_edges"].astype(np.float64)

    def facts(self) -> Iterator[GraphFacts]:
        """What each graph says of itself, in the order of the samples."""
        return (self.store.facts(sample.position) for sample in self.samples)

    def graphs(self) -> Iterator[Graph]:
        """Each graph as its file has it, in the order of the samples."""
        return (self.store.graph(sample.position) for sample in self.samples)

    def thinned(self, most: int) -> Split:
        """At most so many of the graphs, spread evenly over all of them."""
        number = len(self.samples)
        if number <= most:
            return self
        return replace(self, samples=tuple(self.samples[place * number // most] for place in range(most)))

    def smallest(self) -> Graph:
        """The graph with the fewest nodes."""
        nodes, _ = self.sizes
        _, _, position = min(
            (count, sample.key, sample.position) for count, sample in zip(nodes.tolist(), self.samples, strict=True)
        )
        return self.store.graph(position)

    def known(self) -> Iterator[KnownGraph]:
        """Each graph packed, with what it says of itself, in the order of the samples."""
        return (self.store.known(sample.position) for sample in self.samples)

    def packed(self, schema: FeatureSchema) -> PackedGraphs:
        """The graphs with their labels, for batches."""
        positions = [sample.position for sample in self.samples]
        return PackedGraphs(
            lambda indices: self.store.read([positions[i] for i in indices]),
            [sample.key for sample in self.samples],
            schema,
            [sample.dockq for sample in self.samples],
            [sample.target for sample in self.samples],
            *(sizes.astype(int).tolist() for sizes in self.sizes),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, labels, targets and tensors; independent of order and of where the files lie.

        A quality other than DockQ is part of it.
        """
        digest: str = self.store.remembered("data", self.content_digest, self._computed_digest)
        return digest

    def _computed_digest(self) -> str:
        parts = sorted(_fingerprint(sample, self.store) for sample in self.samples)
        if self.column != DOCKQ_COLUMN:
            parts.append(self.column)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over names, labels, targets and the digests of the tensors, in the order of the samples."""
        digest = hashlib.sha256(self.column.encode())
        for sample in self.samples:
            line = f"{sample.key}\0{sample.dockq!r}\0{sample.target}\0{self.store.index.digest(sample.position)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def label_digest(self) -> str:
        """SHA-256 over names, labels and targets alone."""
        rows = sorted(f"{sample.key}\0{sample.dockq!r}\0{sample.target}" for sample in self.samples)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def coverage(self) -> dict[str, Any]:
        """This split's part of ``dataset_coverage.json``; ``coverage`` is the usable fraction."""
        return {
            "total": self.total,
            "usable": self.total - len(self.missing),
            "coverage": _coverage(self.missing, self.total),
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class SplitRules:
    """How label files are read and what is asked of them.

    Attributes:
        fail_on_missing: whether one label without a usable graph is an error.
        minimum_percent: the least share of labels that must have one.
        column: which quality is read.
        rule: where targets are written, for labels without a target.
    """

    fail_on_missing: bool = True
    minimum_percent: float = 0.0
    column: str = DOCKQ_COLUMN
    rule: TargetRule | None = None


def read_splits(
    directory: GraphDirectory,
    label_paths: Mapping[str, Path],
    rules: SplitRules = SplitRules(),
    *,
    cache: Path | None = None,
    progress: Track | None = None,
) -> list[Split]:
    """Read label files and pack every graph that they name.

    Args:
        directory: where the graphs are.
        label_paths: by name of the split, for messages.
        rules: how they are read.
        cache: where packed graphs are kept; by default the user's cache directory.
        progress: wraps the packing to show how far it is.

    Raises:
        DataError: malformed labels, ambiguous names, a graph with two labels, too few usable graphs, or
            (``fail_on_missing``) any missing.
    """
    targets = Targets(directory.root, directory.keys, rules.rule, labelled=True)
    matched = {
        name: match_labels(directory, targets, read_labels(path, rules.column), path)
        for name, path in label_paths.items()
    }
    _refuse_two_labels(label_paths, matched)
    if rules.fail_on_missing:  # before hours may be spent on the others
        for name, found in matched.items():
            check_coverage(found.missing, found.total, directory, label_paths[name], rules)
    keys = sorted({key for found in matched.values() for key in found.found})
    store = GraphStore.open(directory, keys, cache=cache, progress=progress)
    if rules.fail_on_missing:
        store.refuse_failures()
    return [_split(name, label_paths[name], found, store, targets, rules) for name, found in matched.items()]


def _refuse_two_labels(label_paths: Mapping[str, Path], matched: Mapping[str, Matched]) -> None:
    """Refuse a graph that is of one quality in one label file and of another one in the next."""
    first: dict[str, tuple[Path, Label]] = {}
    for name, found in matched.items():
        for key, label in found.found.items():
            path, earlier = first.setdefault(key, (label_paths[name], label))
            if earlier.dockq != label.dockq:
                raise DataError(
                    f"{key} is {earlier.dockq} in line {earlier.line} of {path} and {label.dockq} in line {label.line} "
                    f"of {label_paths[name]}",
                    "one value for each graph",
                    "remove one of the lines",
                )


def read_split(
    name: str,
    directory: GraphDirectory,
    label_path: Path,
    rules: SplitRules = SplitRules(),
    **options: Any,
) -> Split:
    """One label file, as ``read_splits`` does it."""
    return read_splits(directory, {name: label_path}, rules, **options)[0]


def _split(
    name: str, label_path: Path, matched: Matched, store: GraphStore, targets: Targets, rules: SplitRules
) -> Split:
    missing = list(matched.missing)
    samples: list[Sample] = []
    used: dict[str, Target] = {}
    for key, label in matched.found.items():
        if key in store.failures:
            missing.append(f"{label.model} ({store.failures[key]})")
            continue
        used[key] = target_of(label, key, targets)
        samples.append(Sample(key, store.index.position[key], label.dockq, used[key].name))
    check_coverage(missing, matched.total, store.directory, label_path, rules)
    return Split(
        name,
        store,
        tuple(samples),
        matched.total,
        tuple(missing),
        column=rules.column,
        targets_by=_sources(used.values()),
        warnings=(*matched.warnings, *target_warnings(used)),
    )


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


def check_coverage(
    missing: Sequence[str], total: int, directory: GraphDirectory, label_path: Path, rules: SplitRules
) -> None:
    """Hold the labels that have a graph against what is asked of them.

    Raises:
        DataError: too few have one, or (``fail_on_missing``) any has none.
    """
    shown = ", ".join(missing[:SHOWN_GRAPHS])
    more = f" and {len(missing) - SHOWN_GRAPHS} more" if len(missing) > SHOWN_GRAPHS else ""
    absent = f"{len(missing)} of {total} decoys have no graph below {directory.root}: {shown}{more}"
    what = f"{label_path}: {absent}"
    none = len(missing) == total
    if missing and (rules.fail_on_missing or none):
        do = "build them" if none else "build them, or set coverage.fail_on_missing: false"
        raise DataError(what, "a graph for every label", do)
    percent = 100.0 * _coverage(missing, total)
    if percent < rules.minimum_percent:
        raise DataError(
            f"{what} ({percent:.1f} % usable)",
            f"at least {rules.minimum_percent:g} %",
            "build them, or lower coverage.minimum_percent",
        )


def _coverage(missing: Sequence[str], total: int) -> float:
    """The usable fraction."""
    return (total - len(missing)) / total


def _fingerprint(sample: Sample, store: GraphStore) -> str:
    digest = hashlib.sha256()
    label = f"{sample.key}\0{sample.dockq!r}\0{sample.target}\0"
    digest.update(label.encode("utf-8", "surrogateescape"))
    update_digest(digest, store.graph(sample.position))
    return digest.hexdigest()
