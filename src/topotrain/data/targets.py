"""Which target a decoy belongs to, read off its path; docs/formats.md lists the layouts."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from topotrain.errors import DataError, UserInputError
from topotrain.schema.metadata_files import find_summary

log = logging.getLogger("topotrain")

SHOWN_TARGETS = 6

# Folders that hold one decoy, or one stage of a run, and never are targets.
DECOY_FOLDER = re.compile(r"seed-\d+_sample-\d+")  # AlphaFold 3
NO_TARGET = re.compile(
    rf"{DECOY_FOLDER.pattern}"
    r"|\d+_(?:topoaa|rigidbody|flexref|emref|mdref|seletop|seletopclusts|clustfcc|clustrmsd|emscoring|mdscoring)"
    r"|it[01]|water",  # HADDOCK 3, and 2
    re.IGNORECASE,
)
# Folders that gather what is below them, where that is a folder again.
COLLECTION = re.compile(
    r"pdbs?|models?|decoys?|structures?|predictions|predicted_models|graphs"
    r"|train|training|val|valid|validation|test|holdout",
    re.IGNORECASE,
)
# Files of several jobs in one folder: the job is the target.
JOB_IN_NAME = (
    re.compile(r"(.+)_(?:un)?relaxed_rank_\d+(?:_.*)?"),  # ColabFold
    re.compile(r"fold_(.+)_model_\d+"),  # the AlphaFold server
)

SAY = "where that is wrong, say it by a label column target, --target-level or --target-pattern"
COLUMN, FOLDER, JOB = "label column", "folder", "job in the name"
CUT, DIRECTORY = "name before the first underscore", "the directory's name"
READ_OFF_FOLDERS = (FOLDER, DIRECTORY)
SOURCES = (COLUMN, FOLDER, CUT, JOB, DIRECTORY)  # in the order in which they are named


@dataclass(frozen=True)
class TargetRule:
    """What a user says of where the target is written.

    Attributes:
        level: the folder that is the target, counted from 1 below the root; ``None`` where nothing was said.
        pattern: a regular expression with one group, looked for in the path below the root (without the ending).

    Raises:
        UserInputError: both are given, or the pattern is none, or has not one group.
    """

    level: int | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.level is not None and self.pattern is not None:
            raise UserInputError("--target-level and --target-pattern are both given", "one of them")
        if self.level is not None and self.level < 1:
            raise UserInputError(f"--target-level is {self.level}", "1 for the folder below the root, 2 for the next")
        if self.pattern is None:
            return
        try:
            groups = re.compile(self.pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise UserInputError(
                f"--target-pattern {self.pattern!r} is no regular expression ({error})", "such as '^([^_]+)_'"
            ) from None
        if groups != 1:
            raise UserInputError(
                f"--target-pattern {self.pattern!r} has {groups} groups",
                "one, which holds the target",
                "write (?:...) for a group that does not",
            )

    def __str__(self) -> str:
        return f"--target-level {self.level}" if self.level is not None else f"--target-pattern {self.pattern}"

    @property
    def says(self) -> bool:
        """Whether anything was said."""
        return self.level is not None or self.pattern is not None

    def target(self, key: str) -> str:
        """The target of a decoy, by what was said.

        Raises:
            DataError: its path has no such folder, or the pattern is not in it.
        """
        folders = key.split("/")[:-1]
        if self.level is not None:
            if len(folders) < self.level:
                raise DataError(
                    f"{key}: {len(folders)} folders below the root", f"at least {self.level} (--target-level)"
                )
            return folders[self.level - 1]
        found = re.search(self.pattern or "", key)
        if found is None or not found[1]:
            raise DataError(
                f"{key}: --target-pattern {self.pattern!r} finds no target in it", "a pattern that fits all"
            )
        return str(found[1])


@dataclass(frozen=True)
class Target:
    """A decoy's target.

    Attributes:
        name: of the target.
        source: where it was read: one of the constants above, or the rule's text.
    """

    name: str
    source: str

    @property
    def in_path(self) -> bool:
        """Whether the decoy's own path names it, rather than the directory around all decoys."""
        return self.source not in (CUT, DIRECTORY)


