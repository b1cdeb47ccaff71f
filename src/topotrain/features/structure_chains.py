"""Which chains a file holds: one MODEL or one complex over several, chains from segment ids, chains in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from string import ascii_uppercase, digits

import numpy as np

from topotrain.errors import DataError
from topotrain.features.atom_table import MAX_PEPTIDE_BOND, AtomTable, BoolArray, IntArray, Words
from topotrain.features.residue_names import residue_name
from topotrain.features.structure_changes import (
    CHAINS_RENAMED,
    CHAINS_REORDERED,
    MODELS_JOINED,
    MODELS_LEFT_OUT,
    Changes,
)

# Of the residues that two MODELs number alike, so many have the same name where the chain is the same again.
MIN_SAME = 0.7
# Neighbours in a chain, C-alpha to C-alpha, where C or N is missing. Angstrom.
MAX_CALPHA_STEP = 4.5
RESIDUE_MARKS = ("CA", "C1'", "C1*")  # one in each amino acid, one in each nucleotide
_CHAIN_LETTERS = ascii_uppercase + ascii_uppercase.lower() + digits

Residues = dict[tuple[int, str], str]  # {(number, insertion code): name}


def chosen_model(
    path: str, table: AtomTable, polymer: BoolArray, model: int | None, changes: Changes
) -> tuple[AtomTable, int]:
    """One MODEL of an ensemble, or all MODELs of a complex that is spread over them.

    Args:
        path: named in errors.
        table: all atoms.
        polymer: (n,) ATOM records of amino acids and nucleotides.
        model: position of the MODEL, from 0; None for the first, and the others are counted in ``changes``.
        changes: is added to.

    Returns:
        The atoms, and how many decoys the file holds: the MODELs of an ensemble, else 1.

    Raises:
        DataError: MODELs that are neither the same chains again nor other chains.
    """
    blocks = np.unique(table.blocks[polymer])
    if len(blocks) <= 1:
        return table, 1
    chains = [_chains_of(table.take(polymer & (table.blocks == block))) for block in blocks]
    if all(_same_again(chains[0], other) for other in chains[1:]):
        if model is None:
            changes[MODELS_LEFT_OUT] = {"": len(blocks) - 1}
        return table.take(table.blocks == blocks[model or 0]), len(blocks)
    return _joined(path, table, dict(zip(blocks.tolist(), chains, strict=True)), changes), 1


def _chains_of(table: AtomTable) -> dict[str, Residues]:
    first = np.unique(table.residue_keys(), return_index=True)[1]
    heads = table.take(np.sort(first))
    found: dict[str, Residues] = {}
    columns = zip(heads.chains.texts(), heads.numbers, heads.codes.texts(), heads.names.texts(), strict=True)
    for chain, number, code, name in columns:
        found.setdefault(str(chain), {})[int(number), str(code)] = residue_name(str(name)).standard
    return found


def _same_again(one: dict[str, Residues], other: dict[str, Residues]) -> bool:
    """Whether a MODEL holds the chains of another: the same names, and at least one with the same residues."""
    return one.keys() == other.keys() and any(_alike(one[chain], other[chain]) for chain in one)


def _alike(one: Residues, other: Residues) -> bool:
    shared = one.keys() & other.keys()
    return sum(one[key] == other[key] for key in shared) >= MIN_SAME * min(len(one), len(other))


def _joined(path: str, table: AtomTable, chains: dict[int, dict[str, Residues]], changes: Changes) -> AtomTable:
    """All MODELs as one complex; a blank chain, or another sequence under a name that is taken, gets a free name."""
    there: dict[str, Residues] = {}
    names = table.chains.texts().astype(object)
    renamed: Counter[str] = Counter()
    every = {chain for found in chains.values() for chain in found}
    for block, found in chains.items():
        for chain, residues in found.items():
            name = chain
            if not chain or (chain in there and there[chain].keys() & residues.keys()):
                if chain and _alike(there[chain], residues):
                    raise DataError(
                        f"{path}: its MODELs hold chain {chain or '(blank)'} again beside other chains",
                        "the same chains in every MODEL (an ensemble), or other chains in each (one complex)",
                        "write one file for each decoy, or give every chain of the complex a name of its own",
                    )
                name = _free_name(every)
                every.add(name)
                names[(table.blocks == block) & (names == chain)] = name
                renamed[f"{chain or '(blank)'} to {name}"] += 1
            there.setdefault(name, {}).update(residues)
    changes[MODELS_JOINED] = {"": len(chains)}
    if renamed:
        changes[CHAINS_RENAMED] = {**changes.get(CHAINS_RENAMED, {}), **renamed}
        table = replace(table, chains=Words.of(names.tolist()))
    return table


def _free_name(taken: set[str]) -> str:
    letters = (letter for letter in _CHAIN_LETTERS if letter not in taken)
    return next(letters, None) or next(name for n in range(10000) if (name := f"X{n}") not in taken)


def segments_as_chains(table: AtomTable, polymer: BoolArray, changes: Changes) -> AtomTable:
    """Segment ids in place of chains that are blank, or that hold several segments under one name.

    Args:
        table: all atoms.
        polymer: (n,) ATOM records of amino acids and nucleotides.
        changes: is added to.
    """
    chains, segids = table.chains, table.segids
    blank, named = chains.are(lambda text: not text), segids.are(bool)
    moved = blank & named
    if len(set(segids.codes[polymer].tolist())) > 1:
        for chain in np.unique(chains.codes[polymer & ~blank]):
            rows = chains.codes == chain
            if _several_segments(table, polymer & rows, alone=bool((rows | ~polymer).all())):
                moved |= rows & named
    if not moved.any():
        return table
    renamed = chains.replaced(moved, segids)
    before, after = chains.texts()[moved & polymer], renamed.texts()[moved & polymer]
    pairs = sorted(set(zip(before.tolist(), after.tolist(), strict=True)))
    if pairs:
        changes[CHAINS_RENAMED] = {f"{one or '(blank)'} to {other}": 1 for one, other in pairs}
    return replace(table, chains=renamed)


def require_chains(path: str, table: AtomTable, polymer: BoolArray) -> None:
    """Refuse a file in which no residue has a chain.

    Args:
        path: named in the error.
        table: the atoms of one complex.
        polymer: (n,) ATOM records of amino acids and nucleotides.

    Raises:
        DataError: all chains are blank.
    """
    if polymer.any() and not table.chains.are(bool)[polymer].any():
        raise DataError(
            f"{path}: chain identifiers are missing",
            "a chain in column 22 of every ATOM record, or a segment id in columns 73-76",
            "give every protein a chain of its own",
        )


def _several_segments(table: AtomTable, rows: BoolArray, alone: bool) -> bool:
    """Whether one chain is several: by its segments, where it is alone or numbers residues twice."""
    segids, keys = table.segids.codes[rows], table.residue_keys()[rows]
    if len(np.unique(segids)) < 2:
        return False
    pairs = np.unique(np.stack([keys, segids]), axis=1).shape[1]
    # Columns that are something else, such as elements moved to the left, tell atoms of one residue apart.
    marks = rows & table.atoms.are(lambda atom: atom in RESIDUE_MARKS)
    marked = np.unique(np.stack([table.residue_keys()[marks], table.segids.codes[marks]]), axis=1).shape[1]
    return 2 * marked > pairs and (alone or pairs > len(np.unique(keys)))


def in_order(table: AtomTable, changes: Changes) -> AtomTable:
    """The atoms of each residue together, and the residues of each chain; chains in order of first appearance.

    Residues stay as they are written, numbered upwards or not, unless more of them are bonded to the next in the order
    of their numbers: then the records were in disorder.

    Args:
        table: heavy atoms of residues.
        changes: is added to.
    """
    rows = _rows_together(table)
    moved = {
        int(chain)
        for chain in np.unique(table.chains.codes)
        if (np.diff(rows[table.chains.codes[rows] == chain]) != 1).any()
    }
    for chain in np.unique(table.chains.codes):
        places = np.flatnonzero(table.chains.codes[rows] == chain)
        by_number = _by_number(table, rows[places])
        if by_number is not None:
            rows[places] = by_number
            moved.add(int(chain))
    if not moved:
        return table
    changes[CHAINS_REORDERED] = {table.chains.values[chain]: 1 for chain in sorted(moved)}
    return table.take(rows)


def _rows_together(table: AtomTable) -> IntArray:
    """Rows by first appearance of their chain, then of their residue; as they are where records are in order."""
    first, inverse = np.unique(table.residue_keys(), return_index=True, return_inverse=True)[1:]
    chain_first, chain_inverse = np.unique(table.chains.codes, return_index=True, return_inverse=True)[1:]
    return np.lexsort((first[inverse], chain_first[chain_inverse])).astype(np.int64)  # stable


def _by_number(table: AtomTable, rows: IntArray) -> IntArray | None:
    """The rows of a chain in order of residue numbers, where that joins more residues; else None."""
    numbers = table.numbers[rows]
    codes = np.argsort(np.argsort(np.array(table.codes.values)))[table.codes.codes[rows]]
    keys = numbers * (len(table.codes.values) + 1) + codes
    if (np.diff(keys) >= 0).all():
        return None
    by_number = rows[np.argsort(keys, kind="stable")]
    return by_number if _num_joined(table.take(by_number)) > _num_joined(table.take(rows)) else None


def _num_joined(chain: AtomTable) -> int:
    """How many residues of a chain are bonded to the next: C to N, or C-alphas near where one is missing."""
    starts = np.flatnonzero(np.diff(chain.residue_keys(), prepend=-1))
    residue = np.cumsum(np.isin(np.arange(len(chain)), starts)) - 1
    place = {name: np.full((len(starts), 3), np.nan) for name in ("N", "CA", "C")}
    for name, positions in place.items():
        found = np.flatnonzero(chain.atoms.are(name.__eq__))[::-1]  # the first of alternates is written last
        positions[residue[found]] = chain.coords[found]
    bond = np.linalg.norm(place["C"][:-1] - place["N"][1:], axis=1)
    step = np.linalg.norm(np.diff(place["CA"], axis=0), axis=1)
    return int(np.where(np.isfinite(bond), bond <= MAX_PEPTIDE_BOND, step <= MAX_CALPHA_STEP).sum())
