"""What two residues in contact make of each other, before any attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ContactTerm(nn.Module):
    """Adds W_o relu(LayerNorm(W_n x_i + W_n x_j + W_e e)) to an edge e between nodes i and j.

    Both ends count alike, so that the two directions of a contact stay equal. GATv2 without self loops passes what a
    node receives and not what it is; here amino acid meets amino acid.

    Args:
        hidden_dim: width of nodes and edges.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.node, self.edge, self.out = (nn.Linear(hidden_dim, hidden_dim) for _ in range(3))
        self.norm = nn.LayerNorm(hidden_dim)

    def forward(self, nodes: Tensor, source: Tensor, target: Tensor, edges: Tensor) -> Tensor:
        """New edges.

        Args:
            nodes: (num_nodes, hidden).
            source: (num_edges,) one end of each edge, or of each row that the edges of a pair of nodes share.
            target: (num_edges,) the other.
            edges: (num_edges, hidden).
        """
        ends = self.node(nodes)
        between = ends.index_select(0, source) + ends.index_select(0, target) + self.edge(edges)
        new: Tensor = edges + self.out(functional.relu(self.norm(between)))
        return new
