"""Ending a run in the middle of an epoch, after a step, and going on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from topotrain.fields import CHECKPOINT_DIR, LAST_CHECKPOINT, MID_EPOCH_CHECKPOINT
from topotrain.model.lightning import ScoringModule
from topotrain.signals import Wish
from topotrain.training.callbacks import EpochEnd

if TYPE_CHECKING:
    from topotrain.tracking.recorder import Recorder

MID_EPOCH = "mid_epoch"  # what a checkpoint holds of the part of an epoch that was trained
# Of Lightning's counters, as if the first batch of a validation were under way: all of it is computed again.
NOT_VALIDATED = {
    "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
    "is_last_batch": False,
}


def checkpoint_name(content: Mapping[str, Any]) -> str:
    """What a checkpoint that was read is called among a run's, where it is the newest."""
    return MID_EPOCH_CHECKPOINT if content.get(MID_EPOCH) else LAST_CHECKPOINT


def batches_seen(content: Mapping[str, Any]) -> int:
    """Batches that the epoch under way has seen when a checkpoint was made; 0 where none is under way."""
    if not content.get(MID_EPOCH):
        return 0
    seen: int = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
    return seen


class StepEnd(Checkpoint):
    """Ends a run that a signal asks to stop, once the step under way has ended and is saved.

    Weights, optimiser and Lightning's counters are in every checkpoint. Within an epoch three things more decide what
    comes of it: the errors so far, of which its mean will be made, the state of the random generator that dropout is
    drawn from, and the seconds. Order and batches follow from seed and epoch.

    Args:
        wish: to stop.
        epoch_end: what goes before at the end of an epoch.
        begun: what the checkpoint that the run goes on from holds of the epoch under way; nothing where none is.

    Attributes:
        batches: seen by the epoch in which the run was stopped.
    """

    def __init__(self, wish: Wish, epoch_end: EpochEnd, begun: Mapping[str, Any] | None) -> None:
        self.wish, self.epoch_end, self.begun = wish, epoch_end, begun
        self.batches = 0
        self._recorded = begun is not None
        self._saving = False

    @property
    def _recorder(self) -> Recorder:
        return self.epoch_end.recorder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring back what the epoch under way has come to; Lightning does not begin it once more."""
        if self.begun is None:
            return
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        pl_module.train_errors = self.begun["train_errors"].to(pl_module.device)
        self.epoch_end.begin(trainer, self.begun["seconds"])
        torch.set_rng_state(self.begun["random"])
        if pl_module.device.type == "cuda" and self.begun.get("cuda_random") is not None:
            torch.cuda.set_rng_state(self.begun["cuda_random"], pl_module.device)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Between two epochs everything is saved."""
        self.wish.heed()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, unless gradients of more batches are to come; the last step is left to the validation."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.wish.signum is not None and stepped and not trainer.is_last_batch:
            self._end(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save and end: the epoch has made its last step, and will be validated anew."""
        if self.wish.signum is not None:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's own checkpoint is recorded by now."""
        if self._recorded:
            self._recorder.remove(f"{CHECKPOINT_DIR}/{MID_EPOCH_CHECKPOINT}")
            self._recorded = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what decides within an epoch."""
        if not self._saving:
            return
        assert isinstance(pl_module, ScoringModule)  # noqa: S101 (for the type checker)
        checkpoint[MID_EPOCH] = {
            "train_errors": pl_module.train_errors,
            "random": torch.get_rng_state(),
            "seconds": self.epoch_end.seconds,
        }
        if pl_module.device.type == "cuda":
            checkpoint[MID_EPOCH]["cuda_random"] = torch.cuda.get_rng_state(pl_module.device)
        if trainer.validating:
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = NOT_VALIDATED

    def _end(self, trainer: pl.Trainer) -> None:
        path = self.epoch_end.folder / MID_EPOCH_CHECKPOINT
        self._saving = True
        trainer.save_checkpoint(path)
        self._recorder.checkpoint(path)
        self.batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.wish.heed()
