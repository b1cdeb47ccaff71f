"""Checkpoint files, read without running anything they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from topotrain.errors import DataError
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.schema import FeatureSchema

NETWORK_PREFIX = "network."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of topotrain as plain values and tensors.

    Raises:
        DataError: missing, or not such a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", "a checkpoint") from None
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path}: not a readable checkpoint ({reason})", "a checkpoint written by topotrain") from None
    needed = {"state_dict", "feature_metadata", "model_hyperparameters"}
    if not isinstance(content, dict) or not needed <= set(content):
        raise DataError(f"{path}: holds no {', '.join(sorted(needed))}", "a checkpoint written by topotrain")
    return content


def load_network(path: Path) -> tuple[TopoQANetwork, FeatureSchema]:
    """The network of a checkpoint, with the schema it was trained on.

    Raises:
        DataError: missing, or not a checkpoint of topotrain.
    """
    return network_of(read_checkpoint(path))


def network_of(content: dict[str, Any]) -> tuple[TopoQANetwork, FeatureSchema]:
    """The network of a checkpoint that was read, with the schema it was trained on."""
    network = TopoQANetwork(NetworkSpec(**content["model_hyperparameters"]))
    weights = {
        name.removeprefix(NETWORK_PREFIX): value
        for name, value in content["state_dict"].items()
        if name.startswith(NETWORK_PREFIX)
    }
    network.load_state_dict(weights)
    return network.eval(), FeatureSchema.from_dict(content["feature_metadata"])
