"""Degrees, sizes and pooled columns as inputs, and how they are fitted: against plain loops over plain graphs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from topotrain.data.column_statistics import column_statistics
from topotrain.data.edge_layout import EdgeLayout
from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import pack
from topotrain.model.contact_potential import ENERGIES, RESIDUE_NAMES, RESIDUE_TYPES, ContactPotential, residue_columns
from topotrain.model.dropout import dropped
from topotrain.model.fit_inputs import fit_inputs
from topotrain.model.network import NetworkSpec, TopoQANetwork

PLAIN = 4  # node columns before those of residue types
SPEC = NetworkSpec(
    node_dim=PLAIN + RESIDUE_TYPES,
    edge_dim=2,
    residue_columns=PLAIN,
    attention_head=2,
    hidden_dim=6,
    num_layers=1,
    pooling_type="scaled_add",
    contact_term=True,
    derived_inputs=True,
    pooled_inputs=3,
    input_clamp=1.5,
    decorrelated_inputs=True,
)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SIZES = ((6, 7), (9, 14), (3, 2), (12, 30), (5, 0), (7, 11))  # nodes, pairs of nodes with edges in both directions


def graphs_of(sizes: Any = SIZES, seed: int = 0) -> list[Graph]:
    """Graphs whose edges go both ways with equal attributes; two columns of the nodes say the same, one is constant."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for number, (num_nodes, num_pairs) in enumerate(sizes):
        x = torch.randn(num_nodes, PLAIN, generator=generator) * 3 + 1
        x[:, 2], x[:, 3] = 5 * x[:, 1] - 2, 7.0
        own = torch.Generator().manual_seed(number)
        types = torch.randint(RESIDUE_TYPES + 1, (num_nodes,), generator=own)  # the last one is not known
        x = torch.cat([x, functional.one_hot(types, RESIDUE_TYPES + 1)[:, :RESIDUE_TYPES]], dim=1)
        pairs = torch.tensor(list(itertools.combinations(range(num_nodes), 2))).reshape(-1, 2)
        pairs = pairs[torch.randperm(len(pairs), generator=generator)[:num_pairs]].t()
        attributes = torch.rand(pairs.shape[1], SPEC.edge_dim, generator=generator) * 9
        edge_index, edge_attr = torch.cat([pairs, pairs.flip(0)], dim=1), torch.cat([attributes, attributes])
        graphs.append(Graph(f"T/{number}", x, edge_index, edge_attr, {}))
    return graphs


def packed(graphs: list[Graph]) -> PackedGraphs:
    every = [pack(graph) for graph in graphs]
    schema: Any = SimpleNamespace(edge_dim=SPEC.edge_dim)
    return PackedGraphs(lambda places: [every[place] for place in places], [graph.key for graph in graphs], schema)


def fitted(spec: NetworkSpec = SPEC, of: list[Graph] | None = None) -> TopoQANetwork:
    torch.manual_seed(1)
    network, graphs = TopoQANetwork(spec), packed(of or graphs_of())
    fit_inputs(network, graphs, column_statistics(graphs))
    return network.eval()


def standard(values: Tensor, of: Tensor, limit: float | None, least: float = 1e-6) -> Tensor:
    """By mean and standard deviation of others, constant columns by 1."""
    mean, deviation = of.mean(dim=0), of.std(dim=0, correction=0)
    scaled = (values - mean) / torch.where(deviation < least, torch.ones_like(deviation), deviation)
    return scaled if limit is None else scaled.clamp(-limit, limit)


