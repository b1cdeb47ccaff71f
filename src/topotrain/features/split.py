"""Folds of one's own complexes for training and judging, cut between complexes that are not alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from topotrain.data.folds import deal_targets, write_folds
from topotrain.data.labels import read_labels
from topotrain.data.matching import match_labels
from topotrain.data.targets import TargetRule, Targets
from topotrain.errors import DataError, UserInputError
from topotrain.features.inputs import StructureFiles, structure_files
from topotrain.features.sequences import longest, protein_sequences
from topotrain.features.similarity import MIN_IDENTITY, Link, clusters_of, find_links
from topotrain.features.structure import read_content, read_structure
from topotrain.fields import DOCKQ_COLUMN
from topotrain.files import write_text
from topotrain.processes import run_tasks
from topotrain.progress import OnItemDone
from topotrain.text import as_csv, one_line

By = Literal["sequence", "target"]
TARGETS_FILE, LINKS_FILE = "targets.csv", "links.csv"
SHOWN_LINKS = 3


@dataclass(frozen=True)
class PlacedTarget:
    """Where one complex is.

    Attributes:
        target: its name.
        cluster: the first name of those that it is linked with, or its own.
        fold: from 1.
        num_decoys: how many of its decoys count: those with labels, where labels are given.
    """

    target: str
    cluster: str
    fold: int
    num_decoys: int


@dataclass(frozen=True)
class SplitReport:
    """Complexes, their clusters and folds.

    Attributes:
        targets: sorted by name.
        links: pairs of complexes with a chain alike.
        failures: {decoy: one line} of structures that could not be read.
    """

    targets: tuple[PlacedTarget, ...]
    links: tuple[Link, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def targets_csv(self) -> str:
        """A row for each complex."""
        rows = [[one.target, one.cluster, str(one.fold), str(one.num_decoys)] for one in self.targets]
        return as_csv([["target", "cluster", "fold", "decoys"], *rows])

    @property
    def links_csv(self) -> str:
        """A row for each pair, the most alike of its chains."""
        rows = [[x.first, x.second, f"{x.likeness.identity:.3f}", str(x.likeness.aligned)] for x in self.links]
        return as_csv([["target", "other_target", "identity", "aligned_residues"], *rows])

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        clusters = Counter(one.cluster for one in self.targets)
        folds: dict[int, list[PlacedTarget]] = defaultdict(list)
        for one in self.targets:
            folds[one.fold].append(one)
        sizes = ", ".join(f"{len(folds[n])} ({sum(x.num_decoys for x in folds[n])} decoys)" for n in sorted(folds))
        said = [f"{len(self.targets)} targets in {len(clusters)} clusters; targets of each fold: {sizes}"]
        alike = sorted(self.links, key=lambda link: link.likeness, reverse=True)
        if alike:
            shown = ", ".join(f"{x.first} and {x.second} ({x.likeness.identity:.0%})" for x in alike[:SHOWN_LINKS])
            pairs = "1 pair of targets has" if len(alike) == 1 else f"{len(alike)} pairs of targets have"
            such = ", such as " if len(alike) > SHOWN_LINKS else ": "
            said.append(f"{pairs} a chain alike{such}{shown}")
        largest, number = clusters.most_common(1)[0]
        share = sum(one.num_decoys for one in self.targets if one.cluster == largest)
        total = sum(one.num_decoys for one in self.targets)
        if number > 1 and share * len(folds) > 1.5 * total:
            said.append(
                f"the cluster of {largest} has {number} targets and {share} of {total} decoys: folds are uneven"
            )
        return said


class _Decoys:
    """The decoys of a folder of structures, as labels are matched with them."""

    def __init__(self, root: Path, files: Mapping[str, Path]) -> None:
        self.root, self._files, self.keys = root, files, list(files)

    def path(self, key: str) -> Path:
        return self._files[key]


def split_structures(
    structures: Path,
    *,
    labels: Path | None = None,
    out: Path | None = None,
    by: By = "sequence",
    num_folds: int = 5,
    min_identity: float = MIN_IDENTITY,
    targets: TargetRule | None = None,
    column: str = DOCKQ_COLUMN,
    jobs: int = 1,
    progress: OnItemDone | None = None,
) -> SplitReport:
    """Cut complexes into folds so that none in one fold is like one in another.

    Two complexes are linked where a chain of the one is like a chain of the other (``similarity.likeness``), and all
    that are linked, directly or by others between, go to one fold.

    Args:
        structures: a folder of decoys by target, or an archive of one; or, by target, a label file alone.
        labels: of the decoys; those rows alone count, and each fold gets two label files.
        out: where ``targets.csv``, ``links.csv`` and the label files ``fold_N_train.csv``, ``fold_N_val.csv`` go.
        by: ``sequence``, or ``target`` for no more than that the decoys of one target stay together.
        num_folds: how many; 2 or more.
        min_identity: share of aligned residues that makes two chains alike.
        targets: where targets are written.
        column: of the labels.
        jobs: processes; the result does not depend on it.
        progress: takes (done, total, what).

    Raises:
        UserInputError: fewer than two folds, or an identity that is none.
        DataError: no structures, a target none of whose structures can be read, fewer clusters than folds, or labels
            that do not fit.
    """
    if num_folds < 2:
        raise UserInputError(f"folds is {num_folds}", "2 or more")
    if not 0.0 < min_identity <= 1.0:
        raise UserInputError(f"identity is {min_identity}", "a share above 0 and up to 1, such as 0.4")
    if structures.suffix.lower() == ".csv":
        if by == "sequence" or labels is not None:
            raise UserInputError(
                f"{structures} is a label file, which holds no sequences",
                "structures, or --by target",
                f"topotrain split STRUCTURES --labels {structures}",
            )
        decoys = _of_labels(structures, targets, column)
        return _report(decoys, {name: name for name in decoys.counts}, num_folds, out, structures, column)
    with structure_files(structures) as files:
        known = Targets(structures, list(files.found), targets, labelled=labels is not None)
        decoys = _of_structures(_Decoys(structures, files.shown), known, labels, column)
        clusters, links = {name: name for name in decoys.counts}, list[Link]()
        failures: dict[str, str] = {}
        if by == "sequence":
            chains, failures = _chains(files, decoys.of_key, jobs, progress)
            links = find_links(chains, min_identity=min_identity, jobs=jobs, progress=progress)
            clusters = clusters_of(list(chains), links)
    return replace(_report(decoys, clusters, num_folds, out, labels, column, links), failures=failures)


@dataclass(frozen=True)
class _Counted:
    """The decoys that count.

    Attributes:
        counts: how many of each target.
        lines: target of each line of the label file that counts.
        of_key: target of each decoy.
    """

    counts: Mapping[str, int]
    lines: Mapping[int, str] = field(default_factory=dict)
    of_key: Mapping[str, str] = field(default_factory=dict)


def _of_labels(path: Path, rule: TargetRule | None, column: str) -> _Counted:
    """By the labels alone."""
    rows = read_labels(path, column)
    keys = [row.model.replace("\\", "/").removeprefix("./") for row in rows]
    keys = [key if "/" in key else key.replace("__", "/") for key in keys]
    by_path = Targets(path.absolute().parent, keys, rule, labelled=True)
    lines = {row.line: row.target or by_path.of(key).name for row, key in zip(rows, keys, strict=True)}
    return _Counted(Counter(lines.values()), lines)


def _of_structures(decoys: _Decoys, targets: Targets, labels: Path | None, column: str) -> _Counted:
    """All of them, or those with labels where labels are given."""
    if labels is None:
        every = {key: target.name for key, target in targets.by_key.items()}
        return _Counted(Counter(every.values()), of_key=every)
    matched = match_labels(decoys, targets, read_labels(labels, column), labels)
    if matched.missing:
        raise DataError(
            f"{labels}: {len(matched.missing)} of {matched.total} labels have no structure, such as "
            f"{matched.missing[0]}",
            "a structure for each label",
            "give the folder that the labels were made for",
        )
    of_key = {key: label.target or targets.by_key[key].name for key, label in matched.found.items()}
    lines = {label.line: of_key[key] for key, label in matched.found.items()}
    return _Counted(Counter(of_key.values()), lines, of_key)


def _chains(
    files: StructureFiles, of_key: Mapping[str, str], jobs: int, progress: OnItemDone | None
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Sequences of each target's chains, and what could not be read."""
    found: dict[str, set[str]] = {name: set() for name in of_key.values()}
    failures: dict[str, str] = {}
    tasks = [(key, str(files.found[key]), str(files.shown[key])) for key in of_key]
    for number, (key, sequences, error) in enumerate(run_tasks(_read, tasks, jobs, _died), start=1):
        found[of_key[key]].update(sequences)
        if error:
            failures[key] = error
        if progress is not None:
            progress(number, len(tasks), key)
    for name, sequences in found.items():
        if not sequences:
            why = next((line for key, line in failures.items() if of_key[key] == name), "no protein chains")
            raise DataError(
                f"target {name}: no sequence can be read of its structures ({why})",
                "at least one structure of each target",
                "repair or remove them",
            )
    return {name: longest(sequences) for name, sequences in found.items()}, dict(sorted(failures.items()))


