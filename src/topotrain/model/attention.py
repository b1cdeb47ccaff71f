"""GATv2 attention on the CPU, exact and in chunks of edges that stay in the cache.

The same function of the same weights as PyG's ``GATv2Conv`` with heads averaged, without anything of all edges, heads
and channels that is written to memory, but for the signs that the backward needs.

Source: Brody et al., How attentive are graph attention networks?, ICLR 2022.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch_geometric.nn import GATv2Conv

from topotrain.data.edge_layout import Share
from topotrain.model.edge_plan import Chunk, EdgePlan, bag

with warnings.catch_warnings():  # the first matrix of the kind warns that the kind is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [0.0])


def attend(conv: GATv2Conv, nodes: Tensor, edges: Tensor, plan: EdgePlan) -> Tensor:
    """What ``conv`` makes of the nodes.

    Args:
        conv: a convolution with heads averaged, edges in the attention and no self loops of its own.
        nodes: (num_nodes, width).
        edges: (num_edges, edge width) or, where edges share rows, (num_rows, edge width).
        plan: of the edges.

    Returns:
        (num_nodes, channels).
    """
    mask = None
    if conv.training and conv.dropout > 0:
        mask = dropout_mask(plan.num_edges, conv.heads, conv.dropout, nodes, plan.layout.share)
    weights = (conv.lin_l.weight, conv.lin_l.bias, conv.lin_r.weight, conv.lin_r.bias, conv.lin_edge.weight, conv.att)
    settings = _Settings(plan, conv.negative_slope, torch.is_grad_enabled())
    out: Tensor = _Attention.apply(nodes, edges, *weights, conv.bias, mask, settings)  # type: ignore[no-untyped-call]
    return out


def dropout_mask(num_edges: int, heads: int, dropout: float, like: Tensor, share: Share | None = None) -> Tensor:
    """(num_edges, heads) factors of the attention: 0 where it is dropped, else what keeps the mean over heads.

    Who computes a share of a batch draws for all of it, so that an edge is dropped or not whoever computes it.
    """
    if dropout >= 1:
        return like.new_zeros(num_edges, heads)
    drawn = torch.rand(share.num_edges if share else num_edges, heads)
    kept = (drawn.index_select(0, share.edges) if share else drawn) >= dropout
    return kept.to(like.dtype).mul_(1 / (heads * (1 - dropout)))


@dataclass(frozen=True)
class _Settings:
    plan: EdgePlan
    slope: float
    keep: bool  # what the backward needs

    def chunks(self, edges: Tensor) -> list[Chunk]:
        return self.plan.sharing_chunks if self.shares(edges) else self.plan.chunks

    def shares(self, edges: Tensor) -> bool:
        return edges.shape[0] != self.plan.num_edges


class _Attention(torch.autograd.Function):
    """Nodes, edges, weights (as ``GATv2Conv`` has them), mask and settings to new nodes."""

    @staticmethod
    def forward(
        ctx: Any,
        nodes: Tensor,
        edges: Tensor,
        weight_l: Tensor,
        bias_l: Tensor,
        weight_r: Tensor,
        bias_r: Tensor,
        weight_edge: Tensor,
        att: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        settings: _Settings,
    ) -> Tensor:
        plan, heads = settings.plan, att.shape[1]
        # The offsets are one more column of the weights, and a column of ones goes with the nodes.
        offset = torch.cat([bias_l, bias_r]).unsqueeze(1)
        weight = torch.cat([torch.cat([weight_l, weight_r]), offset], dim=1)  # (2 heads x channels, width + 1)
        nodes = functional.pad(nodes, (0, 1), value=1.0)  # (num_nodes, width + 1)
        ends, logits, signs = _logits(nodes, edges, weight, weight_edge, att, settings)
        attention = _softmax(logits, plan)  # (num_edges, heads)
        factors = attention / heads if mask is None else attention * mask
        index, start = plan.messages
        out = bag(ends.view(-1, att.shape[2]), index, start, factors.view(-1))
        ctx.settings = settings
        if settings.keep:
            ctx.save_for_backward(nodes, edges, weight, weight_edge, att, mask, ends, signs, attention, factors)
        return out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        nodes, edges, weight, weight_edge, att, mask, ends, signs, attention, factors = ctx.saved_tensors
        plan, heads = ctx.settings.plan, att.shape[1]
        grad = grad.contiguous()
        products = plan.products(grad, ends)  # (num_edges, heads), of the gradient and what was sent
        products = products.mul_(attention)
        products = products.div_(heads) if mask is None else products.mul_(mask)
        logits_grad = torch.addcmul(products, attention, plan.to_edges(plan.of_targets(products)), value=-1)
        index, start = plan.received
        sent = bag(grad, index, start, plan.of_sources(factors))  # (heads x num_nodes, channels)
        grads = _Gradients(nodes, edges, weight, weight_edge, att)
        for chunk in ctx.settings.chunks(edges):
            grads.add(chunk, _spread(logits_grad, signs, chunk, att, ctx.settings.slope), ends, sent)
        left, right, *others = grads.of_weights()
        of_ends = left[:, :-1], left[:, -1], right[:, :-1], right[:, -1]
        return grads.nodes, grads.edges, *of_ends, *others, grad.sum(dim=0), None, None


def _logits(
    nodes: Tensor,
    edges: Tensor,
    weight: Tensor,
    weight_edge: Tensor,
    att: Tensor,
    settings: _Settings,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Attention before the softmax.

    Returns:
        The nodes as sources and targets (num_nodes, 2 heads x channels), the logits (num_edges, heads), and the sums
        that they are made of (num_edges, heads x channels), rounded, for their signs.
    """
    plan, (heads, channels) = settings.plan, att.shape[1:]
    wide = heads * channels
    shares = settings.shares(edges)
    ends = nodes.new_empty(plan.num_nodes, 2 * wide)
    logits = nodes.new_empty(plan.num_edges, heads)
    signs = nodes.new_empty(plan.num_edges, wide, dtype=torch.bfloat16) if settings.keep else None
    ones = nodes.new_ones(channels)
    for chunk in settings.chunks(edges):
        own = ends[chunk.nodes]
        torch.mm(nodes[chunk.nodes], weight.t(), out=own)
        table = own.view(-1, wide)
        if shares:
            table = torch.cat([table, edges[chunk.rows] @ weight_edge.t()])
        sums = bag(table, chunk.ends, chunk.end_start)  # (chunk's edges, heads x channels)
        if not shares:
            sums.addmm_(edges[chunk.edges], weight_edge.t())
        if signs is not None:
            signs[chunk.edges] = sums
        activated = functional.leaky_relu_(sums, settings.slope).mul_(att.view(-1))
        torch.mv(activated.view(-1, channels), ones, out=logits[chunk.edges].view(-1))
    return ends, logits, signs