def derived(graph: Graph) -> Tensor:
    """(num_nodes, 3) and, in each row, the last two are those of the graph."""
    num_nodes, num_edges = graph.x.shape[0], graph.edge_index.shape[1]
    rows = [
        [np.log1p(int((graph.edge_index[1] == node).sum())), np.log(num_nodes), np.log1p(num_edges)]
        for node in range(num_nodes)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def potential(graph: Graph) -> Tensor:
    """(num_edges, 3) contact energy, what of it neither type has on average, product of charges."""
    lines = [[float(value) for value in line.split()] for line in ENERGIES.split("\n") if line]
    energy = np.array([[lines[max(a, b)][min(a, b)] for b in range(RESIDUE_TYPES)] for a in range(RESIDUE_TYPES)])
    charge = {"D": -1.0, "E": -1.0, "K": 1.0, "R": 1.0}
    rows = []
    for source, target in graph.edge_index.t().tolist():
        ends = [torch.nonzero(graph.x[node, PLAIN:]).flatten().tolist() for node in (source, target)]
        if not ends[0] or not ends[1]:
            rows.append([0.0, 0.0, 0.0])
            continue
        (a,), (b,) = ends
        between = energy[a, b] - energy[a].mean() - energy[b].mean() + energy.mean()
        rows.append([energy[a, b], between, charge.get(LETTERS[a], 0.0) * charge.get(LETTERS[b], 0.0)])
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)


def by_hand(network: TopoQANetwork, graph: Graph) -> Tensor:
    """The logit of one graph, step by step, every edge by itself."""
    spec, train = network.spec, graphs_of()
    both = [torch.cat([one.x.double(), derived(one)], dim=1) for one in train]
    every = torch.cat(both)
    scaled = standard(every, every, spec.input_clamp)
    correlation = torch.tensor(np.nan_to_num(np.corrcoef(scaled[:, scaled.std(dim=0) > 0].numpy().T)))
    weight = torch.ones(scaled.shape[1], dtype=torch.float64)
    weight[scaled.std(dim=0) > 0] = 1 / correlation.square().sum(dim=1)
    edges_of_all = torch.cat([torch.cat([one.edge_attr.double(), potential(one)], dim=1) for one in train])

    def nodes_of(one: Graph) -> Tensor:
        return standard(torch.cat([one.x.double(), derived(one)], dim=1), every, spec.input_clamp)

    def edges_of(one: Graph) -> Tensor:
        return standard(torch.cat([one.edge_attr.double(), potential(one)], dim=1), edges_of_all, spec.input_clamp)

    def pools(one: Graph) -> Tensor:
        parts = []
        for values in (nodes_of(one), edges_of(one)):
            if len(values):
                parts += [values.mean(0), values.std(0, correction=0), values.amax(0), values.sum(0)]
            else:
                parts += [torch.zeros(values.shape[1], dtype=torch.float64)] * 4
        return torch.cat(parts)

    def sizes(one: Graph) -> Tensor:
        return derived(one)[0, 1:]

    nodes = network.node_embedding(nodes_of(graph) * weight)
    edges = network.edge_encoder(edges_of(graph))
    term = network.contact_term
    source, target = graph.edge_index
    between = term.node(nodes[source]) + term.node(nodes[target]) + term.edge(edges)
    edges = edges + term.out(functional.relu(term.norm(between)))
    new = network.layers[0].conv(nodes, graph.edge_index, edges)
    edges = functional.elu(network.layers[0].edge_update(new, graph.edge_index, edges))
    nodes = functional.elu(new)
    mean_nodes = np.mean([one.x.shape[0] for one in train])
    mean_edges = np.mean([one.edge_index.shape[1] for one in train])
    all_pools, all_sizes = torch.stack([pools(one) for one in train]), torch.stack([sizes(one) for one in train])
    least = all_pools.std(dim=0, correction=0).clamp(min=1e-3)
    pooled = ((pools(graph) - all_pools.mean(dim=0)) / least).clamp(-4, 4)
    parts = [
        nodes.sum(dim=0) / mean_nodes,
        network.edge_readout(edges.sum(dim=0) / mean_edges),
        standard(sizes(graph), all_sizes, spec.input_clamp),
        functional.relu(network.pooled_inputs.linear(pooled)),
    ]
    logit: Tensor = network.head(torch.cat(parts)).squeeze()
    return logit


