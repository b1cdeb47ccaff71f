"""topology/persistence_basic/v1: persistent homology of the atoms around each residue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from topotrain.features.modules import TopologyModule
from topotrain.features.parameters import Parameters
from topotrain.features.structure import FloatArray, IntArray, Structure

ELEMENT_SETS = ("C", "N", "O", "CN", "CO", "NO", "CNO")
STATISTICS = ("sum", "min", "max", "mean", "std")
H0_QUANTITIES = ("death",)
H1_QUANTITIES = ("len", "birth", "death")


class PersistenceParameters(Parameters):
    """Parameters of topology/persistence_basic/v1."""

    neighbor_distance: float = Field(8.0, ge=0, description="atoms within this distance of the C-alpha, Angstrom")
    min_persistence: float = Field(0.01, ge=0, description="bars shorter than this are dropped, Angstrom")


class PersistenceBasic(TopologyModule):
    """140 statistics of barcodes, seven element sets around each residue's C-alpha.

    H0 is the Vietoris-Rips barcode: its finite deaths are the edges of the Euclidean minimum spanning tree.
    That tree lies within the Delaunay triangulation, so the alpha complex gives the same numbers. H1 is the
    alpha complex's, on the diameter scale (twice the circumradius), in Angstrom. Bars shorter than
    ``min_persistence`` are dropped; statistics of no bars are 0; ``std`` is of the population.

    Both are computed on the Delaunay-Cech complex, which collapses to the alpha complex at every radius and so
    has the same bars; its filtration values need no look at neighbouring simplices and take less time.

    Sources: Han et al., Briefings in Bioinformatics 26(2), bbaf083 (2025); Bauer and Edelsbrunner, Trans. Amer.
    Math. Soc. 369, 3741 (2017), for the collapse.
    """

    name = "persistence_basic"
    version = "v1"
    alias = "PH-140"
    summary = "140 persistent-homology columns from atoms around each interface residue."
    parameters = PersistenceParameters

    def prepare(self) -> None:
        """Import gudhi."""
        import gudhi  # noqa: F401

    def columns(self) -> tuple[str, ...]:
        """``f0_{set}_death_{statistic}``, then ``f1_{set}_{len, birth, death}_{statistic}``."""
        return tuple(
            f"f{dimension}_{elements}_{quantity}_{statistic}"
            for dimension, quantities in ((0, H0_QUANTITIES), (1, H1_QUANTITIES))
            for elements in ELEMENT_SETS
            for quantity in quantities
            for statistic in STATISTICS
        )

    def compute(self, structure: Structure, residues: IntArray) -> FloatArray:
        """See :meth:`TopologyModule.compute`."""
        members = np.stack([np.isin(structure.elements, list(elements)) for elements in ELEMENT_SETS])
        radius = self.params["neighbor_distance"]
        h0: list[FloatArray] = []
        h1: list[FloatArray] = []
        for center in structure.ca[residues]:
            near = np.flatnonzero(((structure.coords - center) ** 2).sum(axis=1) <= radius**2)
            points = structure.coords[near]
            for member in members[:, near]:
                deaths, loops = barcodes(points[member])
                h0.append(deaths)
                h1.append(loops)
        least, rows = self.params["min_persistence"], (len(residues), -1)
        deaths, loops = np.concatenate([np.empty((0, 1)), *h0]), np.concatenate([np.empty((0, 2)), *h1])
        bars = np.stack([loops[:, 1] - loops[:, 0], loops[:, 0], loops[:, 1]], axis=1)
        return np.concatenate(
            [
                segment_statistics(deaths, [len(item) for item in h0], deaths[:, 0] >= least).reshape(rows),
                segment_statistics(bars, [len(item) for item in h1], bars[:, 0] >= least).reshape(rows),
            ],
            axis=1,
        )


def barcodes(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Finite bars of a point cloud.

    Args:
        points: (num_points, 3) Angstrom.

    Returns:
        H0 deaths (n, 1) of the Vietoris-Rips filtration, and H1 (m, 2) births and deaths of the alpha
        filtration on the diameter scale; both in Angstrom.
    """
    if len(points) < 2:
        return np.empty((0, 1)), np.empty((0, 2))
    h0, h1 = _delaunay_bars(points, "fast")
    if not (np.isfinite(h0).all() and np.isfinite(h1).all()):
        # Floating-point filtration values fail on (nearly) degenerate simplices; exact ones do not.
        h0, h1 = _delaunay_bars(points, "exact")
    return 2.0 * np.sqrt(h0), 2.0 * np.sqrt(h1)


def _delaunay_bars(points: FloatArray, precision: str) -> tuple[FloatArray, FloatArray]:
    """Squared radii: H0 deaths (n, 1) and H1 (m, 2)."""
    import gudhi

    tree = gudhi.DelaunayCechComplex(points=points, precision=precision).create_simplex_tree()
    # H0 and H1 need no tetrahedra, and the reduction is faster without them.
    tree.prune_above_dimension(2)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=0.0)
    h0, h1 = (tree.persistence_intervals_in_dimension(dimension).reshape(-1, 2) for dimension in (0, 1))
    # One component never ends and is no finite bar; a second one would be a failed filtration value.
    lasting = np.isinf(h0[:, 1])
    return (h0[~lasting, 1:] if lasting.sum() == 1 else h0[:, 1:]), h1


def segment_statistics(values: FloatArray, sizes: list[int], kept: npt.NDArray[np.bool_]) -> FloatArray:
    """Statistics of consecutive segments of rows, all segments at once.

    Args:
        values: (n, width) rows of all segments, one after the other.
        sizes: rows of each segment, before selection.
        kept: (n,) which rows count.

    Returns:
        (num_segments, width * 5) sum, min, max, mean and population standard deviation of each column; 0 for
        segments without rows.
    """
    segment = np.repeat(np.arange(len(sizes)), sizes)[kept]
    values = values[kept]
    counts = np.bincount(segment, minlength=len(sizes))
    filled = np.flatnonzero(counts)
    result = np.zeros((len(sizes), values.shape[1], len(STATISTICS)))
    if len(filled):
        starts = (np.cumsum(counts) - counts)[filled]
        number = counts[filled, None]
        sums = np.add.reduceat(values, starts)
        means = sums / number
        squares = (values - np.repeat(means, counts[filled], axis=0)) ** 2
        result[filled] = np.stack(
            [
                sums,
                np.minimum.reduceat(values, starts),
                np.maximum.reduceat(values, starts),
                means,
                np.sqrt(np.add.reduceat(squares, starts) / number),
            ],
            axis=2,
        )
    return result.reshape(len(sizes), -1)


MODULE = PersistenceBasic