def _softmax(logits: Tensor, plan: EdgePlan) -> Tensor:
    """(num_edges, heads) over the edges to one target; the logits are overwritten."""
    largest = torch.segment_reduce(logits, "max", offsets=plan.target_start, axis=0, unsafe=True)
    raised = logits.sub_(plan.to_edges(largest)).exp_()
    return raised.div_(plan.to_edges(plan.of_targets(raised)))


def _spread(logits_grad: Tensor, signs: Tensor, chunk: Chunk, att: Tensor, slope: float) -> Tensor:
    """(chunk's edges, heads x channels) the logits' gradients through the leaky ReLU, before ``att``."""
    shape = (-1, *att.shape[1:])
    wide = logits_grad[chunk.edges].unsqueeze(2).expand(shape)
    passed: Tensor = torch.ops.aten.leaky_relu_backward(wide, signs[chunk.edges].view(shape), slope, False)
    return passed.flatten(1)


class _Gradients:
    """Gradients of nodes, edges and weights, chunk by chunk."""

    def __init__(self, nodes: Tensor, edges: Tensor, weight: Tensor, weight_edge: Tensor, att: Tensor) -> None:
        self.inputs, self.weights, self.att = (nodes, edges), (weight, weight_edge), att.view(-1)
        self.nodes, self.edges = torch.empty_like(nodes[:, :-1]), torch.empty_like(edges)
        self._weight = weight.new_zeros(weight.shape[1], weight.shape[0])
        self._inner = weight.new_zeros(weight_edge.shape[1], weight_edge.shape[0])
        self._att = torch.zeros_like(self.att)
        self._edge_back = weight_edge * self.att.unsqueeze(1)  # (heads x channels, edge width)
        self._shape = att.shape[1:]

    def add(self, chunk: Chunk, passed: Tensor, ends: Tensor, sent: Tensor) -> None:
        """Take the gradients of a chunk's edges (chunk's edges, heads x channels)."""
        nodes, edges = self.inputs
        num_nodes = chunk.nodes.stop - chunk.nodes.start
        table = bag(passed, chunk.edge_bags, chunk.edge_bag_start)  # (2 nodes and, if shared, rows; heads x channels)
        of_edges = table[2 * num_nodes :] if table.shape[0] > 2 * num_nodes else passed
        torch.mm(of_edges, self._edge_back, out=self.edges[chunk.rows])
        self._inner.addmm_(edges[chunk.rows].t(), of_edges)
        table = table[: 2 * num_nodes]
        self._att += (table * ends[chunk.nodes].view_as(table)).sum(dim=0)
        both = table.mul_(self.att).view(num_nodes, 2, *self._shape)
        both[:, 0] += sent.view(self._shape[0], -1, self._shape[1])[:, chunk.nodes].transpose(0, 1)
        back = both.flatten(1)  # (chunk's nodes, 2 heads x channels)
        torch.mm(back, self.weights[0][:, :-1], out=self.nodes[chunk.nodes])
        self._weight.addmm_(nodes[chunk.nodes].t(), back)

    def of_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of both ends' weights, of the edges', and of ``att``."""
        inner = self._inner.t()
        att = self._att + (inner * self.weights[1]).sum(dim=1)
        left, right = self._weight.t().chunk(2)
        return left, right, inner * self.att.unsqueeze(1), att.view(1, *self._shape)
