"""Dropout that falls alike whoever computes which part of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(values: Tensor, rate: float, places: Tensor | None = None, total: int = 0) -> Tensor:
    """Values of which some are 0, and the others what keeps their mean.

    Args:
        values: (num_rows, width).
        rate: share of the values that are dropped; at 0 nothing is drawn.
        places: (num_rows,) of the rows among those of the whole batch, where several processes compute it.
        total: rows of the whole batch, with ``places``.
    """
    if rate == 0:
        return values
    num_rows = values.shape[0] if places is None else total
    drawn = torch.rand(num_rows, values.shape[1], device=values.device)
    kept = (drawn if places is None else drawn.index_select(0, places)) >= rate
    return values * kept.to(values.dtype).mul_(1 / (1 - rate))
