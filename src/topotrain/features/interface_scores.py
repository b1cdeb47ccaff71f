"""DockQ of any two chains of a decoy put in the place of any two of the native, fast enough to try all of them.

The formula is DockQ's, over arrays. It decides which chains are compared; the labels are what DockQ says of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from topotrain.features.chain_alignment import Alignments
from topotrain.features.chain_atoms import ChainAtoms, SingleArray
from topotrain.features.dockq_library import CONTACT_DISTANCE, INTERFACE_DISTANCE, residue_distances
from topotrain.features.structure import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
IRMSD_SCALE, LRMSD_SCALE = 1.5, 8.5  # Angstrom


@dataclass(frozen=True, eq=False)
class Interface:
    """Two chains of the native that are in contact.

    Attributes:
        first: index of the chain that comes first in the native.
        second: index of the other.
        distances: (len(first), len(second)) squared distances of residues, as DockQ has them.
    """

    first: int
    second: int
    distances: SingleArray


def native_interfaces(chains: Sequence[ChainAtoms]) -> tuple[Interface, ...]:
    """The pairs of chains with residues in contact, in the order of the chains."""
    found = []
    for first, one in enumerate(chains):
        for second in range(first + 1, len(chains)):
            distances = _distances(one, chains[second])
            if (distances < CONTACT_DISTANCE**2).any():
                found.append(Interface(first, second, distances))
    return tuple(found)


class InterfaceScores:
    """DockQ of native interfaces with given chains of a decoy.

    Args:
        native: the native's chains.
        decoy: the decoy's.
        alignments: where alignments are kept.
    """

    def __init__(self, native: Sequence[ChainAtoms], decoy: Sequence[ChainAtoms], alignments: Alignments) -> None:
        self._native, self._decoy, self._alignments = native, decoy, alignments
        self._paired = cache(self._pair)
        self._decoy_distances = cache(lambda x, y: _distances(decoy[x], decoy[y]))

    def dockq(self, interface: Interface, first: int, second: int) -> float:
        """DockQ with the decoy's chains ``first`` and ``second`` in the place of the interface's."""
        one, other = self._paired(first, interface.first), self._paired(second, interface.second)
        kept = interface.distances[np.ix_(one.native, other.native)]
        contacts = np.nonzero(kept < CONTACT_DISTANCE**2)
        same = self._distance(first, second, one.decoy[contacts[0]], other.decoy[contacts[1]]) < CONTACT_DISTANCE**2
        fnat = np.count_nonzero(same) / np.count_nonzero(interface.distances < CONTACT_DISTANCE**2)
        near: BoolArray = kept < INTERFACE_DISTANCE**2
        sides = [one.points(np.any(near, axis=1)), other.points(np.any(near, axis=0))]
        moving, fixed = (np.concatenate([side[part] for side in sides]) for part in (0, 1))
        irmsd = _rmsd(_laid_on(moving, fixed, moving), fixed)
        receptor, ligand = one, other
        if len(self._native[interface.first]) <= len(self._native[interface.second]):
            receptor, ligand = other, one
        lrmsd = _rmsd(_laid_on(receptor.moving, receptor.fixed, ligand.moving), ligand.fixed)
        return float(fnat + 1 / (1 + (irmsd / IRMSD_SCALE) ** 2) + 1 / (1 + (lrmsd / LRMSD_SCALE) ** 2)) / 3

    def _distance(self, first: int, second: int, rows: IntArray, columns: IntArray) -> SingleArray:
        ordered = (first, second, rows, columns) if first < second else (second, first, columns, rows)
        distances = self._decoy_distances(ordered[0], ordered[1])
        picked: SingleArray = distances[ordered[2], ordered[3]]
        return picked

    def _pair(self, decoy: int, native: int) -> _Pair:
        alignment = self._alignments.of(self._decoy[decoy], self._native[native])
        return _Pair(
            alignment.decoy,
            alignment.native,
            self._decoy[decoy].backbone[alignment.decoy],
            self._native[native].backbone[alignment.native],
        )


class _Pair:
    """A decoy's chain in the place of a native's: the residues and backbone atoms that both have."""

    def __init__(self, decoy: IntArray, native: IntArray, moving: FloatArray, fixed: FloatArray) -> None:
        self.decoy, self.native = decoy, native
        self._present: BoolArray = ~np.isnan(moving[..., 0] + fixed[..., 0])
        self._moving, self._fixed = moving, fixed
        self.moving, self.fixed = moving[self._present], fixed[self._present]

    def points(self, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Of the chosen residues; of all where none is chosen, as DockQ does."""
        if not chosen.any():
            return self.moving, self.fixed
        present = self._present[chosen]
        return self._moving[chosen][present], self._fixed[chosen][present]


def _distances(one: ChainAtoms, other: ChainAtoms) -> SingleArray:
    return residue_distances(one.coords, other.coords, one.sizes, other.sizes)


def _laid_on(moving: FloatArray, fixed: FloatArray, carried: FloatArray) -> FloatArray:
    """Positions carried along when others are laid on their counterparts as well as can be (Kabsch)."""
    center, goal = moving.mean(axis=0), fixed.mean(axis=0)
    left, _, right = np.linalg.svd((moving - center).T @ (fixed - goal))
    left[:, -1] *= np.sign(np.linalg.det(left) * np.linalg.det(right))
    laid: FloatArray = (carried - center) @ (left @ right) + goal
    return laid


def _rmsd(one: FloatArray, other: FloatArray) -> float:
    return float(np.sqrt(np.square(one - other).sum(axis=1).mean()))
