"""The network in chunks of edges against PyG's layers: one function, two ways to compute it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from topotrain.data.edge_layout import EdgeLayout
from topotrain.model import attention, edge_plan
from topotrain.model import network as network_module
from topotrain.model.attention import dropout_mask
from topotrain.model.edge_plan import EdgePlan
from topotrain.model.network import NetworkSpec, TopoQANetwork, computes_in_chunks
from topotrain.model.scaling import InputScaling, scaled_linear

SPEC = NetworkSpec(node_dim=5, edge_dim=3, attention_head=3, hidden_dim=8, dropout=0.0)
# (nodes, edges) of each graph
UNEVEN = ((6, 40), (1, 0), (9, 90), (4, 0), (1, 3), (20, 300), (7, 1), (30, 500), (3, 0))


@dataclass(frozen=True)
class Batch:
    """What ``TopoQANetwork.forward`` takes."""

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    num_graphs: int
    layout: EdgeLayout | None = None

    def to(self, dtype: torch.dtype) -> Batch:
        return replace(self, x=self.x.to(dtype), edge_attr=self.edge_attr.to(dtype))

    def scores(self, network: TopoQANetwork) -> Tensor:
        scores: Tensor = network(self.x, self.edge_index, self.edge_attr, self.batch, self.num_graphs, self.layout)
        return scores


def make_network(spec: NetworkSpec = SPEC, seed: int = 0) -> TopoQANetwork:
    torch.manual_seed(seed)
    network = TopoQANetwork(spec).double().train()
    for scaling in (network.node_scaling, network.edge_scaling):
        width = scaling.mean.shape[0]
        scaling.fit(torch.randn(width, dtype=torch.float64) * 3, torch.rand(width, dtype=torch.float64) + 0.5)
    for layer in network.layers:  # they begin as zeros, which would hide one that is forgotten
        torch.nn.init.normal_(layer.conv.bias)
        torch.nn.init.normal_(layer.conv.lin_l.bias)
        torch.nn.init.normal_(layer.conv.lin_r.bias)
    return network


def make_batch(sizes: tuple[tuple[int, int], ...] = UNEVEN, spec: NetworkSpec = SPEC, seed: int = 1) -> Batch:
    """Edges in any order, self loops and doubled ones among them."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.tensor([0, *(nodes for nodes, _ in sizes)]).cumsum(0)
    ends = [torch.randint(0, n, (2, e), generator=generator) + first[i] for i, (n, e) in enumerate(sizes)]
    edge_index = torch.cat(ends, dim=1)
    edge_index = edge_index[:, torch.randperm(edge_index.shape[1], generator=generator)]
    return Batch(
        torch.randn(int(first[-1]), spec.node_dim, generator=generator, dtype=torch.float64) * 2 + 1,
        edge_index,
        torch.randn(edge_index.shape[1], spec.edge_dim, generator=generator, dtype=torch.float64) * 2 - 1,
        torch.repeat_interleave(torch.arange(len(sizes)), first.diff()),
        len(sizes),
    )


def share_rows(batch: Batch, kinds: int, seed: int = 2) -> tuple[Batch, Batch]:
    """A batch in which any edges of a graph share one of so many rows, and the same with a row for each edge."""
    order, plain = EdgeLayout.of(batch.edge_index, batch.batch, batch.num_graphs)
    edge_index = batch.edge_index[:, order]
    drawn = torch.randint(0, kinds, order.shape, generator=torch.Generator().manual_seed(seed))
    label = batch.batch[edge_index[1]] * kinds + drawn
    used, row = torch.unique(label, return_inverse=True)
    row_start = torch.bincount(used // kinds, minlength=batch.num_graphs).cumsum(0).tolist()
    layout = replace(plain, edge_row=row, row_start=[0, *row_start])
    rows = batch.edge_attr[: len(used)]
    shared = replace(batch, edge_index=edge_index, edge_attr=rows, layout=layout)
    return shared, replace(batch, edge_index=edge_index, edge_attr=rows[row])


@dataclass(frozen=True)
class Outcome:
    scores: Tensor
    gradients: dict[str, Tensor]

    def error(self, exact: Outcome) -> tuple[float, float]:
        """The largest error of a score, and that of the gradient relative to its length."""
        pairs = [(self.gradients[name].double(), value) for name, value in exact.gradients.items()]
        wrong = sum(float((found - value).square().sum()) for found, value in pairs)
        length = sum(float(value.square().sum()) for _, value in pairs)
        return float((self.scores - exact.scores).abs().max()), (wrong / length) ** 0.5


def outcome(network: TopoQANetwork, batch: Batch) -> Outcome:
    """Scores, and gradients of a loss in which every graph counts, of all weights and of the features."""
    x, edge_attr = (part.detach().clone().requires_grad_() for part in (batch.x, batch.edge_attr))
    network.zero_grad()
    scores = replace(batch, x=x, edge_attr=edge_attr).scores(network)
    (functional.mse_loss(scores, torch.linspace(0, 1, len(scores)).to(scores)) * 10).backward()
    parameters = dict(network.named_parameters()) | {"x": x, "edge_attr": edge_attr}
    zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
    found = {name: value.grad.clone() for name, value in parameters.items() if value.grad is not None}
    return Outcome(scores.detach(), zeros | found)


@pytest.fixture
def by_pyg(monkeypatch: pytest.MonkeyPatch) -> Callable[[TopoQANetwork, Batch], Outcome]:
    def run(network: TopoQANetwork, batch: Batch) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(network_module, "computes_in_chunks", lambda *_: False)
            patch.setattr(EdgePlan, "__init__", None)  # so that it can't be the chunks by mistake
            return outcome(network, batch)

    return run


def assert_same(found: Outcome, expected: Outcome, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=atol)
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-9, atol=atol, msg=lambda m, n=name: n + m)


