"""How many epochs a recipe takes that leaves their number to the data."""

from __future__ import annotations

import math

from topotrain.config import MOST_EPOCHS, TrainConfig

STEPS = 400  # of the optimiser: docs/defaults.md says why
LEAST_EPOCHS = 8


def with_epochs(config: TrainConfig, num_batches: int) -> TrainConfig:
    """The configuration with a number of epochs: those that make about 400 optimiser steps, 8 at least, 100 at most.

    Args:
        config: with or without a number.
        num_batches: of an epoch.
    """
    if config.trainer.num_epochs is not None:
        return config
    steps = math.ceil(num_batches / config.trainer.accumulate_grad_batches)
    num_epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(STEPS / max(1, steps))))
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"num_epochs": num_epochs})})
