"""The Lightning data module: batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from topotrain.config import DataloaderConfig
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import GraphBatch
from topotrain.data.sharing import Seat


class EpochSampler(Sampler[int]):
    """A new order every epoch, drawn from seed and epoch: a resumed run needs no stored position.

    Args:
        size: number of graphs.
        seed: of the run.
        epoch: the first one; workers ask for its order before Lightning says which it is.
    """

    def __init__(self, size: int, seed: int, epoch: int = 0) -> None:
        self.size, self.seed, self.epoch = size, seed, epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())

    def __len__(self) -> int:
        return self.size


class _Positions(Dataset[int]):
    """Positions of packed graphs; the graphs themselves are cut when a batch is collated."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class GraphDataModule(pl.LightningDataModule):
    """Training and validation batches.

    Args:
        train: packed training graphs.
        val: packed validation graphs.
        config: batch size, workers, seed.

    Attributes:
        first_epoch: at which training begins; more than 0 in a run that goes on.
        seat: of this process among those that compute each batch together, in one and the same order.
    """

    def __init__(self, train: PackedGraphs, val: PackedGraphs, config: DataloaderConfig) -> None:
        super().__init__()
        self.train, self.val, self.config = train, val, config
        self.first_epoch, self.seat = 0, Seat()

    def train_dataloader(self) -> DataLoader[GraphBatch]:
        """Shuffled batches; the last one may be smaller, none is dropped."""
        return self._loader(self.train, EpochSampler(len(self.train), self.config.seed, self.first_epoch))

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        """Batches in the order of the label file."""
        return self._loader(self.val, None)

    def _loader(self, graphs: PackedGraphs, sampler: EpochSampler | None) -> DataLoader[GraphBatch]:
        return DataLoader(
            _Positions(len(graphs)),  # type: ignore[arg-type]
            batch_size=self.config.batch_size,
            sampler=sampler,
            num_workers=self.config.num_workers,
            persistent_workers=False,
            collate_fn=graphs.batch if self.seat.size == 1 else partial(graphs.part, seat=self.seat),
            # Each iteration draws a seed for workers: from here, so that dropout does not depend on how often that was.
            generator=torch.Generator().manual_seed(self.config.seed),
        )
