"""A graph as the served model takes it: base64 of an ``.npz`` without pickle."""

from __future__ import annotations

import base64
import binascii
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topotrain.data.graph_file import Graph, make_graph, read_graph
from topotrain.errors import DataError
from topotrain.fields import EDGE_ATTR, EDGE_INDEX, METADATA, X
from topotrain.reading.json_file import parse_json
from topotrain.text import one_line

MAX_GRAPH_BYTES = 512 * 2**20


def encode_graph(graph: Graph) -> str:
    """A graph as the served model takes it: base64 of an ``.npz`` without pickle."""
    buffer = io.BytesIO()
    arrays = {X: graph.x.numpy(), EDGE_INDEX: graph.edge_index.numpy(), EDGE_ATTR: graph.edge_attr.numpy()}
    if graph.metadata:
        arrays[METADATA] = np.array(json.dumps(graph.metadata))
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


def decode_graph(text: str, key: str) -> Graph:
    """The inverse of ``encode_graph``, for text from anywhere.

    Raises:
        DataError: not base64, not an ``.npz`` of arrays, or not a graph.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise DataError("graph is not base64", "base64 of an .npz") from None
    return _graph_of_npz(io.BytesIO(raw), key)


def open_graph(path: Path) -> Graph:
    """Read a graph from a ``.pt`` or ``.npz`` file.

    Raises:
        DataError: missing or malformed.
    """
    if path.suffix != ".npz":
        return read_graph(path)
    try:
        return _graph_of_npz(io.BytesIO(path.read_bytes()), path.stem)
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise DataError(f"{path}: can't be read ({one_line(error)})", "an interface graph (.npz)") from None


def _graph_of_npz(file: io.BytesIO, key: str) -> Graph:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_GRAPH_BYTES:
                raise DataError("graph unpacks to more than 512 MiB", "one interface graph")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            fields: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in (X, EDGE_INDEX, EDGE_ATTR)}
            if METADATA in arrays:
                fields[METADATA] = parse_json(str(arrays[METADATA][()]))
        return make_graph(fields, key)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        raise DataError(
            f"graph is not an .npz of arrays ({one_line(error)})", f"{X}, {EDGE_INDEX} and {EDGE_ATTR}"
        ) from None
