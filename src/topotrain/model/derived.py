"""What a graph's edges say of its nodes and of itself: degrees and sizes, which no file holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NODE_COLUMNS = 3
GRAPH_COLUMNS = 2


@dataclass(frozen=True)
class Derived:
    """Columns derived from the graphs of a batch.

    Attributes:
        nodes: (num_nodes, 3) of each node: ln(1 + edges that end there); of its graph: ln(nodes), ln(1 + edges).
        graphs: (num_graphs, 2) ln(nodes) and ln(1 + edges).
    """

    nodes: Tensor
    graphs: Tensor

    @classmethod
    def of(cls, targets: Tensor, batch: Tensor, num_graphs: int, dtype: torch.dtype) -> Derived:
        """Of some graphs.

        Args:
            targets: (num_edges,) target row of each edge.
            batch: (num_nodes,) graph of each node.
            num_graphs: in the batch.
            dtype: of the columns.
        """
        degrees = torch.bincount(targets, minlength=batch.shape[0])
        nodes = torch.bincount(batch, minlength=num_graphs)
        edges = torch.bincount(batch[targets], minlength=num_graphs)
        graphs = torch.stack([nodes.clamp(min=1).to(dtype).log(), edges.to(dtype).log1p()], dim=1)
        return cls(torch.cat([degrees.to(dtype).log1p().unsqueeze(1), graphs.index_select(0, batch)], dim=1), graphs)
