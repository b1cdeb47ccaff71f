"""edge/legacy_band/v11: C-alpha distance and counts of heavy-atom pair distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from topotrain.features.geometry import contact_atom_pairs, count_in_bins
from topotrain.features.modules import EdgeModule, GraphContext
from topotrain.features.parameters import Parameters, WholeNumbers
from topotrain.features.structure import FloatArray, IntArray


class HistogramParameters(Parameters):
    """Which contacts there are, and how their atom pairs are counted; also those of edge/plus_topo_min/v1."""

    distance_max: float = Field(10.0, ge=0, description="greatest C-alpha distance of a contact, Angstrom, excluded")
    distance_min: float = Field(0.0, ge=0, description="least C-alpha distance of a contact, Angstrom, included")
    histogram_bins: WholeNumbers = Field(
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], description="lower edges of the bins, Angstrom; the last bin is open above"
    )


class LegacyBandParameters(HistogramParameters):
    """Parameters of edge/legacy_band/v11."""

    scale_features: bool = Field(False, description="distance over distance_max, counts over their sum")


class LegacyBand(EdgeModule):
    """11 columns: C-alpha distance in Angstrom, then counts of heavy-atom pairs by distance.

    Bins are [1, 2), [2, 3), ... [9, 10), [10, infinity) Angstrom; pairs nearer than 1 Angstrom are not
    counted. With ``scale_features`` the distance is over ``distance_max`` and each count over the number of
    counted pairs: both are fixed per edge, no statistics of a graph or data set enter.

    Source: Han et al., Briefings in Bioinformatics 26(2), bbaf083 (2025).
    """

    name = "legacy_band"
    version = "v11"
    alias = "11D legacy"
    summary = "C-alpha distance and 10-bin counts of heavy-atom pair distances."
    parameters = LegacyBandParameters

    @property
    def variant(self) -> str:
        """``legacy_band_v11``, or ``legacy_band_v11_scaled``."""
        return super().variant + ("_scaled" if self.params["scale_features"] else "")

    @property
    def scaling(self) -> str:
        """What ``scale_features`` does, or none."""
        return "distance over distance_max, counts over their sum" if self.params["scale_features"] else "none"

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """``ca_distance``, ``count_1_2`` ... ``count_9_10``, ``count_10_inf``."""
        return legacy_columns(self.params["histogram_bins"])

    def compute(self, context: GraphContext, source: IntArray, target: IntArray, distance: FloatArray) -> FloatArray:
        """See :meth:`EdgeModule.compute`."""
        counts = pair_counts(context, source, target, self.params["histogram_bins"])
        if self.params["scale_features"]:
            distance = distance / self.params["distance_max"]
            counts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return np.concatenate([distance[:, None], counts], axis=1)


def legacy_columns(bins: Sequence[float]) -> tuple[str, ...]:
    """``ca_distance`` and a count per bin, the last open above."""
    uppers = [*(f"{edge:g}" for edge in bins[1:]), "inf"]
    return ("ca_distance", *(f"count_{low:g}_{high}" for low, high in zip(bins, uppers, strict=True)))


def pair_counts(context: GraphContext, source: IntArray, target: IntArray, bins: Sequence[float]) -> FloatArray:
    """Heavy-atom pair distances of each edge's two residues, counted in bins.

    Args:
        context: structure and nodes.
        source: (num_edges,) source nodes; edges 2k and 2k + 1 are the two ways of one contact.
        target: (num_edges,) target nodes.
        bins: lower edges, Angstrom; the last bin is open above.

    Returns:
        (num_edges, len(bins)) float64.
    """
    edges = np.append(np.asarray(bins, dtype=np.float64), np.inf)
    blocks = contact_atom_pairs(context.structure, context.residues, source, target)
    counts = [np.empty((0, len(bins))), *(count_in_bins(distances, edges) for distances in blocks)]
    return np.repeat(np.concatenate(counts), 2, axis=0)


MODULE = LegacyBand
