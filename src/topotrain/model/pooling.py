"""Pooling of nodes and edges that lie graph by graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.utils import scatter

from topotrain.model.edge_plan import bag


def pooled(values: Tensor, start: Sequence[int], reduce: str) -> Tensor:
    """(num_graphs, width) sums or means of rows.

    Args:
        values: (num_rows, width), those of a graph together.
        start: (num_graphs + 1) where each graph's rows begin, and their number; one without rows pools to 0.
        reduce: ``sum``, ``mean`` or ``max``.
    """
    starts = torch.tensor(start)
    if reduce == "max":
        graph = torch.repeat_interleave(starts.diff(), output_size=values.shape[0])
        out: Tensor = scatter(values, graph, dim=0, dim_size=len(start) - 1, reduce=reduce)
    else:
        out = _Pooling.apply(values, starts, reduce == "mean")  # type: ignore[no-untyped-call]
    return out


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, start: Tensor, average: bool) -> Tensor:
        ctx.counts, ctx.num_rows, ctx.average = start.diff(), values.shape[0], average
        sums = bag(values, torch.arange(values.shape[0]), start)
        return sums.div_(ctx.counts.clamp(min=1).unsqueeze(1)) if average else sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.average:
            grad = grad / ctx.counts.clamp(min=1).unsqueeze(1)
        return grad.repeat_interleave(ctx.counts, dim=0, output_size=ctx.num_rows), None, None
