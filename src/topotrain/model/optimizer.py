"""The optimiser and the cosine of its rate, as a configuration asks for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from topotrain.config import OptimizerConfig, SchedulerConfig

SHARE_OF_WARMUP = 8  # of a short training no more than an eighth is spent on rising
OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def parameter_groups(network: nn.Module, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters with their weight decay.

    That of Adam is on all of them; that of AdamW on matrices alone, since biases and the weights of norms are no
    directions of which a small one would be the simpler one.

    Args:
        network: of the parameters.
        settings: of the optimiser.
    """
    parameters = list(network.parameters())
    if settings.type == "adam":
        return [{"params": parameters, "weight_decay": settings.weight_decay}]
    return [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(network: nn.Module, settings: OptimizerConfig, *, fused: bool) -> Optimizer:
    """Adam or AdamW.

    Args:
        network: whose parameters it moves.
        settings: of it.
        fused: as one kernel.
    """
    groups = parameter_groups(network, settings)
    optimizer: Optimizer = OPTIMIZERS[settings.type](groups, lr=settings.learning_rate, fused=fused)
    return optimizer


def cosine_factor(step: int, num_steps: int, settings: SchedulerConfig) -> float:
    """What the learning rate is multiplied by.

    Source: Loshchilov and Hutter, ICLR 2017, without restarts; a linear rise is multiplied to it.

    Args:
        step: optimiser steps made before.
        num_steps: of the whole training, 1 or more.
        settings: of the scheduler; a rise takes no more than an eighth of the steps.
    """
    warmup_steps = min(settings.warmup_steps, num_steps // SHARE_OF_WARMUP)
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return 0.5 * (1 + math.cos(math.pi * step / num_steps)) * rise
