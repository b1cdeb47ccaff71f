"""The schema of packed graphs: resolved once for the same graphs and the same metadata files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.store import GraphStore
from topotrain.errors import SchemaError
from topotrain.fields import SIDECAR_NAME
from topotrain.progress import Track
from topotrain.reading.content import open_regular
from topotrain.schema import resolve
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.schema.metadata_files import find_summary
from topotrain.schema.resolve import resolve_schema


def stored_schema(
    store: GraphStore,
    positions: Sequence[int],
    *,
    metadata_path: Path | None = None,
    summary_path: Path | None = None,
    use_layer_norm: bool = True,
) -> FeatureSchema:
    """As ``resolve_schema``, for graphs of a store; what it gave for the same input is kept.

    Raises:
        SchemaError: graphs disagree with each other or with their metadata.
        DataError: a metadata file is missing or malformed.
    """
    root = store.directory.root
    summary, notes = (summary_path, []) if summary_path else _found_summary(root)
    rows, keys = store.index.rows[list(positions)], store.index.keys
    files = [(path, _file_digest(path)) for path in (metadata_path or root / SIDECAR_NAME, summary)]
    said = [_code_of_the_room(), root, metadata_path, summary_path, use_layer_norm, notes, files, store.index.metadata]
    digest = hashlib.sha256(repr(said).encode("utf-8", "surrogateescape"))
    digest.update("\0".join(keys[position] for position in positions).encode("utf-8", "surrogateescape"))
    for name in ("node_dim", "edge_dim", "num_nodes", "num_edges", "edge_count", "metadata"):
        digest.update(rows[name].tobytes())

    def resolved() -> dict[str, Any]:
        schema = resolve_schema(
            [store.facts(position) for position in positions],
            root,
            metadata_path=metadata_path,
            summary_path=summary_path,
            use_layer_norm=use_layer_norm,
        )
        return schema.to_dict()

    return FeatureSchema.from_dict(store.remembered("schema", digest.hexdigest(), resolved))


@cache
def _code_of_the_room() -> str:
    """What schemas are resolved with: other code may come to another schema."""
    files = sorted(Path(resolve.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _found_summary(root: Path) -> tuple[Path | None, list[str]]:
    notes: list[str] = []
    summary = find_summary(root, notes.append)
    return summary.path if summary else None, notes


def _file_digest(path: Path | None) -> str:
    try:
        with open_regular(path or Path()) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: no regular file
        return "absent"


def inspect_directory(graph_dir: Path, progress: Track | None = None, cache: Path | None = None) -> FeatureSchema:
    """Resolve the schema of every graph below a directory, without labels.

    Args:
        graph_dir: the directory.
        progress: wraps the packing to show how far it is.
        cache: where packed graphs are kept; by default the user's cache directory.

    Raises:
        DataError: no such directory, or graphs that can't be read.
        SchemaError: graphs that disagree, or none.
    """
    directory = GraphDirectory(graph_dir)
    if not directory.keys:
        raise SchemaError(f"{directory.root}: no graphs", "at least one .pt file")
    store = GraphStore.open(directory, directory.keys, cache=cache, progress=progress, facts_only=True)
    store.refuse_failures()
    return stored_schema(store, [store.index.position[key] for key in directory.keys])
