"""What reading a structure file left out or changed, with counts, and how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

# {kind: {what: how many}}; in plain types, for graph metadata and the summary hold it.
Changes = dict[str, dict[str, int]]

MODELS_LEFT_OUT = "models_left_out"
MODELS_JOINED = "models_joined"
CHAINS_RENAMED = "chains_renamed"
CHAINS_REORDERED = "chains_reordered"
RESIDUES_RENAMED = "residues_renamed"
HETATM_RESIDUES = "hetatm_residues_kept"
RESIDUES_UNKNOWN = "residues_unknown"
RESIDUES_LEFT_OUT = "residues_left_out"
ATOMS_RENAMED = "atoms_renamed"
ELEMENTS_CORRECTED = "elements_corrected"

# Kind: what one is called, what several are, and what became of them.
_TEXTS = {
    MODELS_LEFT_OUT: ("MODEL", "MODELs", "left out, which models=all takes"),
    MODELS_JOINED: ("MODEL", "MODELs", "joined to one complex"),
    CHAINS_RENAMED: ("chain", "chains", "renamed"),
    CHAINS_REORDERED: ("chain", "chains", "put in order"),
    RESIDUES_RENAMED: ("residue", "residues", "renamed"),
    HETATM_RESIDUES: ("HETATM residue", "HETATM residues", "read as amino acids"),
    RESIDUES_UNKNOWN: ("residue", "residues", "of unknown type"),
    RESIDUES_LEFT_OUT: ("residue", "residues", "left out"),
    ATOMS_RENAMED: ("atom", "atoms", "renamed"),
    ELEMENTS_CORRECTED: ("element", "elements", "taken from atom names"),
}
_SHOWN_ITEMS = 3


def describe_changes(changes: Mapping[str, Mapping[str, int]]) -> str:
    """One file's changes on one line, such as ``14 residues renamed (HSD to HIS 14)``; "" for none."""
    return ", ".join(_described(kind, changes[kind]) for kind in _TEXTS if kind in changes)


def summary_line(files: Mapping[str, Mapping[str, Mapping[str, int]]], num_files: int) -> str:
    """One line for many files, such as ``12 files: 3 MODELs left out in 2 files``; "" where nothing was changed.

    Args:
        files: {file or decoy: its changes}; those without may be left out.
        num_files: how many there are in all.
    """
    parts = []
    for kind in _TEXTS:
        having = [changes[kind] for changes in files.values() if kind in changes]
        if having:
            items: Counter[str] = Counter()
            for found in having:
                items.update(found)
            parts.append(f"{_described(kind, items)} in {_counted(len(having), 'file', 'files')}")
    return f"{_counted(num_files, 'file', 'files')}: {'; '.join(parts)}" if parts else ""


def _described(kind: str, items: Mapping[str, int]) -> str:
    one, several, done = _TEXTS[kind]
    named = sorted(((count, item) for item, count in items.items() if item), key=lambda pair: (-pair[0], pair[1]))
    shown = ", ".join(f"{item} {count}" for count, item in named[:_SHOWN_ITEMS])
    more = ", ..." if len(named) > _SHOWN_ITEMS else ""
    return f"{_counted(sum(items.values()), one, several)} {done}" + (f" ({shown}{more})" if shown else "")


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
