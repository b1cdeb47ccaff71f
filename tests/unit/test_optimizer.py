"""The optimiser and the cosine of its rate."""

from __future__ import annotations

import math

import pytest
import torch

from topotrain.config import OptimizerConfig, SchedulerConfig
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.model.optimizer import cosine_factor, make_optimizer, parameter_groups


@pytest.fixture
def network() -> TopoQANetwork:
    return TopoQANetwork(NetworkSpec(3, 2, hidden_dim=4, attention_head=2))


def test_adam_decays_every_parameter(network: TopoQANetwork) -> None:
    (group,) = parameter_groups(network, OptimizerConfig(type="adam", weight_decay=0.1))
    assert group["weight_decay"] == 0.1
    assert [id(one) for one in group["params"]] == [id(one) for one in network.parameters()]
    assert type(make_optimizer(network, OptimizerConfig(type="adam"), fused=True)) is torch.optim.Adam


def test_adamw_decays_matrices_alone(network: TopoQANetwork) -> None:
    settings = OptimizerConfig(type="adamw", learning_rate=0.01, weight_decay=0.5)
    decayed, others = parameter_groups(network, settings)
    names = {id(one): name for name, one in network.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {names[id(one)] for one in others["params"]} == {
        name for name in names.values() if name.endswith("bias") or name == "edge_encoder.1.weight"
    }
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    optimizer = make_optimizer(network, settings, fused=True)
    before = {name: one.detach().clone() for name, one in network.named_parameters()}
    for one in network.parameters():
        one.grad = torch.zeros_like(one)
    optimizer.step()
    for name, one in network.named_parameters():
        factor = 1.0 if id(one) in map(id, others["params"]) else 1 - 0.01 * 0.5
        torch.testing.assert_close(one.detach(), factor * before[name])


@pytest.mark.parametrize("warmup", [0, 1, 5, 1000])
def test_the_cosine_is_its_formula(warmup: int) -> None:
    settings = SchedulerConfig(type="cosine", warmup_steps=warmup)
    found = [cosine_factor(step, 40, settings) for step in range(40)]
    for step, factor in enumerate(found):
        rise = min(1, (step + 1) / min(5, warmup)) if warmup else 1  # an eighth of the steps at most
        expected = 0.5 * (1 + math.cos(math.pi * step / 40)) * rise
        assert factor == pytest.approx(expected, rel=1e-15)
    assert found[0] == (1 / min(5, warmup) if warmup else 1)
    assert 0 < found[-1] < 0.002
    assert cosine_factor(0, 1, settings) == 1, "a run of one step"
