"""Which graphs make a batch: every one once an epoch, by seed and epoch alone; decoys of a target together."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from kit.graphs import packed_graphs
from topotrain.config import DataloaderConfig
from topotrain.data.batch_order import EpochSampler, batches_of, target_batches
from topotrain.data.graph_file import Graph
from topotrain.data.module import GraphDataModule
from topotrain.schema.feature_schema import FeatureSchema

DECOYS = {"a": 16, "b": 20, "c": 4, "d": 1, "e": 8}  # 2 groups of 8, 2 of 10, 1 of 4, 1 of 1, 1 of 8: 7 of 49
TARGETS = [target for place in range(20) for target, number in DECOYS.items() if place < number]
KINDS = [
    DataloaderConfig(batch_size=8),
    DataloaderConfig(batch_size=14, batches="by_target"),
    DataloaderConfig(batch_size=6, batches="by_target", decoys_per_target=3),
]
kinds = pytest.mark.parametrize("config", KINDS, ids=["random", "by target", "threes"])


def batches(config: DataloaderConfig, seed: int, epoch: int, num_seen: int = 0) -> list[list[int]]:
    sampler = EpochSampler(batches_of(TARGETS, config), seed, epoch, num_seen)
    torch.manual_seed(epoch)
    return list(sampler)


@kinds
def test_batches_depend_on_seed_and_epoch_alone(config: DataloaderConfig) -> None:
    sampler = EpochSampler(batches_of(TARGETS, config), 1)
    assert list(sampler) == list(sampler) == batches(config, 1, 0)
    sampler.set_epoch(3)
    assert list(sampler) == batches(config, 1, 3)
    drawn = [batches(config, seed, epoch) for seed in (0, 1, 2**32 - 1) for epoch in range(4)]
    assert len({str(one) for one in drawn}) == 12
    assert {len(one) for one in drawn} == {len(sampler)}, "as many in every epoch"
    for one in drawn:
        assert sorted(sum(one, [])) == list(range(len(TARGETS)))


@kinds
def test_who_goes_on_within_an_epoch_begins_after_what_it_has_seen(config: DataloaderConfig) -> None:
    sampler = EpochSampler(batches_of(TARGETS, config), 1, epoch=2, num_seen=2)
    assert list(sampler) == batches(config, 1, 2)[2:]
    assert len(sampler) == len(batches(config, 1, 2))
    sampler.set_epoch(3)
    assert list(sampler) == batches(config, 1, 3)


@pytest.mark.parametrize(("batch_size", "in_batch"), [(14, 2), (7, 1), (1, 1), (1000, 7)])
def test_batches_by_target_are_groups_of_its_decoys(batch_size: int, in_batch: int) -> None:
    """Seven groups of seven graphs on the mean: two of them are about fourteen."""
    drawn = target_batches(TARGETS, batch_size, 8, torch.Generator().manual_seed(1))
    sizes, groups = {"a": {8}, "b": {10}, "c": {4}, "d": {1}, "e": {8}}, Counter[str]()
    for batch in drawn:
        of_targets = Counter(TARGETS[place] for place in batch)
        for target, number in of_targets.items():
            (size,) = sizes[target]
            assert number % size == 0
            groups[target] += number // size
    assert groups == {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1}
    assert len(drawn) == -(-7 // in_batch)


def test_groups_of_a_target_differ_by_one_at_most_and_by_epoch() -> None:
    def groups(seed: int) -> list[list[int]]:
        return target_batches(["t"] * 29, 1, 8, torch.Generator().manual_seed(seed))

    assert sorted(len(group) for group in groups(1)) == [7, 7, 7, 8]
    assert sorted(sum(groups(1), [])) == list(range(29))
    assert {frozenset(group) for group in groups(1)}.isdisjoint(frozenset(group) for group in groups(2))


def test_eight_decoys_of_four_targets_are_a_batch_of_thirty_two() -> None:
    targets = [f"t{place // 16}" for place in range(160)]
    for batch in target_batches(targets, 32, 8, torch.Generator().manual_seed(1)):
        assert len(batch) == 32
        assert set(Counter(targets[place] for place in batch).values()) <= {8, 16}  # two groups may be of one target


@pytest.mark.parametrize("num_workers", [0, 2])
@kinds
def test_the_loader_gives_these_batches(config: DataloaderConfig, num_workers: int) -> None:
    edge = (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, 1))
    store = packed_graphs(
        [Graph(f"g{place}", torch.full((1, 1), float(place)), *edge) for place in range(len(TARGETS))],
        FeatureSchema(node_dim=1, edge_dim=1),
        [0.5] * len(TARGETS),
        targets=TARGETS,
    )
    module = GraphDataModule(store, store, config.model_copy(update={"num_workers": num_workers}))
    module.first_epoch, module.first_batch = 1, 1
    loader = module.train_dataloader()
    found = [batch.index.tolist() for batch in loader]
    assert found == batches(config, config.seed, 1)[1:]
    assert len(loader) == len(found) + 1, "batches of an epoch"
    assert [batch.x.flatten().tolist() for batch in loader] == found
