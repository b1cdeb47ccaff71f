"""Graphs and their metadata files to one ``FeatureSchema``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from topotrain.errors import SchemaError
from topotrain.fields import GRAPH_SUFFIX, METADATA, SIDECAR_NAME
from topotrain.schema.feature_schema import STATED, TENSORS, FeatureSchema, GraphFacts, Place, modules_of
from topotrain.schema.metadata_files import (
    OWN_METADATA,
    Sidecar,
    Summary,
    checked,
    edge_count_apart,
    find_summary,
    read_sidecar,
    read_summary,
)
from topotrain.schema.values import SHOWN_GRAPHS, canonical, decisive, difference, name_graphs, specification

SHOWN_CHARACTERS = 200  # of a value, in messages


@dataclass(frozen=True)
class _Described:
    """What the metadata say of one graph, beside its tensors: ``stated`` by field of the schema."""

    facts: GraphFacts
    in_sidecar: bool
    stated: Mapping[str, Any]
    edge_count: int | None
    modules: Any

    def said_of(self, name: str) -> Any:
        """What the metadata say of a field of the schema."""
        return self.stated[name]


def resolve_schema(
    facts: Sequence[GraphFacts],
    graph_dir: Path,
    *,
    metadata_path: Path | None = None,
    summary_path: Path | None = None,
    use_layer_norm: bool = True,
) -> FeatureSchema:
    """Resolve the one schema that all graphs share.

    Args:
        facts: what every graph of the run says of itself; not a sample.
        graph_dir: the directory their keys are relative to.
        metadata_path: sidecar; by default ``graph_metadata.json`` in ``graph_dir``, if it is there.
        summary_path: builder's summary; by default discovered.
        use_layer_norm: recorded with the edge schema.

    Raises:
        SchemaError: graphs disagree with each other or with their metadata.
        DataError: a metadata file is missing or malformed.
    """
    if not facts:
        raise SchemaError(f"{graph_dir}: no graphs", "at least one .pt file")
    metadata = DirectoryMetadata.read(graph_dir, metadata_path=metadata_path, summary_path=summary_path)
    schema, described = metadata.merge(facts, use_layer_norm)
    notes = list(metadata.notes)
    _note_gaps(described, metadata.sidecar, schema, notes)
    return _with_notes(schema, notes, facts)


@dataclass(frozen=True)
class DirectoryMetadata:
    """What the files of a graph directory say of its graphs, read once.

    Attributes:
        graph_dir: the directory; ``None`` for a graph that came without one.
        sidecar: ``graph_metadata.json``, if it is there.
        summary: of the builder, if one is found.
        notes: what a reader should know of the search.
    """

    graph_dir: Path | None = None
    sidecar: Sidecar | None = None
    summary: Summary | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, graph_dir: Path, *, metadata_path: Path | None = None, summary_path: Path | None = None
    ) -> DirectoryMetadata:
        """Read sidecar and summary; both are looked for where no path is given.

        Raises:
            DataError: a file is malformed, or missing though its path was given.
        """
        notes: list[str] = []
        sidecar = read_sidecar(metadata_path or graph_dir / SIDECAR_NAME, required=metadata_path is not None)
        if sidecar is None:
            notes.append(f"{SIDECAR_NAME} not found at {graph_dir / SIDECAR_NAME}")
        summary = read_summary(summary_path) if summary_path else find_summary(graph_dir, notes.append)
        return cls(graph_dir, sidecar, summary, tuple(notes))

    def schema_of(self, facts: GraphFacts, edge_dim: int) -> FeatureSchema:
        """The schema of one graph alone.

        Args:
            facts: what the graph says of itself.
            edge_dim: taken for the width of a graph without edges that states none.

        Raises:
            SchemaError: the graph disagrees with its metadata.
            DataError: its own metadata are malformed.
        """
        known = facts if facts.edge_dim is not None else replace(facts, edge_dim=edge_dim)
        return self.merge([known], use_layer_norm=True)[0]

    def said_of(self, graph: GraphFacts) -> Hashable:
        """All that is said of a graph but for its name and its number of edges; equal for graphs of one kind."""
        own, _ = edge_count_apart(graph.metadata)
        return json.dumps([own, self.sidecar.said_of(graph.key) if self.sidecar else None])

    def merge(self, facts: Sequence[GraphFacts], use_layer_norm: bool) -> tuple[FeatureSchema, list[_Described]]:
        """The one schema of these graphs, without notes, and what was found of each."""
        described = [self._describe(graph) for graph in facts]
        try:
            node_dim = _one_width(described, "node", lambda graph: graph.facts.node_dim)
            edge_dim = _one_width(described, "edge", lambda graph: graph.facts.edge_dim)
            _check_stated_widths(described, self.sidecar, self.summary, node_dim, edge_dim)
            _check_edge_counts(described)
            schema = _merge(described, self.sidecar, self.summary, node_dim, edge_dim, use_layer_norm)
        except SchemaError as error:
            raise self._here(error) from None
        return schema, described

    def _describe(self, graph: GraphFacts) -> _Described:
        sidecar = self.sidecar
        file = self.graph_dir / f"{graph.key}{GRAPH_SUFFIX}" if self.graph_dir else f"graph {graph.key}"
        own = checked(OWN_METADATA, graph.metadata, file, METADATA)
        entry = sidecar.graphs.get(graph.key) if sidecar else None
        # A sidecar may describe each graph, or all at once; a graph left out of the former is described by neither.
        covered = sidecar is not None and (entry is not None or not sidecar.graphs)
        shared = sidecar.shared if sidecar and covered else {}
        entry = entry or {}
        try:
            stated = {
                name: _agreed(graph.key, place, entry, own, getattr(shared.get(place.section), place.key, None))
                for name, place in STATED.items()
            }
        except SchemaError as error:
            raise self._here(error) from None
        in_sidecar, edge_count = _stated(entry, ("info", "edge_count"))
        if not in_sidecar:
            _, edge_count = _stated(own, ("info", "edge_count"))
        return _Described(graph, covered, stated, edge_count, own.get("modules"))

    def _here(self, error: SchemaError) -> SchemaError:
        return SchemaError(f"{self.graph_dir}: {error.what}", error.expected, error.do) if self.graph_dir else error


def _agreed(key: str, place: Place, entry: Mapping[str, Any], own: Mapping[str, Any], shared: Any) -> Any:
    """The sidecar's word, the file's own where it is silent; two different words are an error."""
    said, in_sidecar = _stated(entry, place.stated)
    if not said and not place.shared_last:
        in_sidecar = shared
    _, in_file = _stated(own, place.stated)
    if in_sidecar is not None and in_file is not None and _text(in_sidecar) != _text(in_file):
        parted = difference(place.stated[-1], decisive(in_file), decisive(in_sidecar))
        raise SchemaError(
            f"graph {key}: the file and the sidecar disagree, {parted}",
            "the same in both",
            f"rebuild the graphs or {SIDECAR_NAME}",
        )
    value = in_sidecar if in_sidecar is not None else in_file
    return shared if value is None and place.shared_last else value


def _text(value: Any) -> str:
    """What decides of a value, as text; names of columns, the same in every graph, are written out once."""
    if isinstance(value, list) and all(type(name) is str for name in value):
        return _names_text(tuple(value))
    return canonical(decisive(value))


@lru_cache(maxsize=16)
def _names_text(names: tuple[str, ...]) -> str:
    return canonical(names)


def _stated(entry: Mapping[str, Any], path: Sequence[str]) -> tuple[bool, Any]:
    """Whether an entry says anything there, be it that nothing is known (``null``), and what."""
    value: Any = entry
    for name in path:
        if value is None or name not in value:
            return False, None
        value = value[name]
    return True, value


def _one_width(described: Sequence[_Described], kind: str, width: Callable[[_Described], int | None]) -> int:
    groups: dict[int, list[str]] = defaultdict(list)
    for graph in described:
        value = width(graph)
        if value is not None:
            groups[value].append(graph.facts.key)
    if not groups:
        raise SchemaError(
            "no graph has an edge, so the edge width is unknown", "at least one graph with edges", "check the builder"
        )
    if len(groups) > 1:
        raise SchemaError(
            f"graphs of different {kind} width: {_show_groups(groups)}",
            "one width in all graphs",
            "rebuild the odd ones",
        )
    return next(iter(groups))


def _show_groups(groups: Mapping[Any, Sequence[str]]) -> str:
    """Each value with the graphs that have it, the rarest first."""
    ordered = sorted(groups.items(), key=lambda item: (len(item[1]), str(item[0])))
    more = f"; and {len(ordered) - SHOWN_GRAPHS} more kinds" if len(ordered) > SHOWN_GRAPHS else ""
    return "; ".join(f"{value} in {name_graphs(keys)}" for value, keys in ordered[:SHOWN_GRAPHS]) + more


def _show_values(what: str, groups: Mapping[str, Sequence[str]]) -> str:
    """The values that fall apart, or for long ones where the two commonest part."""
    if all(len(text) < SHOWN_CHARACTERS for text in groups):
        return _show_groups(groups)
    (common, others), (odd, keys) = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:2]
    return f"{name_graphs(keys)} against {name_graphs(others)}, {difference(what, json.loads(odd), json.loads(common))}"


def _check_stated_widths(
    described: Sequence[_Described], sidecar: Sidecar | None, summary: Summary | None, node_dim: int, edge_dim: int
) -> None:
    """Hold every width that metadata state against the tensors, which are the truth."""
    stated: list[tuple[str, int, Callable[[_Described], int | None]]] = [
        ("edge feature_dim", edge_dim, lambda graph: graph.stated["edge_dim"]),
        ("number of edge_feature_columns", edge_dim, lambda graph: _length(graph.stated["edge_columns"])),
        ("number of node_feature_columns", node_dim, lambda graph: _length(graph.stated["node_columns"])),
    ]
    for what, truth, width in stated:
        wrong: dict[int, list[str]] = defaultdict(list)
        for graph in described:
            value = width(graph)
            if value is not None and value != truth:
                wrong[value].append(graph.facts.key)
        if wrong:
            raise SchemaError(
                f"{what} in the metadata is {_show_groups(wrong)}, but the tensors have {truth}",
                "metadata that agree with the tensors",
                "rebuild the graphs, or remove the stale metadata",
            )
    totals = [(sidecar.path, sidecar.edge_dim)] if sidecar else []
    totals += [(summary.path, summary.edge_dim)] if summary else []
    for path, value in totals:
        if value is not None and value != edge_dim:
            keys = name_graphs(graph.facts.key for graph in described)
            raise SchemaError(
                f"{path} says edge_feature_dim {value}, but the tensors of {keys} have {edge_dim}",
                "metadata that agree with the tensors",
                "rebuild the graphs, or remove the stale metadata",
            )


def _check_edge_counts(described: Sequence[_Described]) -> None:
    """Metadata that count other edges are those of another build, whatever else in them may fit."""
    stale = [g.facts for g in described if g.edge_count is not None and g.edge_count != g.facts.num_edges]
    counted = {graph.facts.key: graph.edge_count for graph in described}
    if stale:
        shown = ", ".join(f"{g.key} {counted[g.key]} against {g.num_edges}" for g in stale[:SHOWN_GRAPHS])
        more = f" and {len(stale) - SHOWN_GRAPHS} more" if len(stale) > SHOWN_GRAPHS else ""
        raise SchemaError(
            f"edge_count in the metadata differs from the tensors in {len(stale)} graphs: {shown}{more}",
            "metadata that agree with the tensors",
            "rebuild the graphs, or remove the stale metadata",
        )


def _length(columns: Sequence[str] | None) -> int | None:
    return None if columns is None else len(columns)


def _merge(
    described: Sequence[_Described],
    sidecar: Sidecar | None,
    summary: Summary | None,
    node_dim: int,
    edge_dim: int,
    use_layer_norm: bool,
) -> FeatureSchema:
    def one(what: str, value: Callable[[_Described], Any]) -> Any:
        groups: dict[str, list[str]] = defaultdict(list)
        for graph in described:
            if value(graph) is not None:
                groups[_text(value(graph))].append(graph.facts.key)
        if len(groups) > 1:
            raise SchemaError(
                f"graphs of different {what}: {_show_values(what, groups)}",
                "one kind of graph in a run",
                "rebuild the odd ones",
            )
        return next((value(graph) for graph in described if value(graph) is not None), None)

    values = {
        name: one(place.mixed or place.decides, partial(_Described.said_of, name=name))
        for name, place in STATED.items()
        if name != "edge_dim"  # the tensors'
    }
    registry = dict(summary.modules if summary and summary.modules else (sidecar.registry if sidecar else {}))
    modules = one("feature modules or parameters", lambda graph: graph.modules)
    _check_registry(str(summary.path) if summary else "the sidecar", registry, values["edge_module"], modules)
    built = registry.get("edge")
    built = built if isinstance(built, Mapping) else {}
    for name, key in (("edge_module", "id"), ("edge_params", "defaults")):
        if values[name] is None:
            values[name] = built.get(key)
    named = sidecar is not None and any(graph.in_sidecar for graph in described)
    own = any(graph.stated[name] is not None for graph in described for name in ("edge_module", "edge_columns"))
    source = str(sidecar.path) if named and sidecar else "graph files" if own else TENSORS
    return FeatureSchema(
        node_dim=node_dim,
        edge_dim=edge_dim,
        **values,
        edge_alias=built.get("alias"),
        edge_jobs=built.get("jobs"),
        edge_summary=built.get("summary"),
        edge_source=source,
        node_source=source if values["node_columns"] is not None else TENSORS,
        use_layer_norm=use_layer_norm,
        module_registry=json.loads(json.dumps(registry, default=str)),
        metadata_path=str(sidecar.path) if sidecar else None,
        summary_path=str(summary.path) if summary else None,
        modules=modules_of(modules if isinstance(modules, Mapping) else registry) or None,
    )


def _check_registry(source: str, registry: Mapping[str, Any], module: str | None, modules: Any) -> None:
    """Refuse a record of modules that is not of these graphs: scoring would build others than were trained on."""
    built = registry.get("edge")
    recorded, edge = specification(registry), built.get("id") if isinstance(built, Mapping) else None
    stale: tuple[Any, Any] | None = None
    if module is not None and edge not in (None, module):
        stale = (f"the edge module is {edge!r}", repr(module))
    elif modules is not None and recorded and canonical(decisive(modules)) != canonical(decisive(recorded)):
        stale = (f"the feature modules are {canonical(recorded)}", canonical(modules))
    if stale:
        raise SchemaError(
            f"{source} says {stale[0]}, but the graphs say {stale[1]}",
            "a record of these graphs",
            "remove the stale summary, or build the graphs again in one go",
        )


def _note_gaps(
    described: Sequence[_Described], sidecar: Sidecar | None, schema: FeatureSchema, notes: list[str]
) -> None:
    if sidecar is not None:
        absent = [graph.facts.key for graph in described if not graph.in_sidecar]
        if absent:
            notes.append(
                f"{len(absent)} of {len(described)} graphs are not in {sidecar.path.name} and were checked by their "
                f"tensors and their own metadata: {name_graphs(absent)}"
            )
    if schema.edge_source == TENSORS:
        notes.append("widths come from the tensors alone: no metadata names the columns")


def _with_notes(schema: FeatureSchema, notes: Sequence[str], facts: Sequence[GraphFacts]) -> FeatureSchema:
    sample = min(facts, key=lambda graph: graph.key)
    return replace(
        schema,
        notes=tuple(notes),
        sample_graph=sample.key,
        sample_edge_count=sample.num_edges,
        sample_node_count=sample.num_nodes,
    )
