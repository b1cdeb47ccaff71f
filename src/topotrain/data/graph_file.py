"""Reading one interface graph, without running anything the file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data.data import Data, DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from topotrain.data.torch_file import ExecutableError, load_tensors
from topotrain.errors import DataError, UserInputError
from topotrain.fields import EDGE_ATTR, EDGE_INDEX, METADATA, X
from topotrain.limits import GRAPH_BYTES, METADATA_VALUES
from topotrain.schema.feature_schema import GraphFacts
from topotrain.text import first_line

# All that a graph file may name beside tensors and plain values.
ALLOWED = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
MAX_INTEGER_BITS = 64
SHOWN_FIELDS = 10


@dataclass(frozen=True)
class Graph:
    """One interface graph.

    Attributes:
        key: path below its directory, without suffix.
        x: (num_nodes, node_dim) float32.
        edge_index: (2, num_edges) int64, source row then target row.
        edge_attr: (num_edges, edge_dim) float32; (0, 0) when there are no edges and no width is stated.
        metadata: plain values, empty when the file has none.
    """

    key: str
    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> GraphFacts:
        """What the schema needs to know of this graph."""
        num_edges = self.edge_index.shape[1]
        edge_dim = self.edge_attr.shape[1] or None
        return GraphFacts(self.key, self.x.shape[1], edge_dim, self.x.shape[0], num_edges, self.metadata)


def read_graph(path: Path, key: str | None = None) -> Graph:
    """Read a ``.pt`` file that holds a PyTorch Geometric ``Data``.

    Args:
        path: the file.
        key: name of the graph; by default the file's stem.

    Raises:
        DataError: missing, not a graph, names anything executable, or holds values that can't be trained on.
    """
    try:
        content = load_tensors(path, GRAPH_BYTES, ALLOWED)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", "an interface graph (.pt)") from None
    except UserInputError:
        raise
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        raise _unreadable(path, error) from None
    try:
        return make_graph(_fields(content), key or path.stem)
    except DataError as error:
        raise DataError(f"{path}: {error.what}", error.expected, error.do) from None
    except Exception as error:  # noqa: BLE001 (objects built from a hostile file can misbehave when touched)
        raise _unreadable(path, error) from None


def make_graph(fields: Mapping[str, Any], key: str) -> Graph:
    """Check the parts of a graph and give them their types.

    Args:
        fields: ``x``, ``edge_index``, ``edge_attr`` (tensors) and optionally ``metadata``.
        key: name of the graph.

    Raises:
        DataError: a part is missing, of the wrong shape or type, out of range, or not finite.
    """
    x = _tensor(fields, X, 2)
    edge_index = _tensor(fields, EDGE_INDEX, 2)
    num_nodes = x.shape[0]
    if num_nodes == 0 or x.shape[1] == 0:
        raise DataError(f"{X} has shape {tuple(x.shape)}", "at least one node and one column")
    if edge_index.dtype not in (torch.int64, torch.int32) or edge_index.shape[0] != 2:
        raise DataError(
            f"{EDGE_INDEX} is {edge_index.dtype} of shape {tuple(edge_index.shape)}", "int64 of shape (2, num_edges)"
        )
    num_edges = edge_index.shape[1]
    if num_edges and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise DataError(
            f"{EDGE_INDEX} spans {int(edge_index.min())} to {int(edge_index.max())}", f"nodes 0 to {num_nodes - 1}"
        )
    edge_attr = _tensor(fields, EDGE_ATTR, 1 if num_edges == 0 else 2)
    if edge_attr.shape[0] != num_edges:
        raise DataError(f"{EDGE_ATTR} has {edge_attr.shape[0]} rows", f"one for each of {num_edges} edges")
    if edge_attr.dim() == 1:
        edge_attr = edge_attr.new_zeros((0, 0))
    if num_edges and edge_attr.shape[1] == 0:
        raise DataError(f"{EDGE_ATTR} has no columns", "at least one")
    return Graph(
        key=key,
        x=_float32(x, X),
        edge_index=edge_index.to(torch.int64).contiguous(),
        edge_attr=_float32(edge_attr, EDGE_ATTR),
        metadata=_plain_metadata(fields.get(METADATA)),
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, ExecutableError):
        return DataError(f"{path}: refused, it names {error}", "a Data of tensors and plain values")
    text = str(error).rpartition("WeightsUnpickler error:")[2]  # torch's advice before it is to trust the file
    reason = first_line(text, type(error).__name__)
    if "weights_only" in reason:
        reason = "no torch file of today's format"
    return DataError(f"{path}: not a readable graph ({reason})", "a torch_geometric Data saved with torch.save")


def _fields(content: Any) -> Mapping[str, Any]:
    """The mapping of field names to values, without asking the object itself to compute anything."""
    if isinstance(content, Data):
        store = content.__dict__.get("_store")
        content = store.__dict__.get("_mapping") if isinstance(store, GlobalStorage) else content.__dict__
    if not isinstance(content, Mapping):
        raise DataError(f"holds a {type(content).__name__}", "a torch_geometric Data")
    return content


def _tensor(fields: Mapping[str, Any], name: str, min_dim: int) -> Tensor:
    value = fields.get(name)
    if not isinstance(value, Tensor):
        names = sorted(str(key)[:50] for key in fields)
        found = ", ".join(names[:SHOWN_FIELDS]) or "nothing"
        raise DataError(f"no tensor {name!r} (found: {found})", f"{X}, {EDGE_INDEX} and {EDGE_ATTR}")
    if value.layout is not torch.strided or value.is_quantized or value.dtype.is_complex:
        raise DataError(f"{name} is a {value.dtype} tensor of layout {value.layout}", "a dense tensor")
    if value.dim() not in {min_dim, 2}:
        raise DataError(f"{name} has shape {tuple(value.shape)}", "two dimensions")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise DataError(f"{name} claims shape {tuple(value.shape)} over fewer stored values", "all values stored")
    return value.detach()


def _float32(value: Tensor, name: str) -> Tensor:
    if not value.dtype.is_floating_point:
        raise DataError(f"{name} is {value.dtype}", "floating point values")
    value = value.to(torch.float32).contiguous()
    finite = torch.isfinite(value)
    if not bool(finite.all()):
        row, column = (int(i) for i in (~finite).nonzero()[0])
        raise DataError(
            f"{name} has {int((~finite).sum())} values that are not finite, the first in row {row}, column {column}",
            "finite numbers",
            "rebuild the graph",
        )
    return value


def _plain_metadata(value: Any) -> dict[str, Any]:
    """A bounded copy of plain values: a file may nest one list in another until memory ends."""
    most = METADATA_VALUES.value
    budget = [most]

    def plain(inner: Any, depth: int) -> Any:
        budget[0] -= 1
        if budget[0] < 0 or depth > 20:
            what = f"{METADATA} is larger than {most} values or deeper than 20"
            raise DataError(what, "plain values within both limits", METADATA_VALUES.raise_it)
        if isinstance(inner, Mapping):
            return {str(key): plain(item, depth + 1) for key, item in inner.items()}
        if isinstance(inner, list | tuple):
            return [plain(item, depth + 1) for item in inner]
        if isinstance(inner, Tensor):
            if inner.numel() > budget[0]:  # before it is written out: it may claim more than it stores
                raise DataError(f"{METADATA} holds a tensor of {inner.numel()} values", "plain values")
            return plain(inner.tolist(), depth + 1)
        if isinstance(inner, str):
            budget[0] -= len(inner) // 100
        if isinstance(inner, int) and inner.bit_length() > MAX_INTEGER_BITS:
            raise DataError(f"{METADATA} holds an integer of {inner.bit_length()} bits", f"up to {MAX_INTEGER_BITS}")
        return inner if inner is None or isinstance(inner, str | int | float | bool) else str(type(inner).__name__)

    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{METADATA} is a {type(value).__name__}", "a mapping")
    result: dict[str, Any] = plain(value, 0)
    return result
