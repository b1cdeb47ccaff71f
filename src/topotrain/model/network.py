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

from topotrain.data.edge_layout import EdgeLayout, Share
from topotrain.model.attention import attend
from topotrain.model.contact_potential import POTENTIAL_COLUMNS, RESIDUE_TYPES, ContactPotential
from topotrain.model.contact_term import ContactTerm
from topotrain.model.derived import GRAPH_COLUMNS, NODE_COLUMNS, Derived
from topotrain.model.dropout import dropped
from topotrain.model.edge_plan import EdgePlan
from topotrain.model.edge_update import updated_edges
from topotrain.model.graph_inputs import GraphInputs, Graphs
from topotrain.model.pooled_inputs import PooledInputs
from topotrain.model.pooling import pooled
from topotrain.model.scaling import InputScaling, scaled_linear

POOLING = {"mean": "mean", "add": "sum", "max": "max", "scaled_add": "sum"}

Size = Annotated[int, Field(strict=True, ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that fixes the network's shape; a value of another kind is a ``ValueError``.

    What is not given has the value that it had before it could be given: so checkpoints of then are read.

    Attributes:
        node_dim: width of the graphs' nodes.
        edge_dim: of their edges.
        pooling_type: of nodes and of edges; ``scaled_add`` are sums over their mean number in training graphs.
        attention_head: heads of each layer.
        hidden_dim: width of nodes and edges inside.
        num_layers: GATv2 layers.
        dropout: of the attention.
        use_layer_norm: in the edge encoder.
        edge_encoder: ``mlp`` (Linear, LayerNorm, ReLU, Linear) or ``flat`` (one Linear), the latter only for weights
            of the older network.
        residue_columns: place of the first node column of residue types, by which edges take a contact potential;
            ``None`` for none.
        contact_term: edges take both ends before the first layer.
        derived_inputs: degrees and sizes of graphs are inputs, too.
        pooled_inputs: numbers that the head takes of the columns themselves, pooled; 0 for none of them.
        pooled_inputs_dropout: of the pooled columns.
        embedding_dropout: of the embedded nodes.
        head_dropout: after each hidden layer of the head.
        input_clamp: scaled inputs beyond it are taken for it.
        decorrelated_inputs: node columns that say the same weigh less.
    """

    node_dim: Size
    edge_dim: Size
    pooling_type: Literal["mean", "add", "max", "scaled_add"] = "mean"
    attention_head: Size = 8
    hidden_dim: Size = 32
    num_layers: Annotated[int, Field(strict=True, ge=0)] = 2
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.25
    use_layer_norm: Annotated[bool, Field(strict=True)] = True
    edge_encoder: Literal["mlp", "flat"] = "mlp"
    residue_columns: Annotated[int, Field(strict=True, ge=0)] | None = None
    contact_term: Annotated[bool, Field(strict=True)] = False
    derived_inputs: Annotated[bool, Field(strict=True)] = False
    pooled_inputs: Annotated[int, Field(strict=True, ge=0)] = 0
    pooled_inputs_dropout: Rate = 0.0
    embedding_dropout: Rate = 0.0
    head_dropout: Rate = 0.0
    input_clamp: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    decorrelated_inputs: Annotated[bool, Field(strict=True)] = False

    def __post_init__(self) -> None:
        if self.residue_columns is not None and self.residue_columns + RESIDUE_TYPES > self.node_dim:
            raise ValueError(f"residue types from column {self.residue_columns} on, of {self.node_dim} columns")

    @property
    def node_inputs(self) -> int:
        """Width of the nodes with what is derived from their graph."""
        return self.node_dim + (NODE_COLUMNS if self.derived_inputs else 0)

    @property
    def edge_inputs(self) -> int:
        """Width of the edges with the contact potential."""
        return self.edge_dim + (0 if self.residue_columns is None else POTENTIAL_COLUMNS)

    @property
    def takes_whole_columns(self) -> bool:
        """Whether scaled columns are needed as such, and not just what one linear map makes of them."""
        derived = self.derived_inputs or self.residue_columns is not None
        return bool(derived or self.pooled_inputs or self.input_clamp or self.decorrelated_inputs)

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

    node_weight: Tensor
    mean_size: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        hidden = spec.hidden_dim
        self.node_scaling = InputScaling(spec.node_dim, spec.input_clamp)
        self.edge_scaling = InputScaling(spec.edge_dim, spec.input_clamp)
        self.node_embedding = nn.Linear(spec.node_inputs, hidden)
        self.edge_encoder = _edge_encoder(spec)
        self.layers = nn.ModuleList(EdgeUpdatingLayer(spec) for _ in range(spec.num_layers))
        self.edge_readout = nn.Linear(hidden, hidden // 2)
        readout = hidden + hidden // 2 + (GRAPH_COLUMNS if spec.derived_inputs else 0) + spec.pooled_inputs
        self.head = nn.Sequential(
            nn.Linear(readout, 2 * hidden),
            nn.ReLU(),
            nn.Linear(2 * hidden, 2 * hidden),
            nn.ReLU(),
            nn.Linear(2 * hidden, 1),
        )
        if spec.residue_columns is not None:
            self.contact_potential = ContactPotential(spec.residue_columns, spec.input_clamp)
        if spec.contact_term:
            self.contact_term = ContactTerm(hidden)
        if spec.derived_inputs:
            self.derived_scaling = InputScaling(NODE_COLUMNS, spec.input_clamp)
            self.size_scaling = InputScaling(GRAPH_COLUMNS, spec.input_clamp)
        if spec.pooled_inputs:
            self.pooled_inputs = PooledInputs(spec.node_inputs + spec.edge_inputs, spec.pooled_inputs)
        if spec.decorrelated_inputs:
            self.register_buffer("node_weight", torch.ones(spec.node_inputs))
        if spec.pooling_type == "scaled_add":
            self.register_buffer("mean_size", torch.ones(2))  # nodes and edges of a training graph

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        batch: Tensor,
        num_graphs: int,
        layout: EdgeLayout | None = None,
    ) -> Tensor:
        """Score a batch of graphs.

        Args:
            x: (num_nodes, node_dim) raw node features.
            edge_index: (2, num_edges) source row, target row.
            edge_attr: (num_edges, edge_dim) raw edge features; with a layout (num_rows, edge_dim), its rows.
            batch: (num_nodes,) graph of each node, ascending.
            num_graphs: graphs in the batch; one without edges pools its edges to zeros.
            layout: how the edges lie; without it they may lie in any order.

        Returns:
            (num_graphs,) predicted DockQ in [0, 1].
        """
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
        """(num_graphs,) scores before the sigmoid; arguments as of ``forward``."""
        in_chunks = computes_in_chunks(x, self.node_embedding.weight)
        if in_chunks and layout is None:
            order, layout = EdgeLayout.of(edge_index, batch, num_graphs)
            edge_index, edge_attr = edge_index.index_select(1, order), edge_attr.index_select(0, order)
        graphs = Graphs(edge_index, batch, num_graphs, layout)
        if in_chunks and not self.spec.takes_whole_columns:
            inputs, first = None, _parts(self.edge_encoder)[0]
            nodes = scaled_linear(x, self.node_scaling, self.node_embedding)  # (num_nodes, hidden)
            edges = scaled_linear(edge_attr, self.edge_scaling, first)  # (num_rows, hidden)
        else:
            inputs = self.inputs(x, edge_attr, graphs)
            nodes, edges = self._embedded(inputs)
        nodes = self._dropped(nodes, self.spec.embedding_dropout, graphs.share, "nodes")
        for part in _parts(self.edge_encoder)[1:]:
            edges = part(edges)
        pools = self._in_chunks(nodes, edges, graphs) if in_chunks else self._whole(nodes, edges, graphs)
        with torch.autocast(x.device.type, enabled=False):  # scores of eight bits would tie, and ranks with them
            return self._read(pools, inputs, graphs)

    def inputs(self, x: Tensor, edge_attr: Tensor, graphs: Graphs) -> GraphInputs:
        """Scaled columns, with those that are derived from the graphs.

        Args:
            x: (num_nodes, node_dim) raw node features.
            edge_attr: (num_rows, edge_dim) raw edge features.
            graphs: theirs.
        """
        nodes, sizes = self.node_scaling(x), None
        if self.spec.derived_inputs:
            precise = torch.promote_types(nodes.dtype, torch.float32)
            derived = Derived.of(graphs.edge_index[1], graphs.batch, graphs.num_graphs, precise)
            nodes = torch.cat([nodes, self.derived_scaling(derived.nodes).to(nodes.dtype)], dim=1)
            sizes = self.size_scaling(derived.graphs)
        edges = self.edge_scaling(edge_attr)
        if self.spec.residue_columns is not None:
            potential = self.contact_potential(x, *graphs.row_ends(edge_attr.shape[0]))
            edges = torch.cat([edges, potential.to(edges.dtype)], dim=1)
        return GraphInputs(nodes, edges, sizes)

    def _embedded(self, inputs: GraphInputs) -> tuple[Tensor, Tensor]:
        """Nodes (num_nodes, hidden), and rows of edges (num_rows, hidden) after the first part of their encoder."""
        nodes = inputs.nodes * self.node_weight if self.spec.decorrelated_inputs else inputs.nodes
        return self.node_embedding(nodes), _parts(self.edge_encoder)[0](inputs.edges)

    def _in_chunks(self, nodes: Tensor, edges: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Pooled nodes and pooled edges, (num_graphs, hidden) each, in chunks of edges."""
        assert graphs.layout is not None  # noqa: S101 (for the type checker)
        layout, reduce = graphs.layout, POOLING[self.spec.pooling_type]
        plan = EdgePlan(graphs.edge_index, layout, self.spec.attention_head)
        by_rows = plan.uses_rows and len(self.layers) > 0
        if by_rows and self.spec.contact_term:
            by_rows = plan.row_ends is not None
        if not by_rows:
            edges = graphs.of_edges(edges)  # (num_edges, hidden)
        if self.spec.contact_term:
            edges = self.contact_term(nodes, *((by_rows and plan.row_ends) or graphs.edge_index), edges)
        for layer in self.layers:
            nodes, edges = layer(nodes, plan, edges)
        return pooled(nodes, layout.node_start, reduce), pooled(edges, layout.edge_start, reduce)

    def _whole(self, nodes: Tensor, edges: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """The same with PyG's layers."""
        edges = graphs.of_edges(edges)  # (num_edges, hidden)
        if self.spec.contact_term:
            edges = self.contact_term(nodes, *graphs.edge_index, edges)
        for layer in self.layers:
            nodes, edges = layer(nodes, graphs.edge_index, edges)
        # Half precision has eight bits for sums and counts of hundreds of rows, and some devices add in it row by row.
        nodes, edges = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in (nodes, edges))
        ways = {"dim": 0, "dim_size": graphs.num_graphs, "reduce": POOLING[self.spec.pooling_type]}
        return scatter(nodes, graphs.batch, **ways), scatter(edges, graphs.batch[graphs.edge_index[0]], **ways)

    def _read(self, pools: tuple[Tensor, Tensor], inputs: GraphInputs | None, graphs: Graphs) -> Tensor:
        """(num_graphs,) logits of pooled nodes and edges, and of what of the inputs goes into the head."""
        if self.spec.pooling_type == "scaled_add":
            pools = (pools[0] / self.mean_size[0], pools[1] / self.mean_size[1])
        precise = self.edge_readout.weight.dtype
        parts = [pools[0].to(precise), self.edge_readout(pools[1].to(precise))]
        if inputs is not None and inputs.sizes is not None:
            parts.append(inputs.sizes.to(precise))
        if inputs is not None and self.spec.pooled_inputs:
            columns = self.pooled_inputs.scaling(inputs.pooled(graphs)).to(precise)
            columns = self._dropped(columns, self.spec.pooled_inputs_dropout, graphs.share, "graphs")
            parts.append(functional.relu(self.pooled_inputs.linear(columns)))
        values = torch.cat(parts, dim=1)
        for part in self.head:
            values = part(values)
            if isinstance(part, nn.ReLU):
                values = self._dropped(values, self.spec.head_dropout, graphs.share, "graphs")
        return values.squeeze(-1)

    def _dropped(self, values: Tensor, rate: float, share: Share | None, of: Literal["nodes", "graphs"]) -> Tensor:
        """With dropout, while training."""
        if not self.training or share is None:
            return dropped(values, rate if self.training else 0)
        places, total = (share.nodes, share.num_nodes) if of == "nodes" else (share.graphs, share.num_graphs)
        return dropped(values, rate, places, total)


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
        return nn.Linear(spec.edge_inputs, spec.hidden_dim)
    norm = [nn.LayerNorm(spec.hidden_dim)] if spec.use_layer_norm else []
    return nn.Sequential(
        nn.Linear(spec.edge_inputs, spec.hidden_dim), *norm, nn.ReLU(), nn.Linear(spec.hidden_dim, spec.hidden_dim)
    )


def _parts(encoder: nn.Module) -> Sequence[Any]:
    return list(encoder) if isinstance(encoder, nn.Sequential) else [encoder]