def _read(task: tuple[str, str, str]) -> tuple[str, set[str], str]:
    """Sequences of one structure's protein chains, or why there are none."""
    key, path, shown = task
    try:
        structure = read_structure(shown, read_content(Path(path)))
    except Exception as error:  # noqa: BLE001  one bad file costs itself
        return key, set(), one_line(error)
    return key, set(protein_sequences(structure).values()), ""


def _died(task: tuple[str, str, str]) -> tuple[str, set[str], str]:
    return task[0], set(), f"{task[2]}: the process that read it was ended"


def _placed(decoys: Mapping[str, int], clusters: Mapping[str, str], num_folds: int) -> tuple[PlacedTarget, ...]:
    sizes: Counter[str] = Counter()
    for name, number in decoys.items():
        sizes[clusters[name]] += number
    if len(sizes) < num_folds:
        raise DataError(
            f"{len(decoys)} targets are {len(sizes)} clusters, which can't make {num_folds} folds",
            "as many clusters as folds, or more",
            "take fewer --folds",
        )
    fold = {name: n for n, names in enumerate(deal_targets(sizes, num_folds), start=1) for name in names}
    return tuple(PlacedTarget(name, clusters[name], fold[clusters[name]], decoys[name]) for name in sorted(decoys))


def _report(
    decoys: _Counted,
    clusters: Mapping[str, str],
    num_folds: int,
    out: Path | None,
    labels: Path | None,
    column: str,
    links: Sequence[Link] = (),
) -> SplitReport:
    """Folds dealt, and written where they are to be."""
    report = SplitReport(_placed(decoys.counts, clusters, num_folds), tuple(links))
    if out is None:
        return report
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(report.targets_csv, out / TARGETS_FILE)
        write_text(report.links_csv, out / LINKS_FILE)
        if labels is not None:
            folds: dict[int, list[str]] = defaultdict(list)
            for one in report.targets:
                folds[one.fold].append(one.target)
            write_folds(out, labels, column, decoys.lines, [folds[number] for number in sorted(folds)])
    except OSError as error:
        raise DataError(f"{out}: can't be written ({one_line(error)})", "a folder that can be written") from None
    return report
