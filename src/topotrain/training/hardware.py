"""Lightning's trainer on what a configuration asks for, or one line that says what this machine lacks."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException

from topotrain.config import TrainerConfig
from topotrain.errors import ConfigError
from topotrain.text import one_line


def make_trainer(config: TrainerConfig, **settings: Any) -> pl.Trainer:
    """A trainer on one device of this machine.

    Args:
        config: names accelerator, devices and precision.
        **settings: of the trainer.

    Raises:
        ConfigError: this machine has no such accelerator or device, or they are several.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    try:
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,  # type: ignore[arg-type]
            logger=False,
            enable_model_summary=False,
            **settings,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {one_line(error)}", "settings that this machine has") from None
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices is {config.devices!r}, {trainer.world_size} processes", "one device", "set it to 1"
        )
    return trainer


def check_hardware(config: TrainerConfig) -> None:
    """See that this machine has what a configuration asks for, without training.

    Raises:
        ConfigError: it does not.
    """
    make_trainer(config, enable_checkpointing=False, enable_progress_bar=False)
