"""Which atoms are residues of chains, under which names and elements; what is left out is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from topotrain.features.atom_elements import HYDROGENS, amino_acid_element, nucleotide_element
from topotrain.features.atom_table import MAX_PEPTIDE_BOND, AtomTable, BoolArray, IntArray, Words
from topotrain.features.residue_names import ResidueName, residue_name
from topotrain.features.structure_changes import (
    ATOMS_RENAMED,
    ELEMENTS_CORRECTED,
    HETATM_RESIDUES,
    RESIDUES_LEFT_OUT,
    RESIDUES_RENAMED,
    RESIDUES_UNKNOWN,
    Changes,
)

TextArray = npt.NDArray[np.str_]
POLYMERS = frozenset({"amino", "nucleic"})
# Oxygens of the last residue as force fields write them, where it has no O of its own.
TERMINAL_OXYGENS = {
    "OT": "O", "OT1": "O", "OC1": "O", "O1": "O", "O'": "O", "OT2": "OXT", "OC2": "OXT", "O2": "OXT", "O''": "OXT",
}  # fmt: skip
# The atom of the parent that selenium stands for.
SELENIUM = {"MET": "SD", "CYS": "SG"}


def polymer_records(table: AtomTable) -> BoolArray:
    """(n,) ATOM records that may be residues of a chain: water, caps and ligands are none."""
    records = ~table.het & table.names.are(lambda name: residue_name(name).kind in POLYMERS | {"unknown"})
    # Some programs write whole proteins as HETATM.
    return records if records.any() else table.names.are(lambda name: residue_name(name).kind == "amino")


def residues_of_chains(table: AtomTable, changes: Changes) -> AtomTable:
    """The heavy atoms of residues that belong to chains, with standard names and elements.

    Kept are amino acids and nucleotides of ATOM records, and HETATM residues that are amino acids by their name or
    backbone and bonded into a chain.

    Args:
        table: the atoms of one complex.
        changes: is added to.
    """
    facts = [residue_name(name) for name in table.names.values]
    kinds = np.array([fact.kind for fact in facts], dtype=np.str_)[table.names.codes]
    amino, nucleic = kinds == "amino", kinds == "nucleic"
    residues = _residue_and_name(table)
    doubtful = ~table.het & ~(amino | nucleic)
    if doubtful.any():
        by_atoms = _amino_by_atoms(table, residues, kinds) & ~table.het
        nucleic |= doubtful & ~by_atoms & (kinds == "unknown") & _having(table, residues, "C1'", "C1*")
        amino |= by_atoms
    kept = ~table.het & (amino | nucleic)
    if table.het.any():
        adopted = _adopted(table, residues, kinds, kept & amino)
        kept |= adopted
        amino |= adopted
        _count(changes, HETATM_RESIDUES, table, residues, adopted)
        # Ligands under the name of a modified residue are none: they have no backbone.
        modified = table.names.are(lambda name: not residue_name(name).plain) | _with_backbone(table, residues)
        _count(changes, RESIDUES_LEFT_OUT, table, residues, table.het & (kinds == "amino") & modified & ~adopted)
    _count(changes, RESIDUES_LEFT_OUT, table, residues, ~table.het & ~kept)
    if not kept.all():
        table, amino, residues = table.take(kept), amino[kept], residues[kept]
    table = _with_elements(table, amino, facts, changes)
    heavy = ~table.elements.are(HYDROGENS.__contains__)
    table, amino, residues = table.take(heavy), amino[heavy], residues[heavy]
    return _with_standard_names(table, amino, residues, changes)


def _residue_and_name(table: AtomTable) -> IntArray:
    """(n,) a number for each residue and residue name: alternates of other types apart."""
    keys = table.residue_keys() * max(len(table.names.values), 1) + table.names.codes
    codes: IntArray = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return codes


def _having(table: AtomTable, residues: IntArray, *atoms: str) -> BoolArray:
    """(n,) whether the residue of each atom has one of some atoms."""
    found = np.zeros(int(residues.max(initial=-1)) + 1, dtype=bool)
    found[residues[table.atoms.are(lambda atom: atom in atoms)]] = True
    return found[residues]


def _with_backbone(table: AtomTable, residues: IntArray) -> BoolArray:
    backbone: BoolArray = np.logical_and.reduce([_having(table, residues, atom) for atom in ("N", "CA", "C")])
    return backbone


def _amino_by_atoms(table: AtomTable, residues: IntArray, kinds: TextArray) -> BoolArray:
    """(n,) residues in no table of amino acids that have a backbone, or at least a C-alpha that is carbon."""
    backbone = _with_backbone(table, residues)
    carbon = np.zeros(int(residues.max(initial=-1)) + 1, dtype=bool)
    carbon[residues[table.atoms.are("CA".__eq__) & table.elements.are("C".__eq__)]] = True
    found: BoolArray = ((kinds == "unknown") & (backbone | carbon[residues])) | ((kinds == "other") & backbone)
    return found


def _adopted(table: AtomTable, residues: IntArray, kinds: TextArray, chain: BoolArray) -> BoolArray:
    """(n,) HETATM residues with the backbone of an amino acid and a peptide bond to a residue of their chain."""
    candidates = table.het & np.isin(kinds, ["amino", "unknown", "other"])
    candidates &= _with_backbone(table, residues)
    if not candidates.any():
        return candidates
    nitrogens = np.flatnonzero((candidates | chain) & table.atoms.are("N".__eq__))
    carbons = np.flatnonzero((candidates | chain) & table.atoms.are("C".__eq__))
    keys, chains = table.residue_keys(), table.chains.codes
    bonded: set[int] = set()
    for one, other in ((nitrogens, carbons), (carbons, nitrogens)):
        for row in one[candidates[one]]:
            near = other[(chains[other] == chains[row]) & (keys[other] != keys[row])]
            distances = np.linalg.norm(table.coords[near] - table.coords[row], axis=1)
            if (distances <= MAX_PEPTIDE_BOND).any():
                bonded.add(int(residues[row]))
    adopted: BoolArray = candidates & np.isin(residues, list(bonded))
    return adopted


def _with_elements(table: AtomTable, amino: BoolArray, facts: list[ResidueName], changes: Changes) -> AtomTable:
    """Elements that follow from atom names, where names say them: once for each combination there is."""
    plain = np.array([fact.plain for fact in facts], dtype=np.int64)[table.names.codes]
    nucleotide = ~amino
    kind = np.where(nucleotide, 2, plain)
    num_atoms, num_elements = len(table.atoms.values), len(table.elements.values)
    combined = (kind * num_atoms + table.atoms.codes) * num_elements + table.elements.codes
    values, codes = np.unique(combined, return_inverse=True)
    found = []
    for value in values.tolist():
        rest, element = divmod(value, num_elements)
        what, atom = divmod(rest, num_atoms)
        name, written = table.atoms.values[atom], table.elements.values[element]
        found.append(nucleotide_element(name, written) if what == 2 else amino_acid_element(what == 1, name, written))
    written = [table.elements.values[value % num_elements] for value in values.tolist()]
    other = np.array([one != two for one, two in zip(found, written, strict=True)], dtype=bool)
    if not other.any():
        return table
    changes[ELEMENTS_CORRECTED] = {"": int(other[codes].sum())}
    return replace(table, elements=Words.coded(found, codes.astype(np.int64)))


def _with_standard_names(table: AtomTable, amino: BoolArray, residues: IntArray, changes: Changes) -> AtomTable:
    """Residues under the names of the twenty; the last residue's oxygens and selenium under the parent's."""
    standard = table.names.mapped(lambda name: residue_name(name).standard)
    unknown = amino & ~standard.are(lambda name: residue_name(name).plain)
    _count(changes, RESIDUES_UNKNOWN, table, residues, unknown)
    names = table.names.texts()
    renamed = amino & (names != standard.texts())
    if renamed.any():
        for name, new in _heads(residues, renamed, names, standard.texts()):
            counts = changes.setdefault(RESIDUES_RENAMED, {})
            counts[f"{name} to {new}"] = counts.get(f"{name} to {new}", 0) + 1
        table = replace(table, names=standard)
    if not any(atom in TERMINAL_OXYGENS or atom == "SE" for atom in table.atoms.values):
        return table
    atoms, elements = table.atoms.texts().astype(object), table.elements.texts().astype(object)
    terminal = amino & ~_having(table, residues, "O") & table.atoms.are(TERMINAL_OXYGENS.__contains__)
    for row in np.flatnonzero(terminal):
        atoms[row] = TERMINAL_OXYGENS[atoms[row]]
    selenium = amino & table.atoms.are("SE".__eq__) & table.names.are(SELENIUM.__contains__)
    for row, name in zip(np.flatnonzero(selenium), table.names.texts()[selenium], strict=True):
        atoms[row], elements[row] = SELENIUM[str(name)], "S"
    if not (terminal | selenium).any():
        return table
    changes[ATOMS_RENAMED] = {"": int((terminal | selenium).sum())}
    return replace(table, atoms=Words.of(atoms.tolist()), elements=Words.of(elements.tolist()))


def _heads(residues: IntArray, rows: BoolArray, *columns: TextArray) -> list[tuple[str, ...]]:
    """The values of some columns at the first atom of each residue among some rows."""
    first = np.flatnonzero(rows)[np.unique(residues[rows], return_index=True)[1]]
    return [tuple(str(column[row]) for column in columns) for row in first]


def _count(changes: Changes, kind: str, table: AtomTable, residues: IntArray, rows: BoolArray) -> None:
    """Count residues by name."""
    if rows.any():
        counts = Counter(changes.get(kind, {}))
        counts.update(name or "(no name)" for (name,) in _heads(residues, rows, table.names.texts()))
        changes[kind] = dict(counts)
