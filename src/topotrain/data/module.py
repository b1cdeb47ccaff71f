"""The Lightning data module: batches that depend on the seed and the epoch alone."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from functools import partial

import pytorch_lightning as pl
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from topotrain.config import DataloaderConfig
from topotrain.data.batch_order import EpochSampler, batches_of
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import GraphBatch
from topotrain.data.sharing import Seat
from topotrain.signals import ignore_stopping


class _Positions(Dataset[list[int]]):
    """Positions of packed graphs; the graphs themselves are cut when a batch is collated."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, batch: list[int]) -> list[int]:
        return batch


def _leave_signals(worker: int) -> None:
    """Of a process that reads data: a terminal signals it too, and it ends when it is told to, by SIGTERM."""
    ignore_stopping(but=signal.SIGTERM)


class GraphDataModule(pl.LightningDataModule):
    """Training and validation batches.

    Args:
        train: packed training graphs.
        val: packed validation graphs.
        config: what makes a batch, workers, seed.

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
        """Batches drawn anew for each epoch; no graph is left out."""
        draw = batches_of(self.train.targets, self.config)
        return self._loader(self.train, EpochSampler(draw, self.config.seed, self.first_epoch, self.first_batch))

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        """Batches in the order of the label file."""
        return self._loader(self.val, BatchSampler(range(len(self.val)), self.config.batch_size, drop_last=False))

    def _loader(self, graphs: PackedGraphs, batches: Iterable[list[int]]) -> DataLoader[GraphBatch]:
        return DataLoader(
            _Positions(len(graphs)),  # type: ignore[arg-type]
            batch_size=None,  # what is drawn are whole batches
            sampler=batches,
            num_workers=self.config.num_workers,
            persistent_workers=False,
            worker_init_fn=_leave_signals,
            collate_fn=graphs.batch if self.seat.size == 1 else partial(graphs.part, seat=self.seat),
            # Each iteration draws a seed for workers: from here, so that dropout does not depend on how often that was.
            generator=torch.Generator().manual_seed(self.config.seed),
        )
