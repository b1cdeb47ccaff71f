"""What a packed store knows of its graphs without opening them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topotrain.files import replacing
from topotrain.schema.feature_schema import GraphFacts
from topotrain.schema.metadata_files import edge_count_apart, with_edge_count
from topotrain.text import one_line

# Of the store; one of another format is packed again. It changes with index and parts, with what reading a graph
# refuses, and with what is computed of graphs and kept beside them.
FORMAT = 2
INDEX_NAME = "index.npz"
FILE = "graphs.npy"  # of a part
NO_WIDTH = -1  # of edges that a graph does not have, and of which it does not say how wide they would be
NOT_STATED = -1
DIGEST_BYTES = 32

GRAPH = np.dtype(
    [
        ("size", "i8"),  # of the file, in bytes
        ("modified", "i8"),  # ns since the epoch; 0 where the file may have changed while it was read
        ("part", "i4"),
        ("start", "i8"),  # its first word in the part
        ("num_nodes", "i4"),
        ("node_dim", "i4"),
        ("num_rows", "i4"),  # of distinct edge attributes
        ("edge_dim", "i4"),
        ("num_edges", "i4"),
        ("checksum", "u4"),
        ("digest", "u1", DIGEST_BYTES),
        ("metadata", "i4"),  # which of the distinct ones
        ("edge_count", "i8"),  # as metadata state it
    ]
)
Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class StoreIndex:
    """The graphs of a store, in the order of their keys.

    Attributes:
        keys: path of each graph below its directory, without suffix.
        rows: (num_graphs,) of ``GRAPH``.
        metadata: the distinct metadata of the graphs, JSON, as far as a schema is resolved from them.
        parts: name of each part, and the bytes of its file.
    """

    keys: Sequence[str] = ()
    rows: Rows = field(default_factory=lambda: np.zeros(0, GRAPH))
    metadata: Sequence[str] = ()
    parts: Sequence[tuple[str, int]] = ()

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Where each key is."""
        return {key: position for position, key in enumerate(self.keys)}

    @cached_property
    def _metadata(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.metadata]

    def facts(self, position: int) -> GraphFacts:
        """What the schema needs to know of a graph; equal metadata are one object."""
        row = self.rows[position]
        edge_count = int(row["edge_count"])
        own = self._metadata[row["metadata"]]
        return GraphFacts(
            key=self.keys[position],
            node_dim=int(row["node_dim"]),
            edge_dim=None if row["edge_dim"] == NO_WIDTH else int(row["edge_dim"]),
            num_nodes=int(row["num_nodes"]),
            num_edges=int(row["num_edges"]),
            metadata=own if edge_count == NOT_STATED else with_edge_count(own, edge_count),
        )

    def digest(self, position: int) -> str:
        """SHA-256 over a graph's tensors, as hexadecimal digits."""
        return bytes(self.rows[position]["digest"]).hex()

    def only(self, keep: npt.NDArray[np.bool_]) -> StoreIndex:
        """The index without the graphs that are not kept, and without parts that hold none of the others."""
        return _tidied(
            replace(self, keys=[key for key, one in zip(self.keys, keep, strict=True) if one], rows=self.rows[keep])
        )

    def write(self, folder: Path) -> None:
        """Write the index, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        texts = {"keys": list(self.keys), "metadata": list(self.metadata), "parts": [list(part) for part in self.parts]}
        arrays: dict[str, Any] = {
            name: np.frombuffer(json.dumps(text).encode(), np.uint8) for name, text in texts.items()
        }
        with replacing(folder / INDEX_NAME) as aside:
            with aside.open("wb") as file:  # savez would add .npz to the name
                np.savez(file, format=np.array(FORMAT), rows=self.rows, **arrays)

    @classmethod
    def read(cls, folder: Path) -> StoreIndex:
        """Read the index of a store; the zip file it is checks its own sums.

        Raises:
            FileNotFoundError: there is none.
            DamagedStoreError: it, or a part, is not whole, or of another version.
        """
        try:
            with np.load(folder / INDEX_NAME, allow_pickle=False) as content:
                if int(content["format"]) != FORMAT:
                    raise DamagedStoreError("of another version")
                texts = {name: json.loads(bytes(content[name])) for name in ("keys", "metadata", "parts")}
                index = cls(
                    texts["keys"], content["rows"], texts["metadata"], [(name, size) for name, size in texts["parts"]]
                )
        except (FileNotFoundError, DamagedStoreError):
            raise
        except Exception as error:  # noqa: BLE001 (of a damaged file the reader may raise anything)
            raise DamagedStoreError(f"damaged ({one_line(error)})") from None
        if index.rows.dtype != GRAPH or len(index.keys) != len(index.rows):
            raise DamagedStoreError("damaged (its index is of another kind)")
        for name, size in index.parts:
            path = folder / name / FILE
            found = path.stat().st_size if path.exists() else 0
            if found != size:
                raise DamagedStoreError(f"damaged ({name}/{FILE} has {found} bytes of {size})")
        return index

    @classmethod
    def joined(cls, indices: Iterable[StoreIndex]) -> StoreIndex:
        """Indices of different graphs as one."""
        keys: list[str] = []
        rows: list[Rows] = []
        parts: list[tuple[str, int]] = []
        metadata: dict[str, int] = {}
        for index in indices:
            own = index.rows.copy()
            renumbered = [metadata.setdefault(text, len(metadata)) for text in index.metadata]
            if len(own):
                own["metadata"] = np.array(renumbered)[own["metadata"]]
                own["part"] += len(parts)
            keys += index.keys
            rows.append(own)
            parts += index.parts
        every = np.concatenate(rows) if rows else np.zeros(0, GRAPH)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return _tidied(cls([keys[i] for i in order], every[order], list(metadata), parts))


class DamagedStoreError(Exception):
    """A packed store that has to be made again; the text goes on after its name."""


def metadata_text(metadata: Mapping[str, Any]) -> tuple[str, int]:
    """What is kept of a graph's own metadata, and the edge count that they state, which differs in every graph."""
    kept, edge_count = edge_count_apart(metadata)
    return json.dumps(kept), NOT_STATED if edge_count is None else edge_count


def _tidied(index: StoreIndex) -> StoreIndex:
    """Without parts and metadata that no graph has."""
    rows = index.rows.copy()
    used, rows["part"] = np.unique(rows["part"], return_inverse=True)
    said, rows["metadata"] = np.unique(rows["metadata"], return_inverse=True)
    return replace(index, rows=rows, parts=[index.parts[i] for i in used], metadata=[index.metadata[i] for i in said])
