"""What happens around an epoch: seeds, figures, checkpoints, records, and what the user sees."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from torch import Tensor

from topotrain.fields import (
    CHECKPOINT_DIR,
    EPOCH_SECONDS,
    KEPT_INDEX,
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
from topotrain.tracking.recorder import Recorder
from topotrain.training.selection import Selection

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


class EpochEnd(Checkpoint):
    """Selects, saves and records at the end of each epoch.

    Being a ``Checkpoint``, Lightning calls it last, after the module has published its figures and stepped the
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
        self.best_val_predictions: tuple[Tensor, Tensor, Tensor] | None = None
        self._started = 0.0
        self._learning_rate = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when the epoch began and at which learning rate."""
        self._started = time.perf_counter()
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Select, save, record."""
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        epoch = trainer.current_epoch
        figures = {
            **pl_module.epoch_figures,
            LEARNING_RATE: self._learning_rate,
            EPOCH_SECONDS: time.perf_counter() - self._started,
        }
        verdict = self.selection.update(epoch, figures)
        if verdict.is_best:
            self.best_val_predictions = pl_module.val_predictions
        self._save(trainer, verdict.keep.file_name if verdict.keep else None)
        for dropped in verdict.dropped:
            self.recorder.remove(f"{CHECKPOINT_DIR}/{dropped.file_name}")
        self.recorder.metrics({**figures, **verdict.improved_figures}, step=epoch)
        if verdict.is_best and verdict.keep:
            best = f"{CHECKPOINT_DIR}/{verdict.keep.file_name}"
            self.recorder.tags({TAG_BEST_CHECKPOINT: best, TAG_BEST_EPOCH: str(epoch)})
        if self.recorder.complete:  # else a file may still have to be delivered
            for dropped in verdict.dropped:
                (self.folder / dropped.file_name).unlink(missing_ok=True)
        if self.selection.should_stop:
            trainer.should_stop = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the schema, the network's spec and the like."""
        checkpoint.update(self.carried)

    def state_dict(self) -> dict[str, Any]:
        """The selection's state."""
        return self.selection.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the selection's state."""
        self.selection.load_state_dict(state_dict)

    def _save(self, trainer: pl.Trainer, kept_name: str | None) -> None:
        last = self.folder / LAST_CHECKPOINT
        trainer.save_checkpoint(last)
        self.recorder.file(last, CHECKPOINT_DIR)
        if kept_name:
            shutil.copyfile(last, self.folder / kept_name)
            self.recorder.file(self.folder / kept_name, CHECKPOINT_DIR)
            index = self.folder / KEPT_INDEX
            index.write_text(json.dumps(kept_index(self.selection), indent=2) + "\n", encoding="utf-8")
            self.recorder.file(index, CHECKPOINT_DIR)


def kept_index(selection: Selection) -> list[dict[str, Any]]:
    """The kept checkpoints, best first, as recorded beside them."""
    return [
        {"rank": rank, "epoch": kept.epoch, "file": kept.file_name, **kept.figures}
        for rank, kept in enumerate(selection.kept, start=1)
    ]


class EpochLines(Callback):
    """One line for each epoch, where there is no terminal to draw a bar on.

    Args:
        selection: knows the best epoch.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the epoch before: its last callbacks have run."""
        self._tell(trainer, trainer.current_epoch - 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the last epoch."""
        self._tell(trainer, max(self.selection.history, default=-1))

    def _tell(self, trainer: pl.Trainer, epoch: int) -> None:
        figures = self.selection.history.get(epoch)
        if figures is None:
            return
        best = " *" if self.selection.best and self.selection.best.epoch == epoch else ""
        log.info(
            "epoch %d/%s  train_mse %.4f  val_loss %.4f  spearman %.3f  ranking_loss %.3f  lr %.2g  %.1f s%s",
            epoch,
            trainer.max_epochs - 1 if trainer.max_epochs else "?",
            figures[TRAIN_MSE],
            figures[VAL_LOSS],
            figures[VAL_SPEARMAN],
            figures[VAL_RANKING_LOSS],
            figures[LEARNING_RATE],
            figures[EPOCH_SECONDS],
            best,
        )


def progress_callback(selection: Selection, refresh_rate: int) -> Callback:
    """A bar on a terminal, one line for each epoch elsewhere; both on standard error."""
    if sys.stderr.isatty():
        return RichProgressBar(refresh_rate=refresh_rate, leave=False, console_kwargs={"stderr": True})
    return EpochLines(selection)
