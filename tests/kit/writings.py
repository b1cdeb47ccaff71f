"""One complex as people's programs write it: the same atoms under other names, in other orders and formats."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from topotrain.data.demo import DATA_DIR, STRUCTURES_FILE
from topotrain.data.demo_codec import pdb_texts, unpack_structures

TARGET = "1BGS_AE"


@dataclass(frozen=True)
class Record:
    """One ATOM record, as text where a program may write something else."""

    name: str
    residue: str
    chain: str
    number: int
    xyz: tuple[str, str, str]
    element: str
    code: str = ""
    altloc: str = ""
    record: str = "ATOM"
    segid: str = ""


Records = Sequence[Record]


@lru_cache(maxsize=1)
def demo_complex() -> tuple[Record, ...]:
    """A decoy of the demo data, residues of its interface and around it."""
    target = next(item for item in unpack_structures((DATA_DIR / STRUCTURES_FILE).read_bytes()) if item.name == TARGET)
    text = list(pdb_texts(target))[1][1]
    return tuple(
        Record(
            name=line[12:16].strip(),
            residue=line[17:20],
            chain=line[21],
            number=int(line[22:26]),
            xyz=(line[30:38], line[38:46], line[46:54]),
            element=line[76:78].strip(),
            code=line[26].strip(),
        )
        for line in text.splitlines()
        if line.startswith("ATOM")
    )


def pdb_line(atom: Record, serial: int = 1, *, left: bool = False, elements: bool = True) -> str:
    """A PDB line; names of four letters, chains of two and numbers in hybrid-36 take the room they take in files."""
    name = atom.name if left or len(atom.name) == 4 or len(atom.element) == 2 else f" {atom.name}"
    chain = f"{atom.residue:>3s}{atom.chain:>2s}" if len(atom.residue) < 4 else f"{atom.residue}{atom.chain:1s}"
    number = f"{atom.number:4d}" if atom.number < 10000 else hybrid36(atom.number)
    x, y, z = atom.xyz
    start = f"{atom.record:<6s}{serial % 100000:5d} {name:<4s}{atom.altloc:1s}{chain}{number}{atom.code:1s}   {x}{y}{z}"
    if not elements and not atom.segid:
        return start
    return f"{start}  1.00  0.00      {atom.segid:<4s}{atom.element if elements else '':>2s}"


def hybrid36(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    value = number - 10**4 + 10 * 36**3
    text = ""
    while value:
        value, digit = divmod(value, 36)
        text = digits[digit] + text
    return text


def pdb(atoms: Records, end: str = "\n", **how: Any) -> bytes:
    return "".join(pdb_line(atom, n, **how) + end for n, atom in enumerate(atoms, 1)).encode() + b"END" + end.encode()


FULL_COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id pdbx_PDB_ins_code "
    "Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id auth_atom_id "
    "pdbx_PDB_model_num"
).split()


def cif(
    atoms: Records, without: Iterable[str] = (), change: Callable[[str, str], str] = lambda name, cell: cell
) -> bytes:
    """mmCIF, without some columns; ``change`` rewrites a cell of a column."""
    columns = [name for name in FULL_COLUMNS if name not in set(without)]
    lines = ["data_x", "#", "loop_", *(f"_atom_site.{name}" for name in columns)]
    for serial, atom in enumerate(atoms, 1):
        x, y, z = (cell.strip() for cell in atom.xyz)
        cells = {
            "group_PDB": atom.record, "id": str(serial), "type_symbol": atom.element, "label_atom_id": atom.name,
            "label_alt_id": atom.altloc or ".", "label_comp_id": atom.residue, "label_asym_id": atom.chain,
            "label_seq_id": str(atom.number), "pdbx_PDB_ins_code": atom.code or "?", "Cartn_x": x, "Cartn_y": y,
            "Cartn_z": z, "occupancy": "1.00", "B_iso_or_equiv": "0.0", "auth_seq_id": str(atom.number),
            "auth_comp_id": atom.residue, "auth_asym_id": atom.chain, "auth_atom_id": atom.name,
            "pdbx_PDB_model_num": "1",
        }  # fmt: skip
        lines.append(" ".join(change(name, cells[name]) for name in columns))
    return "\n".join([*lines, "#", ""]).encode()


def renamed(atoms: Records, names: dict[str, str]) -> list[Record]:
    return [replace(atom, residue=names.get(atom.residue, atom.residue)) for atom in atoms]


def of_chain(atoms: Records, chain: str) -> list[Record]:
    return [atom for atom in atoms if atom.chain == chain]


def with_hydrogens(atoms: Records, left: bool = False) -> list[Record]:
    """A hydrogen after each C-alpha and each nitrogen, under the names that are mistaken for metals."""
    extra = {"CA": ("HG", "HE2", "1HB", "HD11"), "N": ("H", "HN")}
    out: list[Record] = []
    for atom in atoms:
        out.append(atom)
        out += [
            replace(atom, name=name, element="H", xyz=tuple(f"{float(cell) + 0.7:8.3f}" for cell in atom.xyz))  # type: ignore[arg-type]
            for name in extra.get(atom.name, ())
        ]
    return out


def deuterated(atoms: Records) -> list[Record]:
    return [
        replace(atom, name=atom.name.replace("H", "D"), element="D") if atom.element == "H" else atom for atom in atoms
    ]


def with_tabs(line: str) -> str:
    """Spaces up to a stop of eight columns as a tab, as editors write them."""
    cells = [line[start : start + 8] for start in range(0, len(line), 8)]
    return "".join(f"{cell.rstrip(' ')}\t" if len(cell) == 8 and cell.endswith("  ") else cell for cell in cells)


def charmm_ends(atoms: Records) -> list[Record]:
    """The last oxygens of each chain as CHARMM calls them."""
    last = {atom.chain: atom.number for atom in atoms}
    names = {"O": "OT1", "OXT": "OT2"}
    return [
        replace(atom, name=names.get(atom.name, atom.name)) if atom.number == last[atom.chain] else atom
        for atom in atoms
    ]


def in_pieces(atoms: Records, order: Sequence[int], num_pieces: int) -> list[Record]:
    """The records cut into pieces, which come in another order."""
    size = -(-len(atoms) // num_pieces)
    pieces = [list(atoms[start : start + size]) for start in range(0, len(atoms), size)]
    return [atom for place in order for atom in pieces[place]]


def water(record: str = "ATOM", chain: str = "A") -> Record:
    return Record("O", "HOH", chain, 999, ("   0.000", "   0.000", "   0.000"), "O", record=record)


def blocks(*parts: Records, kind: str = "MODEL", **how: Any) -> bytes:
    """Parts of a file apart as MODELs, or with an END after each."""
    lines: list[str] = []
    for number, part in enumerate(parts, 1):
        lines += [f"MODEL     {number:4d}"] if kind == "MODEL" else []
        lines += [pdb_line(atom, n, **how) for n, atom in enumerate(part, 1)]
        lines += ["ENDMDL" if kind == "MODEL" else "END"]
    return "\n".join([*lines, "END", ""]).encode()


FORCE_FIELD = {"HIS": "HSD", "CYS": "CYX", "ASP": "ASH", "GLU": "GLH", "LYS": "LYN", "MET": "MSE"}
FOUR_LETTERS = {"HIS": "HISE", "MET": "NMET", "CYS": "CYS2", "LYS": "LYSH", "ASP": "CASP"}
MODIFIED = {"SER": "SEP", "THR": "TPO", "TYR": "PTR", "PRO": "HYP", "CYS": "CSO", "MET": "MSE"}


def modified(atoms: Records, record: str) -> list[Record]:
    return [
        replace(atom, residue=MODIFIED[atom.residue], record=record) if atom.residue in MODIFIED else atom
        for atom in atoms
    ]


def segments(atoms: Records, chain: str = "") -> list[Record]:
    return [replace(atom, segid=f"PRO{atom.chain}", chain=chain) for atom in atoms]


def chains(atoms: Records, new: dict[str, str]) -> list[Record]:
    return [replace(atom, chain=new[atom.chain]) for atom in atoms]


# What a program writes: the file's name, its bytes, and the kinds of change that reading reports.
WRITINGS: dict[str, Callable[[Records], tuple[str, bytes, set[str]]]] = {
    "as it is": lambda a: ("m.pdb", pdb(a), set()),
    "lower-case suffixes and gzip": lambda a: ("m.PDB.GZ", gzip.compress(pdb(a)), set()),
    "ent": lambda a: ("m.ENT", pdb(a), set()),
    "bzip2": lambda a: ("m.ent.bz2", bz2.compress(pdb(a)), set()),
    "xz": lambda a: ("m.cif.xz", lzma.compress(cif(a)), set()),
    "gzip without saying so": lambda a: ("m.pdb", gzip.compress(pdb(a)), set()),
    "mmCIF called PDB": lambda a: ("m.pdb", cif(a), set()),
    "PDB called mmCIF": lambda a: ("m.cif", pdb(a), set()),
    "CRLF": lambda a: ("m.pdb", pdb(a, end="\r\n"), set()),
    "byte order mark": lambda a: ("m.pdb", b"\xef\xbb\xbf" + pdb(a), set()),
    "no last newline": lambda a: ("m.pdb", pdb(a).removesuffix(b"\nEND\n"), set()),
    "tabs": lambda a: ("m.pdb", "\n".join(map(with_tabs, pdb(a).decode().splitlines())).encode(), set()),
    "elements a few columns to the left": lambda a: ("m.pdb", pdb(a).replace(b"          ", b"       "), set()),
    "no elements": lambda a: ("m.pdb", pdb(a, elements=False), set()),
    "no elements, names left": lambda a: ("m.pdb", pdb(a, elements=False, left=True), {"elements_corrected"}),
    "wrong elements": lambda a: (
        "m.pdb",
        pdb([replace(x, element="CA" if x.name == "CA" else "A") for x in a], left=True),
        {"elements_corrected"},
    ),
    "hydrogens": lambda a: ("m.pdb", pdb(with_hydrogens(a)), set()),
    "hydrogens, no elements, names left": lambda a: (
        "m.pdb",
        pdb(with_hydrogens(a), elements=False, left=True),
        {"elements_corrected"},
    ),
    "deuterium": lambda a: (
        "m.pdb",
        pdb(deuterated(with_hydrogens(a))),
        set(),
    ),
    "lower-case names": lambda a: (
        "m.cif",
        cif([replace(x, residue=x.residue.lower(), name=x.name.lower(), element=x.element.lower()) for x in a]),
        set(),
    ),
    "force-field names": lambda a: ("m.pdb", pdb(renamed(a, FORCE_FIELD)), {"residues_renamed"}),
    "four-letter names": lambda a: ("m.pdb", pdb(renamed(a, FOUR_LETTERS)), {"residues_renamed"}),
    "four-letter names a column to the left": lambda a: (
        "m.pdb",
        pdb(renamed(a, FOUR_LETTERS)).replace(b" HISE", b"HISE ").replace(b" LYSH", b"LYSH "),
        {"residues_renamed"},
    ),
    "oxygens of CHARMM": lambda a: ("m.pdb", pdb(charmm_ends(a)), {"atoms_renamed"}),
    "modified residues": lambda a: ("m.pdb", pdb(modified(a, "ATOM")), {"residues_renamed"}),
    "modified residues as HETATM": lambda a: (
        "m.pdb",
        pdb(modified(a, "HETATM")),
        {"residues_renamed", "hetatm_residues_kept"},
    ),
    "modified residues as HETATM at the end": lambda a: (
        "m.pdb",
        pdb(sorted(modified(a, "HETATM"), key=lambda x: x.record == "HETATM")),
        {"residues_renamed", "hetatm_residues_kept", "chains_reordered"},
    ),
    "everything HETATM": lambda a: ("m.pdb", pdb([replace(x, record="HETATM") for x in a]), {"hetatm_residues_kept"}),
    "water as ATOM": lambda a: ("m.pdb", pdb([*a, water()]), {"residues_left_out"}),
    "water as HETATM": lambda a: ("m.pdb", pdb([*a, water("HETATM", "W")]), set()),
    "a piece of a chain at the end": lambda a: ("m.pdb", pdb([*a[60:], *a[:60]]), {"chains_reordered"}),
    "interleaved chains": lambda a: (
        "m.pdb",
        pdb([x for pair in zip(*(of_chain(a, c)[:600] for c in "AB"), strict=True) for x in pair]
            + of_chain(a, "A")[600:] + of_chain(a, "B")[600:]),
        {"chains_reordered"},
    ),
    "END between the chains": lambda a: (
        "m.pdb", blocks(of_chain(a, "A"), of_chain(a, "B"), kind="END"), {"models_joined"},
    ),
    "chains in MODELs": lambda a: ("m.pdb", blocks(of_chain(a, "A"), of_chain(a, "B")), {"models_joined"}),
    "MODELs of one chain name": lambda a: (
        "m.pdb",
        blocks(of_chain(a, "A"), chains(of_chain(a, "B"), {"B": "A"})),
        {"models_joined", "chains_renamed"},
    ),
    "blank chains in MODELs": lambda a: (
        "m.pdb",
        blocks(chains(of_chain(a, "A"), {"A": ""}), chains(of_chain(a, "B"), {"B": ""})),
        {"models_joined", "chains_renamed"},
    ),
    "an ensemble": lambda a: ("m.pdb", blocks(a, a, a), {"models_left_out"}),
    "an ensemble by END": lambda a: ("m.pdb", blocks(a, a, kind="END"), {"models_left_out"}),
    "chains of two letters": lambda a: ("m.pdb", pdb(chains(a, {"A": "AA", "B": "EB"})), set()),
    "chains in lower case": lambda a: ("m.pdb", pdb(chains(a, {"A": "a", "B": "1"})), set()),
    "long chains in mmCIF": lambda a: ("m.cif", cif(chains(a, {"A": "HeavyChain1", "B": "Antigen"})), set()),
    "segment ids": lambda a: ("m.pdb", pdb(segments(a)), {"chains_renamed"}),
    "segment ids and one chain": lambda a: ("m.pdb", pdb(segments(a, "X")), {"chains_renamed"}),
    "segment ids, no elements": lambda a: ("m.pdb", pdb(segments(a), elements=False), {"chains_renamed"}),
    "mmCIF": lambda a: ("m.cif", cif(a), set()),
    "mmCIF, CRLF": lambda a: ("m.cif", cif(a).replace(b"\n", b"\r\n"), set()),
    "mmCIF, author's columns only": lambda a: (
        "m.cif", cif(a, [name for name in FULL_COLUMNS if name.startswith("label")]), set(),
    ),
    "mmCIF, label columns only": lambda a: (
        "m.cif", cif(a, [name for name in FULL_COLUMNS if name.startswith("auth")]), set(),
    ),
    "mmCIF, the least": lambda a: (
        "m.cif",
        cif(a, ["group_PDB", "id", "label_alt_id", "pdbx_PDB_ins_code", "occupancy", "B_iso_or_equiv",
                "pdbx_PDB_model_num", "auth_comp_id", "auth_atom_id"]),
        set(),
    ),
    "mmCIF without elements": lambda a: ("m.cif", cif(a, ["type_symbol"]), {"elements_corrected"}),
    "mmCIF, quoted": lambda a: (
        "m.cif", cif(a, change=lambda name, cell: f"'{cell}'" if "asym" in name or "atom_id" in name else cell), set(),
    ),
    "mmCIF, chains in data blocks": lambda a: (
        "m.cif", cif(of_chain(a, "A")) + cif(of_chain(a, "B")).replace(b"data_x", b"data_y"), {"models_joined"},
    ),
}  # fmt: skip
