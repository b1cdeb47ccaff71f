"""Weights of the original networks, read into today's.

The original state dicts name their parts ``embed.0``, ``edge_embed.0...``, ``conv1.0``, ``conv2.0``, ``fc_edge``,
``protein_fc_1.0``, ``fc1``, ``out``; a ``conv3.0`` is there too and never used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from topotrain.errors import DataError
from topotrain.model.network import NetworkSpec, TopoQANetwork

RENAMED = (
    (r"^embed\.0\.", "node_embedding."),
    (r"^edge_embed\.0\.", "edge_encoder."),
    (r"^conv1\.0\.edge_linear\.", "layers.0.edge_update.linear."),
    (r"^conv2\.0\.edge_linear\.", "layers.1.edge_update.linear."),
    (r"^conv1\.0\.", "layers.0.conv."),
    (r"^conv2\.0\.", "layers.1.conv."),
    (r"^fc_edge\.", "edge_readout."),
    (r"^protein_fc_1\.0\.", "head.0."),
    (r"^fc1\.", "head.2."),
    (r"^out\.", "head.4."),
)
UNUSED = re.compile(r"^conv3\.")


def spec_of_original(weights: Mapping[str, Tensor], pooling_type: str = "mean") -> NetworkSpec:
    """Read widths, heads and the kind of edge encoder from the shapes.

    Args:
        weights: a state dict with original names.
        pooling_type: ``mean``, ``add`` or ``max``; the weights do not tell.

    Raises:
        DataError: the weights are not of an original network.
    """
    try:
        hidden_dim, node_dim = weights["embed.0.weight"].shape
        heads = weights["conv1.0.att"].shape[1]
        flat = "edge_embed.0.weight" in weights
        first = weights["edge_embed.0.weight" if flat else "edge_embed.0.0.weight"]
    except KeyError as error:
        raise DataError(f"no weight named {error.args[0]!r}", "weights of an original TopoQA network") from None
    return NetworkSpec(
        node_dim=node_dim,
        edge_dim=first.shape[1],
        pooling_type=pooling_type,  # type: ignore[arg-type]
        attention_head=heads,
        hidden_dim=hidden_dim,
        use_layer_norm="edge_embed.0.3.weight" in weights,
        edge_encoder="flat" if flat else "mlp",
    )


def rename_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under today's names; the unused third convolution is left out."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if UNUSED.match(name):
            continue
        for pattern, replacement in RENAMED:
            new, count = re.subn(pattern, replacement, name)
            if count:
                renamed[new] = value
                break
        else:
            raise DataError(f"unexpected weight {name!r}", "weights of an original TopoQA network")
    return renamed


def load_original(weights: Mapping[str, Tensor], pooling_type: str = "mean") -> TopoQANetwork:
    """A network that scores as the original did; its input scaling is the identity.

    Raises:
        DataError: a weight is missing, unexpected or of another shape.
    """
    network = TopoQANetwork(spec_of_original(weights, pooling_type)).to(next(iter(weights.values())).dtype)
    scaling = dict(network.named_buffers())  # the identity; a weight that is missing stays missing
    state = {**scaling, **rename_original(weights)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the weights do not fit ({error})", "weights of an original TopoQA network") from None
    return network
