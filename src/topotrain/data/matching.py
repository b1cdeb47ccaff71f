"""Labels to graphs: a label belongs to a graph only if its name fits and its target does."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from topotrain.data.labels import Label, two_values
from topotrain.data.targets import Targets, is_decoy_folder
from topotrain.errors import DataError
from topotrain.fields import GRAPH_SUFFIX

ENDING = re.compile(r"\.(?:pdb|ent|cif|mmcif|pt)(?:\.gz)?", re.IGNORECASE)


class Decoys(Protocol):
    """A directory of decoys, be they graphs or structures."""

    @property
    def root(self) -> Path:
        """The directory."""

    @property
    def keys(self) -> Sequence[str]:
        """The decoys' paths below it, without ending."""

    def path(self, key: str) -> Path:
        """The file of a key."""


@dataclass(frozen=True)
class Matched:
    """What came of a label file.

    Attributes:
        found: key and label of those that have a graph, in the order of the file.
        missing: the others' names, with the reason where the target is one.
        warnings: what should be looked at.
    """

    found: Mapping[str, Label]
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Labels that ask for a graph of their own."""
        return len(self.found) + len(self.missing)


@dataclass
class _Claims:
    found: dict[str, Label] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    by_name_alone: dict[str, Label] = field(default_factory=dict)


def match_labels(directory: Decoys, targets: Targets, labels: Sequence[Label], label_path: Path) -> Matched:
    """Find the graph of each label.

    Args:
        directory: the graphs.
        targets: theirs.
        labels: of the file.
        label_path: for messages.

    Raises:
        DataError: a name fits two graphs, or two labels of one graph differ in quality or target.
    """
    matcher = LabelMatcher(directory, targets)
    claims = _Claims()
    about_root = any(label.target in targets.root_names for label in labels)
    for label in labels:
        key = matcher.graph_of(label)
        if key is None:
            claims.missing.append(_missing(label, matcher))
            continue
        if label.target and not matcher.shows(key, label.target):
            if about_root:  # the directory is another target of this file
                claims.missing.append(_missing(label, matcher))
                continue
            claims.by_name_alone[key] = label
        earlier = claims.found.setdefault(key, label)
        _refuse_difference(label_path, key, earlier, label)
    return Matched(claims.found, tuple(claims.missing), tuple(_warnings(claims, directory)))


def _missing(label: Label, matcher: LabelMatcher) -> str:
    unknown = bool(label.target) and label.target not in matcher.target_names
    return f"{label.name} (no graph of that target)" if unknown else label.name


def _refuse_difference(path: Path, key: str, one: Label, other: Label) -> None:
    if one.target != other.target and one.target and other.target:
        raise DataError(
            f"{path}: {key} is of target {one.target} in line {one.line} and of {other.target} in line {other.line}",
            "graphs by target (TARGET/MODEL.pt), or one row for each graph",
            "build the graphs of each target into a folder of its name",
        )
    if one.dockq != other.dockq:
        raise two_values(path, key, one, other)


def _warnings(claims: _Claims, directory: Decoys) -> Iterator[str]:
    """A file about one target, joined with a flat directory by names alone, may be about another."""
    names = {label.target for label in claims.by_name_alone.values()}
    if len(names) == 1:
        yield (
            f"{len(claims.by_name_alone)} labels of target {next(iter(names))} fit graphs of {directory.root} by name "
            "alone: nothing there says that they are of that target"
        )


class LabelMatcher:
    """Finds graphs by labels.

    Args:
        directory: the graphs.
        targets: theirs.
    """

    def __init__(self, directory: Decoys, targets: Targets) -> None:
        self.directory, self.targets = directory, targets

    def graph_of(self, label: Label) -> str | None:
        """The key that a label means, or ``None`` when no graph fits.

        ``MODEL`` is a path below the root (``__`` may stand for ``/``), or ``TARGET/NAME`` whatever lies between, or a
        longer path that ends so, or a name alone: of the label's own target where it has a column, else one that is
        unique in the whole directory. Endings of structure and graph files are left off.

        Raises:
            DataError: more than one graph fits; both are named.
        """
        written = label.model.strip().replace("\\", "/").removeprefix("./")
        for name in _without_endings(written):
            spellings = list(dict.fromkeys((name, name.replace("__", "/"), name.replace("__", "/", 1))))
            for tier in self._tiers(spellings, label.target):
                fitting = sorted(set(tier))
                if len(fitting) > 1:
                    raise _ambiguous(label, [self.directory.path(key) for key in fitting])
                if fitting:
                    return fitting[0]
        return None

    def shows(self, key: str, target: str) -> bool:
        """Whether a graph's path, or the directory that holds it, says that it is of a target."""
        own = self.targets.by_key[key]
        if own.name == target or (own.in_path and "/" in key):
            return True  # a path that was asked for as a whole, under another word for its target
        stem, word = _stem(key).casefold(), target.casefold()
        named = stem.startswith(word) and not stem[len(word) : len(word) + 1].isalnum()
        return named or target in self.targets.root_names

    @cached_property
    def target_names(self) -> set[str]:
        """Names of all targets, that of the directory among them."""
        return {target.name for target in self.targets.by_key.values()} | self.targets.root_names

    def _tiers(self, spellings: Sequence[str], target: str) -> Iterator[Iterable[str]]:
        """Keys that fit, the surest kind first."""
        if target:
            yield [key for name in spellings for key in self._of_target(target, name)]
        yield [name for name in spellings if name in self._keys]
        yield [key for name in spellings for key in self._of_target(*name.partition("/")[::2])]
        yield [key for name in spellings for key in self._end_of(name, target)]
        if not target:
            yield [key for name in spellings for key in self._by_stem.get(name, ())]

    def _of_target(self, target: str, name: str) -> Iterator[str]:
        """Graphs of a target whose path, or whose folder where that is a decoy's own, ends with a name."""
        if not target or not name:
            return
        name = name.removeprefix(f"{target}/")
        for key in self._by_target.get((target, _stem(name)), ()):
            path = key.rpartition("/")[0] if is_decoy_folder(_stem(name)) else key
            if f"/{path}".endswith(f"/{name}"):
                yield key

    def _end_of(self, name: str, target: str) -> Iterator[str]:
        """The graph whose whole path a longer path ends with, where what comes before does not speak against it."""
        parts = name.split("/")
        if ".." in parts:
            return
        for start in range(1, len(parts)):
            key = "/".join(parts[start:])
            if key not in self._keys:
                continue
            own = self.targets.by_key[key]
            by_path = "/" in key and own.in_path and target in ("", own.name)
            by_root = parts[start - 1] in self.targets.root_names and target in ("", *self.targets.root_names)
            if by_path or by_root:
                yield key
                return

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(self.directory.keys)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = defaultdict(list)
        for key in self.directory.keys:
            stems[_stem(key)].append(key)
        return stems

    @cached_property
    def _by_target(self) -> dict[tuple[str, str], list[str]]:
        """Keys by target and name; where no path names a target, the directory's name stands for it too."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, target in self.targets.by_key.items():
            folder = _stem(key.rpartition("/")[0])
            own = {_stem(key)} | ({folder} if is_decoy_folder(folder) else set())
            for name in {target.name} | (set() if target.in_path else self.targets.root_names):
                for each in own:
                    found[name, each].append(key)
        return found


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _without_endings(name: str) -> Iterator[str]:
    """A name as written, then without the ending of a graph, then without that of a structure."""
    yield name
    while True:
        shorter = name.removesuffix(GRAPH_SUFFIX)
        found = re.search(rf"{ENDING.pattern}\Z", shorter, re.IGNORECASE) if shorter == name else None
        shorter = shorter[: found.start()] if found else shorter
        if shorter == name:
            return
        name = shorter
        yield name


def _ambiguous(label: Label, paths: Sequence[Path]) -> DataError:
    return DataError(
        f"MODEL {label.name!r} fits {' and '.join(map(str, paths[:2]))}",
        "one file",
        "write its path below the graph directory",
    )
