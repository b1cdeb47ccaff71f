"""DockQ and CAPRI class of decoys against a native structure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.errors import DataError, UserInputError
from topotrain.features.archives import folder_of
from topotrain.features.builder import Models
from topotrain.features.chain_alignment import MIN_IDENTITY, Alignments
from topotrain.features.chain_assignment import IMPOSSIBLE, Assignment, best_assignment, unmatched_chains
from topotrain.features.chain_atoms import ChainAtoms, polymer_chains
from topotrain.features.dockq_library import as_biopython, compare_interface, load_dockq
from topotrain.features.interface_scores import Interface, InterfaceScores, native_interfaces
from topotrain.features.label_targets import LabelTask, label_tasks
from topotrain.features.structure import FloatArray, read_structure
from topotrain.features.structure_changes import Changes, describe_changes, summary_line
from topotrain.processes import run_tasks
from topotrain.progress import OnItemDone
from topotrain.text import name_fault, one_line

# DockQ at or above these is CAPRI class 1 (acceptable), 2 (medium), 3 (high): Basu and Wallner, PLoS ONE
# 11(8), e0161879 (2016); Mirabello and Wallner, Bioinformatics 40(10), btae586 (2024).
CAPRI_THRESHOLDS = (0.23, 0.49, 0.80)
# Chains that are less alike than this are compared, and named.
REPORTED_IDENTITY = 0.9
_calls = itertools.count()


@dataclass(frozen=True)
class LabelRow:
    """The label of one decoy.

    Attributes:
        MODEL: path below the decoys folder without suffix, as graphs are named, below the target where that is known.
        dockq: mean DockQ over the native's interfaces, in [0, 1].
        capri: 0 incorrect, 1 acceptable, 2 medium, 3 high.
        target: the first folder of MODEL, or "" for a flat folder.
        fnat: fraction of native contacts, mean over interfaces.
        irmsd: interface RMSD, Angstrom, mean over interfaces.
        lrmsd: ligand RMSD, Angstrom, mean over interfaces.
        interfaces: how many native interfaces there are.
        chain_map: ``native:decoy`` chains, such as ``AB:AB``; names of several letters have commas between them.
    """

    MODEL: str
    dockq: float
    capri: int
    target: str
    fnat: float
    irmsd: float
    lrmsd: float
    interfaces: int
    chain_map: str


@dataclass(frozen=True)
class LabelReport:
    """Labels of a folder of decoys.

    Attributes:
        rows: one per decoy that could be compared, sorted by MODEL.
        failures: {MODEL: one line} of the others.
        notes: {MODEL: lines worth reading beside its label, such as chains of the decoy that do not count}.
        changes: {MODEL, or path of a native: what reading it left out or changed}, of those where something was.
        num_files: how many structures were read.
    """

    rows: tuple[LabelRow, ...]
    failures: dict[str, str]
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    changes: dict[str, Changes] = field(default_factory=dict)
    num_files: int = 0

    @property
    def changes_line(self) -> str:
        """One line on what reading left out or changed; "" where it did not."""
        return summary_line(self.changes, self.num_files)


@dataclass(frozen=True, eq=False)
class _Native:
    """A native, read once for all its decoys."""

    path: str
    chains: tuple[ChainAtoms, ...]
    interfaces: tuple[Interface, ...]
    biopython: tuple[Any, ...]
    alignments: Alignments
    changes: Changes


@dataclass(frozen=True)
class _Outcome:
    key: str
    row: LabelRow | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    changes: dict[str, Changes] = field(default_factory=dict)


def capri_class(dockq: float) -> int:
    """CAPRI class of a DockQ value.

    Args:
        dockq: in [0, 1].

    Returns:
        0 incorrect (under 0.23), 1 acceptable (under 0.49), 2 medium (under 0.80), 3 high.
    """
    return sum(dockq >= threshold for threshold in CAPRI_THRESHOLDS)


def label_decoys(
    decoys: Path | str,
    native: Path | str,
    progress: OnItemDone | None = None,
    *,
    target: str | None = None,
    native_chains: Sequence[str] = (),
    jobs: int = 1,
    models: Models = "first",
    strict: bool = False,
) -> LabelReport:
    """DockQ v2 of every decoy of a folder against its native structure.

    Chains are matched by sequence, whatever their names: the assignment with the fewest mismatches counts, and among
    those the one with the best DockQ. Every native chain with an interface needs a counterpart in the decoy; a decoy
    without one fails.

    Args:
        decoys: a folder of structures, an archive of one (zip, tar), or one file.
        native: the native complex; or a folder of natives, each named as the folder of decoys that it belongs to.
        progress: called with decoys done, decoys in all, and the last MODEL.
        target: rows are ``TARGET/MODEL``; by default so where decoys lie in folders, or where their folder has the
            native's name.
        native_chains: the chains of the native that count; by default all.
        jobs: processes; results do not depend on it.
        models: of files with several MODELs of the same chains the first, or each as a decoy ``NAME_1``, ...
        strict: raise where any decoy failed or anything was not read as it stands, after all the others.

    Raises:
        UserInputError: DockQ is not installed, or jobs below 1.
        DataError: no decoys, or a native that cannot be read or has no interface; with ``strict``, any failure or
            change.
    """
    if jobs < 1:
        raise UserInputError(f"jobs is {jobs}", "1 or more processes", "")
    load_dockq()
    with folder_of(Path(decoys)) as folder:
        tasks, failures = label_tasks(
            Path(decoys),
            folder,
            Path(native),
            target=target,
            chains=tuple(native_chains),
            models=models,
            call=next(_calls),
        )
        if Path(native).is_file():
            _native(tasks[0].native, tasks[0].chains, tasks[0].call)
        outcomes: dict[str, _Outcome] = {}
        for outcome in run_tasks(_label, tasks, jobs, _process_died):
            outcomes[outcome.key] = outcome
            if progress is not None:
                progress(len(outcomes), len(tasks), outcome.key)
    report = _report([outcomes[task.key] for task in tasks], failures, len({task.native for task in tasks}))
    if strict:
        _refuse(report)
    return report


def _report(ordered: Sequence[_Outcome], failures: dict[str, str], num_natives: int) -> LabelReport:
    return LabelReport(
        rows=tuple(outcome.row for outcome in ordered if outcome.row is not None),
        failures={**failures, **{outcome.key: outcome.error for outcome in ordered if outcome.row is None}},
        notes={outcome.key: outcome.notes for outcome in ordered if outcome.notes},
        changes={name: changes for outcome in ordered for name, changes in outcome.changes.items() if changes},
        num_files=len(ordered) + num_natives,
    )


def _refuse(report: LabelReport) -> None:
    """Raise where something failed or was changed (strict)."""
    if report.failures:
        raise DataError(
            f"{len(report.failures)} decoys failed, the first: {next(iter(report.failures.values()))}",
            "none to fail (strict)",
            "repair or remove them",
        )
    for name, changes in report.changes.items():
        raise DataError(
            f"{len(report.changes)} of {report.num_files} structures were not read as they stand, the first: "
            f"{name}: {describe_changes(changes)}",
            "nothing left out or changed (strict)",
            "write them as standard PDB or mmCIF",
        )


def in_groups(messages: Iterable[tuple[str, str]], total: int) -> list[str]:
    """Messages as lines; what is said of several decoys is one line.

    Args:
        messages: of each decoy, its MODEL and what is said, after ``MODEL: `` or not.
        total: how many decoys there are.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, message in messages:
        groups.setdefault(message.removeprefix(f"{key}: "), []).append((key, message))
    lines = []
    for message, of in groups.items():
        if len(of) == total > 1:
            lines.append(f"all {total} decoys: {message}")
        elif len(of) > 1:
            lines.append(f"{len(of)} decoys ({of[0][0]} ... {of[-1][0]}): {message}")
        else:
            lines.append(of[0][1])
    return lines


