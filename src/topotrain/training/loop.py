"""Lightning's loop over epochs, for whoever trains: the process that records a run, and those that help it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pydantic import TypeAdapter, ValidationError

from topotrain.config import TrainConfig
from topotrain.data.module import GraphDataModule
from topotrain.errors import ConfigError, DataError
from topotrain.invocation import threads_asked
from topotrain.model.checkpoint import WRITTEN
from topotrain.model.lightning import ScoringModule
from topotrain.model.network import TopoQANetwork
from topotrain.schema.documents import fault
from topotrain.text import one_line
from topotrain.training.callbacks import ConfiguredSettings, EpochSeeds, NewFiles, OwnSignals
from topotrain.training.hardware import fitting, make_trainer
from topotrain.training.ranks import Place


@dataclass(frozen=True)
class Limits:
    """Options that cut a run short, for trying things out; such a run registers no model."""

    fast_dev_run: bool = False
    train_batches: int | float | None = None
    val_batches: int | float | None = None

    @property
    def any(self) -> bool:
        """Whether the run is cut short at all."""
        return bool(self.in_words)

    @property
    def in_words(self) -> str:
        """``train_batches=3``; empty where nothing is cut short."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return ", ".join(f"{name}={value}" for name, value in given.items())


def limits_of(content: Mapping[str, Any]) -> Limits:
    """What cut the run of a checkpoint short.

    Raises:
        DataError: it is malformed.
    """
    try:
        return TypeAdapter(Limits).validate_python(content.get("limits", {}))
    except ValidationError as error:
        at, found, _ = fault(error)
        raise DataError(f"the checkpoint's limits.{'.'.join(map(str, at))} {found}", WRITTEN) from None


@dataclass(frozen=True)
class Loop:
    """What training a network takes.

    Attributes:
        config: the recipe.
        limits: cut the run short.
        folder: for Lightning.
        place: of this process among several that train together.
        checkpoint: to go on from.
        new_learning_rate: whether the configured rate differs from the one that the checkpoint was made with.
    """

    config: TrainConfig
    limits: Limits
    folder: Path
    place: Place | None = None
    checkpoint: Path | None = None
    new_learning_rate: bool = False

    def run(self, network: TopoQANetwork, data: GraphDataModule, callbacks: Sequence[pl.Callback]) -> None:
        """Train.

        Args:
            network: is trained.
            data: batches.
            callbacks: around an epoch, beside those that whoever trains needs.

        Raises:
            ConfigError: limits that leave no batch, or too little memory.
            DataError: the checkpoint can't be gone on from.
            TrainingError: the loss is not finite.
        """
        module = ScoringModule(network, self.config, data.train, data.val)
        settings = ConfiguredSettings(self.config, new_learning_rate=self.new_learning_rate)
        seeds = EpochSeeds(self.config.dataloader.seed)
        trainer = self._trainer([settings, seeds, OwnSignals(), *callbacks])
        if self.place:
            data.seat = self.place.seat
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            try:
                with fitting(self.config):
                    trainer.fit(module, datamodule=data, ckpt_path=self.checkpoint, weights_only=True)
            except MisconfigurationException as error:
                raise ConfigError(f"training can't start: {one_line(error)}", "limits that leave a batch") from None
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                if self.checkpoint is None or settings.stepped:
                    raise
                raise DataError(
                    f"the run can't go on from its checkpoint ({type(error).__name__}: {one_line(error)})",
                    WRITTEN,
                    "go on from another with: --checkpoint best",
                ) from error

    def _trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        config = self.config.trainer
        return make_trainer(
            *(config, self.place),
            max_epochs=config.num_epochs,
            accumulate_grad_batches=config.accumulate_grad_batches,
            fast_dev_run=self.limits.fast_dev_run,
            limit_train_batches=self.limits.train_batches,
            limit_val_batches=self.limits.val_batches,
            num_sanity_val_steps=0,
            deterministic=True,
            enable_checkpointing=True,
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
            default_root_dir=str(self.folder),
            callbacks=callbacks,
            plugins=[NewFiles()],
        )


def limit_threads() -> None:
    """One thread for the small tensors of interface graphs: faster, and the same sums on any number of cores."""
    if threads_asked() is None:
        torch.set_num_threads(1)
