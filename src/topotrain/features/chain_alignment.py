"""Chains of a decoy beside chains of a native: which residues are the same, and whether the chains are alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from topotrain.features.chain_atoms import ChainAtoms
from topotrain.features.dockq_library import load_dockq
from topotrain.features.structure import IntArray

# Of the longer chain's residues. Unrelated chains reach about 0.3 in DockQ's alignment.
MIN_IDENTITY = 0.7
# Of the shorter chain's, where one is a part of the other: identical residues in runs that are not there by chance.
MIN_PART_IDENTITY = 0.9
_RUNS = re.compile(r"\|{5,}")


@dataclass(frozen=True, eq=False)
class ChainAlignment:
    """DockQ's alignment of two chains.

    Attributes:
        decoy: (n,) residues of the decoy's chain that have a counterpart of the same letter.
        native: (n,) their counterparts.
        mismatches: aligned residues of other letters.
        identity: share of the longer chain's residues that have such a counterpart.
        alike: whether the chains are taken for the same: 70 % identity, or one is a part of the other.
    """

    decoy: IntArray
    native: IntArray
    mismatches: int
    identity: float
    alike: bool


class Alignments:
    """Alignments of chains, made once for each pair of sequences."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], ChainAlignment] = {}

    def of(self, decoy: ChainAtoms, native: ChainAtoms) -> ChainAlignment:
        """The alignment of a decoy's chain with a native's."""
        key = decoy.sequence, native.sequence
        if key not in self._made:
            self._made[key] = _align(decoy, native)
        return self._made[key]


def _align(decoy: ChainAtoms, native: ChainAtoms) -> ChainAlignment:
    dockq = load_dockq()
    parts = dockq.format_alignment(dockq.align_chains.__wrapped__(decoy, native))
    matches = parts["matches"]
    same = np.array([mark == "|" for mark in matches], dtype=bool)
    indices = (np.cumsum([letter != "-" for letter in parts[name]]) - 1 for name in ("seqA", "seqB"))
    ours, theirs = (index[same].astype(np.int64) for index in indices)
    identity = len(ours) / max(len(decoy), len(native))
    part = sum(len(run) for run in _RUNS.findall(matches)) / min(len(decoy), len(native))
    return ChainAlignment(
        decoy=ours,
        native=theirs,
        mismatches=matches.count("."),
        identity=identity,
        alike=identity >= MIN_IDENTITY or part >= MIN_PART_IDENTITY,
    )
