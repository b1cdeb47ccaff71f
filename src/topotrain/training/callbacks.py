"""What happens around an epoch: seeds, metrics, checkpoints, records, and what the user sees."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from torch.optim.lr_scheduler import ReduceLROnPlateau

from topotrain.config import LoggingConfig, TrainConfig
from topotrain.fields import (
    CHECKPOINT_DIR,
    EPOCH_SECONDS,
    LAST_CHECKPOINT,
    LEARNING_RATE,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TRAIN_MSE,
    VAL_LOSS,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
)
from topotrain.model.lightning import ScoringModule
from topotrain.model.optimizer import parameter_groups
from topotrain.signals import stopping
from topotrain.training.selection import Selection, write_kept_index

if TYPE_CHECKING:
    from topotrain.tracking.recorder import Recorder

log = logging.getLogger("topotrain")


class EpochSeeds(Callback):
    """Seeds every random generator from the run's seed and the epoch, so that no generator's state needs storing.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Python, NumPy and torch."""
        pl.seed_everything((self.seed * 1_000_003 + trainer.current_epoch) % 2**32, workers=True, verbose=False)


class OwnSignals(Callback):
    """Keeps what this process does at a signal.

    Lightning would end it after a batch, whether or not a step is complete; and among several processes call the others
    from within its handler, in the middle of another call.
    """

    def __init__(self) -> None:
        self._handlers = {each: signal.getsignal(each) for each in stopping()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has set its own by now."""
        if threading.current_thread() is threading.main_thread():
            for each, handler in self._handlers.items():
                signal.signal(each, handler)


class ConfiguredSettings(Callback):
    """Makes the configuration's settings win over those that a checkpoint brought back; counters stay restored.

    Args:
        config: of today.
        new_learning_rate: whether the configured rate differs from the one the checkpoint was made with; otherwise
            the rate stays what the scheduler made of it.

    Attributes:
        stepped: whether a step was made.
    """

    def __init__(self, config: TrainConfig, *, new_learning_rate: bool) -> None:
        self.config, self.new_learning_rate = config, new_learning_rate
        self.stepped = False

    def on_train_batch_end(self, *_: Any) -> None:
        """Whatever a checkpoint brought back has served for a step by now."""
        self.stepped = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has restored optimiser and scheduler by now, their settings too."""
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        configured = parameter_groups(pl_module.network, self.config.optimizer)
        for group, now in zip(trainer.optimizers[0].param_groups, configured, strict=True):
            group["weight_decay"] = now["weight_decay"]
            if self.new_learning_rate:
                group["lr"] = self.config.optimizer.learning_rate
        scheduler = pl_module.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.factor, scheduler.patience = self.config.scheduler.factor, self.config.scheduler.patience


class EpochEnd(Checkpoint):
    """Selects, saves and records at the end of each epoch.

    Being a ``Checkpoint``, Lightning calls it last, after the module has published its metrics and stepped the
    scheduler. The checkpoint goes first, then the points: a kill in between leaves points to be filled in from the
    checkpoint's history, never points that a resumed run would record twice.

    Args:
        selection: ranks epochs.
        recorder: takes the records.
        folder: where checkpoints are written before they are recorded.
        carried: plain values that every checkpoint carries.
    """

    def __init__(self, selection: Selection, recorder: Recorder, folder: Path, carried: dict[str, Any]) -> None:
        self.selection, self.recorder, self.folder, self.carried = selection, recorder, folder, carried
        self._started = 0.0
        self._learning_rate = 0.0

    @property
    def seconds(self) -> float:
        """That the epoch has taken so far."""
        return time.perf_counter() - self._started

    def begin(self, trainer: pl.Trainer, seconds: float = 0.0) -> None:
        """Note when an epoch began and at which learning rate.

        Args:
            trainer: at its beginning, or going on within it.
            seconds: that it has taken already.
        """
        self._started = time.perf_counter() - seconds
        assert isinstance(trainer.lightning_module, ScoringModule)  # noqa: S101 (for the type checker)
        self._learning_rate = trainer.lightning_module.rate_at(0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """It begins."""
        self.begin(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Select, save, record."""
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        epoch = trainer.current_epoch
        metrics = {
            **pl_module.epoch_metrics,
            LEARNING_RATE: self._learning_rate,
            EPOCH_SECONDS: self.seconds,
        }
        outcome = self.selection.update(epoch, metrics)
        self._save(trainer, outcome.keep.file_name if outcome.keep else None)
        tags = {}
        if outcome.is_best and outcome.keep:
            tags = {TAG_BEST_CHECKPOINT: f"{CHECKPOINT_DIR}/{outcome.keep.file_name}", TAG_BEST_EPOCH: str(epoch)}
        removed = [f"{CHECKPOINT_DIR}/{dropped.file_name}" for dropped in outcome.dropped]
        self.recorder.epoch({**metrics, **outcome.improved_metrics}, step=epoch, tags=tags, removed=removed)
        if self.recorder.complete:  # else a file may still have to be delivered
            for dropped in outcome.dropped:
                (self.folder / dropped.file_name).unlink(missing_ok=True)
        trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop or self.selection.should_stop)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the schema, the network's spec and the like, and the selection's state."""
        checkpoint.update(self.carried)
        checkpoint["selection"] = self.selection.state_dict()

    def _save(self, trainer: pl.Trainer, kept_name: str | None) -> None:
        last = self.folder / LAST_CHECKPOINT
        trainer.save_checkpoint(last)
        self.recorder.checkpoint(last)
        if kept_name:
            _same_file(last, self.folder / kept_name)
            self.recorder.checkpoint(self.folder / kept_name)
            self.recorder.checkpoint(write_kept_index(self.selection, self.folder))


class EpochEndBeside(Checkpoint):
    """What a process that records nothing does at the end of an epoch: what the one that does asks of it."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, where that takes several, and stop when the other does."""
        trainer.save_checkpoint(LAST_CHECKPOINT)
        trainer.should_stop = trainer.strategy.broadcast(False)


