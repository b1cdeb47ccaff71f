"""Which graphs make a batch, and in which order batches come: drawn anew for each epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Generator
from torch.utils.data import Sampler

from topotrain.config import DataloaderConfig

Draw = Callable[[Generator], list[list[int]]]


def random_batches(num_graphs: int, batch_size: int, generator: Generator) -> list[list[int]]:
    """All graphs in any order, so many in a batch; the last one may be smaller.

    Args:
        num_graphs: there are.
        batch_size: graphs in a batch.
        generator: of random numbers.
    """
    order: list[int] = torch.randperm(num_graphs, generator=generator).tolist()
    return [order[first : first + batch_size] for first in range(0, num_graphs, batch_size)]


def target_batches(
    targets: Sequence[str], batch_size: int, decoys_per_target: int, generator: Generator
) -> list[list[int]]:
    """Batches of groups, each of about so many decoys of one target; every decoy is in one group.

    The groups of a target are as large as each other, or one larger. As many groups make a batch as have about so many
    graphs, by the mean size of all groups: how many batches there are does not depend on what is drawn.

    Args:
        targets: of each graph.
        batch_size: graphs in a batch, about.
        decoys_per_target: in a group, about.
        generator: of random numbers.
    """
    places = defaultdict(list)
    for place, target in enumerate(targets):
        places[target].append(place)
    groups: list[torch.Tensor] = []
    for own in places.values():
        order = torch.tensor(own)[torch.randperm(len(own), generator=generator)]
        groups += torch.tensor_split(order, max(1, round(len(own) / decoys_per_target)))
    in_batch = max(1, round(batch_size * len(groups) / max(1, len(targets))))
    drawn = [groups[number] for number in torch.randperm(len(groups), generator=generator).tolist()]
    return [torch.cat(drawn[first : first + in_batch]).tolist() for first in range(0, len(drawn), in_batch)]


def batches_of(targets: Sequence[str], config: DataloaderConfig) -> Draw:
    """What draws the batches of an epoch as a configuration asks for them.

    Args:
        targets: of each graph.
        config: kind and size of batches.
    """
    if config.batches == "by_target":
        return partial(target_batches, targets, config.batch_size, config.decoys_per_target)
    return partial(random_batches, len(targets), config.batch_size)


class EpochSampler(Sampler[list[int]]):
    """New batches every epoch, drawn from seed and epoch: a resumed run needs no stored position.

    Args:
        draw: the batches of an epoch, of which there are always as many.
        seed: of the run.
        epoch: the first one; workers ask for its batches before Lightning says which it is.
        num_seen: batches that the first epoch begins after.
    """

    def __init__(self, draw: Draw, seed: int, epoch: int = 0, num_seen: int = 0) -> None:
        self.draw, self.seed, self.epoch = draw, seed, epoch
        self._first, self._num_seen = epoch, num_seen
        self._num_batches = len(draw(Generator()))

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.draw(Generator().manual_seed(self.seed * 1_000_003 + self.epoch))
        return iter(batches[self._num_seen if self.epoch == self._first else 0 :])

    def __len__(self) -> int:
        return self._num_batches
