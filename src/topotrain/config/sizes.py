"""Whether a run's network and processes fit this machine, from its configuration alone."""

from __future__ import annotations

import psutil

from topotrain.config.sections import TrainConfig, TrainerConfig
from topotrain.errors import ConfigError
from topotrain.limits import LAYERS, WORKERS, GiB

# What decides whether a machine can train: settings of the trainer, and those that every machine has.
HARDWARE = {"accelerator", "devices", "precision", "num_nodes"}
EVERYWHERE = TrainerConfig().model_dump(include=HARDWARE)
BYTES_OF_A_PARAMETER = 16  # the parameter, its gradient, and two moments of Adam, four bytes each


def processes_here(config: TrainConfig) -> int:
    """Processes that train on each machine: one for each device, where the configuration gives their number."""
    devices = str(config.trainer.devices).strip()
    return int(devices) if devices.isdecimal() else 1


def check_sizes(config: TrainConfig) -> None:
    """Refuse a run that this machine could not begin, before there is one.

    Raises:
        ConfigError: too many layers or processes, or a network that the free memory can't hold.
    """
    model, workers = config.model, config.dataloader.num_workers
    if workers > WORKERS.value:
        raise ConfigError(f"dataloader.num_workers is {workers}", f"at most {WORKERS.value}", WORKERS.raise_it)
    ranks = config.trainer.num_nodes * processes_here(config)
    if ranks > WORKERS.value:
        raise ConfigError(
            f"trainer: devices {config.trainer.devices} and num_nodes {config.trainer.num_nodes} are {ranks} processes",
            f"at most {WORKERS.value}",
            WORKERS.raise_it,
        )
    if model.num_layers > LAYERS.value:
        raise ConfigError(f"model.num_layers is {model.num_layers}", f"at most {LAYERS.value}", LAYERS.raise_it)
    # Its widest part alone: the linear maps of attention and edge update, six by hidden_dim squared for each head.
    parameters = 6 * model.num_layers * model.attention_head * model.hidden_dim**2 + 7 * model.hidden_dim**2
    needed, there = BYTES_OF_A_PARAMETER * parameters, psutil.virtual_memory().available
    if needed > there:
        sizes = f"hidden_dim {model.hidden_dim}, num_layers {model.num_layers}, attention_head {model.attention_head}"
        raise ConfigError(
            f"model: {sizes} make a network that takes {needed / GiB:,.0f} GiB to train",
            f"one that fits the {there / GiB:,.0f} GiB that are free here",
        )
