"""The Lightning module: loss, optimiser, and epoch metrics over whole splits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional

from topotrain.config import TrainConfig
from topotrain.data.packing import GraphBatch
from topotrain.errors import TrainingError
from topotrain.fields import SELECTION_METRIC, TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN
from topotrain.metrics.ranking import epoch_metrics
from topotrain.model.network import TopoQANetwork

log = logging.getLogger("topotrain")

STEP = 2  # rises when the same recipe, data and seed train to other bits than before
FUSED = ("cpu", "cuda")  # devices on which Adam is one kernel

SHOWN = (TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN)  # on the progress bar


class ScoringModule(pl.LightningModule):
    """Trains a ``TopoQANetwork`` on DockQ.

    Args:
        network: the network, its input scaling fitted.
        config: the recipe.
        val_targets: target of each validation graph, by its position in the data.
    """

    def __init__(self, network: TopoQANetwork, config: TrainConfig, val_targets: Sequence[str]) -> None:
        super().__init__()
        self.network, self.config = network, config
        self._val_targets = val_targets
        self._reported: set[str] = set()  # undefined correlations that were warned of
        self._train_errors: list[Tensor] = []
        self._val_outputs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.epoch_metrics: dict[str, float] = {}

    def forward(self, batch: GraphBatch) -> Tensor:
        """(num_graphs,) predicted DockQ."""
        scores: Tensor = self.network(
            batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs, layout=batch.layout
        )
        return scores

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        """Mean squared error over every graph of the batch."""
        errors = functional.mse_loss(self(batch), batch.y, reduction="none")  # (num_graphs,)
        share = batch.layout.share
        if share is None:
            loss = errors.mean()
        else:  # the losses of all processes add up to that of the batch, whatever each of them has of it
            errors = errors[: share.num_own]
            loss = errors.sum() / share.num_graphs
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the training loss is {float(loss.detach())} in epoch {self.current_epoch}, batch {batch_idx}",
                "a finite loss",
                f"lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}) or look at the features",
            )
        self._train_errors.append(errors.detach())
        return loss

    @property
    def train_mse(self) -> float:
        """Mean squared error over the graphs that this epoch, and this process, has seen so far."""
        return float(self.train_errors.double().mean())

    @property
    def train_errors(self) -> Tensor:
        """(num_graphs,) squared errors of those."""
        return torch.cat(self._train_errors)

    @train_errors.setter
    def train_errors(self, errors: Tensor) -> None:
        """Of an epoch that goes on."""
        self._train_errors = [errors]

    def on_train_epoch_end(self) -> None:
        """Publish the mean over every graph seen in this epoch, then step the scheduler.

        Lightning would step it after the checkpoint is written, and not at all after a restart.
        """
        self._publish({TRAIN_MSE: self._train_mse_of_all()})
        self._train_errors.clear()
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)  # noqa: S101 (for the type checker)
        scheduler.step(self.epoch_metrics[VAL_LOSS])

    def _train_mse_of_all(self) -> float:
        """The same over the graphs of all processes."""
        if self.trainer.world_size == 1:
            return self.train_mse
        errors = self.train_errors.double()
        total, count = self._summed(torch.stack([errors.sum(), errors.new_tensor(len(errors))])).tolist()
        return float(total / count)

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> None:
        """Keep the predictions; metrics are computed when all are there."""
        share = batch.layout.share
        own = share.num_own if share else batch.num_graphs
        self._val_outputs.append((self(batch)[:own], batch.y[:own], batch.index[:own]))

    def on_validation_epoch_end(self) -> None:
        """Publish metrics in which every graph counts once, whatever the batch size."""
        predictions, truth, index = (torch.cat(parts).cpu() for parts in zip(*self._val_outputs, strict=True))
        self._val_outputs.clear()
        if self.trainer.world_size > 1:
            predictions, truth, index = self._gathered(predictions, truth, index)
        if not bool(torch.isfinite(predictions).all()):
            raise TrainingError(
                f"{int((~torch.isfinite(predictions)).sum())} validation scores of epoch {self.current_epoch} "
                "are not finite",
                "finite scores",
                f"lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}) or look at the features",
            )
        targets = [self._val_targets[i] for i in index.tolist()]
        metrics, undefined = epoch_metrics(predictions.double().numpy(), truth.double().numpy(), targets)
        self._warn_once(undefined)
        metrics[SELECTION_METRIC] = self.config.selection.metric(metrics[VAL_LOSS], metrics[VAL_SPEARMAN])
        self._publish(metrics)

    def _gathered(self, predictions: Tensor, truth: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions, true values and positions of all processes, by position: each of them has the same."""
        table = predictions.new_zeros(3, len(self._val_targets), dtype=torch.float64)
        table[:, index] = torch.stack([predictions.double(), truth.double(), torch.ones_like(truth).double()])
        predictions, truth, seen = self._summed(table.to(self.device)).cpu()
        (index,) = torch.nonzero(seen, as_tuple=True)
        return predictions[index], truth[index], index

    def _summed(self, values: Tensor) -> Tensor:
        """Sums over the processes."""
        summed: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return summed

    def _warn_once(self, undefined: Sequence[str]) -> None:
        for name in undefined:
            if name not in self._reported:
                log.warning("%s is undefined (all predictions or all labels are equal) and is recorded as 0", name)
        self._reported.update(undefined)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, and a scheduler that lowers the rate when ``val_loss`` stalls."""
        optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=self.config.optimizer.learning_rate,
            weight_decay=self.config.optimizer.weight_decay,
            fused=self.device.type in FUSED,
        )
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min", factor=self.config.scheduler.factor, patience=self.config.scheduler.patience
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": VAL_LOSS}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: see ``on_train_epoch_end``."""

    def _publish(self, metrics: dict[str, float]) -> None:
        """Keep metrics in full precision for our callbacks, and show a few on Lightning's progress bar."""
        self.epoch_metrics.update(metrics)
        self.log_dict({name: metrics[name] for name in SHOWN if name in metrics}, prog_bar=True, logger=False)