class NewFiles(TorchCheckpointIO):
    """Writes each checkpoint as a file of its own in the run's scratch folder, from where it is recorded."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a new file; who holds the old one by another name keeps it as it was.

        Nobody goes on from this folder, so that nothing is written aside and renamed: a disk may make renaming over
        a file wait until what was written is on it.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).unlink(missing_ok=True)
        Path(path).write_bytes(content.getbuffer())


def _same_file(written: Path, name: Path) -> None:
    """Give a checkpoint another name as well: the next one is another file. A copy, where the disk knows no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(written, name)
    except OSError:
        shutil.copyfile(written, name)


class EpochLines(Callback):
    """One line for each epoch, and more within a long one, where there is no terminal to draw a bar on.

    Args:
        selection: knows the best epoch.
        every_n_steps: optimiser steps of an epoch between two lines within it.
    """

    def __init__(self, selection: Selection, every_n_steps: int) -> None:
        self.selection, self.every_n_steps = selection, every_n_steps
        self._steps_before = self._last_step = 0  # optimiser steps of the epochs before, and when last looked at
        self._reported = max(selection.history, default=-1)  # by an earlier part of a run that goes on

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of an epoch that goes on, steps were made before."""
        seen = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._last_step = trainer.global_step
        self._steps_before = trainer.global_step - -(-seen // trainer.accumulate_grad_batches)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch before: its last callbacks have run."""
        self._report(trainer, trainer.current_epoch - 1)
        self._steps_before = self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A sign of life within an epoch; its last step is left to the epoch's own line."""
        stepped, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        step = trainer.global_step - self._steps_before
        if not stepped or step % self.every_n_steps or trainer.is_last_batch:
            return
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        total = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        log.info(
            "epoch %s  step %d/%d  train_mse %.4f so far",
            *(_of_all(trainer, trainer.current_epoch), step, total, pl_module.train_mse),
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the last epoch."""
        self._report(trainer, max(self.selection.history, default=-1))

    def _report(self, trainer: pl.Trainer, epoch: int) -> None:
        metrics = self.selection.history.get(epoch)
        if metrics is None or epoch <= self._reported:
            return
        best = " *" if self.selection.best and self.selection.best.epoch == epoch else ""
        log.info(
            "epoch %s  train_mse %.4f  val_loss %.4f  spearman %.3f  ranking_loss %.3f  lr %.2g  %.1f s%s",
            _of_all(trainer, epoch),
            metrics[TRAIN_MSE],
            metrics[VAL_LOSS],
            metrics[VAL_SPEARMAN],
            metrics[VAL_RANKING_LOSS],
            metrics[LEARNING_RATE],
            metrics[EPOCH_SECONDS],
            best,
        )


def _of_all(trainer: pl.Trainer, epoch: int) -> str:
    """An epoch and the last one, both counted from 0."""
    return f"{epoch}/{trainer.max_epochs - 1 if trainer.max_epochs else '?'}"


def progress_callback(selection: Selection, settings: LoggingConfig, *, bar: bool = True) -> Callback:
    """A bar on a terminal, lines elsewhere, at a refresh rate of 0 or without ``bar``; both on standard error."""
    refresh_rate = settings.progress_bar_refresh_rate
    if bar and refresh_rate > 0 and sys.stderr.isatty():
        return RichProgressBar(refresh_rate=refresh_rate, leave=False, console_kwargs={"stderr": True})
    return EpochLines(selection, settings.log_every_n_steps)
