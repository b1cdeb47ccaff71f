"""edge/distance/v1: the C-alpha distance alone; the example of docs/feature_modules.md."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from topotrain.features.modules import EdgeModule, GraphContext
from topotrain.features.parameters import Parameters
from topotrain.features.structure import FloatArray, IntArray


class DistanceParameters(Parameters):
    """Parameters of edge/distance/v1."""

    distance_max: float = Field(10.0, ge=0, description="greatest C-alpha distance of a contact, Angstrom, excluded")


class Distance(EdgeModule):
    """One column, the C-alpha distance in Angstrom."""

    name = "distance"
    version = "v1"
    alias = "1D distance"
    summary = "C-alpha distance."
    parameters = DistanceParameters

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """``ca_distance``."""
        return ("ca_distance",)

    def compute(self, context: GraphContext, source: IntArray, target: IntArray, distance: FloatArray) -> FloatArray:
        """See :meth:`EdgeModule.compute`."""
        return distance[:, None]


MODULE = Distance
