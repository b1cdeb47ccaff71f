"""The edge update on the CPU: ELU of one linear map of both ends and the edge, with its own backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from topotrain.model.edge_plan import EdgePlan, bag


def updated_edges(linear: Tensor, bias: Tensor, nodes: Tensor, edges: Tensor, plan: EdgePlan) -> Tensor:
    """The mean over heads, and ELU.

    Args:
        linear: (heads x width, 3 width) of source, target and edge.
        bias: (heads x width,).
        nodes: (num_nodes, width).
        edges: (num_edges, width) or, where edges share rows, (num_rows, width).
        plan: of the edges.

    Returns:
        (num_edges, width).
    """
    out: Tensor = _EdgeUpdate.apply(nodes, edges, linear, bias, plan)  # type: ignore[no-untyped-call]
    return out


class _EdgeUpdate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: Tensor, edges: Tensor, linear: Tensor, bias: Tensor, plan: EdgePlan) -> Tensor:
        width = nodes.shape[1]
        heads = bias.shape[0] // width
        weight = linear.view(heads, width, -1).mean(dim=0)  # (width, 3 width)
        of_ends = torch.cat([weight[:, :width], weight[:, width : 2 * width]])  # (2 width, width)
        of_edge = weight[:, 2 * width :]
        offset = functional.pad(bias.view(heads, width).mean(dim=0), (width, 0))  # once, to the target's part
        ends = torch.addmm(offset, nodes, of_ends.t())  # (num_nodes, 2 width)
        out = bag(ends.view(-1, width), plan.ends, plan.end_start)  # (num_edges, width)
        if edges.shape[0] != plan.num_edges:
            out += (edges @ of_edge.t()).index_select(0, plan.layout.edge_row)
        else:
            out.addmm_(edges, of_edge.t())
        functional.elu_(out)
        ctx.plan, ctx.heads = plan, heads
        ctx.save_for_backward(nodes, edges, of_ends, of_edge, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        nodes, edges, of_ends, of_edge, out = ctx.saved_tensors
        plan, heads, width = ctx.plan, ctx.heads, nodes.shape[1]
        inner: Tensor = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)  # (num_edges, width)
        ends = bag(inner, plan.edge_bags, plan.edge_bag_start).view(-1, 2 * width)  # (num_nodes, 2 width)
        if edges.shape[0] != plan.num_edges:
            inner = bag(inner, plan.by_row, plan.row_start)  # (num_rows, width)
        parts = [*(ends.t() @ nodes).view(2, width, width), (edges.t() @ inner).t()]
        weight = torch.cat(parts, dim=1).div_(heads)  # (width, 3 width)
        bias = ends[:, width:].sum(dim=0).div_(heads)
        return ends @ of_ends, inner @ of_edge, weight.repeat(heads, 1), bias.repeat(heads), None
