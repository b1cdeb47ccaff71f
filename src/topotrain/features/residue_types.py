"""Amino acids in the order of the graphs' one-hot columns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from topotrain.features.residue_names import AMINO_ACIDS
from topotrain.features.structure import FloatArray, IntArray

RESIDUE_TYPES = tuple(AMINO_ACIDS.values())  # by one-letter code, A C D E F ...; then unknown
UNKNOWN_TYPE = len(RESIDUE_TYPES)
NUM_TYPES = len(RESIDUE_TYPES) + 1
_INDEX = {name: index for index, name in enumerate(RESIDUE_TYPES)}


def residue_type_indices(names: Iterable[str]) -> IntArray:
    """(n,) position in ``RESIDUE_TYPES``, or ``UNKNOWN_TYPE``."""
    return np.array([_INDEX.get(str(name).upper(), UNKNOWN_TYPE) for name in names], dtype=np.int64)


def one_hot(indices: IntArray, width: int) -> FloatArray:
    """(n, width) float64 with a single 1 in each row."""
    return np.eye(width)[indices]
