"""What a new network learns of its training graphs before the first step: how its inputs are scaled and weighed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from topotrain.data.column_statistics import ColumnStatistics
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import TARGET, GraphBatch
from topotrain.model.derived import Derived
from topotrain.model.graph_inputs import GraphInputs, Graphs
from topotrain.model.network import TopoQANetwork
from topotrain.model.pooled_inputs import LEAST_DEVIATION

GRAPHS_AT_A_TIME = 64
PRODUCTS = 2e11  # of values, for correlations: seconds; of very wide nodes a part then has to do
LEAST_SPREAD = 1e-6  # of a scaled column that correlates with anything

Columns = tuple[ColumnStatistics, ColumnStatistics]


@torch.no_grad()
def fit_inputs(network: TopoQANetwork, graphs: PackedGraphs, columns: Columns | None) -> None:
    """Set the buffers of a new network.

    Args:
        network: as it was made.
        graphs: those it is to be trained on.
        columns: statistics of their node and edge columns; ``None`` leaves these as they are.
    """
    spec = network.spec
    for scaling, column in zip((network.node_scaling, network.edge_scaling), columns or (), strict=False):
        if column.count:
            scaling.fit(column.mean, column.deviation)
    if spec.derived_inputs or spec.pooling_type == "scaled_add":
        _fit_sizes(network, graphs)
    if spec.residue_columns is not None:
        potentials = _joined(ColumnStatistics.of(values) for values in _potentials(network, graphs))
        network.contact_potential.scaling.fit(potentials.mean, potentials.deviation)
    if spec.pooled_inputs:
        pools = _joined(ColumnStatistics.of(inputs.pooled(of)) for inputs, of in _inputs(network, graphs))
        network.pooled_inputs.scaling.fit(pools.mean, pools.deviation.clamp(min=LEAST_DEVIATION))
    if spec.decorrelated_inputs:
        network.node_weight.copy_(1 / _sameness(network, graphs))


def _fit_sizes(network: TopoQANetwork, graphs: PackedGraphs) -> None:
    """Of what is derived from the graphs, and of their mean size."""
    of_nodes, of_graphs, sizes = [], [], torch.zeros(2, dtype=torch.float64)
    for position in range(len(graphs)):
        (graph,) = graphs.read([position])
        whole = torch.zeros(graph.x.shape[0], dtype=torch.int64)
        derived = Derived.of(graph.edges[:, TARGET].long(), whole, 1, torch.float64)
        of_nodes.append(derived.nodes)
        of_graphs.append(derived.graphs)
        sizes += torch.tensor([graph.x.shape[0], graph.edges.shape[0]])
    if network.spec.derived_inputs:
        for scaling, values in ((network.derived_scaling, of_nodes), (network.size_scaling, of_graphs)):
            column = ColumnStatistics.of(torch.cat(values))
            scaling.fit(column.mean, column.deviation)
    if network.spec.pooling_type == "scaled_add":
        network.mean_size.copy_((sizes / len(graphs)).clamp(min=1))


def _potentials(network: TopoQANetwork, graphs: PackedGraphs) -> Iterator[Tensor]:
    """(num_edges, 3) contact potential, not scaled, some graphs at a time."""
    for batch in _batches(graphs):
        yield network.contact_potential.raw(batch.x, *batch.edge_index).double()


def _sameness(network: TopoQANetwork, graphs: PackedGraphs) -> Tensor:
    """(node_inputs,) the sum of each scaled node column's squared correlations with all of them, itself included.

    It is 1 for a column alone of its kind, and about n for one of n that say the same.
    """
    width = network.spec.node_inputs
    count, total = 0, torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    for inputs, _ in _inputs(network, graphs, every=_every(graphs, width)):
        count += inputs.nodes.shape[0]
        total += inputs.nodes.sum(dim=0, dtype=torch.float64)
        products += inputs.nodes.t() @ inputs.nodes
    mean = total / max(count, 1)
    covariance = products / max(count, 1) - mean.outer(mean)
    spread = covariance.diagonal().clamp(min=0).sqrt()
    correlation = covariance / spread.outer(spread)
    correlation[spread < LEAST_SPREAD] = 0
    correlation[:, spread < LEAST_SPREAD] = 0
    return correlation.square().sum(dim=1).clamp(min=1)


def _every(graphs: PackedGraphs, width: int) -> int:
    """How many graphs there are for one whose correlations are taken."""
    (first,) = graphs.read([0])
    return max(1, round(len(graphs) * first.x.shape[0] * width**2 / PRODUCTS))


def _inputs(network: TopoQANetwork, graphs: PackedGraphs, every: int = 1) -> Iterator[tuple[GraphInputs, Graphs]]:
    """Scaled columns of the graphs, some graphs at a time."""
    for batch in _batches(graphs, every):
        of = Graphs(batch.edge_index, batch.batch, batch.num_graphs, batch.layout)
        yield network.inputs(batch.x, batch.edge_attr, of), of


def _batches(graphs: PackedGraphs, every: int = 1) -> Iterator[GraphBatch]:
    positions = range(0, len(graphs), every)
    for first in range(0, len(positions), GRAPHS_AT_A_TIME):
        yield graphs.batch(positions[first : first + GRAPHS_AT_A_TIME])


def _joined(parts: Iterator[ColumnStatistics]) -> ColumnStatistics:
    total = ColumnStatistics(0, torch.zeros(0), torch.zeros(0))
    for part in parts:
        total = total.joined(part)
    return total
