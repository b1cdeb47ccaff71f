"""mmCIF files to atom tables: the dictionary's defaults for columns that are not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.errors import DataError
from topotrain.features.atom_elements import UNKNOWN_ELEMENT
from topotrain.features.atom_table import AtomTable, IntArray, Words
from topotrain.features.residue_names import residue_name
from topotrain.limits import STRUCTURE_ATOMS, STRUCTURE_CELLS

CATEGORY = "_atom_site."
AXES = ("Cartn_x", "Cartn_y", "Cartn_z")
NULLS = frozenset({".", "?"})
NUMBER_OF_RESIDUE = re.compile(r"[+-]?[0-9]{1,9}")
SHOWN = 40  # characters of a wrong one
# What is needed, by either of its names, the author's first.
CHAIN = ("auth_asym_id", "label_asym_id")
NUMBER = ("auth_seq_id", "label_seq_id")
NAME = ("auth_comp_id", "label_comp_id")
ATOM = ("auth_atom_id", "label_atom_id")


def parse_mmcif(path: Path, text: bytes) -> AtomTable:
    """Read the atoms of all data blocks; each MODEL of each block counts.

    Args:
        path: named in errors.
        text: the file.

    Raises:
        DataError: no mmCIF, no atoms, or a column that is needed is missing; it is named.
    """
    import gemmi

    try:
        document = gemmi.cif.read_string(text)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {error}", "mmCIF format", "repair or remove the file") from error
    tables = [_Columns(path, block) for block in document if list(block.find_mmcif_category(CATEGORY).tags)]
    tables = [table for table in tables if table.size]
    if not tables:
        raise DataError(f"{path}: no _atom_site table", "mmCIF with atoms", "repair or remove the file")
    return _joined([_atoms(table) for table in tables])


class _Columns:
    """The ``_atom_site`` table of a data block.

    Args:
        path: named in errors.
        block: a ``gemmi.cif.Block``; typed Any because gemmi ships no complete stubs.
    """

    def __init__(self, path: Path, block: Any) -> None:
        import gemmi

        table = block.find_mmcif_category(CATEGORY)
        self.path, self._clean = path, gemmi.cif.as_string
        self._places = {tag.lower(): place for place, tag in enumerate(table.tags)}
        self.size = len(table)
        for found, limit in ((self.size, STRUCTURE_ATOMS), (self.size * len(self._places), STRUCTURE_CELLS)):
            if found > limit.value:
                what = f"{path}: {found} {limit.what.partition(' ')[0]} in its table of atoms"
                raise DataError(what, "one structure", f"check the file; {limit.raise_it}")
        column = block.find_values(next(iter(table.tags)))
        loop = column.get_loop()
        cells = list(loop.values) if loop is not None else [table[0][place] for place in range(len(self._places))]
        self._width = len(self._places)
        self._cells = cells

    def __contains__(self, name: str) -> bool:
        return (CATEGORY + name).lower() in self._places

    def raw(self, name: str) -> list[str]:
        """The cells of a column as written, quotes included."""
        return self._cells[self._places[(CATEGORY + name).lower()] :: self._width]

    def words(self, name: str, change: Callable[[str], str] = str) -> Words:
        """A column; ``.`` and ``?`` and a column that is not there are ""."""
        if name not in self:
            return Words(("",), np.zeros(self.size, dtype=np.int64))
        return Words.of(self.raw(name)).mapped(lambda text: "" if text in NULLS else change(self._clean(text).strip()))

    def either(self, names: tuple[str, str], change: Callable[[str], str] = str) -> Words:
        """The first column; the other where it says nothing.

        Raises:
            DataError: neither is there.
        """
        if not any(name in self for name in names):
            raise self.missing(f"{names[0]} or {names[1]}")
        first = self.words(names[0], change)
        empty = first.are(lambda text: not text)
        return first.replaced(empty, self.words(names[1], change)) if empty.any() else first

    def missing(self, name: str) -> DataError:
        """The error for a column that is needed."""
        return DataError(
            f"{self.path}: its _atom_site table has no column {name}",
            "mmCIF with coordinates, chain, residue number, residue name and atom name",
            "write the file again with that column",
        )

    def coordinates(self) -> Any:
        """(n, 3) float64, Angstrom.

        Raises:
            DataError: a column is missing, or a value is no number.
        """
        import gemmi

        coords = np.empty((self.size, 3))
        for axis, name in enumerate(AXES):
            if name not in self:
                raise self.missing(name)
            raw = self.raw(name)
            try:
                if any("_" in text for text in raw):  # between digits numpy takes it
                    raise ValueError("no number")
                coords[:, axis] = np.array(raw, dtype=np.float64)
            except ValueError:  # quoted, or with an uncertainty in brackets
                coords[:, axis] = [gemmi.cif.as_number(self._clean(text)) for text in raw]
        bad = np.argwhere(~np.isfinite(coords))
        if len(bad):
            row, axis = bad[0]
            raise DataError(
                f"{self.path}: {AXES[axis]} of atom {row + 1} is {self.raw(AXES[axis])[row]!r}: coordinates are not "
                "numbers",
                "finite numbers",
                "repair or remove the file",
            )
        return coords


def _atoms(table: _Columns) -> AtomTable:
    coords = table.coordinates()
    names, het = table.either(NAME, str.upper), _het(table)
    numbers = table.either(NUMBER)
    if bad := next((value for value in numbers.values if value and not NUMBER_OF_RESIDUE.fullmatch(value)), ""):
        raise DataError(
            f"{table.path}: {bad[:SHOWN]!r} is no residue number",
            "whole numbers in auth_seq_id",
            "repair or remove the file",
        )
    # Waters and ligands have no number of the label kind; they are no residues of a chain.
    values = [int(value) if value else 0 for value in numbers.values]
    unnumbered = numbers.are(lambda text: not text)
    if (unnumbered & ~het & names.are(lambda name: residue_name(name).kind == "amino")).any():
        raise DataError(
            f"{table.path}: amino acids without a number (auth_seq_id, label_seq_id)",
            "a number for each residue",
            "repair or remove the file",
        )
    atoms = AtomTable(
        blocks=_models(table),
        chains=table.either(CHAIN),
        segids=table.words(""),
        names=names,
        numbers=np.array(values, dtype=np.int64)[numbers.codes],
        codes=table.words("pdbx_PDB_ins_code"),
        atoms=table.either(ATOM, str.upper),
        elements=table.words("type_symbol", str.upper).mapped(lambda text: text or UNKNOWN_ELEMENT),
        altlocs=table.words("label_alt_id"),
        het=het,
        coords=coords,
    )
    return atoms.take(~unnumbered) if unnumbered.any() else atoms


def _models(table: _Columns) -> IntArray:
    models = table.words("pdbx_PDB_model_num").codes
    return models.astype(np.int64)


def _het(table: _Columns) -> Any:
    """(n,) HETATM or not; without the column, by what the residues are."""
    if "group_PDB" in table:
        return table.words("group_PDB", str.upper).are(lambda text: text == "HETATM")
    names = table.either(NAME, str.upper)
    het = ~names.are(lambda name: residue_name(name).plain or residue_name(name).kind == "nucleic")
    sequence = table.words("label_seq_id")
    if any(sequence.values):  # ligands and waters have none
        het |= sequence.are(lambda text: not text)
    return het


def _joined(tables: list[AtomTable]) -> AtomTable:
    """The atoms of several data blocks, MODELs counted on."""
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, Any] = {}
    for name in AtomTable.__dataclass_fields__:
        parts = [getattr(table, name) for table in tables]
        if isinstance(parts[0], Words):
            columns[name] = Words.of(text for part in parts for text in part.texts().tolist())
        else:
            columns[name] = np.concatenate(parts)
    start = 0
    shifted = []
    for table in tables:
        shifted.append(table.blocks + start)
        start += int(table.blocks.max()) + 1
    columns["blocks"] = np.concatenate(shifted)
    return AtomTable(**columns)
