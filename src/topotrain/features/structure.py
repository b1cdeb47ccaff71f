"""Structure files (PDB, mmCIF, plain or gzip) to arrays of heavy protein atoms."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError
from topotrain.text import one_line

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PDB_SUFFIXES = (".pdb", ".ent")
CIF_SUFFIXES = (".cif", ".mmcif")
GZIP_SUFFIX = ".gz"
BACKBONE = ("N", "CA", "C", "O")
HYDROGENS = ("H", "D")
# Alternate positions of one C-alpha are nearer than this; neighbours in a chain are 3.8 Angstrom apart.
MAX_ALTERNATE_DISTANCE = 2.5


@dataclass(frozen=True, eq=False)
class Structure:
    """The heavy ATOM records of one model, residue by residue, in file order.

    First model, first alternate location of each residue, author numbering. Coordinates in Angstrom.

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

    @property
    def num_residues(self) -> int:
        """How many residues there are."""
        return len(self.residue_names)

    @cached_property
    def atom_residues(self) -> IntArray:
        """(num_atoms,) index of each atom's residue."""
        return np.repeat(np.arange(self.num_residues), np.diff(self.residue_starts))

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
    name = path.name[: -len(GZIP_SUFFIX)] if path.name.lower().endswith(GZIP_SUFFIX) else path.name
    return name[: -len(Path(name).suffix)] if is_structure_file(path) else name


def read_structure(path: Path | str, content: bytes | None = None) -> Structure:
    """Read one structure file.

    Args:
        path: a ``.pdb``, ``.ent``, ``.cif`` or ``.mmcif`` file, optionally ``.gz``.
        content: the file's bytes where the caller has them already (still compressed).

    Raises:
        DataError: the file cannot be read, is malformed, or holds no protein ATOM records.
    """
    path = Path(path)
    if not is_structure_file(path):
        raise DataError(
            f"{path}: the name is no structure file's",
            "a .pdb, .ent, .cif or .mmcif file, plain or .gz",
            "rename or convert it",
        )
    text = _decompress(path, read_content(path) if content is None else content)
    flat = _parse_cif(path, text) if _format_suffix(path) in CIF_SUFFIXES else _parse_pdb(path, text)
    return _select_atoms(path, flat)


def _format_suffix(path: Path) -> str:
    name = path.name.lower()
    return Path(name[: -len(GZIP_SUFFIX)] if name.endswith(GZIP_SUFFIX) else name).suffix