WHOLE = {
    "num_layers": 1,
    "contact_term": True,
    "derived_inputs": True,
    "pooled_inputs": 3,
    "input_clamp": 2.0,
    "decorrelated_inputs": True,
}
POTENTIAL = {"node_dim": 22, "residue_columns": 1}  # of the two nodes of a row, which no two pairs of nodes share
SHAPES = {
    "default": {},
    "one head, one layer": {"attention_head": 1, "num_layers": 1},
    "three layers, no norm": {"num_layers": 3, "use_layer_norm": False},
    "flat encoder, two channels": {"hidden_dim": 2, "edge_encoder": "flat"},
    "as trained": {"hidden_dim": 32, "attention_head": 8},
    "no layer": {"num_layers": 0},
    "all inputs": WHOLE | POTENTIAL,
    "all inputs, no layer": WHOLE | POTENTIAL | {"num_layers": 0},
}


@pytest.mark.parametrize("pooling", ["mean", "add", "max", "scaled_add"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_scores_and_gradients_are_those_of_pyg(by_pyg, shape, pooling):
    network = make_network(replace(SPEC, pooling_type=pooling, **SHAPES[shape]))
    batch = make_batch(spec=network.spec)
    expected = by_pyg(network, batch)
    assert expected.gradients["x"].abs().max() > 1e-9, "gradients of zeros test nothing"
    assert_same(outcome(network, batch), expected)


@pytest.mark.parametrize("sizes", [((4, 0), (1, 0)), ((1, 0),), ((1, 5),), ((3, 0), (5, 9)), ((5, 9), (3, 0))])
@pytest.mark.parametrize("pooling", ["mean", "add", "max"])
def test_few_edges_and_none(by_pyg, sizes, pooling):
    network, batch = make_network(replace(SPEC, pooling_type=pooling)), make_batch(sizes)
    assert_same(outcome(network, batch), by_pyg(network, batch))


@pytest.mark.parametrize("width", [1, 11, 434, 2081])
def test_any_width(by_pyg, width):
    spec = replace(SPEC, node_dim=width + 1, edge_dim=width)
    network, batch = make_network(spec), make_batch(((9, 60), (4, 0), (12, 700)), spec)
    assert_same(outcome(network, batch), by_pyg(network, batch), atol=1e-11)


@pytest.mark.parametrize("kinds", [1, 2, 30, 2000, 10**9])
@pytest.mark.parametrize("shape", [{"pooling_type": "mean"}, {"pooling_type": "max"}, WHOLE, {"num_layers": 0}])
def test_edges_may_share_rows_in_any_way(by_pyg, shape, kinds):
    """Few rows are computed with as rows, many are expanded; each its own, in any order; and what PyG makes of them."""
    network = make_network(replace(SPEC, **shape))
    shared, apart = share_rows(make_batch(), kinds)
    assert shared.layout is not None
    assert shared.layout.shared is (kinds < 10**9)
    assert EdgePlan(shared.edge_index, shared.layout, 3).uses_rows is (kinds < 2000)
    expected, found = by_pyg(network, apart), outcome(network, shared)
    rows = torch.zeros_like(shared.edge_attr)
    of_rows = rows.index_add(0, shared.layout.edge_row, expected.gradients["edge_attr"])
    expected = Outcome(expected.scores, expected.gradients | {"edge_attr": of_rows})
    assert_same(found, expected)
    assert_same(by_pyg(network, shared), expected)


@pytest.mark.parametrize("edges", [1, 100, 10**6])
def test_where_chunks_end_does_not_matter(monkeypatch, edges):
    network, (shared, apart) = make_network(), share_rows(make_batch(), 30)
    expected = outcome(network, shared), outcome(network, apart)
    monkeypatch.setattr(edge_plan, "CHUNK_EDGES", edges)
    assert shared.layout is not None
    assert len(EdgePlan(shared.edge_index, shared.layout, 3).chunks) == {1: 7, 100: 4, 10**6: 1}[edges]
    for found, same in zip((outcome(network, shared), outcome(network, apart)), expected, strict=True):
        assert_same(found, same)


graph_sizes = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 25)), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(sizes=graph_sizes, seed=st.integers(0, 10**6), kinds=st.integers(1, 20))
def test_random_graphs(sizes, seed, kinds):
    network = make_network(seed=seed)
    shared, apart = share_rows(make_batch(tuple(sizes), seed=seed), kinds)
    found = outcome(network, shared)
    original = network_module.computes_in_chunks
    network_module.computes_in_chunks = lambda *_: False
    try:
        expected = outcome(network, apart)
    finally:
        network_module.computes_in_chunks = original
    del expected.gradients["edge_attr"]
    assert_same(found, expected)


