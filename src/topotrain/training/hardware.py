"""Lightning's trainer on what a configuration asks for, or one line that says what this machine lacks."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl

from topotrain.config import EVERYWHERE, HARDWARE, TrainConfig, TrainerConfig, check_sizes
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
