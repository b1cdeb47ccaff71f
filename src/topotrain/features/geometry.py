"""Contacts and dihedral angles, vectorised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topotrain.features.structure import FloatArray, IntArray, Structure

# Rows of a distance matrix computed at once, so that a ribosome does not need gigabytes.
BLOCK_ROWS = 1024
BLOCK_DISTANCES = 2**23
# Likewise contacts whose atom pairs are held in memory at once.
BLOCK_CONTACTS = 2048


def cross_chain_contacts(
    structure: Structure, residues: IntArray, low: float, high: float
) -> tuple[IntArray, FloatArray]:
    """Pairs of residues of different partners (by default, of different chains) by C-alpha distance.

    Args:
        structure: the structure.
        residues: (num_nodes,) residue indices to look among.
        low: least distance, Angstrom, included.
        high: greatest distance, Angstrom, excluded.

    Returns:
        (num_contacts, 2) int64 positions in ``residues``, first below second, sorted; and (num_contacts,)
        distances in Angstrom. Residues without C-alpha have no contacts.
    """
    ca = structure.ca[residues]
    partners = structure.partner_ids[residues]
    pairs, distances = [np.empty((0, 2), dtype=np.int64)], [np.empty(0)]
    rows = min(BLOCK_ROWS, BLOCK_DISTANCES // max(len(residues), 1) + 1)
    for start in range(0, len(residues), rows):
        block = slice(start, start + rows)
        distance = np.sqrt(((ca[block, None, :] - ca[None, start:, :]) ** 2).sum(axis=2))
        # A comparison with NaN (no C-alpha) is false, as wanted.
        hit = (distance >= low) & (distance < high) & (partners[block, None] != partners[None, start:])
        first, second = np.nonzero(np.triu(hit, k=1))
        pairs.append(np.stack([first + start, second + start], axis=1))
        distances.append(distance[first, second])
    return np.concatenate(pairs), np.concatenate(distances)


def dihedral_angles(a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray) -> FloatArray:
    """Dihedral angle of four points, row by row.

    Args:
        a: (n, 3) positions; likewise ``b``, ``c``, ``d``.
        b: second points.
        c: third points.
        d: fourth points.

    Returns:
        (n,) degrees in (-180, 180], IUPAC sign (clockwise positive looking from b to c); NaN where a point
        is NaN.
    """
    axis = c - b
    left, right = np.cross(b - a, axis), np.cross(axis, d - c)
    sine = (np.cross(left, right) * axis).sum(axis=1) / np.linalg.norm(axis, axis=1)
    angles: FloatArray = np.degrees(np.arctan2(sine, (left * right).sum(axis=1)))
    return angles


def padded_atoms(structure: Structure, residues: IntArray) -> FloatArray:
    """Heavy-atom coordinates of residues as one rectangular array.

    Args:
        structure: the structure.
        residues: (n,) residue indices.

    Returns:
        (n, most_atoms, 3) float64, Angstrom, NaN beyond each residue's atoms.
    """
    starts, stops = structure.residue_starts[residues], structure.residue_starts[residues + 1]
    sizes = stops - starts
    padded = np.full((len(residues), int(sizes.max(initial=1)), 3), np.nan)
    rows = np.repeat(np.arange(len(residues)), sizes)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    padded[rows, columns] = structure.coords[columns + starts[rows]]
    return padded


def atom_pair_distances(atoms: FloatArray, first: IntArray, second: IntArray) -> FloatArray:
    """All atom-pair distances of pairs of residues.

    Args:
        atoms: (n, most_atoms, 3) from :func:`padded_atoms`.
        first: (num_pairs,) rows of ``atoms``.
        second: (num_pairs,) rows of ``atoms``.

    Returns:
        (num_pairs, most_atoms * most_atoms) Angstrom, NaN for padding.
    """
    width = atoms.shape[1]
    difference = atoms[first][:, :, None, :] - atoms[second][:, None, :, :]
    distances: FloatArray = np.sqrt((difference**2).sum(axis=3)).reshape(len(first), width * width)
    return distances


def contact_atom_pairs(
    structure: Structure, residues: IntArray, source: IntArray, target: IntArray
) -> Iterator[FloatArray]:
    """Distances between the heavy atoms of each contact's two residues, some contacts at a time.

    Args:
        structure: the structure.
        residues: (num_nodes,) residue indices.
        source: (num_edges,) source nodes; edges 2k and 2k + 1 are the two ways of contact k.
        target: (num_edges,) target nodes.

    Yields:
        (contacts, most_atoms * most_atoms) Angstrom, NaN for padding.
    """
    atoms = padded_atoms(structure, residues)
    first, second = source[::2], target[::2]
    for start in range(0, len(first), BLOCK_CONTACTS):
        block = slice(start, start + BLOCK_CONTACTS)
        yield atom_pair_distances(atoms, first[block], second[block])


def count_in_bins(distances: FloatArray, edges: FloatArray) -> FloatArray:
    """Histogram of each row.

    Args:
        distances: (rows, n), NaN ignored.
        edges: (num_bins + 1,) ascending; bins are half-open, [edge, next).

    Returns:
        (rows, num_bins) counts as float64.
    """
    num_bins = len(edges) - 1
    bins = np.searchsorted(edges, distances, side="right") - 1
    inside = (bins >= 0) & (bins < num_bins) & np.isfinite(distances)
    rows = np.nonzero(inside)[0]
    counts = np.bincount(rows * num_bins + bins[inside], minlength=len(distances) * num_bins)
    return counts.reshape(len(distances), num_bins).astype(np.float64)