def logits(network: TopoQANetwork, graphs: list[Graph], *, rows: bool = True) -> Tensor:
    """Of packed graphs, whose edges share rows; or of the same with a row for each edge."""
    batch = packed(graphs).batch(range(len(graphs)))
    x, attributes, layout = batch.x, batch.edge_attr, batch.layout
    dtype = network.node_embedding.weight.dtype
    if not rows:
        attributes, none = attributes[layout.edge_row], None
        return network.logits(x.to(dtype), batch.edge_index, attributes.to(dtype), batch.batch, len(graphs), none)
    return network.logits(x.to(dtype), batch.edge_index, attributes.to(dtype), batch.batch, len(graphs), layout)


def test_the_whole_network_is_the_one_that_is_described() -> None:
    network = fitted().double()
    graphs = [*graphs_of(), *graphs_of(((4, 5), (15, 60)), seed=7)]
    expected = torch.stack([by_hand(network, graph) for graph in graphs])
    torch.testing.assert_close(logits(network, graphs), expected, rtol=0, atol=2e-5)
    assert expected.unique().numel() == len(graphs)


def test_shared_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do PyG's layers; nor rows that edges of different nodes share, which packing never makes, but for the contact
    potential, which is of a row's two nodes."""
    network, graphs = fitted().double(), graphs_of()
    apart = logits(network, graphs, rows=False)
    torch.testing.assert_close(logits(network, graphs), apart, rtol=0, atol=1e-12)
    with monkeypatch.context() as patch:
        patch.setattr("topotrain.model.network.computes_in_chunks", lambda *_: False)
        torch.testing.assert_close(logits(network, graphs), apart, rtol=0, atol=1e-12)
    network = fitted(replace(SPEC, residue_columns=None)).double()
    batch = packed(graphs).batch(range(len(graphs)))
    rows = torch.zeros_like(batch.layout.edge_row)
    odd = replace(batch.layout, edge_row=rows, row_start=[0] + [1] * len(graphs))
    one = batch.edge_attr[:1].double()
    given = batch.x.double(), batch.edge_index
    alike = network.logits(*given, one, batch.batch, len(graphs), odd)
    each = network.logits(*given, one.expand(len(rows), -1), batch.batch, len(graphs))
    torch.testing.assert_close(alike, each, rtol=0, atol=1e-12)