@pytest.mark.parametrize("sizes", [UNEVEN, ((40, 128),) * 8])
def test_single_precision_is_as_exact_as_pyg_s(by_pyg, sizes):
    spec = NetworkSpec(node_dim=172, edge_dim=24, dropout=0.0)
    exact_network, batch = make_network(spec), make_batch(sizes, spec).to(torch.float32)
    network = copy.deepcopy(exact_network).float()
    exact = by_pyg(copy.deepcopy(network).double(), batch.to(torch.float64))
    found, pyg_s = (run(network, batch).error(exact) for run in (outcome, by_pyg))
    assert found[0] < max(2 * pyg_s[0], 3e-7)
    assert found[1] < max(2 * pyg_s[1], 1e-6)


def test_three_epochs_give_pyg_s_loss_curve(by_pyg, monkeypatch):
    batches = [make_batch(((9, 60), (5, 0), (12, 90)), seed=seed) for seed in range(4)]

    def curve() -> list[float]:
        network = make_network()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4, fused=True)
        losses = []
        for batch in batches * 3:
            optimizer.zero_grad()
            loss = functional.mse_loss(batch.scores(network), torch.tensor([0.9, 0.4, 0.1]).double())
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    found = curve()
    assert sum(found[8:]) < sum(found[:4]) - 0.005, "it has to learn something"
    monkeypatch.setattr(network_module, "computes_in_chunks", lambda *_: False)
    assert found == pytest.approx(curve(), rel=1e-9)


def test_the_mask_drops_at_the_rate_and_keeps_the_mean():
    torch.manual_seed(0)
    mask = dropout_mask(20_000, 4, 0.3, torch.zeros(1))
    assert sorted(mask.unique().tolist()) == pytest.approx([0, 1 / (4 * 0.7)])
    assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.01)  # 6 standard deviations
    assert float(mask.mean()) == pytest.approx(0.25, abs=0.003)
    assert float(torch.corrcoef((mask > 0).float().t()).fill_diagonal_(0).abs().max()) < 0.04, "heads on their own"
    assert float(dropout_mask(5, 2, 1.0, torch.zeros(1)).abs().max()) == 0


def test_with_a_given_mask_dropout_is_pyg_s(by_pyg, monkeypatch):
    network = make_network(replace(SPEC, dropout=0.4))
    order, layout = EdgeLayout.of((batch := make_batch()).edge_index, batch.batch, batch.num_graphs)
    batch = replace(batch, edge_index=batch.edge_index[:, order], edge_attr=batch.edge_attr[order], layout=layout)
    mask = dropout_mask(len(order), 3, 0.4, batch.x)
    monkeypatch.setattr(attention, "dropout_mask", lambda *_: mask)
    monkeypatch.setattr(functional, "dropout", lambda values, p, training: values * mask * 3 if training else values)
    found = outcome(network, batch)
    assert_same(found, by_pyg(network, batch))
    still = outcome(network.eval(), batch)
    assert_same(still, by_pyg(network, batch))
    assert (still.scores - found.scores).abs().max() > 1e-6