def _label(task: LabelTask) -> _Outcome:
    """The label of one decoy; whatever goes wrong with its file costs its own line."""
    try:
        if wrong := name_fault(task.key):
            raise DataError(f"{task.path}: {wrong}", "a name in UTF-8, without line breaks", "rename the file")
        native = _native(task.native, task.chains, task.call)
        structure = task.structure()
        changes = {task.key: structure.changes, native.path: native.changes}
        return replace(_compare(task, polymer_chains(structure), native), changes=changes)
    except DataError as error:
        return _Outcome(task.key, error=str(error))
    except Exception as error:  # noqa: BLE001  of a library
        said = f"{type(error).__name__}: {one_line(error)}"
        return _Outcome(task.key, error=f"{task.path}: cannot be compared with {task.native} ({said})")


def _process_died(task: LabelTask) -> _Outcome:
    error = f"{task.path}: the process that compared it died (out of memory, or a crash in a library)"
    return _Outcome(task.key, error=error)


@lru_cache(maxsize=4)
def _native(path: str, wanted: tuple[str, ...], call: int) -> _Native:
    """Read once in a call: between two calls the file may be written anew."""
    structure = read_structure(path)
    chains = polymer_chains(structure)
    names = [chain.name for chain in chains]
    if strange := [name for name in wanted if name not in names]:
        raise DataError(f"{path}: no chain {', '.join(strange)}", f"some of {', '.join(names)}", "check the chains")
    chains = tuple(chain for chain in chains if not wanted or chain.name in wanted)
    if len(chains) < 2:
        raise DataError(f"{path}: fewer than two protein chains", "the native complex", "check the file")
    interfaces = native_interfaces(chains)
    if not interfaces:
        raise DataError(
            f"{path}: no interface between chains {', '.join(chain.name for chain in chains)}",
            "a native complex with chains in contact",
            "check the file",
        )
    return _Native(
        path, chains, interfaces, tuple(as_biopython(chain) for chain in chains), Alignments(), structure.changes
    )


