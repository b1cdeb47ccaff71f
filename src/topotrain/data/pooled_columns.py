"""A graph as one row of numbers: its columns pooled over nodes and over edges, beside how many there are of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import ROW

COUNTS = 2  # nodes, edges
POOLED = 3  # mean, standard deviation, maximum


def pooled_columns(graphs: PackedGraphs, node_dim: int, edge_dim: int) -> npt.NDArray[np.float64]:
    """One row for each graph, one graph in memory at a time.

    Args:
        graphs: of one schema.
        node_dim: its node columns.
        edge_dim: its edge columns.

    Returns:
        (num_graphs, 2 + 3 * (node_dim + edge_dim)): numbers of nodes and of edges; mean, standard deviation and maximum
        of each node column; the same of each edge column, every edge counted, 0 in a graph without edges.
    """
    table = np.zeros((len(graphs), COUNTS + POOLED * (node_dim + edge_dim)))
    for position in range(len(graphs)):
        (graph,) = graphs.read([position])
        num_edges = graph.edges.shape[0]
        table[position, :COUNTS] = graph.x.shape[0], num_edges
        between = COUNTS + POOLED * node_dim
        table[position, COUNTS:between] = _pooled(graph.x)
        if num_edges:
            table[position, between:] = _pooled(graph.edge_attr[graph.edges[:, ROW].long()])
    return table


def _pooled(values: Tensor) -> npt.NDArray[np.float64]:
    """(3 * width,) of (num_rows, width)."""
    wide = values.to(torch.float64)
    deviation, mean = torch.std_mean(wide, dim=0, correction=0)
    return torch.cat([mean, deviation, wide.amax(dim=0)]).numpy()