@pytest.mark.parametrize("shares", [True, False])
def test_derivatives_under_dropout_by_differences(monkeypatch, shares):
    spec = replace(SPEC, hidden_dim=3, attention_head=2, dropout=0.5)
    conv = make_network(spec).layers[0].conv
    batch = share_rows(make_batch(((3, 7), (2, 0), (4, 9)), spec), 3)[0]
    assert batch.layout is not None
    plan = EdgePlan(batch.edge_index, batch.layout, 2)
    mask = dropout_mask(16, 2, 0.5, batch.x)
    monkeypatch.setattr(attention, "dropout_mask", lambda *_: mask)
    nodes = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    edges = torch.randn(len(batch.edge_attr) if shares else 16, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda nodes, edges, *_: attention.attend(conv, nodes, edges, plan), (nodes, edges, *conv.parameters())
    )


def test_the_same_bits_twice_under_deterministic_algorithms():
    network, batch = make_network(replace(SPEC, dropout=0.25)).float(), share_rows(make_batch(), 30)[0]
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            results.append(outcome(network, batch.to(torch.float32)))
    finally:
        torch.use_deterministic_algorithms(was)
    first, again, other = results
    assert torch.equal(first.scores, again.scores)
    assert all(torch.equal(first.gradients[name], again.gradients[name]) for name in first.gradients)
    assert not torch.equal(first.scores, other.scores)


def test_what_computes_in_chunks():
    single, double, half = (torch.zeros(1, dtype=kind) for kind in (torch.float32, torch.float64, torch.bfloat16))
    assert computes_in_chunks(single, single)
    assert computes_in_chunks(double, double)
    assert not computes_in_chunks(half, half)
    assert not computes_in_chunks(single, half)
    assert not computes_in_chunks(single.to("meta"), single)
    with torch.autocast("cpu"):
        assert not computes_in_chunks(single, single)


def test_other_precisions_take_pyg_s_layers():
    network, batch = make_network().eval(), share_rows(make_batch(), 30)[0]
    exact = batch.scores(network).detach()
    network = network.float()
    with torch.autocast("cpu"):
        mixed = batch.to(torch.float32).scores(network).detach()
    half = batch.to(torch.bfloat16).scores(network.bfloat16()).detach()
    for scores in (mixed, half):
        assert 0 < (scores.double() - exact).abs().max() < 0.05


@pytest.mark.parametrize("pooling", ["mean", "add", "max"])
def test_mixed_precision_pools_and_scores_in_full_precision(pooling):
    """In bfloat16 scores near a half lie 0.002 apart, and those of a new network would be one number."""
    network, batch = make_network(replace(SPEC, pooling_type=pooling)), make_batch(((100, 700), (90, 690), (40, 1300)))
    exact = batch.scores(network.eval()).detach()
    with torch.autocast("cpu"):
        mixed = batch.to(torch.float32).scores(network.float()).detach()
    assert mixed.dtype == torch.float32
    assert (mixed.double() - exact).abs().max() < (1e-3 if pooling == "mean" else 0.02)
    assert len(set(mixed.tolist())) == batch.num_graphs


def test_scoring_keeps_nothing_for_a_backward(monkeypatch):
    network, batch = make_network().eval(), make_batch()
    expected = batch.scores(network).detach()
    kept = []
    whole = attention._logits
    monkeypatch.setattr(attention, "_logits", lambda *given: kept.append((result := whole(*given))[2]) or result)
    with torch.inference_mode():
        assert torch.equal(batch.scores(network), expected)
    assert kept == [None, None]
    assert batch.scores(network).requires_grad
    assert all(isinstance(signs, Tensor) for signs in kept[2:])


def test_scaling_within_the_first_layer_is_as_exact_as_before_it():
    """A spread of a millionth of the mean: means folded into the bias would lose all of it."""
    torch.manual_seed(0)
    mean = torch.tensor([1e6, -1e6, 3e-5, 0.0, 1e20, 7.0], dtype=torch.float64)
    spread = torch.tensor([8.0, 1e-3, 1e-6, 1e-12, 1e18, 3.0], dtype=torch.float64)
    values = (torch.randn(3000, 6, dtype=torch.float64) * spread + mean).float()
    scaling, linear = InputScaling(6), torch.nn.Linear(6, 4)
    scaling.fit(mean, spread)
    linear.requires_grad_(False)
    exact = copy.deepcopy(linear).double()(copy.deepcopy(scaling).double()(values.double()))
    found, before = (
        float((result.double() - exact).abs().max() / exact.abs().max())
        for result in (scaled_linear(values, scaling, linear), linear(scaling(values)))
    )
    assert found < max(2 * before, 1e-6)
