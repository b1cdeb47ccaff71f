"""The two JSON files a graph builder leaves: the sidecar and the summary."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # which pydantic asks for below Python 3.12

from topotrain.errors import DataError
from topotrain.fields import SUMMARY_NAME
from topotrain.reading.json_file import read_json
from topotrain.reading.json_stream import members
from topotrain.schema.documents import Columns, Count, List, Object, Section, Text, Width, fault
from topotrain.text import one_line

# Marks of an entry that describes one graph, in a file that also holds entries about all of them.
GRAPH_ENTRY_KEYS = frozenset(
    {"edge_module", "edge_params", "edge_metadata", "node_feature_columns", "edge_feature_columns"}
)
GRAPH_METADATA = "graph metadata"
MAX_DEPTH = 50  # of values in values
PARENTS_SEARCHED = 3
TIMESTAMP = re.compile(r"(\d{4})-(\d{2})-(\d{2})_(\d{2})-(\d{2})-(\d{2})")
T = TypeVar("T")


# What is said of one graph is kept as plain mappings: a sidecar may hold tens of thousands of them, and a model for
# each takes twice as long to read. They also keep apart what is not said and what is said to be unknown (null).
class EdgeInfo(TypedDict, total=False):
    """What metadata say of a graph's edges."""

    edge_feature_variant: Text | None
    bands: List | None
    feature_dim: Width | None
    edge_count: Count | None


class _OneGraph(TypedDict, total=False):
    edge_module: Text | None
    edge_params: Object | None
    node_feature_columns: Columns | None
    edge_feature_columns: Columns | None


class GraphEntry(_OneGraph, total=False):
    """What a sidecar says of one graph."""

    info: Annotated[EdgeInfo | None, Field(alias="edge_metadata")]


class OwnMetadata(_OneGraph, total=False):
    """What a graph file says of its graph."""

    info: Annotated[EdgeInfo | None, Field(alias="edge_info")]
    modules: Any


GRAPH_ENTRY = TypeAdapter(GraphEntry)
OWN_METADATA = TypeAdapter(OwnMetadata)
OWN_EDGES, EDGE_COUNT = "edge_info", "edge_count"
OWN_KEYS = frozenset({*_OneGraph.__annotations__, OWN_EDGES, "modules"})


