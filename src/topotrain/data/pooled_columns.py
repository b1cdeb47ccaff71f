"""A graph as one row of numbers: its columns pooled over nodes and over edges, beside how many there are of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topotrain.data.column_statistics import rows_by_graph
from topotrain.data.packed_graphs import PackedGraphs

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
    between = COUNTS + POOLED * node_dim
    for row, (nodes, edges) in zip(table, rows_by_graph(graphs), strict=True):
        row[:COUNTS] = len(nodes), len(edges)
        row[COUNTS:between] = _pooled(nodes)
        if len(edges):
            row[between:] = _pooled(edges)
    return table


def _pooled(values: Tensor) -> npt.NDArray[np.float64]:
    """(3 * width,) of (num_rows, width)."""
    wide = values.to(torch.float64)
    deviation, mean = torch.std_mean(wide, dim=0, correction=0)
    return torch.cat([mean, deviation, wide.amax(dim=0)]).numpy()
