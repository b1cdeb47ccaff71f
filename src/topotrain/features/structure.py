"""Structure files (PDB, mmCIF, plain or compressed) to one form: heavy atoms of residues, chain by chain."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError
from topotrain.features.atom_table import AtomTable, BoolArray
from topotrain.features.atom_table import FloatArray as FloatArray
from topotrain.features.atom_table import IntArray as IntArray
from topotrain.features.mmcif_file import parse_mmcif
from topotrain.features.partners import Partners
from topotrain.features.pdb_file import parse_pdb
from topotrain.features.structure_chains import chosen_model, in_order, require_chains, segments_as_chains
from topotrain.features.structure_changes import Changes
from topotrain.features.structure_residues import polymer_records, residues_of_chains
from topotrain.limits import STRUCTURE_BYTES, STRUCTURE_CROWD, STRUCTURE_RESIDUES, Limit
from topotrain.reading.content import content_of, read_at_most
from topotrain.text import one_line

PDB_SUFFIXES = (".pdb", ".ent")
CIF_SUFFIXES = (".cif", ".mmcif")
PACKED_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00"}
OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CUBE = 10.0  # Angstrom
# Raise it where some file would be read as another structure than before; graphs built by an older reader are then
# built again where reading changes anything in their file. Not part of any digest: standard files read the same.
READER_VERSION = 2
BACKBONE = ("N", "CA", "C", "O")
# Alternate positions of one C-alpha are nearer than this; neighbours in a chain are 3.8 Angstrom apart.
MAX_ALTERNATE_DISTANCE = 2.5


@dataclass(frozen=True, eq=False)
class Structure:
    """The heavy atoms of one complex, chain by chain and residue by residue, in file order.

    First MODEL of an ensemble, all MODELs of a complex spread over several; first alternate location of each residue,
    author numbering, residues under the names of the twenty amino acids. Coordinates in Angstrom.

    Attributes:
        path: where it was read from; named in errors.
        coords: (num_atoms, 3) float64.
        elements: (num_atoms,) element symbols in capitals.
        atom_names: (num_atoms,) PDB atom names without spaces.
        residue_starts: (num_residues + 1,) int64; atoms of residue i are ``[starts[i], starts[i + 1])``.
        chain_ids: (num_residues,) author chain of each residue.
        residue_names: (num_residues,) three-letter names.
        residue_numbers: (num_residues,) int64 author numbers.
        insertion_codes: (num_residues,) insertion codes, "" for none.
        changes: what reading left out or changed; empty for a file that is read as it stands.
        num_models: how many decoys the file holds: the MODELs of an ensemble, else 1.
        partners: which chains are which partner; None where each chain is one. Other chains were left out.
    """

    path: str
    coords: FloatArray
    elements: npt.NDArray[np.str_]
    atom_names: npt.NDArray[np.str_]
    residue_starts: IntArray
    chain_ids: npt.NDArray[np.str_]
    residue_names: npt.NDArray[np.str_]
    residue_numbers: IntArray
    insertion_codes: npt.NDArray[np.str_]
    changes: Changes = field(default_factory=dict)
    num_models: int = 1
    partners: Partners | None = None

    @property
    def num_residues(self) -> int:
        """How many residues there are."""
        return len(self.residue_names)

    @cached_property
    def atom_residues(self) -> IntArray:
        """(num_atoms,) index of each atom's residue."""
        return np.repeat(np.arange(self.num_residues), np.diff(self.residue_starts))

    @cached_property
    def partner_ids(self) -> IntArray:
        """(num_residues,) number of each residue's partner, from 0; contacts are between partners."""
        if self.partners is not None:
            return self.partners.numbers(self.chain_ids)
        return np.unique(self.chain_ids, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def ca(self) -> FloatArray:
        """(num_residues, 3) C-alpha positions in Angstrom; NaN where a residue has none."""
        return self.atom_positions("CA")

    @cached_property
    def residue_ids(self) -> list[str]:
        """``CHAIN:NUMBER`` with the insertion code appended, such as ``A:12`` or ``A:12B``."""
        columns = zip(self.chain_ids, self.residue_numbers, self.insertion_codes, strict=True)
        return [f"{chain}:{number}{code}" for chain, number, code in columns]

    def atom_positions(self, name: str) -> FloatArray:
        """Positions of the atom called ``name`` in each residue.

        Returns:
            (num_residues, 3) float64, Angstrom; NaN where a residue lacks the atom.
        """
        positions = np.full((self.num_residues, 3), np.nan)
        found = np.flatnonzero(self.atom_names == name)
        positions[self.atom_residues[found]] = self.coords[found]
        return positions


def is_structure_file(path: Path) -> bool:
    """Whether the name says PDB or mmCIF, plain or gzip."""
    return _format_suffix(path) in PDB_SUFFIXES + CIF_SUFFIXES


def structure_stem(path: Path) -> str:
    """The file's name without ``.pdb``, ``.cif``, ``.gz`` and the like."""
    name = _without_packing(path.name)
    return name[: -len(Path(name).suffix)] if is_structure_file(path) else name


def read_structure(
    path: Path | str, content: bytes | None = None, *, model: int | None = None, partners: Partners | None = None
) -> Structure:
    """Read one structure file into the form that everything is computed from.

    Args:
        path: a ``.pdb``, ``.ent``, ``.cif`` or ``.mmcif`` file, optionally ``.gz``, ``.bz2`` or ``.xz``.
        content: the file's bytes where the caller has them already (still compressed).
        model: which MODEL of an ensemble, from 0; None for the first, the others counted as left out.
        partners: which chains are the partners, other chains being left out; by default each chain is one.

    Raises:
        DataError: the file cannot be read, is malformed, holds no residues of proteins or nucleic acids, or lacks a
            chain that was named.
    """
    path = Path(path)
    if not is_structure_file(path):
        raise DataError(
            f"{path}: the name is no structure file's",
            "a .pdb, .ent, .cif or .mmcif file, plain, .gz, .bz2 or .xz",
            "rename or convert it",
        )
    content = read_content(path) if content is None else content
    try:
        return _read(path, content, model, partners)
    except DataError:
        raise
    except Exception as error:  # of a malformed file, the libraries that read it may raise anything
        what = f"{path}: cannot be read as a structure ({type(error).__name__}: {one_line(error)})"
        raise DataError(what, "a PDB or mmCIF file", "repair or remove the file") from error


def _read(path: Path, content: bytes, model: int | None, partners: Partners | None) -> Structure:
    text = unpacked(path, content)
    table, changes = (parse_mmcif if is_mmcif(path, text) else parse_pdb)(path, text), Changes()
    del text
    table = segments_as_chains(table, polymer_records(table), changes)
    table, num_models = chosen_model(str(path), table, polymer_records(table), model, changes)
    require_chains(str(path), table, polymer_records(table))
    everything = table
    table = residues_of_chains(partners.named(table) if partners else table, changes)
    if partners:
        present = table.chains.texts().tolist()
        partners.check(str(path), present, lambda: residues_of_chains(everything, {}).chains.texts().tolist())
    if not len(table):
        raise DataError(f"{path}: no heavy atoms of residues in ATOM records", "protein chains", "remove the file")
    structure = _structure(str(path), in_order(table, changes), changes, num_models, partners)
    _refuse_excess(path, structure)
    return structure


def _refuse_excess(path: Path, structure: Structure) -> None:
    """Refuse what no molecule is: contacts of atoms that lie on top of each other grow with their square."""
    if structure.num_residues > STRUCTURE_RESIDUES.value:
        raise _too_large(path, f"{structure.num_residues} residues", STRUCTURE_RESIDUES)
    cubes = np.floor(structure.coords / CUBE).astype(np.int64)
    most = int(np.unique(cubes, axis=0, return_counts=True)[1].max(initial=0))
    if most > STRUCTURE_CROWD.value:
        raise _too_large(path, f"{most} atoms within a cube of {CUBE:g} Angstrom", STRUCTURE_CROWD)


def is_mmcif(path: Path, text: bytes) -> bool:
    """By the name, unless the text is plainly the other format's."""
    if _format_suffix(path) in CIF_SUFFIXES:
        return not text.startswith((b"ATOM  ", b"HEADER", b"REMARK", b"MODEL ", b"CRYST1", b"TITLE "))
    return b"\n_atom_site." in text and b"data_" in text


def _format_suffix(path: Path) -> str:
    return Path(_without_packing(path.name)).suffix.lower()


def _without_packing(name: str) -> str:
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in PACKED_SUFFIXES else name


def read_content(path: Path) -> bytes:
    """The bytes of a structure file, still compressed where it is.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return content_of(path, STRUCTURE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path}: cannot be read ({reason})",
            "a readable structure file",
            "check the path and its permissions",
        ) from error


def unpacked(path: Path, content: bytes) -> bytes:
    """The text of a structure file, whatever it is compressed with; also where the name does not say so.

    Raises:
        DataError: it is cut, damaged, or larger than a structure can be.
    """
    packing = next((name for name, magic in MAGIC.items() if content.startswith(magic)), None)
    if packing is None and path.suffix.lower() in PACKED_SUFFIXES and content:
        packing = PACKED_SUFFIXES[path.suffix.lower()]
    if packing is None:
        return content.removeprefix(BYTE_ORDER_MARK)
    try:
        with OPENERS[packing](io.BytesIO(content), "rb") as file:
            text = read_at_most(file, STRUCTURE_BYTES.value)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{path}: not a complete {packing} file ({one_line(error)})", f"{packing} data", "copy the file again"
        ) from error
    if len(text) > STRUCTURE_BYTES.value:
        raise _too_large(path, f"over {STRUCTURE_BYTES.value} bytes when unpacked", STRUCTURE_BYTES)
    return text.removeprefix(BYTE_ORDER_MARK)


def _too_large(path: Path, what: str, limit: Limit) -> DataError:
    return DataError(f"{path}: {what}", "one structure", f"check the file; {limit.raise_it}")


def _structure(path: str, table: AtomTable, changes: Changes, num_models: int, partners: Partners | None) -> Structure:
    """Residues of the atoms in order, each atom once."""
    names, atoms = table.names.texts(), table.atoms.texts()
    groups = np.cumsum(np.diff(table.residue_keys(), prepend=-1) != 0) - 1
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    kept = (names == names[first][groups]) & _first_alternates(groups, table, names == names[first][groups])
    labels = _labels(table.take(first))
    _refuse_two_residues(path, table, groups, kept, labels)
    kept &= _first_of_each(groups, table.atoms.codes, kept)
    heads, rows = table.take(first), np.flatnonzero(kept)
    return Structure(
        path=path,
        coords=table.coords[rows],
        elements=table.elements.texts()[rows],
        atom_names=atoms[rows],
        residue_starts=np.append(0, np.cumsum(np.bincount(groups[rows], minlength=len(first)))).astype(np.int64),
        chain_ids=heads.chains.texts(),
        residue_names=heads.names.texts(),
        residue_numbers=heads.numbers,
        insertion_codes=heads.codes.texts(),
        changes=changes,
        num_models=num_models,
        partners=partners,
    )


def _labels(residues: AtomTable) -> list[str]:
    columns = zip(residues.chains.texts(), residues.numbers, residues.codes.texts(), strict=True)
    return [f"{chain}:{number}{code}" for chain, number, code in columns]


def _first_alternates(groups: IntArray, table: AtomTable, candidates: BoolArray) -> BoolArray:
    """Atoms of each residue's first alternate location."""
    altlocs = table.altlocs.texts()
    kept = np.ones(len(groups), dtype=bool)
    chosen: dict[int, str] = {}
    for position in np.flatnonzero((altlocs != "") & candidates):
        letter = chosen.setdefault(int(groups[position]), str(altlocs[position]))
        kept[position] = altlocs[position] == letter
    return kept


def _first_of_each(groups: IntArray, atoms: IntArray, kept: BoolArray) -> BoolArray:
    """Atoms that did not come before in their residue: alternates whose letters were stripped come again."""
    rows = np.flatnonzero(kept)
    found = np.unique(groups[rows] * (int(atoms.max(initial=0)) + 1) + atoms[rows], return_index=True)[1]
    once = np.zeros(len(groups), dtype=bool)
    once[rows[found]] = True
    return once


def _refuse_two_residues(path: str, table: AtomTable, groups: IntArray, kept: BoolArray, labels: list[str]) -> None:
    """Refuse two residues under one name, as in files whose chains lost their names.

    Alternates whose letters were stripped, or that are written apart, lie near the first; another residue does not.
    """
    rows = np.flatnonzero(table.atoms.are("CA".__eq__) & (kept | table.altlocs.are(lambda text: not text)))
    _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
    apart = np.linalg.norm(table.coords[rows] - table.coords[rows[first]][inverse], axis=1)
    if (apart > MAX_ALTERNATE_DISTANCE).any():
        row = int(np.argmax(apart > MAX_ALTERNATE_DISTANCE))
        raise DataError(
            f"{path}: two residues are called {labels[groups[rows[row]]]} (C-alphas {apart[row]:.1f} Angstrom apart)",
            "every residue under its own chain and number",
            "give the chains different names, in column 22 or as segment ids in columns 73-76",
        )
