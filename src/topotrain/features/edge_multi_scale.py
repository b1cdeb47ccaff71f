"""edge/multi_scale/v24: the older stack's 24 columns, kept for compatibility."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from topotrain.features.geometry import contact_atom_pairs, count_in_bins
from topotrain.features.modules import EdgeModule, GraphContext
from topotrain.features.parameters import Band, Bands, Numbers, Parameters
from topotrain.features.residue_types import NUM_TYPES, one_hot, residue_type_indices
from topotrain.features.structure import FloatArray, IntArray

LETTERS = 26
DEFAULT_BANDS = [
    Band(label="short", min_distance=0.0, max_distance=6.0),
    Band(label="medium", min_distance=6.0, max_distance=10.0),
    Band(label="long", min_distance=10.0, max_distance=14.0),
]


class MultiScaleParameters(Parameters):
    """Parameters of edge/multi_scale/v24."""

    bands: Bands = Field(DEFAULT_BANDS, description="distance bands, Angstrom, [min, max)")
    contact_threshold: float = Field(5.0, ge=0, description="atom pairs within this are contacts, Angstrom, included")
    histogram_bins: Numbers = Field([float(edge) for edge in range(0, 22, 2)], description="bin edges, Angstrom")
    include_inverse_distance: bool = Field(True, description="whether the inverse distance is a column")
    include_unit_vector: bool = Field(True, description="whether the unit vector makes three columns")
    unit_vector_epsilon: float = Field(1e-8, ge=0, description="distances below this count as this, Angstrom")


class MultiScale(EdgeModule):
    """24 columns per directed edge, in the order of :meth:`columns`.

    Distance in Angstrom and its inverse; unit vector from source to target C-alpha (which makes the module
    depend on orientation); chain code, the letter's place in the alphabet over 26 (0 for other characters);
    residue code, place among the 20 types by one-letter code over 21 (1 for unknown); band index and
    one-hot; the histogram of heavy-atom pair distances as fractions of those within its range, the last bin
    closed; and the number of heavy-atom pairs within ``contact_threshold``.
    """

    name = "multi_scale"
    version = "v24"
    alias = "24D Scalars"
    summary = "24-D multi-scale edge features with distance bands and histograms (orientation-dependent)."
    orientation_dependent = True
    interface_params: ClassVar[dict[str, Any]] = {"cutoff": 14.0}
    parameters = MultiScaleParameters

    @property
    def bands(self) -> list[str]:
        """Labels of the bands."""
        return [band["label"] for band in self.params["bands"]]

    @property
    def scaling(self) -> str:
        """Fixed scales."""
        return "chain code over 26, residue code over 21, histogram over its sum; the rest: none"

    def reach(self) -> tuple[float, float]:
        """From the lowest band to the highest."""
        bands = self.params["bands"]
        return min(band["min_distance"] for band in bands), max(band["max_distance"] for band in bands)

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """See the class."""
        bins = self.params["histogram_bins"]
        return (
            "ca_distance",
            *(["inverse_distance"] if self.params["include_inverse_distance"] else []),
            *(["unit_x", "unit_y", "unit_z"] if self.params["include_unit_vector"] else []),
            "source_chain_code",
            "target_chain_code",
            "source_residue_code",
            "target_residue_code",
            "band_index",
            *(f"band_{label}" for label in self.bands),
            *(f"fraction_{low:g}_{high:g}" for low, high in pairwise(bins)),
            f"contacts_{self.params['contact_threshold']:g}A",
        )

    def contacts(self, context: GraphContext) -> tuple[IntArray, FloatArray]:
        """Contacts whose distance lies in a band."""
        pairs, distance = super().contacts(context)
        inside = self._band_indices(distance) >= 0
        return pairs[inside], distance[inside]

    def compute(self, context: GraphContext, source: IntArray, target: IntArray, distance: FloatArray) -> FloatArray:
        """See :meth:`EdgeModule.compute`."""
        structure, residues = context.structure, context.residues
        safe = np.maximum(distance, self.params["unit_vector_epsilon"])[:, None]
        parts = [distance[:, None]]
        if self.params["include_inverse_distance"]:
            parts.append(1.0 / safe)
        if self.params["include_unit_vector"]:
            ca = structure.ca[residues]
            parts.append((ca[target] - ca[source]) / safe)
        chains = np.array([_chain_code(str(chain)) for chain in structure.chain_ids[residues]])
        types = (residue_type_indices(structure.residue_names[residues]) + 1) / NUM_TYPES
        band = self._band_indices(distance)
        parts += [np.stack([chains[source], chains[target], types[source], types[target], band], axis=1)]
        parts += [one_hot(band, len(self.bands)), *self._atom_pairs(context, source, target)]
        return np.concatenate(parts, axis=1)

    def _band_indices(self, distance: FloatArray) -> IntArray:
        """(n,) the first band that holds each distance, -1 for none."""
        index = np.full(len(distance), -1, dtype=np.int64)
        for number, band in reversed(list(enumerate(self.params["bands"]))):
            index[(distance >= band["min_distance"]) & (distance < band["max_distance"])] = number
        return index

    def _atom_pairs(self, context: GraphContext, source: IntArray, target: IntArray) -> tuple[FloatArray, FloatArray]:
        """(num_edges, num_bins) fractions and (num_edges, 1) contact counts."""
        edges = np.asarray(self.params["histogram_bins"], dtype=np.float64)
        edges[-1] = np.nextafter(edges[-1], np.inf)
        counts, near = [np.empty((0, len(edges) - 1))], [np.empty(0)]
        for distances in contact_atom_pairs(context.structure, context.residues, source, target):
            counts.append(count_in_bins(distances, edges))
            near.append((distances <= self.params["contact_threshold"]).sum(axis=1).astype(np.float64))
        histogram = np.concatenate(counts)
        fractions = histogram / np.maximum(histogram.sum(axis=1, keepdims=True), 1.0)
        return np.repeat(fractions, 2, axis=0), np.repeat(np.concatenate(near)[:, None], 2, axis=0)


def _chain_code(chain: str) -> float:
    """Place of the first letter in the alphabet, over 26; 0 for blank and other characters."""
    place = ord(chain[0].upper()) - ord("A") + 1 if chain else 0
    return min(max(place / LETTERS, 0.0), 1.0)


MODULE = MultiScale
