"""Pooling of nodes and edges that lie graph by graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from topotrain.model.edge_plan import bag


def pooled(values: Tensor, start: Sequence[int], reduce: str) -> Tensor:
    """(num_graphs, width) sums or means of rows.

    Args:
        values: (num_rows, width), those of a graph together.
        start: (num_graphs + 1) where each graph's rows begin, and their number; one without rows pools to 0.
        reduce: ``sum`` or ``mean``.
    """
    out: Tensor = _Pooling.apply(values, torch.tensor(start), reduce)
    return out


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, start: Tensor, reduce: str) -> Tensor:
        counts = start.diff()
        ctx.counts, ctx.num_rows, ctx.divided = counts, values.shape[0], reduce == "mean"
        sums = bag(values, torch.arange(values.shape[0]), start)
        return sums / counts.clamp(min=1).unsqueeze(1) if ctx.divided else sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.divided:
            grad = grad / ctx.counts.clamp(min=1).unsqueeze(1)
        return grad.repeat_interleave(ctx.counts, dim=0, output_size=ctx.num_rows), None, None
