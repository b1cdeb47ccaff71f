"""Checkpoint files, read without running anything they say."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from topotrain.data.graph_file import refuse_bomb
from topotrain.errors import DataError
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.text import first_line

NETWORK_PREFIX = "network."


def load_plain(path: Path, expected: str, do: str = "") -> Any:
    """Read a file of ``torch.save`` that holds tensors and plain values; nothing else in it is run.

    Args:
        path: the file.
        expected: what it should be, for messages.
        do: what to do with one that names anything else.

    Raises:
        DataError: missing, not such a file, or it names anything executable.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: no regular file", expected)
    try:
        refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", expected) from None
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise DataError(f"{path}: refused, it names {named[1]}", "tensors and plain values", do) from None
        reason = first_line(str(error), type(error).__name__)
        raise DataError(f"{path}: not a readable checkpoint ({reason})", expected) from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of topotrain as plain values and tensors.

    Raises:
        DataError: missing, or not such a checkpoint.
    """
    content = load_plain(path, "a checkpoint written by topotrain")
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
