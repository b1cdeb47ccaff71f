"""edge/plus_topo_min/v1: legacy_band, and how the topology of the two ends compares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topotrain.features.edge_legacy_band import (
    HistogramParameters,
    legacy_columns,
    pair_counts,
)
from topotrain.features.modules import EdgeModule, GraphContext
from topotrain.features.structure import FloatArray, IntArray


class PlusTopoMin(EdgeModule):
    """11 + 3 T + 3 columns, T the topology width.

    legacy_band's columns; per topology column the minimum, maximum and absolute difference of both ends;
    the smaller and the greater Euclidean norm of the ends' topology, and the cosine between them (0 where a
    norm is 0). Every column is the same both ways along a contact.
    """

    name = "plus_topo_min"
    version = "v1"
    alias = "11D + topology"
    summary = "legacy_band, then both ends' topology: min, max, absolute difference, norms, cosine."
    parameters = HistogramParameters

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """``legacy_band``'s, ``min_*``, ``max_*``, ``absdiff_*``, two norms, the cosine."""
        return (
            *legacy_columns(self.params["histogram_bins"]),
            *(f"{what}_{column}" for what in ("min", "max", "absdiff") for column in topology_columns),
            "topo_norm_min",
            "topo_norm_max",
            "topo_cosine",
        )

    def compute(self, context: GraphContext, source: IntArray, target: IntArray, distance: FloatArray) -> FloatArray:
        """See :meth:`EdgeModule.compute`."""
        counts = pair_counts(context, source, target, self.params["histogram_bins"])
        ends = context.topology[source[::2]], context.topology[target[::2]]
        norms = [np.sqrt((end**2).sum(axis=1)) for end in ends]
        product = norms[0] * norms[1]
        cosine = np.divide((ends[0] * ends[1]).sum(axis=1), product, out=np.zeros_like(product), where=product > 0)
        topology = np.concatenate(
            [
                np.minimum(*ends),
                np.maximum(*ends),
                np.abs(ends[0] - ends[1]),
                np.stack([np.minimum(*norms), np.maximum(*norms), cosine], axis=1),
            ],
            axis=1,
        )
        return np.concatenate([distance[:, None], counts, np.repeat(topology, 2, axis=0)], axis=1)


MODULE = PlusTopoMin
