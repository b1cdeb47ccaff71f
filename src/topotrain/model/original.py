"""Weights of the original networks, read into today's.

The original state dicts name their parts ``embed.0``, ``edge_embed.0...``, ``conv1.0``, ``conv2.0``, ``fc_edge``,
``protein_fc_1.0``, ``fc1``, ``out``; a ``conv3.0`` is there too and never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from topotrain.errors import DataError
from topotrain.model.network import NetworkSpec, TopoQANetwork, network_of_weights
from topotrain.text import one_line

Pooling = Literal["mean", "add", "max"]
EXPECTED = "weights of an original TopoQA network"
# The original's prefix and today's; the longer ones of two that fit come first.
RENAMED = (
    ("embed.0.", "node_embedding."),
    ("edge_embed.0.", "edge_encoder."),
    ("conv1.0.edge_linear.", "layers.0.edge_update.linear."),
    ("conv2.0.edge_linear.", "layers.1.edge_update.linear."),
    ("conv1.0.", "layers.0.conv."),
    ("conv2.0.", "layers.1.conv."),
    ("fc_edge.", "edge_readout."),
    ("protein_fc_1.0.", "head.0."),
    ("fc1.", "head.2."),
    ("out.", "head.4."),
)
UNUSED = "conv3."


def spec_of_original(weights: Mapping[str, Tensor], pooling_type: str = "mean") -> NetworkSpec:
    """Read widths, heads and the kind of edge encoder from the shapes.

    Args:
        weights: a state dict with original names.
        pooling_type: ``mean``, ``add`` or ``max``; the weights do not tell.

    Raises:
        DataError: the weights are not of an original network.
    """
    if pooling_type not in get_args(Pooling):
        raise DataError(f"pooling {pooling_type!r}", f"one of {', '.join(get_args(Pooling))}")

    def shape(name: str, num_dims: int) -> torch.Size:
        if name not in weights:
            raise DataError(f"no weight named {name!r}", EXPECTED)
        found = weights[name].shape
        if len(found) != num_dims or 0 in found:
            raise DataError(f"weight {name!r} has shape {tuple(found)}", f"{num_dims} dimensions, none of them empty")
        return found

    hidden_dim, node_dim = shape("embed.0.weight", 2)
    flat = "edge_embed.0.weight" in weights
    return NetworkSpec(
        node_dim=node_dim,
        edge_dim=shape("edge_embed.0.weight" if flat else "edge_embed.0.0.weight", 2)[1],
        pooling_type=pooling_type,  # type: ignore[arg-type]
        attention_head=shape("conv1.0.att", 3)[1],
        hidden_dim=hidden_dim,
        use_layer_norm="edge_embed.0.3.weight" in weights,
        edge_encoder="flat" if flat else "mlp",
    )


def rename_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under today's names; the unused third convolution is left out."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith(UNUSED):
            continue
        new = _translated(name, RENAMED)
        if new is None:
            raise DataError(f"unexpected weight {name!r}", EXPECTED)
        renamed[new] = value
    return renamed


def load_original(weights: Mapping[str, Tensor], pooling_type: str = "mean") -> TopoQANetwork:
    """A network that scores as the original did, in the weights' own precision; its input scaling is the identity.

    Raises:
        DataError: a weight is missing, unexpected, of another shape or kind, or not finite; which one is said.
    """
    for name, value in weights.items():
        _check_kind(name, value)
    spec = spec_of_original(weights, pooling_type)
    state = rename_original(weights)
    with torch.device("meta"):  # shapes alone: nothing is allocated by what a hostile file claims
        network = TopoQANetwork(spec)
    originals = [(new, old) for old, new in RENAMED]
    for name, parameter in network.named_parameters():
        found = state.get(name)
        if found is None or found.shape != parameter.shape:
            shown = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise DataError(f"weight {_translated(name, originals)!r} {shown}", f"shape {tuple(parameter.shape)}")
    surplus = sorted(state.keys() - dict(network.named_parameters()).keys())
    if surplus:
        raise DataError(f"unexpected weight {_translated(surplus[0], originals)!r}", EXPECTED)
    precision = next(iter(state.values())).dtype
    for name, buffer in network.named_buffers():
        identity = torch.ones if name.endswith("scale") else torch.zeros
        state[name] = identity(buffer.shape, dtype=precision)
    try:
        return network_of_weights(spec, state)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"the weights do not fit ({one_line(error)})", EXPECTED) from None


def _check_kind(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or not value.dtype.is_floating_point:
        kind = f"{value.dtype} of layout {value.layout}" if isinstance(value, Tensor) else type(value).__name__
        raise DataError(f"weight {name!r} is {kind}", "a dense tensor of floating point values")
    if value.device.type != "cpu" or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise DataError(f"weight {name!r} claims shape {tuple(value.shape)} over fewer stored values", "all of them")


def _translated(name: str, prefixes: Sequence[tuple[str, str]]) -> str | None:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None
