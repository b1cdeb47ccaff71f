"""The TopoQA network: GATv2 layers that update nodes and edges, pooled to one score a graph.

Source: Han et al., Briefings in Bioinformatics 26(2), bbaf083, 2025; GATv2: Brody et al., ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import scatter

from topotrain.data.edge_layout import EdgeLayout
from topotrain.model.attention import attend
from topotrain.model.edge_plan import EdgePlan
from topotrain.model.edge_update import updated_edges
from topotrain.model.pooling import pooled
from topotrain.model.scaling import InputScaling, scaled_linear

POOLING = {"mean": "mean", "add": "sum", "max": "max"}


Size = Annotated[int, Field(strict=True, ge=1)]


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that fixes the network's shape; a value of another kind is a ``ValueError``.

    ``edge_encoder`` is ``mlp`` (Linear, LayerNorm, ReLU, Linear) or ``flat`` (one Linear), the latter only for
    weights of the older network.
    """

    node_dim: Size
    edge_dim: Size
    pooling_type: Literal["mean", "add", "max"] = "mean"
    attention_head: Size = 8
    hidden_dim: Size = 32
    num_layers: Annotated[int, Field(strict=True, ge=0)] = 2
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.25
    use_layer_norm: Annotated[bool, Field(strict=True)] = True
    edge_encoder: Literal["mlp", "flat"] = "mlp"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as carried by checkpoints and model versions."""
        return asdict(self)


class EdgeUpdate(nn.Module):
    """New edge features from both ends and the edge: the mean over heads of one Linear for each head.

    The mean of linear maps is a linear map, so the heads' weights are averaged first.

    Args:
        hidden_dim: width of nodes and edges.
        heads: number of heads.
    """

    def __init__(self, hidden_dim: int, heads: int) -> None:
        super().__init__()
        self.hidden_dim, self.heads = hidden_dim, heads
        self.linear = nn.Linear(3 * hidden_dim, heads * hidden_dim)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """(num_nodes, hidden), (2, num_edges), (num_edges, hidden) to (num_edges, hidden)."""
        weight = self.linear.weight.view(self.heads, self.hidden_dim, -1).mean(dim=0)  # (hidden, 3 hidden)
        bias = self.linear.bias.view(self.heads, self.hidden_dim).mean(dim=0)  # (hidden,)
        ends = torch.cat([x[edge_index[0]], x[edge_index[1]], edge_attr], dim=1)  # (num_edges, 3 hidden)
        return functional.linear(ends, weight, bias)


class EdgeUpdatingLayer(nn.Module):
    """One GATv2 convolution (heads averaged, edges in the attention), then the edge update, then ELU on both.

    Args:
        spec: shape of the network.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.conv = GATv2Conv(
            spec.hidden_dim,
            spec.hidden_dim,
            heads=spec.attention_head,
            concat=False,
            dropout=spec.dropout,
            edge_dim=spec.hidden_dim,
            add_self_loops=False,
        )
        self.edge_update = EdgeUpdate(spec.hidden_dim, spec.attention_head)

    def forward(self, x: Tensor, ends: Tensor | EdgePlan, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """New nodes and edges.

        Args:
            x: (num_nodes, hidden).
            ends: (2, num_edges) source row, target row; or their plan, to compute in chunks of edges.
            edge_attr: (num_edges, hidden); with a plan it may be (num_rows, hidden), whose rows edges share.

        Returns:
            (num_nodes, hidden) and (num_edges, hidden).
        """
        if isinstance(ends, EdgePlan):
            linear = self.edge_update.linear
            nodes = attend(self.conv, x, edge_attr, ends)  # (num_nodes, hidden)
            return functional.elu(nodes), updated_edges(linear.weight, linear.bias, nodes, edge_attr, ends)
        nodes = self.conv(x, ends, edge_attr)
        edges = self.edge_update(nodes, ends, edge_attr)  # (num_edges, hidden)
        return functional.elu(nodes), functional.elu(edges)


class TopoQANetwork(nn.Module):
    """Scores interface graphs with a predicted DockQ in [0, 1].

    On a CPU it computes in chunks of edges (``attention.py``), elsewhere with PyG's layers: the same function of the
    same weights.

    Args:
        spec: shape of the network.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        hidden = spec.hidden_dim
        self.node_scaling = InputScaling(spec.node_dim)
        self.edge_scaling = InputScaling(spec.edge_dim)
        self.node_embedding = nn.Linear(spec.node_dim, hidden)
        self.edge_encoder = _edge_encoder(spec)
        self.layers = nn.ModuleList(EdgeUpdatingLayer(spec) for _ in range(spec.num_layers))
        self.edge_readout = nn.Linear(hidden, hidden // 2)
        self.head = nn.Sequential(
            nn.Linear(hidden + hidden // 2, 2 * hidden),
            nn.ReLU(),
            nn.Linear(2 * hidden, 2 * hidden),
            nn.ReLU(),
            nn.Linear(2 * hidden, 1),
        )

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        batch: Tensor,
        num_graphs: int,
        layout: EdgeLayout | None = None,
    ) -> Tensor:
        """Score a batch of graphs: what ``logits`` takes, to (num_graphs,) predicted DockQ in [0, 1]."""
        return self.logits(x, edge_index, edge_attr, batch, num_graphs, layout).sigmoid()

    def logits(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        batch: Tensor,
        num_graphs: int,
        layout: EdgeLayout | None = None,
    ) -> Tensor:
        """Of the scores of a batch of graphs.

        Args:
            x: (num_nodes, node_dim) raw node features.
            edge_index: (2, num_edges) source row, target row.
            edge_attr: (num_edges, edge_dim) raw edge features; with a layout (num_rows, edge_dim), its rows.
            batch: (num_nodes,) graph of each node, ascending.
            num_graphs: graphs in the batch; one without edges pools its edges to zeros.
            layout: how the edges lie; without it they may lie in any order.

        Returns:
            (num_graphs,) any numbers; the larger, the better the model.
        """
        if computes_in_chunks(x, self.node_embedding.weight):
            if layout is None:
                order, layout = EdgeLayout.of(edge_index, batch, num_graphs)
                edge_index, edge_attr = edge_index.index_select(1, order), edge_attr.index_select(0, order)
            pools = self._in_chunks(x, edge_attr, EdgePlan(edge_index, layout, self.spec.attention_head))
        else:
            pools = self._whole(x, edge_index, edge_attr, batch, num_graphs, layout)
        nodes, edges = (pool.to(self.edge_readout.weight.dtype) for pool in pools)
        with torch.autocast(x.device.type, enabled=False):  # scores of eight bits would tie, and ranks with them
            readout = torch.cat([nodes, self.edge_readout(edges)], dim=1)  # (num_graphs, 3 hidden / 2)
            logits: Tensor = self.head(readout).squeeze(-1)  # (num_graphs,)
        return logits

    def _in_chunks(self, x: Tensor, edge_attr: Tensor, plan: EdgePlan) -> tuple[Tensor, Tensor]:
        """Pooled nodes and pooled edges, (num_graphs, hidden) each, in chunks of edges."""
        layout, reduce = plan.layout, POOLING[self.spec.pooling_type]
        nodes = scaled_linear(x, self.node_scaling, self.node_embedding)  # (num_nodes, hidden)
        first, *others = _parts(self.edge_encoder)
        edges = scaled_linear(edge_attr, self.edge_scaling, first)  # (num_rows, hidden)
        for part in others:
            edges = part(edges)
        if not plan.uses_rows:
            edges = edges.index_select(0, layout.edge_row)  # (num_edges, hidden)
        for layer in self.layers:
            nodes, edges = layer(nodes, plan, edges)
        return pooled(nodes, layout.node_start, reduce), pooled(edges, layout.edge_start, reduce)

    def _whole(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        batch: Tensor,
        num_graphs: int,
        layout: EdgeLayout | None,
    ) -> tuple[Tensor, Tensor]:
        """The same with PyG's layers."""
        nodes = self.node_embedding(self.node_scaling(x))  # (num_nodes, hidden)
        edges = self.edge_encoder(self.edge_scaling(edge_attr))  # (num_rows, hidden)
        if layout is not None:
            edges = edges.index_select(0, layout.edge_row)  # (num_edges, hidden)
        for layer in self.layers:
            nodes, edges = layer(nodes, edge_index, edges)
        reduce = POOLING[self.spec.pooling_type]
        # Half precision has eight bits for sums and counts of hundreds of rows, and some devices add in it row by row.
        nodes, edges = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in (nodes, edges))
        pooled_nodes = scatter(nodes, batch, dim=0, dim_size=num_graphs, reduce=reduce)
        return pooled_nodes, scatter(edges, batch[edge_index[0]], dim=0, dim_size=num_graphs, reduce=reduce)


