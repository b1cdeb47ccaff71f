"""Input scaling as buffers of the network, so that a model takes raw features wherever it goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONSTANT_BELOW = 1e-6  # relative to max(1, |mean|)


class InputScaling(nn.Module):
    """``(values - mean) / scale`` per column; the identity until fitted.

    Args:
        width: number of columns.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    @torch.no_grad()
    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Take mean and standard deviation of training rows, both (width,) float64.

        A column whose standard deviation is under 1e-6 x max(1, |mean|) counts as constant and is divided by 1:
        another value of it elsewhere then stays as far from the mean as it is in raw units.
        """
        constant = deviation < CONSTANT_BELOW * mean.abs().clamp(min=1.0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), deviation))

    def forward(self, values: Tensor) -> Tensor:
        """Scale (num_rows, width) raw values."""
        scaled: Tensor = (values - self.mean) / self.scale
        return scaled
