"""Data sets of one schema joined for cross-validation, and folds of them that are cut between clusters of complexes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from topotrain.config import load_config
from topotrain.data.folds import deal_targets
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import read_labels
from topotrain.data.matching import match_labels
from topotrain.data.module import GraphDataModule
from topotrain.data.prepare import PreparedData, prepare_data
from topotrain.data.split import Sample, SplitRules, check_coverage, target_of
from topotrain.data.targets import Targets
from topotrain.errors import UserInputError
from topotrain.features.similarity import Likeness, Link, clusters_of
from topotrain.fields import SIDECAR_NAME
from topotrain.reading.csv_file import read_csv
from topotrain.reading.json_file import read_json
from topotrain.text import as_csv

KIND = "kind"  # column of label files
INNER = 10  # one of so many clusters to learn from steers training
LISTED = Likeness(1.0, 0, 0)  # what is known of two complexes that a file puts together


@dataclass(frozen=True)
class DataSet:
    """Graphs and labels as they were given.

    Attributes:
        name: of the data set.
        graphs: their directory.
        labels: label files.
    """

    name: str
    graphs: Path
    labels: Sequence[Path]

    def rows(self) -> Iterator[tuple[str, float, str, str]]:
        """Key, DockQ, target and kind of each decoy."""
        directory = GraphDirectory(self.graphs)
        targets = Targets(directory.root, directory.keys, None, labelled=True)
        for path in self.labels:
            matched = match_labels(directory, targets, read_labels(path), path)
            check_coverage(matched.missing, matched.total, directory, path, SplitRules())
            file = read_csv(path)
            column = file.columns().get(KIND)
            kinds = {line: row[column] if column is not None else "" for line, row in file.rows}
            for key, label in matched.found.items():
                yield key, label.dockq, target_of(label, key, targets).name, kinds[label.line]


@dataclass(frozen=True)
class Decoys:
    """All labelled graphs, packed.

    Attributes:
        all: every graph as training data.
        sets: data set of each graph, by key.
        kinds: kind of each graph, by key; empty where its label file has none.
        clusters: cluster of each target.
        cache: where they are packed.
    """

    all: PreparedData
    sets: Mapping[str, str]
    kinds: Mapping[str, str]
    clusters: Mapping[str, str]
    cache: Path

    @cached_property
    def sizes(self) -> Counter[str]:
        """Number of decoys of each target."""
        return Counter(sample.target for sample in self.samples)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every graph."""
        return self.all.train.samples

    def of(self, targets: Sequence[str]) -> tuple[Sample, ...]:
        """The graphs of some targets."""
        chosen = set(targets)
        return tuple(sample for sample in self.samples if sample.target in chosen)

    def parted(self, learned: Sequence[str], held_out: Sequence[str]) -> PreparedData:
        """Some targets to learn from, others to judge on."""
        train, val = (
            replace(self.all.train, name=name, samples=self.of(targets))
            for name, targets in (("train", learned), ("val", held_out))
        )
        schema = self.all.schema
        module = GraphDataModule(train.packed(schema), val.packed(schema), self.all.module.config)
        return replace(self.all, train=train, val=val, module=module)


def join(data: Sequence[DataSet], clusters: Sequence[Path], folder: Path) -> Decoys:
    """Make one directory of links to the graphs of all, and pack them once.

    Args:
        data: of one schema.
        clusters: CSV files with columns ``target`` and ``cluster``; what any of them puts together stays together. A
            target that is in none is a cluster of its own name.
        folder: where links, labels and packed graphs are kept.

    Raises:
        TopotrainError: files or labels are malformed, graphs are missing, or the schemas differ.
    """
    graphs = folder / "graphs"
    graphs.mkdir(parents=True, exist_ok=True)
    entries, rows = {}, {}
    for one in data:
        link, to = graphs / one.name, one.graphs.resolve()
        if not link.is_symlink():
            link.symlink_to(to, target_is_directory=True)
        elif link.resolve() != to:
            raise UserInputError(f"{folder} was made for {link.resolve()}", str(to), "give another --out")
        sidecar = one.graphs / SIDECAR_NAME
        if sidecar.exists():
            entries |= {f"{one.name}/{key}": entry for key, entry in read_json(sidecar, SIDECAR_NAME).items()}
        rows |= {f"{one.name}/{key}": (one.name, *rest) for key, *rest in one.rows()}
    if entries:
        (graphs / SIDECAR_NAME).write_text(json.dumps(entries), encoding="utf-8")
    labels = write_labels(((key, dockq, target) for key, (_, dockq, target, _) in rows.items()), folder / "labels.csv")
    paths = {"graph": graphs, "train_labels": labels, "val_labels": labels, "cache": folder / "cache"}
    everything = prepare_data(load_config(None, [f"paths.{name}={path}" for name, path in paths.items()]).config)
    return Decoys(
        everything,
        {key: name for key, (name, *_) in rows.items()},
        {key: kind for key, (*_, kind) in rows.items()},
        read_clusters(clusters, {target for _, _, target, _ in rows.values()}),
        paths["cache"],
    )


