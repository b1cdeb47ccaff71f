"""Small structures for the tests of features/, made by hand or from ideal geometry."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.strict_skips import reference_data, skip_without_reference_data

HELIX = (-57.0, -47.0)  # phi, psi of an ideal alpha helix, degrees


@dataclass(frozen=True)
class Atom:
    name: str
    residue: str
    chain: str
    number: int
    xyz: tuple[float, float, float]
    element: str = "C"
    code: str = " "
    altloc: str = " "
    record: str = "ATOM"


def pdb_text(atoms: Iterable[Atom]) -> str:
    lines = []
    for serial, atom in enumerate(atoms, start=1):
        x, y, z = atom.xyz
        lines.append(
            f"{atom.record:<6}{serial:5d}  {atom.name:<3}{atom.altloc}{atom.residue:>3} "
            f"{atom.chain}{atom.number:4d}{atom.code}   {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          "
            f"{atom.element:>2}\n"
        )
    return "".join(lines) + "END\n"


def cif_text(atoms: Iterable[Atom]) -> str:
    """The same as mmCIF, with label names and numbers that differ from the author's."""
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id "
        "label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id "
        "auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num"
    ).split()
    lines = ["data_TEST", "#", "loop_", *(f"_atom_site.{column}" for column in columns)]
    for serial, atom in enumerate(atoms, start=1):
        x, y, z = atom.xyz
        altloc, code = (value if value.strip() else "." for value in (atom.altloc, atom.code))
        lines.append(
            f"{atom.record} {serial} {atom.element} {atom.name} {altloc} {atom.residue} L{atom.chain} 1 "
            f"{serial} {'?' if code == '.' else code} {x:.3f} {y:.3f} {z:.3f} 1.0 0.0 {atom.number} "
            f"{atom.residue} {atom.chain} {atom.name} 1"
        )
    return "\n".join([*lines, "#", ""])


def calpha_pair(distance: float, chains: str = "AB") -> list[Atom]:
    """Two residues of a lone C-alpha each."""
    return [
        Atom("CA", "GLY", chains[0], 1, (0.0, 0.0, 0.0)),
        Atom("CA", "GLY", chains[1], 1, (distance, 0.0, 0.0)),
    ]


def _place(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, dihedral: float) -> np.ndarray:
    """The point at a bond length, angle and dihedral (degrees) from c, b, a."""
    angle, dihedral = np.radians(angle), np.radians(dihedral)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    step = np.array([-np.cos(angle), np.sin(angle) * np.cos(dihedral), np.sin(angle) * np.sin(dihedral)])
    return c + length * (step[0] * along + step[1] * np.cross(normal, along) + step[2] * normal)


def helix(chain: str, size: int, shift: tuple[float, float, float] = (0.0, 0.0, 0.0), first: int = 1) -> list[Atom]:
    """An ideal alpha helix of alanine, serine and leucine with C-beta atoms."""
    phi, psi = HELIX
    backbone = [np.array([0.0, 0.0, 0.0]), np.array([1.458, 0.0, 0.0]), np.array([2.009, 1.42, 0.0])]
    for _ in range(1, size):
        backbone.append(_place(*backbone[-3:], 1.329, 116.6, psi))
        backbone.append(_place(*backbone[-3:], 1.458, 121.7, 180.0))
        backbone.append(_place(*backbone[-3:], 1.525, 111.0, phi))
    oxygens = [_place(*backbone[3 * i : 3 * i + 3], 1.231, 120.4, psi + 180.0) for i in range(size)]
    betas = [_place(backbone[3 * i + 2], backbone[3 * i], backbone[3 * i + 1], 1.53, 110.1, 122.0) for i in range(size)]
    points = np.array(backbone)
    axis = np.linalg.svd(points - points.mean(axis=0))[2]
    turn = axis * np.sign(np.linalg.det(axis))  # a rotation that lays the helix along x
    center = points.mean(axis=0)
    names = ("ALA", "SER", "LEU")
    atoms = []
    for i in range(size):
        parts = zip(
            ("N", "CA", "C", "O", "CB"),
            "NCCOC",
            [*backbone[3 * i : 3 * i + 3], oxygens[i], betas[i]],
            strict=True,
        )
        for name, element, point in parts:
            x, y, z = turn @ (point - center) + np.array(shift)
            atoms.append(Atom(name, names[i % 3], chain, first + i, (x, y, z), element))
    return atoms


def helix_pair(size: int = 10, gap: float = 8.0, slide: float = 0.0) -> list[Atom]:
    """Two helices side by side, chains A and B."""
    return helix("A", size) + helix("B", size, (slide, gap, 0.5), first=101)


def moved(atoms: Iterable[Atom], chain: str, shift: tuple[float, float, float]) -> list[Atom]:
    """One chain shifted."""
    return [
        replace(atom, xyz=tuple(np.add(atom.xyz, shift).tolist())) if atom.chain == chain else atom for atom in atoms
    ]


def write_models(folder: Path, slides: Iterable[float], target: str = "T1") -> list[str]:
    """Helix pairs as ``folder/target/mN.pdb``; their keys."""
    keys = []
    for number, slide in enumerate(slides):
        path = folder / target / f"m{number}.pdb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pdb_text(helix_pair(slide=slide)))
        keys.append(f"{target}/m{number}")
    return keys


def shared_data(part: str) -> Path:
    """A folder of reference data that is no part of the project; skips the test where it is absent."""
    place = reference_data()
    if place is None or not (place / part).is_dir():
        skip_without_reference_data(part)
    return place / part


def halve_or_die(number: int) -> float:
    """Work for the pool: takes its process down at 3."""
    if number == 3:
        os._exit(1)
    return number / 2
