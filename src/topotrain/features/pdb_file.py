"""PDB files to atom tables: fixed columns, read in bulk, and refused where they are not what they should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError
from topotrain.features.atom_elements import element_by_position
from topotrain.features.atom_table import AtomTable, BoolArray, FloatArray, IntArray, Words
from topotrain.features.residue_names import is_four_letter_name, residue_name
from topotrain.limits import STRUCTURE_ATOMS, MiB

ATOM_RECORDS = (b"ATOM", b"HETATM")
# Where a MODEL ends. What follows END belongs to the file too: merged files have one in the middle.
BOUNDARIES = (b"MODEL", b"ENDMDL", b"END")
WIDTH = 80
SERIAL_STOP = 12  # columns 7-11, and one that is free
# x, y, z in columns 31-54, with three decimals: their points stand here (counted from 0).
POINTS = (34, 42, 50)
_NUMBER = re.compile(r"[+-]?\d+")
_HYBRID_WIDTH = 4
LINE_END = re.compile(rb"\r\n|\r|\n")
PIECE = MiB
LONGEST = 1024  # characters of a line that are looked at, tabs not yet written out

Grid = npt.NDArray[np.uint8]


def parse_pdb(path: Path, text: bytes) -> AtomTable:
    """Read all ATOM and HETATM records of a file.

    Args:
        path: named in errors.
        text: the file.

    Raises:
        DataError: no ATOM records; a coordinate or residue number that cannot be read, the line named.
    """
    lines, line_numbers, blocks = _atom_lines(path, text)
    if not any(line.startswith(b"ATOM") or _amino_acid(line) for line in lines):
        raise DataError(f"{path}: no ATOM records", "a PDB file with protein chains", "repair or remove the file")
    grid = np.array(lines, dtype=f"S{WIDTH}").view(np.uint8).reshape(len(lines), WIDTH)
    grid[(grid < ord(" "))] = ord(" ")
    kept, coords = _coordinates(path, lines, line_numbers, grid)
    if not kept.all():
        grid, lines = grid[kept], [line for line, keep in zip(lines, kept, strict=True) if keep]
        line_numbers, blocks = np.array(line_numbers)[kept].tolist(), np.array(blocks)[kept].tolist()
    numbers, codes = _numbers(path, grid, line_numbers)
    names, chains, altlocs = _names_and_chains(grid)
    padded = _words(grid, 12, 16, str.upper)
    return AtomTable(
        blocks=np.array(blocks, dtype=np.int64),
        chains=chains,
        segids=_words(grid, 72, 76, str.strip),
        names=names,
        numbers=numbers,
        codes=codes,
        atoms=padded.mapped(str.strip),
        elements=_elements(grid, padded, names),
        altlocs=altlocs,
        het=grid[:, 0] == ord("H"),
        coords=coords,
    )


def _atom_lines(path: Path, text: bytes) -> tuple[list[bytes], list[int], list[int]]:
    """ATOM and HETATM lines, their numbers in the file, and which MODEL each belongs to."""
    lines: list[bytes] = []
    line_numbers, blocks = [], []
    block, filled = 0, False
    most = STRUCTURE_ATOMS.value
    for number, line in _numbered_lines(text):
        if line.startswith(ATOM_RECORDS):
            if len(lines) == most:
                raise DataError(
                    f"{path}: over {most} atom records", "one structure", f"check the file; {STRUCTURE_ATOMS.raise_it}"
                )
            lines.append(line[:LONGEST])
            line_numbers.append(number)
            blocks.append(block)
            filled = True
        elif filled and line.startswith(BOUNDARIES) and line[:6].rstrip() in BOUNDARIES:
            block, filled = block + 1, False
    if b"\t" in text:
        lines = [line.expandtabs() for line in lines]
    return [_without_long_serial(line) for line in lines], line_numbers, blocks


def _numbered_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that may count, not all of them at once: there may be as many as there are characters."""
    start, number = 0, 1
    while start < len(text):
        end = LINE_END.search(text, start + PIECE)
        stop = end.end() if end else len(text)
        piece = text[start:stop]
        lines = piece.splitlines()
        if any(record in piece for record in (*ATOM_RECORDS, *BOUNDARIES)):
            yield from enumerate(lines, start=number)
        start, number = stop, number + len(lines)


def _without_long_serial(line: bytes) -> bytes:
    """Serial numbers of six digits move all that follows by a column in some files."""
    moved = (
        line[SERIAL_STOP - 1 : SERIAL_STOP].isdigit()
        and line[POINTS[0] + 1 : POINTS[0] + 2] == b"."
        and line[POINTS[0]] != ord(".")
    )
    return line[:6] + line[7:] if moved else line


def _coordinates(path: Path, lines: list[bytes], line_numbers: list[int], grid: Grid) -> tuple[BoolArray, FloatArray]:
    """Which lines are kept, and their coordinates; a HETATM record that is no amino acid's may be bad."""
    standard = (grid[:, POINTS] == ord(".")).all(axis=1)
    kept = np.ones(len(lines), dtype=bool)
    for row in np.flatnonzero(~standard):
        if not _other_columns(lines[row]):
            kept[row] = _may_go(path, lines[row], line_numbers[row])
    try:
        coords = _as_floats(grid[kept])
    except ValueError:
        coords = np.full((0, 3), np.nan)
    if len(coords) and np.isfinite(coords).all():
        return kept, coords
    for row in np.flatnonzero(kept):
        try:
            good = bool(np.isfinite(_as_floats(grid[row : row + 1])).all())
        except ValueError:
            good = False
        kept[row] = good or _may_go(path, lines[row], line_numbers[row])
    return kept, _as_floats(grid[kept])


