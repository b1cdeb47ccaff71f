"""Input scaling as buffers of the network, so that a model takes raw features wherever it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CONSTANT_BELOW = 1e-6  # relative to max(1, |mean|)
BLOCK_VALUES = 2**16  # so many values at a time stay in the cache


class InputScaling(nn.Module):
    """``(values - mean) / scale`` per column; the identity until fitted.

    Args:
        width: number of columns.
        limit: scaled values beyond it, on either side of zero, are taken for it; ``None`` for no limit.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, limit: float | None = None) -> None:
        super().__init__()
        self.limit = limit
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
        return scaled if self.limit is None else scaled.clamp(-self.limit, self.limit)


def scaled_linear(values: Tensor, scaling: InputScaling, linear: nn.Linear) -> Tensor:
    """``linear(scaling(values))`` on the CPU, without scaled values that are written to memory.

    The means are taken from the values, since folded into the bias they would cancel badly where a mean is large; the
    division is folded into the weights, which costs no accuracy.

    Args:
        values: (num_rows, width) raw values.
        scaling: of as many columns.
        linear: from these columns.
    """
    out: Tensor = _ScaledLinear.apply(values, linear.weight, linear.bias, scaling.mean, scaling.scale)  # type: ignore[no-untyped-call]
    return out


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        divided = weight / scale  # (out, width)
        out = values.new_empty(values.shape[0], weight.shape[0])
        for block in _blocks(values):
            torch.addmm(bias, values[block] - mean, divided.t(), out=out[block])
        ctx.save_for_backward(values, divided, mean, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, divided, mean, scale = ctx.saved_tensors
        weight = torch.zeros_like(divided)
        for block in _blocks(values):
            weight.addmm_(grad[block].t(), values[block] - mean)
        of_values = grad @ divided if ctx.needs_input_grad[0] else None
        return of_values, weight.div_(scale), grad.sum(dim=0), None, None


def _blocks(values: Tensor) -> Iterator[slice]:
    rows = max(1, BLOCK_VALUES // max(1, values.shape[1]))
    return (slice(first, first + rows) for first in range(0, values.shape[0], rows))
