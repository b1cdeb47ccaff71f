"""Docked poses of the demo complexes, by gdock (https://pypi.org/project/gdock/)."""

from __future__ import annotations

import json
from pathlib import Path

import gdock  # type: ignore[import-untyped]
import gemmi
import numpy as np
from demo_geometry import Pose, random_rotation, residue_positions, superpose
from demo_targets import SCALE, Complex, FloatArray, IntArray

POPULATION, GENERATIONS, KEPT = 50, 24, 8
PATCH_RADIUS = 24.0  # Angstrom around the restrained site; gdock's time grows with the atoms it sees
NUM_RESTRAINTS = 4
CONTACT = 8.0  # Angstrom between C-alphas of a native contact


def dock(complex_: Complex, seed: int, cache: Path) -> list[Pose]:
    """Poses of partner B, from one search at the native site and one at a random site.

    Args:
        complex_: the complex.
        seed: of the random site, the starting orientation and the search.
        cache: a JSON file that keeps the poses between calls.
    """
    if not cache.is_file():
        rng = np.random.default_rng(seed)
        poses = [pose for at_native in (True, False) for pose in _search(complex_, rng, at_native)]
        cache.parent.mkdir(parents=True, exist_ok=True)
        content = [{"rotation": pose.rotation.tolist(), "shift": pose.shift.tolist()} for pose in poses]
        cache.write_text(json.dumps(content), encoding="utf-8")
    content = json.loads(cache.read_text(encoding="utf-8"))
    return [Pose(np.array(item["rotation"]), np.array(item["shift"])) for item in content]


def _search(complex_: Complex, rng: np.random.Generator, at_native: bool) -> list[Pose]:
    """One run of gdock; its best distinct models."""
    carbons, chains = residue_positions(complex_)
    first, second = np.flatnonzero(chains == "A"), np.flatnonzero(chains == "B")
    pairs = _native_pairs(carbons, first, second) if at_native else _random_pairs(carbons, first, second, rng)
    pairs = pairs[rng.permutation(len(pairs))[:NUM_RESTRAINTS]]
    kept = [
        residues[np.linalg.norm(carbons[residues] - carbons[pairs[:, side]].mean(axis=0), axis=1) < PATCH_RADIUS]
        for side, residues in enumerate((first, second))
    ]
    coords = complex_.coords / SCALE
    turned = coords @ random_rotation(rng).T
    receptor, ligand = _pdb(complex_, coords, kept[0], "A"), _pdb(complex_, turned, kept[1], "B")
    # gdock knows residues by number alone: they are numbered by their place in the complex.
    result = gdock.dock(
        receptor,
        ligand,
        restraints=[(int(a) + 1, int(b) + 1) for a, b in pairs],
        max_generations=GENERATIONS,
        population_size=POPULATION,
        ncores=1,
        seed=int(rng.integers(2**31)),
        sampling=KEPT,
    )
    return [_pose(model["pdb"], carbons, kept) for model in result["models"]]


def _native_pairs(carbons: FloatArray, first: IntArray, second: IntArray) -> IntArray:
    distance = np.linalg.norm(carbons[first][:, None] - carbons[second][None], axis=-1)
    rows, columns = np.nonzero(distance < CONTACT)
    return np.column_stack([first[rows], second[columns]])


def _random_pairs(carbons: FloatArray, first: IntArray, second: IntArray, rng: np.random.Generator) -> IntArray:
    """Neighbouring exposed residues of each partner, paired."""
    sides = []
    for residues in (first, second):
        place = carbons[residues]
        distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
        crowding = (distance < 12.0).sum(axis=1)
        exposed = np.flatnonzero(crowding <= np.quantile(crowding, 0.4))
        centre = rng.choice(exposed)
        sides.append(residues[exposed[np.argsort(distance[centre, exposed], kind="stable")[:NUM_RESTRAINTS]]])
    return np.column_stack(sides)


def _pdb(complex_: Complex, coords: FloatArray, residues: IntArray, chain: str) -> str:
    lines: list[str] = []
    for residue in residues:
        for atom in range(complex_.residue_starts[residue], complex_.residue_starts[residue + 1]):
            name, element = complex_.atom_names[atom], complex_.elements[atom]
            x, y, z = coords[atom]
            lines.append(
                f"ATOM  {len(lines) + 1:5d}  {name:<3s} {complex_.residues[residue][1]} {chain}{residue + 1:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2s}"
            )
    return "\n".join([*lines, "END", ""])


def _pose(text: str, carbons: FloatArray, kept: list[IntArray]) -> Pose:
    """The whole partner B's move, from the model's C-alphas; partner A is brought back to its place."""
    found = {
        (chain.name, (residue.seqid.num or 0) - 1): residue["CA"][0].pos.tolist()
        for chain in gemmi.read_pdb_string(text)[0]
        for residue in chain
    }
    moved = [np.array([found[chain, int(r)] for r in side]) for chain, side in zip("AB", kept, strict=True)]
    back = superpose(moved[0], carbons[kept[0]])
    return superpose(carbons[kept[1]], back.apply(moved[1]))
