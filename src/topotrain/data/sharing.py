"""Which graphs of a batch each of several processes computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

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


def share_of(num_edges: Sequence[int], seat: Seat) -> tuple[list[int], Share]:
    """The graphs that one process computes: as many as each other, or one more or less, and about as many edges.

    They are dealt out by size, the largest first, in turns that go to and fro.

    Args:
        num_edges: of each graph of the whole batch.
        seat: the process.

    Returns:
        Places of its graphs in the batch, ascending, and what they are of it.
    """
    by_size = sorted(range(len(num_edges)), key=lambda place: -num_edges[place])
    own = sorted(place for turn, place in enumerate(by_size) if _receiver(turn, seat.size) == seat.rank)
    taken = own or [0]
    starts = [0, *np.cumsum(num_edges).tolist()]
    edges = torch.cat([torch.arange(starts[place], starts[place + 1]) for place in taken])
    return taken, Share(len(num_edges), len(own), starts[-1], edges)


def _receiver(turn: int, size: int) -> int:
    round_, place = divmod(turn, size)
    return place if round_ % 2 == 0 else size - 1 - place
