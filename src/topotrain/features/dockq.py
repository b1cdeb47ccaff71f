"""DockQ and CAPRI class of decoys against a native structure."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.errors import DataError, UserInputError
from topotrain.features.builder import find_structures
from topotrain.features.structure import is_structure_file, read_structure
from topotrain.progress import OnItemDone
from topotrain.text import one_line

# DockQ at or above these is CAPRI class 1 (acceptable), 2 (medium), 3 (high): Basu and Wallner, PLoS ONE
# 11(8), e0161879 (2016); Mirabello and Wallner, Bioinformatics 40(10), btae586 (2024).
CAPRI_THRESHOLDS = (0.23, 0.49, 0.80)
# Chain assignments tried for complexes with identical chains.
MAX_CHAIN_MAPS = 720
# Of the shorter chain's residues, in DockQ's alignment: mutants and tags pass; unrelated chains reach about 0.4.
MIN_IDENTITY = 0.7
_loads = itertools.count()


@dataclass(frozen=True)
class LabelRow:
    """The label of one decoy.

    Attributes:
        MODEL: path below the decoys folder without suffix, as graphs are named.
        dockq: mean DockQ over the native's interfaces, in [0, 1].
        capri: 0 incorrect, 1 acceptable, 2 medium, 3 high.
        target: the decoy's folder, or "" for a flat folder.
        fnat: fraction of native contacts, mean over interfaces.
        irmsd: interface RMSD, Angstrom, mean over interfaces.
        lrmsd: ligand RMSD, Angstrom, mean over interfaces.
        interfaces: how many native interfaces there are.
        chain_map: ``native:decoy`` chains, such as ``AB:AB``.
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
    """

    rows: tuple[LabelRow, ...]
    failures: dict[str, str]


def capri_class(dockq: float) -> int:
    """CAPRI class of a DockQ value.

    Args:
        dockq: in [0, 1].

    Returns:
        0 incorrect (under 0.23), 1 acceptable (under 0.49), 2 medium (under 0.80), 3 high.
    """
    return sum(dockq >= threshold for threshold in CAPRI_THRESHOLDS)


def label_decoys(decoys: Path | str, native: Path | str, progress: OnItemDone | None = None) -> LabelReport:
    """DockQ v2 of every decoy of a folder against one native structure.

    Chains are matched by sequence; with identical chains, the assignment with the best DockQ counts. Where sequences
    differ, chains of the same name are matched, as long as they are alike; a decoy of other sequences fails.

    Args:
        decoys: a folder of structures, or one file.
        native: the native complex.
        progress: called with decoys done, decoys in all, and the last MODEL.

    Raises:
        UserInputError: DockQ is not installed.
        DataError: no decoys, or a native that cannot be read or has no interface.
    """
    found, native = find_structures(Path(decoys)), Path(native)
    if not is_structure_file(native) or not native.is_file():
        raise DataError(
            f"{native.absolute()}: no native structure", "a PDB or mmCIF file, plain or .gz", "check the path"
        )
    dockq = load_dockq()
    reference = _load_structure(dockq, native)
    if len(list(reference)) < 2:
        raise DataError(f"{native}: fewer than two protein chains", "the native complex", "check the file")
    rows, failures = [], {}
    for number, (key, path) in enumerate(found.items(), start=1):
        try:
            rows.append(_label(dockq, key, _load_structure(dockq, path), reference, native))
        except DataError as error:
            failures[key] = str(error)
        if progress is not None:
            progress(number, len(found), key)
    return LabelReport(tuple(rows), failures)


def load_dockq() -> Any:
    """The module ``DockQ.DockQ`` (v2, from PyPI).

    DockQ 2.1.3 is compiled against NumPy 1 unless built otherwise, and its own fallback to Python does not
    import when it is used as a library; its Python functions are put in the compiled ones' place then. Same
    numbers.

    Raises:
        UserInputError: DockQ is not installed.
    """
    if "DockQ.DockQ" in sys.modules:
        return sys.modules["DockQ.DockQ"]
    try:
        importlib.import_module("DockQ")
    except ImportError as error:
        raise UserInputError(
            "DockQ is not installed", "the package DockQ, version 2", "pip install 'DockQ>=2.1.3'"
        ) from error
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            importlib.import_module("DockQ.operations")
        except ImportError:
            sys.modules["DockQ.operations"] = importlib.import_module("DockQ.operations_nocy")
    try:
        return importlib.import_module("DockQ.DockQ")
    except ImportError as error:
        raise UserInputError(
            f"DockQ cannot be imported ({one_line(error)})",
            "DockQ 2.1.3 with biopython and parallelbar",
            "install it again",
        ) from error


def _load_structure(dockq: Any, path: Path) -> Any:
    """A Biopython model, named so that DockQ's caches take it for no other one read from the same path."""
    read_structure(path)  # its errors say what is wrong; DockQ's do not
    try:
        with _quiet(), contextlib.redirect_stderr(io.StringIO()):
            structure = dockq.load_PDB(str(path))
            structure.id = f"{path}#{next(_loads)}"
            num_residues = sum(1 for chain in structure for _ in chain)
    except Exception as error:
        raise DataError(
            f"{path}: DockQ cannot read it ({type(error).__name__}: {one_line(error)})",
            "PDB or mmCIF",
            "repair or remove it",
        ) from error
    if not num_residues:
        raise DataError(f"{path}: no protein residues", "PDB or mmCIF with ATOM records", "repair or remove it")
    return structure