def edge_count_apart(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """What is relied on of a graph's own metadata, and the edge count, which is another in every graph."""
    kept = {key: value for key, value in metadata.items() if key in OWN_KEYS}
    edges = kept.get(OWN_EDGES)
    if not isinstance(edges, Mapping):
        return kept, None
    kept[OWN_EDGES] = edges = {key: value for key, value in edges.items() if key in EdgeInfo.__annotations__}
    count = edges.get(EDGE_COUNT)
    if type(count) is not int or not 0 <= count < 2**63:
        return kept, None
    del edges[EDGE_COUNT]
    return kept, count


def with_edge_count(kept: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The other way."""
    return {**kept, OWN_EDGES: {**kept[OWN_EDGES], EDGE_COUNT: count}}


class SharedEdges(Section):
    """What a sidecar says of the edges of all graphs (``_edge_schema``), by the keys of ``feature_metadata.json``."""

    module: Text | None = None
    variant: Text | None = None
    module_params: Object | None = None
    bands: List | None = None
    columns: Columns | None = None
    dim: Width | None = None


class SharedNodes(Section):
    """What a sidecar says of the nodes of all graphs (``_node_schema``)."""

    columns: Columns | None = None


class EdgeModuleRecord(Section):
    """What a builder records of its edge module."""

    id: Text | None = None
    alias: Text | None = None
    summary: Text | None = None
    defaults: Object | None = None


def _or_none(value: Any) -> Any:
    return value if isinstance(value, Mapping) else None


class ModuleRegistry(Section):
    """What a builder records of its modules, as far as it is relied on; another kind of edge entry says nothing."""

    edge: Annotated[EdgeModuleRecord | None, BeforeValidator(_or_none)] = None


class SidecarHead(Section):
    """What a sidecar holds beside its graphs; a section of another kind says nothing."""

    edges: Annotated[SharedEdges | None, BeforeValidator(_or_none)] = Field(default=None, alias="_edge_schema")
    nodes: Annotated[SharedNodes | None, BeforeValidator(_or_none)] = Field(default=None, alias="_node_schema")
    registry: Annotated[ModuleRegistry | None, BeforeValidator(_or_none)] = Field(
        default=None, alias="_module_registry"
    )
    edge_feature_dim: Width | None = None


class BuiltEdges(Section):
    """What a summary says of the edges."""

    output_dir: Any = None
    edge_feature_dim: Width | None = None


class SummaryDocument(Section):
    """``graph_builder_summary.json``."""

    modules: ModuleRegistry = ModuleRegistry()
    edge: BuiltEdges = BuiltEdges()


SIDECAR_HEAD, SUMMARY = TypeAdapter(SidecarHead), TypeAdapter(SummaryDocument)
# Where older builders state at the top what `_edge_schema` holds: the key there, and its kind.
AT_THE_TOP = (
    ("edge_module", "module", str),
    ("edge_feature_variant", "variant", str),
    ("edge_params", "module_params", Mapping),
)


@dataclass(frozen=True)
class Sidecar:
    """``graph_metadata.json``, with what it says of each graph apart from what it says of all.

    Attributes:
        path: the file.
        graphs: entry by graph key.
        shared: what holds for every graph, by section of ``feature_metadata.json``.
        edge_dim: edge width, if given once for all graphs.
        registry: the builder's modules by kind.
    """

    path: Path
    graphs: Mapping[str, GraphEntry]
    shared: Mapping[str, Section | None]
    edge_dim: int | None
    registry: Mapping[str, Any]

    def said_of(self, key: str) -> Any:
        """Plain values that are equal for graphs of which the same is said, but for their number of edges."""
        entry = self.graphs.get(key)
        if entry is None:
            return None
        edges = {name: value for name, value in (entry.get("info") or {}).items() if name != EDGE_COUNT}
        # Lists of names are kept once, so that the same ones are the same object.
        others = {name: id(value) if isinstance(value, list) else value for name, value in entry.items()}
        return {**others, "info": edges}


@dataclass(frozen=True)
class Summary:
    """``graph_builder_summary.json``: ``modules`` by kind, what was built from what, and the edge width it says.

    Attributes:
        path: the file.
        modules: by kind.
        dataset_dir: the folder of structures, as it was called where it was built.
        output_dir: the graph directory.
        edge_dim: edge width.
    """

    path: Path
    modules: Mapping[str, Any]
    dataset_dir: Path | None
    output_dir: Path | None
    edge_dim: int | None


def read_sidecar(path: Path, *, required: bool) -> Sidecar | None:
    """Read the sidecar; ``None`` when it is absent and not required.

    Raises:
        DataError: malformed, or absent though required.
    """
    if not os.path.lexists(path) and not required:  # a link to nowhere is there, and wrong
        return None
    graphs: dict[str, GraphEntry] = {}
    content: dict[str, Any] = {}
    once = _Once()
    for key, value in _members(path):
        if _deeper_than(value, MAX_DEPTH - 1):
            raise DataError(f"{path}: values nested deeper than {MAX_DEPTH}", GRAPH_METADATA)
        if not key.startswith("_") and isinstance(value, Mapping) and GRAPH_ENTRY_KEYS & set(value):
            graphs[key.removesuffix(".pt")] = once.entry(checked(GRAPH_ENTRY, value, path, key))
        else:
            content[key] = value
    edges = content.get("_edge_schema")
    stated = {key: content[name] for name, key, kind in AT_THE_TOP if isinstance(content.get(name), kind)}
    stated |= edges if isinstance(edges, Mapping) else {}
    head = checked(SIDECAR_HEAD, {**content, "_edge_schema": stated}, path)
    return Sidecar(
        path=path,
        graphs=graphs,
        shared={"edge_schema": head.edges, "node_schema": head.nodes},
        edge_dim=head.edge_feature_dim,
        registry=_or_none(content.get("_module_registry")) or {},
    )


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """What a sidecar holds; of 100,000 graphs it is half a gigabyte, so never the whole of it at once."""
    try:
        yield from members(path)
    except (OSError, ValueError, RecursionError):
        yield from _read_object(path, GRAPH_METADATA).items()  # raises, and says what is wrong where


class _Once:
    """Keeps what the entries of a sidecar have in common once: lists of names, parameters."""

    def __init__(self) -> None:
        self._lists: dict[tuple[Any, ...], list[Any]] = {}
        self._mappings: dict[str, Mapping[str, Any]] = {}

    def entry(self, entry: GraphEntry) -> GraphEntry:
        for name in ("node_feature_columns", "edge_feature_columns"):
            names = entry.get(name)
            if isinstance(names, list) and all(type(one) is str for one in names):
                entry[name] = self._lists.setdefault(tuple(names), names)  # type: ignore[literal-required]
        params = entry.get("edge_params")
        if params is not None:
            entry["edge_params"] = self._mappings.setdefault(json.dumps(params), params)
        return entry


def read_summary(path: Path) -> Summary:
    """Read a builder's summary.

    Raises:
        DataError: missing or malformed.
    """
    content = _read_object(path, "a graph builder's summary")
    document = checked(SUMMARY, content, path)
    dataset = content.get("dataset_dir")
    output = document.edge.output_dir
    try:
        output_dir = (path.parent / output).resolve() if isinstance(output, str) else None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a loop of links
        raise DataError(
            f"{path}: edge.output_dir is {str(output)[:200]!r} ({one_line(error)})", "a directory"
        ) from None
    return Summary(
        path=path,
        modules=content.get("modules", {}),
        dataset_dir=Path(dataset) if isinstance(dataset, str) else None,
        output_dir=output_dir,
        edge_dim=document.edge.edge_feature_dim,
    )


def checked(adapter: TypeAdapter[T], content: Any, *where: str | Path) -> T:
    """A document, or a part of one, whose fields are of the right kinds.

    Args:
        adapter: of the document.
        content: of the file.
        where: the file, and where in it, for messages.

    Raises:
        DataError: a field is of another kind.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        field, found, expected = fault(error)
        place = ": ".join(map(str, where))
        raise DataError(f"{place}: {'.'.join(map(str, field))} {found}", expected) from None


def find_summary(graph_dir: Path, note: Callable[[str], None]) -> Summary | None:
    """Find the newest summary whose output is this graph directory.

    Looks under ``logs/`` and ``logs_*/`` of the directory itself and of up to three parents. Files there that
    can't be read are skipped, each with a note.
    """
    home = graph_dir.resolve()
    found: list[tuple[datetime, str, Summary]] = []
    for base in [home, *home.parents[:PARENTS_SEARCHED]]:
        for logs in sorted([*base.glob("logs"), *base.glob("logs_*")]):
            for path in sorted([*logs.glob(SUMMARY_NAME), *logs.glob(f"*/{SUMMARY_NAME}")]):
                try:
                    summary = read_summary(path)
                except DataError as error:
                    note(f"summary skipped: {error}")
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
    content = read_json(path, expected, absent="no such file")
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}", f"{expected}, a JSON object")
    if _deeper_than(content, MAX_DEPTH):
        raise DataError(f"{path}: values nested deeper than {MAX_DEPTH}", expected)
    return content


def _deeper_than(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in inner if isinstance(item, dict | list))