def _compare(task: LabelTask, decoy: tuple[ChainAtoms, ...], native: _Native) -> _Outcome:
    if len(decoy) < 2:
        raise DataError(f"{task.key}: fewer than two protein chains", "a decoy of the complex", "remove it")
    mismatches = _mismatches(decoy, native)
    _check_counterparts(task.key, mismatches, decoy, native)
    assignment = best_assignment(
        native.interfaces, mismatches, InterfaceScores(native.chains, decoy, native.alignments).dockq
    )
    made = {chain: as_biopython(decoy[chain]) for chain in assignment.chains.values()}
    values = []
    for interface in native.interfaces:
        pair = interface.first, interface.second
        value = compare_interface(
            (made[assignment.chains[pair[0]]], made[assignment.chains[pair[1]]]),
            (native.biopython[pair[0]], native.biopython[pair[1]]),
        )
        if value is None:
            raise DataError(f"{task.key}: DockQ finds no interface of the native's chains", "one", "report it")
        values.append(value)

    def mean(name: str) -> float:
        return round(float(sum(value[name] for value in values)) / len(values), 4)

    score = min(max(mean("DockQ"), 0.0), 1.0)
    row = LabelRow(
        MODEL=task.key,
        dockq=score,
        capri=capri_class(score),
        target=task.key.partition("/")[0] if "/" in task.key else "",
        fnat=mean("fnat"),
        irmsd=mean("iRMSD"),
        lrmsd=mean("LRMSD"),
        interfaces=len(values),
        chain_map=_chain_map(assignment, decoy, native),
    )
    return _Outcome(task.key, row, notes=tuple(f"{task.key}: {note}" for note in _notes(assignment, decoy, native)))


def _mismatches(decoy: Sequence[ChainAtoms], native: _Native) -> FloatArray:
    """(num_native, num_decoy) mismatches, ``IMPOSSIBLE`` where chains are not alike."""
    mismatches = np.full((len(native.chains), max(len(decoy), len(native.chains))), IMPOSSIBLE)
    for row, theirs in enumerate(native.chains):
        for column, ours in enumerate(decoy):
            alignment = native.alignments.of(ours, theirs)
            if alignment.alike:
                mismatches[row, column] = alignment.mismatches
    return mismatches


def _check_counterparts(key: str, mismatches: FloatArray, decoy: Sequence[ChainAtoms], native: _Native) -> None:
    """Refuse a decoy without all chains that matter: a mean over the interfaces that are left means something else."""
    touching = sorted({chain for each in native.interfaces for chain in (each.first, each.second)})
    left = [touching[row] for row in unmatched_chains(mismatches[touching])]
    if not left:
        return
    names = ", ".join(native.chains[chain].name for chain in left)
    if len(left) == len(touching):
        raise DataError(
            f"{key}: the native {native.path} is another complex (no chain of the decoy is "
            f"{MIN_IDENTITY:.0%} identical to {names})",
            "the native of the same complex",
            "check the native",
        )
    reason = f"at least {MIN_IDENTITY:.0%} of the longer chain's residues identical, or one a part of the other"
    raise DataError(
        f"{key}: chain {names} of the native {native.path} has no counterpart among the {len(decoy)} chains",
        reason,
        "check the decoy, or name the native's chains that count (--native-chains)",
    )


def _chain_map(assignment: Assignment, decoy: Sequence[ChainAtoms], native: _Native) -> str:
    pairs = sorted(assignment.chains.items())
    sides = [native.chains[ours].name for ours, _ in pairs], [decoy[theirs].name for _, theirs in pairs]
    comma = "" if all(len(name) == 1 for side in sides for name in side) else ","
    return ":".join(comma.join(side) for side in sides)


def _notes(assignment: Assignment, decoy: Sequence[ChainAtoms], native: _Native) -> list[str]:
    notes = []
    used = set(assignment.chains.values())
    if extra := [chain.name for number, chain in enumerate(decoy) if number not in used]:
        notes.append(f"chain {', '.join(extra)} has no counterpart in the native {native.path} and does not count")
    for ours, theirs in sorted(assignment.chains.items()):
        alignment = native.alignments.of(decoy[theirs], native.chains[ours])
        if alignment.identity < REPORTED_IDENTITY:
            notes.append(
                f"chain {decoy[theirs].name} is {alignment.identity:.0%} identical to chain {native.chains[ours].name} "
                f"of {native.path} ({alignment.mismatches} residues differ, {len(native.chains[ours])} in the native, "
                f"{len(decoy[theirs])} in the decoy)"
            )
    if not assignment.proven:
        notes.append("the best DockQ of the chain assignments that were tried; there are too many to try all")
    return notes