def computes_in_chunks(values: Tensor, weight: Tensor) -> bool:
    """Whether the network's own layers take these values: those on a CPU in full precision; PyG's take all others."""
    full = values.dtype == weight.dtype and values.dtype in (torch.float32, torch.float64)
    return full and values.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def network_of_weights(spec: NetworkSpec, weights: Mapping[str, Tensor]) -> TopoQANetwork:
    """A network with these weights, in their own precision; nothing is allocated by what ``spec`` alone claims.

    Raises:
        ValueError: a weight is not finite, or there are too few for so many layers.
        RuntimeError: a weight is missing, unexpected or of another shape.
    """
    if spec.num_layers > len(weights):
        raise ValueError(f"{spec.num_layers} layers, but {len(weights)} weights")
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
    with torch.device("meta"):
        network = TopoQANetwork(spec)
    network.load_state_dict(dict(weights), assign=True)
    return network


def _edge_encoder(spec: NetworkSpec) -> nn.Module:
    if spec.edge_encoder == "flat":
        return nn.Linear(spec.edge_dim, spec.hidden_dim)
    norm = [nn.LayerNorm(spec.hidden_dim)] if spec.use_layer_norm else []
    return nn.Sequential(
        nn.Linear(spec.edge_dim, spec.hidden_dim), *norm, nn.ReLU(), nn.Linear(spec.hidden_dim, spec.hidden_dim)
    )


def _parts(encoder: nn.Module) -> Sequence[Any]:
    return list(encoder) if isinstance(encoder, nn.Sequential) else [encoder]
