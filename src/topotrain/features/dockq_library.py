"""DockQ 2.1.3, the reference implementation, as a library: chains in, what it says of an interface out."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import logging
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from topotrain.errors import UserInputError
from topotrain.features.chain_atoms import ChainAtoms, SingleArray
from topotrain.features.structure import IntArray

CONTACT_DISTANCE = 5.0  # Angstrom, between heavy atoms of residues in contact (fnat)
INTERFACE_DISTANCE = 10.0  # Angstrom, between heavy atoms of residues of the interface (iRMSD)
FAR = np.float32(1e6)
_made = itertools.count()


@cache
def load_dockq() -> Any:
    """The module ``DockQ.DockQ`` (v2, from PyPI).

    Its compiled part does not load under NumPy 2 and its own fallback is made for scripts, so its Python part stands
    in for the compiled one, and :func:`residue_distances` for the slow half of that. Same numbers.

    Raises:
        UserInputError: DockQ is not installed.
    """
    try:
        importlib.import_module("DockQ")
    except ImportError as error:
        raise UserInputError(
            "DockQ is not installed", "the package DockQ, version 2", "pip install 'DockQ>=2.1.3'"
        ) from error
    try:
        sys.modules.setdefault("DockQ.operations", importlib.import_module("DockQ.operations_nocy"))
        dockq = importlib.import_module("DockQ.DockQ")
    except ImportError as error:
        raise UserInputError(
            f"DockQ cannot be imported ({error})",
            "DockQ 2.1.3 with biopython and parallelbar",
            "install it again",
        ) from error
    setattr(dockq, residue_distances.__name__, residue_distances)
    return dockq


def residue_distances(one: SingleArray, other: SingleArray, one_sizes: IntArray, other_sizes: IntArray) -> SingleArray:
    """Squared distances between the nearest atoms of residues, as far as DockQ looks (10 Angstrom).

    Args:
        one: (n, 3) float32 positions of a chain's atoms, residue by residue.
        other: (m, 3) those of another.
        one_sizes: atoms of each residue of the first.
        other_sizes: and of the other.

    Returns:
        (num_residues, num_other_residues) float32; ``FAR`` where residues are surely farther apart than that.
    """
    one_starts, other_starts = (np.concatenate([[0], np.cumsum(sizes)[:-1]]) for sizes in (one_sizes, other_sizes))
    distances = np.full((len(one_sizes), len(other_sizes)), FAR, dtype=np.float32)
    lows, highs = np.minimum.reduceat(one, one_starts), np.maximum.reduceat(one, one_starts)
    other_lows, other_highs = np.minimum.reduceat(other, other_starts), np.maximum.reduceat(other, other_starts)
    reach = np.float32(INTERFACE_DISTANCE + 0.1)
    near = np.ones(distances.shape, dtype=bool)
    for axis in range(3):
        near &= lows[:, None, axis] - other_highs[None, :, axis] < reach
        near &= other_lows[None, :, axis] - highs[:, None, axis] < reach
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not len(rows):
        return distances
    one_atoms, other_atoms = (
        np.concatenate([np.arange(starts[i], starts[i] + sizes[i]) for i in chosen])
        for starts, sizes, chosen in ((one_starts, one_sizes, rows), (other_starts, other_sizes, columns))
    )
    # The order of the sum is DockQ's: the last bit decides at a threshold.
    squared = np.square(one[one_atoms, None, 0] - other[None, other_atoms, 0])
    for axis in (1, 2):
        squared += np.square(one[one_atoms, None, axis] - other[None, other_atoms, axis])
    for axis, sizes, chosen in ((0, one_sizes, rows), (1, other_sizes, columns)):
        squared = np.minimum.reduceat(squared, np.concatenate([[0], np.cumsum(sizes[chosen])[:-1]]), axis=axis)
    distances[np.ix_(rows, columns)] = squared
    return distances


def as_biopython(chain: ChainAtoms) -> Any:
    """The ``Bio.PDB`` chain that DockQ wants, named so that its caches take it for no other."""
    library: Any = importlib.import_module("Bio.PDB")
    made = library.Chain.Chain(f"{next(_made)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # elements that it does not know
        for number, (start, end) in enumerate(zip(chain.starts, chain.starts[1:], strict=False)):
            residue = library.Residue.Residue((" ", number, " "), chain.sequence[number], "")
            made.add(residue)
            for index in range(start, end):
                name = str(chain.atom_names[index])
                element = str(chain.elements[index])
                residue.add(library.Atom.Atom(name, chain.coords[index], 0.0, 1.0, " ", name, index, element))
    made.sequence, made.is_het = chain.sequence, None
    return made


def compare_interface(decoy: tuple[Any, Any], native: tuple[Any, Any]) -> dict[str, Any] | None:
    """What DockQ says of one interface: ``DockQ``, ``fnat``, ``iRMSD``, ``LRMSD`` and more.

    Args:
        decoy: two Biopython chains.
        native: their counterparts.

    Returns:
        None where the native's chains are not in contact.
    """
    with quiet():
        result: dict[str, Any] | None = load_dockq().run_on_chains(decoy, native, small_molecule=False)
    return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """DockQ reports to the root logger and to standard output; standard output is ours."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
