"""Lightning's trainer on what a configuration asks for, or one line that says what this machine lacks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch.utils import deterministic

from topotrain.config import EVERYWHERE, HARDWARE, TrainConfig, TrainerConfig, check_sizes
from topotrain.errors import ConfigError
from topotrain.text import one_line
from topotrain.training.ranks import Place, PlaceEnvironment, SharedStrategy

FILLING: Any = deterministic  # its one setting is a property, which type checkers do not see


def make_trainer(config: TrainerConfig, place: Place | None = None, **settings: Any) -> pl.Trainer:
    """A trainer on devices of this machine.

    Args:
        config: names accelerator, devices and precision.
        place: of this process among several that train together.
        **settings: of the trainer.

    Raises:
        ConfigError: this machine has no such accelerator or device.
    """
    if place is not None:
        settings |= {"strategy": SharedStrategy(), "use_distributed_sampler": False}
    # Where nobody says so, Lightning would look for a cluster, and act on its signals.
    environment = LightningEnvironment() if place is None else PlaceEnvironment(place)
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
                num_nodes=config.num_nodes,
                logger=False,
                enable_model_summary=False,
                plugins=[environment, *settings.pop("plugins", ())],
                **settings,
            )
    except Exception as error:  # noqa: BLE001 (each accelerator raises its own kinds)
        asked = f"accelerator {config.accelerator!r}, devices {config.devices!r}, precision {config.precision!r}"
        raise ConfigError(
            f"trainer: {asked}: {one_line(error)}", "settings that this machine has", "e.g. cpu, 1 and 32"
        ) from None
    return trainer


def check_hardware(config: TrainConfig) -> int:
    """See that this machine has what a configuration asks for, without training.

    Returns:
        How many processes train, one for each device of each machine.

    Raises:
        ConfigError: it does not.
    """
    check_sizes(config)
    if config.trainer.model_dump(include=HARDWARE) == EVERYWHERE:
        return 1
    trainer = make_trainer(config.trainer, enable_checkpointing=False, enable_progress_bar=False)
    return trainer.num_devices * config.trainer.num_nodes


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
