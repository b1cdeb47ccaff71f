"""The term of the loss for the order of a target's decoys, against a double loop, alone and among processes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kit.graphs import packed_graphs
from topotrain.config import LossConfig, TrainConfig
from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.sharing import Seat
from topotrain.model.lightning import ScoringModule
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.model.rank_term import RankTerm
from topotrain.schema.feature_schema import FeatureSchema

SETTINGS = LossConfig(rank_weight=0.3, rank_temperature=2.5, rank_margin=0.1)
TARGETS = ["b", "a", "b", "a", "b", "c", "a", "b"]
Y = torch.tensor([0.9, 0.2, 0.3, 0.75, 0.85, 0.5, 0.0, 0.3], dtype=torch.float64)


def by_hand(logits: list[float], places: list[int]) -> float:
    terms = []
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            if TARGETS[one] == TARGETS[other] and Y[one] - Y[other] > SETTINGS.rank_margin:
                terms.append(math.log1p(math.exp(-SETTINGS.rank_temperature * (logits[i] - logits[j]))))
    return SETTINGS.rank_weight * sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5, 6, 7], [7, 3, 0, 6], [2, 4], [2, 7], [0, 1, 5], [5]])
def test_it_is_what_a_double_loop_gives(places: list[int]) -> None:
    """Of the last three no graph is more than the margin better than another of its target."""
    logits = torch.randn(len(places), dtype=torch.float64, generator=torch.Generator().manual_seed(len(places)))
    found = RankTerm(SETTINGS, Y, TARGETS)(logits, torch.tensor(places))
    assert float(found) == pytest.approx(by_hand(logits.tolist(), places), abs=1e-14)


def test_pairs_at_the_margin_do_not_count() -> None:
    term = RankTerm(LossConfig(rank_weight=1.0, rank_margin=0.25), torch.tensor([0.5, 0.75, 0.5]), ["t"] * 3)
    assert float(term(torch.tensor([3.0, -3.0, 0.0]), torch.arange(3))) == 0.0


def test_its_gradient_is_that_of_small_steps() -> None:
    term, index = RankTerm(SETTINGS, Y, TARGETS), torch.arange(8)
    logits = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: term(z, index), logits)
    (gradient,) = torch.autograd.grad(term(logits, index), logits)
    assert gradient[5] == 0, "it has no pair"
    assert (gradient[[0, 1, 2, 3, 4, 6, 7]] != 0).all()


def graphs() -> PackedGraphs:
    generator = torch.Generator().manual_seed(1)
    made = [
        Graph(
            f"g{number}",
            torch.randn(3, 4, generator=generator),
            torch.randint(0, 3, (2, 2 + number), generator=generator),
            torch.randn(2 + number, 2, generator=generator),
        )
        for number in range(8)
    ]
    sizes = {"num_nodes": [3] * 8, "num_edges": [2 + number for number in range(8)]}
    return packed_graphs(made, FeatureSchema(node_dim=4, edge_dim=2), Y.tolist(), targets=TARGETS, **sizes)


def module(loss: LossConfig, store: PackedGraphs) -> ScoringModule:
    torch.manual_seed(1)
    network = TopoQANetwork(NetworkSpec(4, 2, hidden_dim=8, attention_head=2, dropout=0.0))
    return ScoringModule(network, TrainConfig(loss=loss), store, store).train()


def gradient(made: ScoringModule, loss: Tensor) -> Tensor:
    made.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in made.parameters()])


def test_the_module_adds_it_to_the_squared_error() -> None:
    store, places = graphs(), [6, 0, 2, 3, 7]
    batch = store.batch(places)
    ranked, plain = module(SETTINGS, store), module(LossConfig(rank_weight=0), store)
    logits = ranked.network.logits(batch.x, batch.edge_index, batch.edge_attr, batch.batch, 5, batch.layout)
    assert torch.equal(ranked(batch), logits.sigmoid())
    error = plain.training_step(batch, 0).item()
    assert ranked.training_step(batch, 0).item() == pytest.approx(error + by_hand(logits.tolist(), places), rel=1e-5)
    assert ranked.train_mse == plain.train_mse == pytest.approx(error)
    assert ranked.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("size", [2, 3, 6])
def test_gradients_of_processes_add_up_to_that_of_one(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Six processes: one has none of five graphs, and nearly all pairs span two of them."""
    store, places = graphs(), [6, 0, 2, 3, 7]
    made = module(SETTINGS, store)
    expected = gradient(made, made.training_step(store.batch(places), 0))
    parts = [store.part(places, Seat(rank, size)) for rank in range(size)]
    tables: list[Tensor] = []
    monkeypatch.setattr(made, "_summed", lambda table: tables.append(table.clone()) or table)
    for part in parts:  # what each has to tell
        made.training_step(part, 0)
    total = torch.stack(tables).sum(dim=0)
    assert not total.requires_grad
    monkeypatch.setattr(made, "_summed", lambda table: total.clone())
    found = sum(gradient(made, made.training_step(part, 0)) for part in parts)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
