"""Lightning's trainer on what a configuration asks for, or one line that says what this machine lacks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils import deterministic

from topotrain.config import EVERYWHERE, HARDWARE, TrainConfig, TrainerConfig, check_sizes
from topotrain.errors import ConfigError
from topotrain.text import one_line

FILLING: Any = deterministic  # its one setting is a property, which type checkers do not see


def make_trainer(config: TrainerConfig, **settings: Any) -> pl.Trainer:
    """A trainer on one device of this machine.

    Args:
        config: names accelerator, devices and precision.
        **settings: of the trainer.

    Raises:
        ConfigError: this machine has no such accelerator or device, or they are several.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if config.accelerator in ("cuda", "gpu") and not _has_gpu(config.accelerator):
        raise ConfigError(
            f"trainer.accelerator is {config.accelerator!r}, but PyTorch {torch.__version__} finds no GPU here",
            "a GPU, its driver, and a build of PyTorch for it",
            "set it to cpu or auto",
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*available but not used")  # the default is the CPU
            trainer = pl.Trainer(
                accelerator=config.accelerator,
                devices=config.devices,
                precision=config.precision,  # type: ignore[arg-type]
                logger=False,
                enable_model_summary=False,
                **settings,
            )
    except Exception as error:  # noqa: BLE001 (each accelerator raises its own kinds)
        asked = f"accelerator {config.accelerator!r}, devices {config.devices!r}, precision {config.precision!r}"
        raise ConfigError(
            f"trainer: {asked}: {one_line(error)}", "settings that this machine has", "e.g. cpu, 1 and 32"
        ) from None
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices is {config.devices!r}, {trainer.world_size} processes", "one device", "set it to 1"
        )
    return trainer


def check_hardware(config: TrainConfig) -> None:
    """See that this machine has what a configuration asks for, without training.

    Raises:
        ConfigError: it does not.
    """
    check_sizes(config)
    if config.trainer.model_dump(include=HARDWARE) != EVERYWHERE:
        make_trainer(config.trainer, enable_checkpointing=False, enable_progress_bar=False)


@contextmanager
def fitting(config: TrainConfig) -> Iterator[None]:
    """What holds while a trainer fits: memory is not filled for nothing, and too little of it is one line.

    Deterministic algorithms fill all new memory, lest someone read it before it is written. Nobody does here, and on a
    GPU every filling is one more kernel to start: the starting is what a small batch takes its time for.

    Raises:
        ConfigError: a batch did not fit into an accelerator's memory.
    """
    filled = FILLING.fill_uninitialized_memory
    FILLING.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch-scatter")
            yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the accelerator's memory is too small for a batch ({one_line(error).partition('. ')[0]})",
            "a batch that fits",
            f"lower dataloader.batch_size (now {config.dataloader.batch_size}); trainer.accumulate_grad_batches makes "
            "up for it",
        ) from None
    finally:
        FILLING.fill_uninitialized_memory = filled


def _has_gpu(name: str) -> bool:
    """Whether there is one; ``gpu`` is Apple's as well."""
    return torch.cuda.is_available() or (name == "gpu" and torch.backends.mps.is_available())
