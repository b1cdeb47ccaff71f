"""What a feature module is: one small class per kind, to be subclassed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from topotrain.features.geometry import cross_chain_contacts
from topotrain.features.parameters import Parameters, read_parameters
from topotrain.features.structure import FloatArray, IntArray, Structure

KINDS = ("interface", "topology", "node", "edge")


class FeatureModule:
    """Base of all feature modules; subclass one of the four kinds below, not this.

    A module is made once per build and then used for every structure, so it keeps no state but its
    parameters. Output is in raw units: scaling belongs to the network, which fits it on the training
    graphs.

    Attributes:
        kind: interface, topology, node or edge; set by the base class of the kind.
        name: lower case, unique within the kind.
        version: ``v`` and a number; a change of any output value needs a new one.
        alias: a short name people say.
        summary: one line.
        parameters: what can be set, with defaults; a subclass of :class:`Parameters`.
        orientation_dependent: whether rotating the structure changes the output.
        params: the values in force (plain types).
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    alias: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    parameters: ClassVar[type[Parameters]] = Parameters
    orientation_dependent: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        """Set the parameters.

        Args:
            params: values by name, as such or as YAML text; the rest keep their defaults.

        Raises:
            UserInputError: an unknown parameter or a value of another type.
        """
        self.params: dict[str, Any] = read_parameters(self.parameters, params or {}, self.module_id())

    @classmethod
    def module_id(cls) -> str:
        """``kind/name/version``."""
        return f"{cls.kind}/{cls.name}/{cls.version}"

    def prepare(self) -> None:
        """Import heavy packages and look for programs; called once per process, before the first structure.

        Raises:
            UserInputError: something the parameters ask for is not installed.
        """

    @property
    def scaling(self) -> str:
        """How the output is scaled, for the metadata; "none" for raw units."""
        return "none"


def no_plddt() -> None:
    """Of a structure that is not from a file."""


@dataclass(frozen=True)
class GraphContext:
    """What node and edge modules see.

    Attributes:
        structure: all heavy atoms.
        residues: (num_nodes,) int64, each node's residue in ``structure``.
        topology: (num_nodes, topology_width) float64 from the topology module.
        topology_columns: names of its columns.
        plddt: reads (num_residues,) pLDDT of the structure's file, 0 to 100; gives None where its B-factors are none.
    """

    structure: Structure
    residues: IntArray
    topology: FloatArray
    topology_columns: tuple[str, ...]
    plddt: Callable[[], FloatArray | None] = no_plddt


class InterfaceModule(FeatureModule):
    """Chooses the residues that become nodes."""

    kind = "interface"

    def find(self, structure: Structure) -> IntArray:
        """Interface residues.

        Args:
            structure: the structure.

        Returns:
            (num_nodes,) int64 residue indices, ascending; empty where there is no interface.
        """
        raise NotImplementedError


class TopologyModule(FeatureModule):
    """Describes the surroundings of each node by topology."""

    kind = "topology"

    def columns(self) -> tuple[str, ...]:
        """Names of the output columns, in order."""
        raise NotImplementedError

    def compute(self, structure: Structure, residues: IntArray) -> FloatArray:
        """Topology of each node.

        Args:
            structure: the structure.
            residues: (num_nodes,) residue indices.

        Returns:
            (num_nodes, len(columns())) float64.
        """
        raise NotImplementedError


class NodeModule(FeatureModule):
    """Makes ``x``."""

    kind = "node"

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns of ``x``, in order.

        Args:
            topology_columns: the topology module's columns.
        """
        raise NotImplementedError

    def compute(self, context: GraphContext) -> FloatArray:
        """Node features.

        Args:
            context: structure, nodes, topology.

        Returns:
            (num_nodes, len(columns(...))) float64.
        """
        raise NotImplementedError


class EdgeModule(FeatureModule):
    """Makes ``edge_index`` and ``edge_attr``.

    Attributes:
        interface_params: parameters that the interface module takes with this edge module, unless set.
    """

    kind = "edge"
    interface_params: ClassVar[Mapping[str, Any]] = {}

    @property
    def variant(self) -> str:
        """Recorded as ``edge_feature_variant``."""
        return f"{self.name}_{self.version}"

    @property
    def bands(self) -> list[str]:
        """Labels of distance bands, where the module has any."""
        return []

    def reach(self) -> tuple[float, float]:
        """Least (included) and greatest (excluded) C-alpha distance of a contact, Angstrom."""
        return float(self.params.get("distance_min", 0.0)), float(self.params["distance_max"])

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns of ``edge_attr``, in order.

        Args:
            topology_columns: the topology module's columns.
        """
        raise NotImplementedError

    def contacts(self, context: GraphContext) -> tuple[IntArray, FloatArray]:
        """Undirected contacts between nodes of different partners.

        Args:
            context: structure, nodes, topology.

        Returns:
            (num_contacts, 2) node indices, first below second, sorted; and (num_contacts,) C-alpha distances.
        """
        return cross_chain_contacts(context.structure, context.residues, *self.reach())

    def compute(self, context: GraphContext, source: IntArray, target: IntArray, distance: FloatArray) -> FloatArray:
        """Edge features.

        Edges come in pairs: edge 2k goes one way along contact k, edge 2k + 1 the other.

        Args:
            context: structure, nodes, topology.
            source: (num_edges,) source nodes.
            target: (num_edges,) target nodes.
            distance: (num_edges,) C-alpha distances, Angstrom.

        Returns:
            (num_edges, len(columns(...))) float64.
        """
        raise NotImplementedError


def both_ways(pairs: IntArray, values: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Directed edges of undirected contacts: first to second, then second to first, contact by contact.

    Args:
        pairs: (num_contacts, 2) node indices.
        values: (num_contacts, ...) one value or row per contact.

    Returns:
        Sources and targets (2 num_contacts,), and the values twice each.
    """
    return pairs.ravel(), pairs[:, ::-1].ravel(), np.repeat(values, 2, axis=0)
