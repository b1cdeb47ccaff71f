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
PARENTS_SEARCHED = 3
TIMESTAMP = re.compile(r"(\d{4})-(\d{2})-(\d{2})_(\d{2})-(\d{2})-(\d{2})")


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
            _check_entry(path, key, entry)
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
    node = content.get("_node_schema")
    registry = content.get("_module_registry")
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
    output = edge.get("output_dir")
    return Summary(
        path=path,
        modules=modules,
        output_dir=(path.parent / output).resolve() if isinstance(output, str) else None,
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
    return content


def _check_entry(path: Path, key: str, entry: Mapping[str, Any]) -> None:
    """Refuse an entry whose parts are of the wrong kind, before anybody relies on them."""
    kinds: dict[str, tuple[type, ...]] = {
        "edge_module": (str,),
        "edge_params": (dict,),
        "edge_metadata": (dict,),
        "node_feature_columns": (list,),
        "edge_feature_columns": (list,),
    }
    for name, allowed in kinds.items():
        value = entry.get(name)
        if value is not None and not isinstance(value, allowed):
            raise DataError(
                f"{path}: {key}: {name} is a {type(value).__name__}",
                f"a {' or '.join(kind.__name__ for kind in allowed)}",
            )
    info = entry.get("edge_metadata") or {}
    _width(path, f"{key}: edge_metadata.feature_dim", info.get("feature_dim"))


def _width(path: Path, name: str, value: Any) -> int | None:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{path}: {name} is {value!r}", "a whole number of columns")
    return value