def _label(dockq: Any, key: str, decoy: Any, native: Any, native_path: Path) -> LabelRow:
    best: dict[str, Any] = {}
    best_map: dict[str, str] = {}
    best_total = -1.0
    for chain_map in _chain_maps(dockq, key, decoy, native, native_path):
        with _quiet():
            result, total = dockq.run_on_all_native_interfaces(decoy, native, chain_map=chain_map)
        if result and total > best_total:
            best, best_total, best_map = result, float(total), chain_map
    if not best:
        raise DataError(
            f"{native_path}: no interface between chains {', '.join(c.id for c in native)}",
            "a native complex with chains in contact",
            f"check the native and {key}",
        )
    values = list(best.values())
    score = round(min(max(best_total / len(values), 0.0), 1.0), 4)

    def mean(name: str) -> float:
        return round(float(sum(value[name] for value in values)) / len(values), 4)

    return LabelRow(
        MODEL=key,
        dockq=score,
        capri=capri_class(score),
        target=key.rpartition("/")[0],
        fnat=mean("fnat"),
        irmsd=mean("iRMSD"),
        lrmsd=mean("LRMSD"),
        interfaces=len(values),
        chain_map=f"{''.join(best_map)}:{''.join(best_map.values())}",
    )


def _chain_maps(dockq: Any, key: str, decoy: Any, native: Any, native_path: Path) -> list[dict[str, str]]:
    """Assignments {native chain: decoy chain} worth trying."""
    decoy_chains, native_chains = [c.id for c in decoy], [c.id for c in native]
    if len(decoy_chains) < 2:
        raise DataError(f"{key}: fewer than two protein chains", "a decoy of the complex", "remove it")
    maps: list[dict[str, str]] = []
    # SystemExit is DockQ's way of saying that a chain has no other of its sequence.
    with contextlib.suppress(SystemExit), _quiet():
        clusters, reverse = dockq.group_chains(decoy, native, decoy_chains, native_chains)
        every = dockq.get_all_chain_maps(clusters, {}, reverse, decoy_chains, native_chains)
        maps = list(itertools.islice(every, MAX_CHAIN_MAPS))
    if not maps:  # DockQ takes chains by name then, and so do we, unless they are others altogether
        maps = [_map_by_name(key, decoy_chains, native_chains)]
        _check_sequences(dockq, key, decoy, native, maps[0], native_path)
    return maps


def _map_by_name(key: str, decoy_chains: Sequence[str], native_chains: Sequence[str]) -> dict[str, str]:
    shared = [chain for chain in native_chains if chain in decoy_chains]
    if len(shared) < 2:
        raise DataError(
            f"{key}: chains {', '.join(decoy_chains)} match none of the native's {', '.join(native_chains)}",
            "chains of the same sequence or the same names",
            "remove the decoy or rename its chains",
        )
    return {chain: chain for chain in shared}


def _check_sequences(
    dockq: Any, key: str, decoy: Any, native: Any, chain_map: dict[str, str], native_path: Path
) -> None:
    """Refuse another complex: DockQ would compare residues that have nothing to do with each other."""
    for ours, theirs in chain_map.items():
        one, two = decoy[theirs], native[ours]
        matches = dockq.format_alignment(dockq.align_chains(one, two))["matches"].count("|")
        identity = matches / min(len(one.sequence), len(two.sequence))
        if identity < MIN_IDENTITY:
            raise DataError(
                f"{key}: its chain {theirs} and chain {ours} of {native_path} have other sequences "
                f"({identity:.0%} of residues are identical)",
                f"the native of the same complex, at least {MIN_IDENTITY:.0%} identical chain by chain",
                "check the native, or rename the decoy's chains as the native's are",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """DockQ reports to the root logger and to standard output; standard output is ours."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
