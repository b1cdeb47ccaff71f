"""The Lightning data module: batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from topotrain.config import DataloaderConfig
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import GraphBatch
from topotrain.data.sharing import Seat
from topotrain.signals import ignore_stopping


class EpochSampler(Sampler[int]):
    """A new order every epoch, drawn from seed and epoch: a resumed run needs no stored position.

    Args:
        size: number of graphs.
        seed: of the run.
        epoch: the first one; workers ask for its order before Lightning says which it is.
        num_seen: graphs that the first epoch begins after.
    """

    def __init__(self, size: int, seed: int, epoch: int = 0, num_seen: int = 0) -> None:
        self.size, self.seed, self.epoch = size, seed, epoch
        self._first, self._num_seen = epoch, num_seen

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(self.size, generator=generator).tolist()
        return iter(order[self._num_seen if self.epoch == self._first else 0 :])

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


def _leave_signals(worker: int) -> None:
    """Of a process that reads data: a terminal signals it too, and it ends when it is told to, by SIGTERM."""
    ignore_stopping(but=signal.SIGTERM)


class GraphDataModule(pl.LightningDataModule):
    """Training and validation batches.

    Args:
        train: packed training graphs.
        val: packed validation graphs.
        config: batch size, workers, seed.

    Attributes:
        first_epoch: at which training begins; more than 0 in a run that goes on.
        first_batch: of that epoch; more than 0 where the run goes on within it.
        seat: of this process among those that compute each batch together, in one and the same order.
    """

    def __init__(self, train: PackedGraphs, val: PackedGraphs, config: DataloaderConfig) -> None:
        super().__init__()
        self.train, self.val, self.config = train, val, config
        self.first_epoch, self.first_batch, self.seat = 0, 0, Seat()

    def train_dataloader(self) -> DataLoader[GraphBatch]:
        """Shuffled batches; the last one may be smaller, none is dropped."""
        num_seen = self.first_batch * self.config.batch_size
        return self._loader(self.train, EpochSampler(len(self.train), self.config.seed, self.first_epoch, num_seen))

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
            worker_init_fn=_leave_signals,
            collate_fn=graphs.batch if self.seat.size == 1 else partial(graphs.part, seat=self.seat),
            # Each iteration draws a seed for workers: from here, so that dropout does not depend on how often that was.
            generator=torch.Generator().manual_seed(self.config.seed),
        )