def read_content(path: Path) -> bytes:
    """The bytes of a structure file, still compressed where it is.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})",
            "a readable structure file",
            "check the path and its permissions",
        ) from error


def _decompress(path: Path, content: bytes) -> bytes:
    if not path.name.lower().endswith(GZIP_SUFFIX):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: not a complete gzip file ({one_line(error)})", "gzip data", "copy the file again"
        ) from error


def _parse_pdb(path: Path, text: bytes) -> Any:
    """A ``gemmi.FlatStructure``; typed Any because gemmi ships no complete stubs."""
    import gemmi

    _check_pdb_coordinates(path, text)
    try:
        parsed = gemmi.read_pdb_string(text)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {one_line(error)}", "PDB format", "repair or remove the file") from error
    return gemmi.FlatStructure(parsed)


def _check_pdb_coordinates(path: Path, text: bytes) -> None:
    """Refuse coordinates that are no numbers: the parser would read them as 0 in silence."""
    lines = [line for line in text.split(b"\n") if line.startswith(b"ATOM  ")]
    if not lines:
        raise DataError(f"{path}: no ATOM records", "a PDB file with protein chains", "repair or remove the file")
    try:
        fields = b",".join(b"%b,%b,%b" % (line[30:38], line[38:46], line[46:54]) for line in lines)
        good = bool(np.isfinite(np.array(fields.split(b","), dtype=np.float64)).all())
    except ValueError:
        good = False
    if not good:
        raise DataError(
            f"{path}, line {_first_bad_line(text)}: coordinates are not numbers",
            "x, y, z in columns 31-54 of every ATOM record",
            "repair or remove the file",
        )


def _first_bad_line(text: bytes) -> int:
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.startswith(b"ATOM  "):
            try:
                values = [float(line[start : start + 8]) for start in (30, 38, 46)]
            except ValueError:
                return number
            if not np.isfinite(values).all():
                return number
    return 0


def _parse_cif(path: Path, text: bytes) -> Any:
    """A ``gemmi.FlatStructure`` of the first block that holds atoms."""
    import gemmi

    try:
        document = gemmi.cif.read_string(text)
        blocks = [block for block in document if block.find_values("_atom_site.Cartn_x")]
        if not blocks:
            raise DataError(f"{path}: no _atom_site table", "mmCIF with atoms", "repair or remove the file")
        for axis in "xyz":
            values = np.array(list(blocks[0].find_values(f"_atom_site.Cartn_{axis}")), dtype=np.float64)
            if not np.isfinite(values).all():
                raise ValueError("coordinates are not numbers")
        parsed = gemmi.make_structure_from_block(blocks[0])
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {one_line(error)}", "mmCIF format", "repair or remove the file") from error
    return gemmi.FlatStructure(parsed)


def _text_column(column: npt.NDArray[np.int8]) -> npt.NDArray[np.str_]:
    """(n, 8) bytes, NUL-padded, as (n,) strings."""
    return np.ascontiguousarray(column).view(f"S{column.shape[1]}").ravel().astype(str)


def _code_column(column: npt.NDArray[np.int8]) -> npt.NDArray[np.str_]:
    """(n,) character codes as strings, with NUL and blank as ""."""
    return np.char.strip(np.ascontiguousarray(column).view("S1").astype(str))


def _select_atoms(path: Path, flat: Any) -> Structure:
    models = np.asarray(flat.model_num)
    elements = np.char.upper(np.asarray(flat.element_names).astype(str))
    keep = ~np.isin(elements, HYDROGENS) & (np.asarray(flat.het_flags) == ord("A"))
    if len(models):
        keep &= models == models[0]
    index = np.flatnonzero(keep)
    if not len(index):
        raise DataError(f"{path}: no heavy ATOM records in the first model", "protein chains", "remove the file")
    chains = _text_column(flat.chain_ids)[index]
    numbers = np.asarray(flat.resnums)[index].astype(np.int64)
    codes = _code_column(flat.icodes)[index]
    names = _text_column(flat.residue_names)[index]
    atoms = _text_column(flat.atom_names)[index]
    altlocs = _code_column(flat.altlocs)[index]

    changes = (chains[1:] != chains[:-1]) | (numbers[1:] != numbers[:-1]) | (codes[1:] != codes[:-1])
    groups = np.concatenate([[0], np.cumsum(changes)])
    first = np.concatenate([[0], np.flatnonzero(changes) + 1])
    kept = _first_alternates(groups, first, names, altlocs)
    labels = [f"{chain}:{number}{code}" for chain, number, code in zip(chains, numbers, codes, strict=True)]
    coords = np.array(flat.pos, dtype=np.float64)[index]
    kept &= _each_once(path, kept, labels, atoms, coords)
    groups, index = groups[kept], index[kept]
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    heads = np.flatnonzero(kept)[starts]
    return Structure(
        path=str(path),
        coords=coords[kept],
        elements=elements[index],
        atom_names=atoms[kept],
        residue_starts=np.append(starts, len(index)).astype(np.int64),
        chain_ids=chains[heads],
        residue_names=names[heads],
        residue_numbers=numbers[heads],
        insertion_codes=codes[heads],
    )


def _first_alternates(
    groups: IntArray,
    first: IntArray,
    names: npt.NDArray[np.str_],
    altlocs: npt.NDArray[np.str_],
) -> npt.NDArray[np.bool_]:
    """Atoms of each residue's first name and first alternate location."""
    kept: npt.NDArray[np.bool_] = names == names[first][groups]
    chosen: dict[int, str] = {}
    for position in np.flatnonzero((altlocs != "") & kept):
        letter = chosen.setdefault(int(groups[position]), str(altlocs[position]))
        kept[position] = altlocs[position] == letter
    return kept


def _each_once(
    path: Path,
    kept: npt.NDArray[np.bool_],
    labels: list[str],
    atoms: npt.NDArray[np.str_],
    coords: FloatArray,
) -> npt.NDArray[np.bool_]:
    """Drop atoms that come again in their residue; refuse two residues under one name.

    Alternates whose letters were stripped, or that are written apart, lie near the first; another residue
    of the same name, as in files whose chains lost their names, does not.
    """
    seen: dict[tuple[str, str], int] = {}
    once = np.ones(len(labels), dtype=bool)
    for position in np.flatnonzero(kept).tolist():
        first = seen.setdefault((labels[position], str(atoms[position])), position)
        if first == position:
            continue
        once[position] = False
        apart = float(np.linalg.norm(coords[position] - coords[first]))
        if atoms[position] == "CA" and apart > MAX_ALTERNATE_DISTANCE:
            raise DataError(
                f"{path}: two residues are called {labels[position]} (C-alphas {apart:.1f} Angstrom apart)",
                "every residue under its own chain and number",
                "give the chains different names",
            )
    return once