def _as_floats(grid: Grid) -> FloatArray:
    if (grid[:, 30:54] == ord("_")).any():  # between digits numpy takes it
        raise ValueError("no number")
    return np.ascontiguousarray(grid[:, 30:54]).view("S8").astype(np.float64)


def _other_columns(line: bytes) -> bool:
    """Whether numbers with other decimals still stand in their own columns, none running into the next."""
    fields = [line[start : start + 8].strip() for start in (30, 38, 46)]
    return line[30:54].split() == fields and not line[54:][:1].strip()


def _may_go(path: Path, line: bytes, number: int) -> bool:
    """Refuse a line whose coordinates cannot be read; False where it would be left out anyway."""
    if line.startswith(b"HETATM") and not _amino_acid(line):
        return False
    raise DataError(
        f"{path}, line {number}: coordinates are not numbers in their columns ({_shown(line[30:54])!r})",
        "x, y, z in columns 31-38, 39-46, 47-54 of every ATOM record",
        "repair or remove the file, or write mmCIF where numbers are too wide",
    )


def _amino_acid(line: bytes) -> bool:
    return residue_name(line[17:20].decode("latin-1").strip().upper()).kind == "amino"


def _shown(cells: bytes) -> str:
    return cells.decode("latin-1").rstrip()


def _numbers(path: Path, grid: Grid, line_numbers: list[int]) -> tuple[IntArray, Words]:
    """Residue numbers and insertion codes, columns 23-27."""
    cells, codes = _vocabulary(grid, 22, 27)
    values, letters = [], []
    for position, cell in enumerate(cells):
        value, letter = _number(cell)
        if value is None:
            row = int(np.flatnonzero(codes == position)[0])
            raise DataError(
                f"{path}, line {line_numbers[row]}: {cell.strip()!r} is no residue number",
                "a number in columns 23-26, or one in hybrid-36",
                "repair or remove the file",
            )
        values.append(value)
        letters.append(letter)
    return np.array(values, dtype=np.int64)[codes], Words.coded(letters, codes)


def _number(cell: str) -> tuple[int | None, str]:
    """The number and insertion code of five columns; numbers of five digits reach into the last."""
    if cell.strip().isdecimal() and len(cell.strip()) == len(cell):
        return int(cell), ""
    text, letter = cell[:_HYBRID_WIDTH], cell[_HYBRID_WIDTH:].strip()
    if _NUMBER.fullmatch(text.strip()):
        return int(text), letter
    if len(text) == _HYBRID_WIDTH and text.isalnum() and text[0].isalpha() and text in (text.upper(), text.lower()):
        low = -10 if text == text.upper() else 16
        return int(text, 36) + low * 36 ** (_HYBRID_WIDTH - 1) + 10**_HYBRID_WIDTH, letter
    return None, letter


def _names_and_chains(grid: Grid) -> tuple[Words, Words, Words]:
    """Residue names, chains and alternate locations, columns 17-22.

    Names of four letters take column 21, or column 17 that is the alternate location's; chains of two letters take
    column 21, too.
    """
    cells, codes = _vocabulary(grid, 16, 22)
    # A chain of two letters has residues whose name and that letter together mean nothing.
    of_chain = any(
        cell[4] != " " and not is_four_letter_name(_name(cell[1:5])) and residue_name(_name(cell[1:4])).kind == "amino"
        for cell in cells
    )
    split = 4 if of_chain else 5
    names, altlocs = [_name(cell[1:split]) for cell in cells], [cell[0].strip() for cell in cells]
    for place, cell in enumerate(cells):
        wide = _name(cell[:4])
        if residue_name(names[place]).kind == "unknown" and is_four_letter_name(wide):
            names[place], altlocs[place] = wide, ""
    chains = [cell[split:].strip() for cell in cells]
    return Words.coded(names, codes), Words.coded(chains, codes), Words.coded(altlocs, codes)


def _name(cell: str) -> str:
    return cell.strip().upper()


def _elements(grid: Grid, padded: Words, names: Words) -> Words:
    """Columns 77-78; where they hold no letters, what the name's position says."""
    written = _words(grid, 76, 78, lambda cell: cell.strip().upper())
    read = written.mapped(lambda text: text if text.isalpha() else "")
    empty = read.are(lambda text: not text)
    if not empty.any():
        return read
    read = read.replaced(empty, padded.mapped(element_by_position))
    plain = names.are(lambda name: residue_name(name).plain)
    if (empty & plain & padded.are("CA  ".__eq__)).any():
        # Names stand at the left edge whatever their element; in the twenty amino acids they say it themselves.
        centred = padded.mapped(lambda name: element_by_position(f" {name.strip()}"))
        read = read.replaced(empty & ~plain, centred)
    return read


def _words(grid: Grid, start: int, stop: int, change: Callable[[str], str]) -> Words:
    cells, codes = _vocabulary(grid, start, stop)
    return Words.coded([change(cell) for cell in cells], codes)


def _vocabulary(grid: Grid, start: int, stop: int) -> tuple[list[str], IntArray]:
    """The different texts of some columns (at most eight), spaces included, and which of them each line has."""
    cells = np.full((len(grid), 8), ord(" "), dtype=np.uint8)
    cells[:, : stop - start] = grid[:, start:stop]
    values, codes = np.unique(cells.view(np.uint64).ravel(), return_inverse=True)
    texts = [value.tobytes().decode("latin-1")[: stop - start] for value in values]
    return texts, codes.astype(np.int64)
