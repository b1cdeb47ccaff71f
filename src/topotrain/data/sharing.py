"""Which graphs of a batch each of several processes computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from topotrain.data.edge_layout import Share


@dataclass(frozen=True)
class Seat:
    """One of several processes that compute a batch together.

    Attributes:
        rank: from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1


def share_of(
    positions: Sequence[int], num_nodes: Sequence[int], num_edges: Sequence[int], seat: Seat
) -> tuple[list[int], Share]:
    """The graphs that one process computes: as many as each other, or one more or less, and about as many edges.

    They are dealt out by size, the largest first, in turns that go to and fro.

    Args:
        positions: of the whole batch's graphs among those packed.
        num_nodes: of each packed graph.
        num_edges: of each packed graph.
        seat: the process.

    Returns:
        Places of its graphs in the batch, ascending, and what they are of it.
    """
    by_size = sorted(range(len(positions)), key=lambda place: -num_edges[positions[place]])
    own = sorted(place for turn, place in enumerate(by_size) if _receiver(turn, seat.size) == seat.rank)
    taken = own or [0]
    nodes_in_all, nodes = _rows([num_nodes[position] for position in positions], taken)
    edges_in_all, edges = _rows([num_edges[position] for position in positions], taken)
    return taken, Share(
        num_graphs=len(positions),
        num_own=len(own),
        graphs=torch.tensor(taken),
        index=torch.tensor(list(positions)),
        num_nodes=nodes_in_all,
        nodes=nodes,
        num_edges=edges_in_all,
        edges=edges,
    )


def _rows(counts: Sequence[int], taken: Sequence[int]) -> tuple[int, Tensor]:
    """Of graphs that have so many rows each, one after the other: how many there are, and which those of some are."""
    starts = [0, *np.cumsum(counts).tolist()]
    return starts[-1], torch.cat([torch.arange(starts[place], starts[place + 1]) for place in taken])


def _receiver(turn: int, size: int) -> int:
    round_, place = divmod(turn, size)
    return place if round_ % 2 == 0 else size - 1 - place
