"""The Lightning module: loss, optimiser, and epoch metrics over whole splits."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from topotrain.config import TrainConfig
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import GraphBatch
from topotrain.errors import TrainingError
from topotrain.fields import SELECTION_METRIC, TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN
from topotrain.metrics.ranking import epoch_metrics
from topotrain.model.network import TopoQANetwork
from topotrain.model.optimizer import cosine_factor, make_optimizer
from topotrain.model.rank_term import RankTerm

log = logging.getLogger("topotrain")

STEP = 2  # rises when the same recipe, data and seed train to other bits than before
FUSED = ("cpu", "cuda")  # devices on which Adam is one kernel

SHOWN = (TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN)  # on the progress bar


class ScoringModule(pl.LightningModule):
    """Trains a ``TopoQANetwork`` on DockQ.

    Args:
        network: the network, its input scaling fitted.
        config: the recipe.
        train: training graphs.
        val: validation graphs.
    """

    def __init__(self, network: TopoQANetwork, config: TrainConfig, train: PackedGraphs, val: PackedGraphs) -> None:
        super().__init__()
        self.network, self.config = network, config
        self._rank_term = RankTerm(config.loss, train.y, train.targets) if config.loss.rank_weight else None
        self._val_targets = val.targets
        self._reported: set[str] = set()  # undefined correlations that were warned of
        self._train_errors: list[Tensor] = []
        self._val_outputs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.epoch_metrics: dict[str, float] = {}

    def forward(self, batch: GraphBatch) -> Tensor:
        """(num_graphs,) predicted DockQ."""
        return self._logits(batch).sigmoid()

    def _logits(self, batch: GraphBatch) -> Tensor:
        return self.network.logits(
            batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs, layout=batch.layout
        )

    def on_train_batch_start(self, batch: GraphBatch, batch_idx: int) -> None:
        """Set the rate of the step that the batch belongs to, where each step has its own."""
        if self.config.scheduler.type == "cosine":
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.rate_at(batch_idx)

    def rate_at(self, batch_idx: int) -> float:
        """Learning rate of the step that a batch of the epoch under way belongs to.

        That of the cosine follows from the step alone, so that it is the same wherever a run was cut off; what a
        changed recipe makes of the epochs before does not move it.
        """
        config = self.config
        if config.scheduler.type != "cosine":
            return float(self.trainer.optimizers[0].param_groups[0]["lr"])
        batches = config.trainer.accumulate_grad_batches  # of a step
        steps = math.ceil(self.trainer.num_training_batches / batches)  # of an epoch
        step = self.current_epoch * steps + batch_idx // batches
        assert config.trainer.num_epochs is not None  # noqa: S101 (settled before training)
        return config.optimizer.learning_rate * cosine_factor(step, config.trainer.num_epochs * steps, config.scheduler)

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        """Mean squared error over every graph of the batch, and what the order of its graphs adds."""
        logits = self._logits(batch)
        errors = functional.mse_loss(logits.sigmoid(), batch.y, reduction="none")  # (num_graphs,)
        share = batch.layout.share
        if share is None:
            loss = errors.mean()
        else:  # the losses of all processes add up to that of the batch, whatever each of them has of it
            errors = errors[: share.num_own]
            loss = errors.sum() / share.num_graphs
        if self._rank_term is not None:
            loss = loss + self._order_of(logits, batch, self._rank_term)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the training loss is {float(loss.detach())} in epoch {self.current_epoch}, batch {batch_idx}",
                "a finite loss",
                f"lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}) or look at the features",
            )
        self._train_errors.append(errors.detach())
        return loss

    def _order_of(self, logits: Tensor, batch: GraphBatch, term: RankTerm) -> Tensor:
        """The rank term of the whole batch, whatever this process has of it.

        A pair may span two processes. Each computes all pairs, with the others' logits as constants: a pair then moves
        each of its two logits in the one process that has it, and the gradients of all processes add up to that of the
        batch, though the losses do not.
        """
        share = batch.layout.share
        if share is None:
            return term(logits, batch.index)  # type: ignore[no-any-return]
        own, places = logits[: share.num_own], share.graphs[: share.num_own].to(logits.device)
        of_all = self._summed(logits.new_zeros(share.num_graphs).index_copy(0, places, own.detach()))
        return term(of_all.index_copy(0, places, own), share.index.to(logits.device))  # type: ignore[no-any-return]

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
        if isinstance(scheduler, ReduceLROnPlateau):
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

    def configure_optimizers(self) -> OptimizerConfig | OptimizerLRSchedulerConfig:
        """The optimiser, and the scheduler that lowers its rate when ``val_loss`` stalls; a cosine has no state."""
        optimizer = make_optimizer(self.network, self.config.optimizer, fused=self.device.type in FUSED)
        settings = self.config.scheduler
        if settings.type == "cosine":
            return {"optimizer": optimizer}
        scheduler = ReduceLROnPlateau(optimizer, mode="min", factor=settings.factor, patience=settings.patience)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": VAL_LOSS}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: see ``on_train_epoch_end``."""

    def _publish(self, metrics: dict[str, float]) -> None:
        """Keep metrics in full precision for our callbacks, and show a few on Lightning's progress bar."""
        self.epoch_metrics.update(metrics)
        self.log_dict({name: metrics[name] for name in SHOWN if name in metrics}, prog_bar=True, logger=False)
