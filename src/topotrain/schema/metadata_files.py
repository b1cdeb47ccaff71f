"""The two JSON files a graph builder leaves: the sidecar and the summary."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from topotrain.errors import DataError
from topotrain.fields import SUMMARY_NAME

# Marks of an entry that describes one graph, in a file that also holds entries about all of them.
GRAPH_ENTRY_KEYS = frozenset(
    {"edge_module", "edge_params", "edge_metadata", "node_feature_columns", "edge_feature_columns"}
)
MAX_DEPTH = 50  # of values in values
PARENTS_SEARCHED = 3
TIMESTAMP = re.compile(r"(\d{4})-(\d{2})-(\d{2})_(\d{2})-(\d{2})-(\d{2})")


# What kind each part must be.
ENTRY_KINDS: Mapping[str, type] = {
    "edge_module": str,
    "edge_params": Mapping,
    "node_feature_columns": list,
    "edge_feature_columns": list,
}
SHARED_KINDS: Mapping[str, type] = {
    "module": str,
    "variant": str,
    "module_params": Mapping,
    "bands": list,
    "columns": list,
}
MODULE_KINDS: Mapping[str, type] = {"id": str, "alias": str, "summary": str, "defaults": Mapping}


@dataclass(frozen=True)
class Sidecar:
    """``graph_metadata.json``, with what it says of each graph apart from what it says of all.

    Attributes:
        path: the file.
        graphs: entry by graph key.
        shared: what holds for every graph: ``module``, ``variant``, ``module_params``, ``bands``, ``columns``, ``dim``.
        node_columns: names of the node columns, if given once for all graphs.
        edge_dim: edge width, if given once for all graphs.
        registry: the builder's modules by kind.
    """

    path: Path
    graphs: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any]
    node_columns: list[str] | None
    edge_dim: int | None
    registry: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """``graph_builder_summary.json``: ``modules`` by kind, and the edge width it says it built."""

    path: Path
    modules: Mapping[str, Any]
    output_dir: Path | None
    edge_dim: int | None


def read_sidecar(path: Path, *, required: bool) -> Sidecar | None:
    """Read the sidecar; ``None`` when it is absent and not required.

    Raises:
        DataError: malformed, or absent though required.
    """
    if not path.exists() and not required:
        return None
    content = _read_object(path, "graph metadata")
    graphs: dict[str, Mapping[str, Any]] = {}
    for key, entry in content.items():
        if not key.startswith("_") and isinstance(entry, Mapping) and GRAPH_ENTRY_KEYS & set(entry):
            check_entry(path, key, entry, "edge_metadata")
            graphs[key.removesuffix(".pt")] = entry
    edge = content.get("_edge_schema")
    shared = dict(edge) if isinstance(edge, Mapping) else {}
    for name, key, kind in (
        ("edge_module", "module", str),
        ("edge_feature_variant", "variant", str),
        ("edge_params", "module_params", Mapping),
    ):
        if isinstance(content.get(name), kind):
            shared.setdefault(key, content[name])
    _check_kinds(path, "_edge_schema", shared, SHARED_KINDS)
    _width(path, "_edge_schema.dim", shared.get("dim"))
    node = content.get("_node_schema")
    if isinstance(node, Mapping):
        _check_kinds(path, "_node_schema", node, {"columns": list})
    registry = content.get("_module_registry")
    if isinstance(registry, Mapping):
        _check_module(path, "_module_registry.edge", registry.get("edge"))
    return Sidecar(
        path=path,
        graphs=graphs,
        shared=shared,
        node_columns=node.get("columns") if isinstance(node, Mapping) else None,
        edge_dim=_width(path, "edge_feature_dim", content.get("edge_feature_dim")),
        registry=registry if isinstance(registry, Mapping) else {},
    )


def read_summary(path: Path) -> Summary:
    """Read a builder's summary.

    Raises:
        DataError: missing or malformed.
    """
    content = _read_object(path, "a graph builder's summary")
    modules, edge = content.get("modules", {}), content.get("edge", {})
    if not isinstance(modules, Mapping) or not isinstance(edge, Mapping):
        raise DataError(f"{path}: modules or edge is no mapping", "the sections modules and edge")
    _check_module(path, "modules.edge", modules.get("edge"))
    output = edge.get("output_dir")
    try:
        output_dir = (path.parent / output).resolve() if isinstance(output, str) else None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a loop of links
        raise DataError(f"{path}: edge.output_dir is {str(output)[:200]!r} ({error})", "a directory") from None
    return Summary(
        path=path,
        modules=modules,
        output_dir=output_dir,
        edge_dim=_width(path, "edge.edge_feature_dim", edge.get("edge_feature_dim")),
    )


def find_summary(graph_dir: Path, note: Callable[[str], None]) -> Summary | None:
    """Find the newest summary whose output is this graph directory.

    Looks under ``logs/`` and ``logs_*/`` of the directory itself and of up to three parents. Files there that
    can't be read are passed over, each with a note.
    """
    home = graph_dir.resolve()
    found: list[tuple[datetime, str, Summary]] = []
    for base in [home, *home.parents[:PARENTS_SEARCHED]]:
        for logs in sorted([*base.glob("logs"), *base.glob("logs_*")]):
            for path in sorted([*logs.glob(SUMMARY_NAME), *logs.glob(f"*/{SUMMARY_NAME}")]):
                try:
                    summary = read_summary(path)
                except DataError as error:
                    note(f"summary passed over: {error}")
                    continue
                if summary.output_dir == home:
                    found.append((_built_at(path), str(path), summary))
    return max(found, key=lambda item: item[:2])[2] if found else None


def _built_at(path: Path) -> datetime:
    """When a build ended: by its folder's name, which survives copying, else by the file's time."""
    stamp = TIMESTAMP.search(path.parent.name)
    if stamp:
        try:
            year, month, day, hour, minute, second = map(int, stamp.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            pass
    return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)


def _read_object(path: Path, expected: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", expected) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})", expected) from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}", f"{expected}, a JSON object")
    if _deeper_than(content, MAX_DEPTH):
        raise DataError(f"{path}: values nested deeper than {MAX_DEPTH}", expected)
    return content


def check_entry(path: Path, key: str, entry: Mapping[str, Any], info_key: str) -> None:
    """Refuse a graph's metadata whose parts are of the wrong kind, before anybody relies on them.

    Args:
        path: the file, for messages.
        key: which entry of the file, for messages.
        entry: what it says of one graph.
        info_key: ``edge_metadata`` in a sidecar, ``edge_info`` in a graph file.
    """
    _check_kinds(path, key, entry, {**ENTRY_KINDS, info_key: Mapping})
    info = entry.get(info_key) or {}
    _check_kinds(path, f"{key}: {info_key}", info, {"edge_feature_variant": str, "bands": list})
    _width(path, f"{key}: {info_key}.feature_dim", info.get("feature_dim"))


def _check_module(path: Path, name: str, module: Any) -> None:
    if isinstance(module, Mapping):
        _check_kinds(path, name, module, MODULE_KINDS)


def _check_kinds(path: Path, where: str, section: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    words: dict[type, str] = {Mapping: "mapping", list: "list", str: "text"}
    for name, kind in kinds.items():
        value = section.get(name)
        if value is not None and not isinstance(value, kind):
            raise DataError(f"{path}: {where}: {name} is a {type(value).__name__}", f"a {words[kind]}")


def _deeper_than(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in inner if isinstance(item, dict | list))


def _width(path: Path, name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{path}: {name} is {value!r}", "a whole number of columns")
    return value
