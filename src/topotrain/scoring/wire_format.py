"""A graph as the served model takes it: base64 of an ``.npz`` without pickle."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from topotrain.data.graph_file import Graph, make_graph, read_graph
from topotrain.errors import DataError, UserInputError
from topotrain.fields import EDGE_ATTR, EDGE_INDEX, METADATA, X
from topotrain.limits import REQUEST_BYTES, ROW_BYTES, ROW_EDGES
from topotrain.reading.content import content_of
from topotrain.reading.json_file import parse_json
from topotrain.text import one_line

PARTS = (X, EDGE_INDEX, EDGE_ATTR, METADATA)


def encode_graph(graph: Graph) -> str:
    """A graph as the served model takes it: base64 of an ``.npz`` without pickle."""
    buffer = io.BytesIO()
    arrays = {X: graph.x.numpy(), EDGE_INDEX: graph.edge_index.numpy(), EDGE_ATTR: graph.edge_attr.numpy()}
    if graph.metadata:
        arrays[METADATA] = np.array(json.dumps(graph.metadata))
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Allowance:
    """How much the rows of one request may still unpack to."""

    left: int

    def take(self, size: int) -> None:
        """Take the size of a row.

        Raises:
            DataError: less is left.
        """
        if size > self.left:
            what = f"graph comes after others of one request, which may unpack to {REQUEST_BYTES.value} bytes"
            raise DataError(what, "less in one request", f"send it in another; {REQUEST_BYTES.raise_it}")
        self.left -= size


def decode_graph(text: str, key: str, allowance: Allowance | None = None) -> Graph:
    """The inverse of ``encode_graph``, for text from anywhere.

    Args:
        text: of a row.
        key: names the graph.
        allowance: of the request.

    Raises:
        DataError: not base64, not an ``.npz`` of arrays, not a graph, or over a limit.
    """
    if len(text) > 2 * ROW_BYTES.value:
        raise DataError(f"graph is a text of {len(text)} characters", "one interface graph", ROW_BYTES.raise_it)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise DataError("graph is not base64", "base64 of an .npz") from None
    return _graph_of_npz(io.BytesIO(raw), key, allowance)


def open_graph(path: Path) -> Graph:
    """Read a graph from a ``.pt`` or ``.npz`` file.

    Raises:
        DataError: missing or malformed.
    """
    if path.suffix != ".npz":
        return _no_larger(read_graph(path))
    try:
        return _graph_of_npz(io.BytesIO(content_of(path, ROW_BYTES)), path.stem)
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise DataError(f"{path}: can't be read ({one_line(error)})", "an interface graph (.npz)") from None


def _graph_of_npz(file: io.BytesIO, key: str, allowance: Allowance | None = None) -> Graph:
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = _arrays(archive, allowance)
        fields: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in (X, EDGE_INDEX, EDGE_ATTR)}
        if METADATA in arrays:
            fields[METADATA] = parse_json(str(arrays[METADATA][()]))
        return _no_larger(make_graph(fields, key))
    except UserInputError:
        raise
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        raise DataError(
            f"graph is not an .npz of arrays ({one_line(error)})", f"{X}, {EDGE_INDEX} and {EDGE_ATTR}"
        ) from None


def _arrays(archive: zipfile.ZipFile, allowance: Allowance | None) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a graph has; none is unpacked before all of them are known to be of a size that they may have."""
    members = {member.filename: member for member in archive.infolist()}
    wanted = {name: members[f"{name}.npy"] for name in PARTS if f"{name}.npy" in members}
    size = sum(member.file_size for member in wanted.values())  # more than that, a member can't be made to give
    if size > ROW_BYTES.value:
        what = f"graph unpacks to {size} bytes, over {ROW_BYTES.value}"
        raise DataError(what, "one interface graph", ROW_BYTES.raise_it)
    if allowance is not None:
        allowance.take(size)
    return {
        name: np.lib.format.read_array(_Sized(archive.read(member)), allow_pickle=False)
        for name, member in wanted.items()
    }


class _Sized(io.BytesIO):
    """Bytes that hold an array; numpy makes room for what a header claims before it looks at what there is."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        version = np.lib.format.read_magic(self)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(self)
        if math.prod(shape) * kind.itemsize > len(content):
            raise ValueError(f"an array claims shape {shape} over {len(content)} bytes")
        self.seek(0)


def _no_larger(graph: Graph) -> Graph:
    most = ROW_EDGES.value
    if max(graph.facts.num_edges, graph.facts.num_nodes) > most:
        what = f"graph {graph.key} has {graph.facts.num_nodes} nodes and {graph.facts.num_edges} edges, over {most}"
        raise DataError(what, "one interface graph", ROW_EDGES.raise_it)
    if num_bytes(graph) > ROW_BYTES.value:
        what = f"graph {graph.key} takes {num_bytes(graph)} bytes, over {ROW_BYTES.value}"
        raise DataError(what, "one interface graph", ROW_BYTES.raise_it)
    return graph


def num_bytes(graph: Graph) -> int:
    """What its tensors take."""
    return sum(part.numel() * part.element_size() for part in (graph.x, graph.edge_index, graph.edge_attr))