def test_both_directions_of_a_contact_stay_equal() -> None:
    """So that they can be computed once."""
    network, graph = fitted().double(), graphs_of()[3]
    nodes = torch.randn(graph.x.shape[0], SPEC.hidden_dim, dtype=torch.float64)
    edges = torch.randn(graph.edge_index.shape[1] // 2, SPEC.hidden_dim, dtype=torch.float64).repeat(2, 1)
    new = network.contact_term(nodes, *graph.edge_index, edges)
    one_way, other = new.chunk(2)
    torch.testing.assert_close(one_way, other, rtol=0, atol=0)
    assert not torch.equal(new, edges)


def test_columns_that_say_the_same_share_one_weight() -> None:
    """Two of four are the same, one is constant and stays as it is."""
    plain = replace(SPEC, node_dim=PLAIN, derived_inputs=False, residue_columns=None)
    weight = fitted(plain, [replace(graph, x=graph.x[:, :PLAIN]) for graph in graphs_of()]).node_weight
    assert weight[1] == pytest.approx(float(weight[2]), abs=1e-6)
    assert 0.4 < weight[1] <= 0.5
    assert 0.9 < weight[0] <= 1
    assert weight[3] == 1


def test_inputs_count_up_to_the_limit() -> None:
    """Beyond it a value is taken for it, and what the head takes of it, too."""
    network, (graph,) = fitted(), graphs_of(((8, 12),), seed=3)

    def with_value(deviations: float) -> float:
        x = graph.x.clone()
        x[2, 0] = network.node_scaling.mean[0] + deviations * network.node_scaling.scale[0]
        with torch.inference_mode():
            return float(logits(network, [replace(graph, x=x)]))

    assert with_value(1.5) == pytest.approx(with_value(100), abs=1e-6)
    assert abs(with_value(1.4) - with_value(1.5)) > 1e-6


def test_of_very_many_columns_a_part_of_the_graphs_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted().node_weight
    monkeypatch.setattr("topotrain.model.fit_inputs.PRODUCTS", 1.0)  # one graph alone
    part = fitted().node_weight
    assert not torch.allclose(part, whole)
    assert part[1] == pytest.approx(float(part[2]), abs=1e-5)


def test_dropouts_act_while_training_alone() -> None:
    spec = replace(SPEC, dropout=0.0)
    graphs = graphs_of()
    still = logits(fitted(spec), graphs)
    for name in ("embedding_dropout", "pooled_inputs_dropout", "head_dropout"):
        network = fitted(replace(spec, **{name: 0.5}))
        assert torch.equal(logits(network, graphs), still), name
        network.train()
        assert not torch.allclose(logits(network, graphs), still), name
    assert torch.equal(logits(fitted(spec).train(), graphs), still)


def test_dropout_keeps_the_mean_and_falls_alike_on_shares() -> None:
    values = torch.ones(400, 50)
    torch.manual_seed(2)
    whole = dropped(values, 0.25)
    assert whole.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((whole == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    for places in (torch.arange(0, 400, 2), torch.arange(1, 400, 2)):
        torch.manual_seed(2)
        assert torch.equal(dropped(values[places], 0.25, places, 400), whole[places])
    before = torch.get_rng_state()
    assert dropped(values, 0.0) is values
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"


def test_a_checkpoint_of_before_names_none_of_it() -> None:
    """Nor has its network any weight that it lacks."""
    said = {"node_dim": 4, "edge_dim": 2, "pooling_type": "add", "attention_head": 8, "hidden_dim": 32}
    before = {**said, "num_layers": 2, "dropout": 0.25, "use_layer_norm": True, "edge_encoder": "mlp"}
    network = TopoQANetwork(NetworkSpec(**before))
    tops = {name.split(".")[0] for name in network.state_dict()}
    scalings = {"node_scaling", "edge_scaling"}
    assert tops == {*scalings, "node_embedding", "edge_encoder", "layers", "edge_readout", "head"}


@pytest.mark.parametrize(
    "wrong",
    [{"pooled_inputs": -1}, {"contact_term": 1}, {"input_clamp": 0}, {"head_dropout": 1}, {"residue_columns": 5}],
)
def test_what_no_network_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NetworkSpec(4, 2, **wrong)


def test_a_layout_is_not_needed() -> None:
    graphs = graphs_of()
    batch = packed(graphs).batch(range(len(graphs)))
    order, layout = EdgeLayout.of(batch.edge_index, batch.batch, len(graphs))
    assert torch.equal(order, torch.arange(len(order))), "packed edges lie in this order"
    assert layout.edge_start == batch.layout.edge_start


def test_the_contact_energies_are_those_that_were_published() -> None:
    """Some of Table 3 of Miyazawa and Jernigan (1996), among them the strongest and the weakest."""
    table = ContactPotential(0).table
    pairs = {"LL": -7.37, "KK": -0.12, "CC": -5.44, "FI": -6.84, "KR": -0.59, "DE": -1.02, "KE": -1.80, "WY": -4.66}
    for (one, other), energy in pairs.items():
        places = LETTERS.index(one), LETTERS.index(other)
        assert table[0][places].item() == pytest.approx(energy, abs=1e-6)
        assert table[0][places[::-1]].item() == pytest.approx(energy, abs=1e-6)
    assert (table[0].min().item(), table[0].max().item()) == (pytest.approx(-7.37), pytest.approx(-0.12))
    assert torch.equal(table, table.transpose(1, 2))
    assert table[1].sum(dim=0).abs().max() < 1e-5, "nothing of either end"
    charged = {LETTERS[row] for row, _ in torch.nonzero(table[2]).tolist()}
    assert (charged, table[2].sum().item()) == (set("DEKR"), 0.0)


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (("rasa", *RESIDUE_NAMES, "AA_20"), 1),
        ((*RESIDUE_NAMES, "rasa"), 0),
        (("rasa", *RESIDUE_NAMES[:-1]), None),
        ((*reversed(RESIDUE_NAMES),), None),
        (("rasa", "phi"), None),
        (None, None),
    ],
)
def test_residue_types_are_found_by_the_names_of_their_columns(names: Any, place: int | None) -> None:
    assert residue_columns(names) == place