def write_labels(rows: Iterator[tuple[str, float, str]], path: Path) -> Path:
    """A label file."""
    written = [[key, repr(dockq), target] for key, dockq, target in rows]
    path.write_text(as_csv([["MODEL", "dockq", "target"], *written]), encoding="utf-8")
    return path


def read_clusters(files: Sequence[Path], targets: set[str]) -> dict[str, str]:
    """The cluster of each target."""
    links = []
    for path in files:
        file = read_csv(path, "target", "cluster")
        at = file.columns()
        links += [Link(row[at["target"]], row[at["cluster"]], LISTED) for _, row in file.rows]
    names = targets | {name for link in links for name in (link.first, link.second)}
    found = clusters_of(sorted(names), links)
    return {target: found[target] for target in targets}


@dataclass(frozen=True)
class Fold:
    """What is learned from and what is judged on.

    Attributes:
        repetition: from 1; each deals clusters into other folds.
        number: from 1.
        learned: targets to learn from, cluster by cluster in an order drawn at random.
        held_out: the others, sorted.
        clusters: of each target.
        size: how many targets to learn from were asked for; ``None`` for all.
    """

    repetition: int
    number: int
    learned: tuple[str, ...]
    held_out: tuple[str, ...]
    clusters: Mapping[str, str]
    size: int | None = None

    @property
    def name(self) -> str:
        """Of files about it."""
        return f"r{self.repetition}-f{self.number}" + (f"-n{self.size}" if self.size else "")

    @property
    def val(self) -> tuple[str, ...]:
        """Those of the targets to learn from that steer training: about a tenth of their clusters, at least one."""
        ordered = list(dict.fromkeys(self.clusters[target] for target in self.learned))
        last = set(ordered[-max(1, round(len(ordered) / INNER)) :])
        return tuple(target for target in self.learned if self.clusters[target] in last)

    @property
    def train(self) -> tuple[str, ...]:
        """The rest of them."""
        val = set(self.val)
        return tuple(target for target in self.learned if target not in val)

    def turned(self, number: int) -> Fold:
        """The same with another tenth that steers training: ``number`` from 0 to 9 gives ten that share hardly any."""
        ordered = list(dict.fromkeys(self.clusters[target] for target in self.learned))
        first = number % INNER * len(ordered) // INNER
        place = {name: at for at, name in enumerate(ordered[first:] + ordered[:first])}
        return replace(self, learned=tuple(sorted(self.learned, key=lambda target: place[self.clusters[target]])))

    def limited(self, size: int) -> Fold:
        """The same with fewer targets to learn from; those of a smaller size are among those of a larger one."""
        return replace(self, learned=self.learned[:size], size=size)


def make_folds(decoys: Decoys, num_folds: int, repetition: int) -> list[Fold]:
    """Deal clusters into folds of about as many decoys; which clusters are together depends on the repetition.

    Raises:
        UserInputError: fewer clusters than two for each fold.
    """
    clusters = decoys.clusters
    sizes: Counter[str] = Counter()
    for target, number in decoys.sizes.items():
        sizes[clusters[target]] += number
    if len(sizes) < 2 * num_folds:
        raise UserInputError(f"{len(sizes)} clusters of complexes", f"at least {2 * num_folds}", "take fewer --folds")
    names = sorted(sizes)
    mixed = np.random.default_rng(repetition).permutation(names).tolist()
    place = {name: f"{number:06d}" for number, name in enumerate(mixed)}  # deciding among those of a size
    dealt = deal_targets({place[name]: number for name, number in sizes.items()}, num_folds)
    folds = []
    for number, places in enumerate(dealt, start=1):
        held_out = {target for target in clusters if place[clusters[target]] in places}
        order = np.random.default_rng([repetition, number]).permutation(names).tolist()
        learned = sorted(set(clusters) - held_out, key=lambda target: (order.index(clusters[target]), target))
        folds.append(Fold(repetition, number, tuple(learned), tuple(sorted(held_out)), clusters))
    return folds