class Targets:
    """The targets of a directory's decoys.

    Args:
        root: the directory; its name is the target of decoys whose paths name none.
        keys: paths of the decoys below it, without ending.
        rule: what the user says of them.
        labelled: whether labels go with the directory: names of files in no folder are then cut at the first
            underscore, as the older stack wrote them.
        flat: whether folders say nothing, unless the rule does: of files that were named one by one.
    """

    def __init__(
        self,
        root: Path,
        keys: Sequence[str],
        rule: TargetRule | None = None,
        *,
        labelled: bool = False,
        flat: bool = False,
    ) -> None:
        self.root, self.keys = root, keys
        self.rule, self.labelled, self.flat = rule or TargetRule(), labelled, flat

    @cached_property
    def root_name(self) -> str:
        """The name of the directory."""
        return self.root.resolve().name

    @cached_property
    def root_names(self) -> frozenset[str]:
        """Words for what lies in the directory and in no folder of it: its name, and that of what it was built from."""
        summary = find_summary(self.root, lambda note: None)
        built_from = summary.dataset_dir if summary else None
        return frozenset({self.root_name, built_from.name} if built_from and built_from.name else {self.root_name})

    def of(self, key: str) -> Target:
        """A decoy's target.

        Raises:
            DataError: the rule does not fit its path.
        """
        if self.rule.says:
            return Target(self.rule.target(key), str(self.rule))
        *folders, name = key.rsplit("/", 1)[-1:] if self.flat else key.split("/")
        folder = _target_folder(tuple(folders))
        if folder is not None:
            return Target(folder, FOLDER)
        if folders:
            return Target(self.root_name, DIRECTORY)
        if self.labelled:
            return Target(name.split("_", 1)[0], CUT)
        job = job_in_name(name)
        return Target(self.root_name, DIRECTORY) if job is None else Target(job, JOB)

    @cached_property
    def by_key(self) -> dict[str, Target]:
        """The target of every decoy."""
        return {key: self.of(key) for key in self.keys}


@lru_cache(maxsize=4096)
def _target_folder(folders: tuple[str, ...]) -> str | None:
    """The first folder that can be a target."""
    for number, folder in enumerate(folders, start=1):
        gathers = number < len(folders) and COLLECTION.fullmatch(folder)
        if not gathers and not NO_TARGET.fullmatch(folder):
            return folder
    return None


def is_decoy_folder(name: str) -> bool:
    """Whether a folder is named after a decoy, whose file is called as all others: a sample of AlphaFold 3."""
    return DECOY_FOLDER.fullmatch(name) is not None


def job_in_name(name: str) -> str | None:
    """The job that a file of a prediction server or of ColabFold is named after, if it is."""
    return next((str(found[1]) for pattern in JOB_IN_NAME if (found := pattern.fullmatch(name))), None)


def show_targets(targets: Mapping[str, Target], *, ranked: bool = True) -> None:
    """Say which targets were found, before anything is ranked, and what may be wrong with them."""
    log.info(target_line(target.name for target in targets.values()))
    for warning in target_warnings(targets) if ranked else ():
        log.warning(warning)


def target_line(targets: Iterable[str]) -> str:
    """``2 targets: 1AY7 (44 decoys), 1BGS (1 decoy)``, in alphabetical order, the first few alone."""
    counts = sorted(Counter(targets).items())
    shown = ", ".join(f"{name} ({count} decoy{'s' if count > 1 else ''})" for name, count in counts[:SHOWN_TARGETS])
    more = f" and {len(counts) - SHOWN_TARGETS} more" if len(counts) > SHOWN_TARGETS else ""
    return f"{len(counts)} target{'s' if len(counts) != 1 else ''}: {shown}{more}"


def target_warnings(targets: Mapping[str, Target]) -> list[str]:
    """What may be wrong with the targets of decoys, by their paths."""
    return [*_cut(targets), *_alone(targets), *_several_jobs(targets), *_several_folders(targets)]


def _cut(targets: Mapping[str, Target]) -> Iterator[str]:
    cut = {key: target.name for key, target in targets.items() if target.source == CUT and target.name != key}
    if cut:
        key, name = next(iter(cut.items()))
        yield (
            f"targets of {len(cut)} decoys in no folder are their names before the first underscore ({key} is of "
            f"target {name!r}); {SAY}"
        )


def _alone(targets: Mapping[str, Target]) -> Iterator[str]:
    counts = Counter(target.name for target in targets.values())
    if len(counts) > 1 and max(counts.values()) == 1:
        yield f"each of the {len(counts)} targets has one decoy, so there is nothing to rank; {SAY}"


def _several_jobs(targets: Mapping[str, Target]) -> Iterator[str]:
    """One target whose files are named after several."""
    jobs: dict[str, set[str]] = defaultdict(set)
    for key, target in targets.items():
        job = job_in_name(key.rsplit("/", 1)[-1])
        if job is not None and target.source in READ_OFF_FOLDERS:
            jobs[target.name].add(job)
    for name, found in jobs.items():
        if len(found) > 1:
            yield (
                f"target {name} holds decoys of {len(found)} jobs ({_first(found)}), which are ranked together; {SAY}"
            )


def _several_folders(targets: Mapping[str, Target]) -> Iterator[str]:
    """One target whose folders look like several."""
    inner: dict[str, Counter[str]] = defaultdict(Counter)
    for key, target in targets.items():
        folders = key.split("/")[:-1]
        if target.source == FOLDER:
            below = folders[folders.index(target.name) + 1 :]
            inner[target.name]["" if not below or NO_TARGET.fullmatch(below[0]) else below[0]] += 1
    for name, counts in inner.items():
        if len(counts) > 1 and "" not in counts and min(counts.values()) > 1:
            yield f"target {name} has {len(counts)} folders of decoys ({_first(counts)}), ranked together; {SAY}"


def _first(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:2]) + (", ..." if len(names) > 2 else "")
