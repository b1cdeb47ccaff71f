"""The feature schema: what the columns of a graph directory are, as ``feature_metadata.json`` keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import pydantic
from pydantic import BeforeValidator, Field, InstanceOf, SkipValidation, ValidationError

from topotrain.errors import SchemaError
from topotrain.fields import DOCKQ_COLUMN, MODULE_KINDS
from topotrain.schema.documents import Object, Text, fault
from topotrain.schema.values import canonical, decisive, short
from topotrain.text import as_json

DIGEST_VERSION = 1  # of what is said of nodes and edges alone
DIGEST_VERSION_WITH_MODULES = 2
MODULES = "modules"
LABEL_COLUMN = "label_column"
TENSORS = "tensors"  # where widths come from that no metadata state


@dataclass(frozen=True)
class GraphFacts:
    """What one graph says of itself.

    Attributes:
        key: path below the graph directory, without suffix, ``/``-separated.
        node_dim: width of ``x``.
        edge_dim: width of ``edge_attr``; ``None`` for a graph without edges that states no width.
        num_nodes: rows of ``x``.
        num_edges: columns of ``edge_index``.
        metadata: the file's own ``metadata`` mapping, empty when it has none.
    """

    key: str
    node_dim: int
    edge_dim: int | None
    num_nodes: int
    num_edges: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a property of the schema is written and read.

    Attributes:
        section: of ``feature_metadata.json``; "" for its top.
        key: in that section.
        decides: how a difference in it is called; "" for what does not decide compatibility.
        stated: where a graph's metadata state it, as keys of ``GraphEntry``; () for what they don't.
        mixed: how graphs of one directory that differ in it are called, if not as ``decides``.
        shared_last: whether what a sidecar states for all graphs is asked for only where nothing else is said.
    """

    section: str
    key: str
    decides: str = ""
    stated: tuple[str, ...] = ()
    mixed: str = ""
    shared_last: bool = False


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _named(value: Any) -> Any:
    return tuple(str(name) for name in value) if isinstance(value, list | tuple) else value


Width = Annotated[int, Field(strict=True, ge=1)]
Names = Annotated[InstanceOf[tuple[str, ...]], BeforeValidator(_named)]
Values = Annotated[InstanceOf[tuple[Any, ...]], BeforeValidator(_listed)]
Source = Annotated[Text, BeforeValidator(lambda value: TENSORS if value is None or value == "" else value)]
Flag = Annotated[bool, BeforeValidator(bool)]
Registry = Annotated[Object, BeforeValidator(lambda value: {} if value is None else value)]
Notes = Annotated[Values, BeforeValidator(lambda value: () if value is None else value)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """One resolved schema: sizes the network, and every later use of a model is held to it.

    Each field says where ``feature_metadata.json`` keeps it (in the order of that file), whether it decides
    compatibility, and where graphs state it. Columns and the like are ``None`` where they have no names; the sources
    are the sidecar's path, ``graph files`` (their own metadata) or ``tensors`` (widths alone).
    """

    edge_dim: Annotated[Width, Place("edge_schema", "dim", "edge dim", ("info", "feature_dim"))]
    edge_columns: Annotated[
        Names | None, Place("edge_schema", "columns", "edge columns", ("edge_feature_columns",))
    ] = None
    edge_module: Annotated[Text | None, Place("edge_schema", "module", "edge module", ("edge_module",))] = None
    edge_variant: Annotated[
        Text | None, Place("edge_schema", "variant", "edge variant", ("info", "edge_feature_variant"))
    ] = None
    edge_params: Annotated[
        Object | None,
        Place(
            *("edge_schema", "module_params", "edge parameters", ("edge_params",)),
            mixed="edge module parameters",
            shared_last=True,
        ),
    ] = None
    edge_bands: Annotated[Values | None, Place("edge_schema", "bands", "edge bands", ("info", "bands"))] = None
    edge_source: Annotated[Source, Place("edge_schema", "source")] = TENSORS
    edge_alias: Annotated[Text | None, Place("edge_schema", "alias")] = None
    edge_jobs: Annotated[Any, Place("edge_schema", "jobs")] = None
    edge_summary: Annotated[Text | None, Place("edge_schema", "summary")] = None
    use_layer_norm: Annotated[Flag, Place("edge_schema", "use_layer_norm")] = True
    node_columns: Annotated[
        Names | None, Place("node_schema", "columns", "node columns", ("node_feature_columns",))
    ] = None
    node_dim: Annotated[Width, Place("node_schema", "dim", "node dim")]
    node_source: Annotated[Source, Place("node_schema", "source")] = TENSORS
    module_registry: Annotated[Registry, Place("", "module_registry")] = field(default_factory=dict)
    metadata_path: Annotated[SkipValidation[str | None], Place("", "metadata_path")] = None
    summary_path: Annotated[SkipValidation[str | None], Place("", "summary_path")] = None
    notes: Annotated[Notes, Place("", "notes")] = ()
    label_column: Annotated[Text, Place("", LABEL_COLUMN)] = DOCKQ_COLUMN  # what is predicted; written if not DockQ
    sample_graph: Annotated[SkipValidation[str | None], Place("", "sample_graph")] = None
    sample_edge_count: Annotated[SkipValidation[int | None], Place("", "sample_edge_count")] = None
    sample_node_count: Annotated[SkipValidation[int | None], Place("", "sample_node_count")] = None
    modules: Annotated[Object | None, Place("", MODULES)] = None  # {kind: {id, params}}; written if known

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides compatibility, as plain values."""
        values = ((place.decides, getattr(self, name)) for name, place in PLACES.items() if place.decides)
        return {name: decisive(value) if isinstance(value, Mapping) else _plain(value) for name, value in values}

    @property
    def feature_modules(self) -> dict[str, dict[str, Any]]:
        """{kind: {id, params}} of the feature modules, as far as the graphs or their builder's record state them."""
        found = modules_of(self.modules if self.modules is not None else self.module_registry)
        edge = found.get("edge", {})
        if self.edge_module or edge:
            params = self.edge_params if self.edge_params is not None else edge.get("params")
            found["edge"] = {"id": self.edge_module or edge.get("id"), "params": params}
        return found

    @property
    def digest(self) -> str:
        """SHA-256 over what decides compatibility, the same on every machine."""
        modules = {kind: decisive(module) for kind, module in self.feature_modules.items() if kind != "edge"}
        if not modules:
            return self.digest_without_modules
        content = {"version": DIGEST_VERSION_WITH_MODULES, **self.deciding, MODULES: modules}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    @property
    def digest_without_modules(self) -> str:
        """What ``digest`` was before it held the interface, topology and node modules."""
        return hashlib.sha256(canonical({"version": DIGEST_VERSION, **self.deciding}).encode()).hexdigest()

    def has_digest(self, digest: str) -> bool:
        """Whether a digest is of this schema, by this version of topotrain or one before it."""
        return digest in (self.digest, self.digest_without_modules)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``feature_metadata.json``."""
        content: dict[str, Any] = {}
        for name, place in PLACES.items():
            section = content.setdefault(place.section, {}) if place.section else content
            section[place.key] = _plain(getattr(self, name))
        if self.label_column == DOCKQ_COLUMN:
            del content[LABEL_COLUMN]
        if self.modules is None:
            del content[MODULES]
        return {**content, "digest": self.digest}

    def to_json(self) -> str:
        """``feature_metadata.json`` as text."""
        text = as_json(self.to_dict())
        return text.encode("utf-8", "replace").decode()  # a file name need not be UTF-8

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "") -> FeatureSchema:
        """Read ``feature_metadata.json``, today's or the older stack's.

        Args:
            content: of the file.
            source: where it is from, for messages.

        Raises:
            SchemaError: a section or a width is missing or malformed.
        """
        malformed = f"{source}: feature metadata is malformed" if source else "feature metadata is malformed"
        given: dict[str, Any] = {}
        for name, place in PLACES.items():
            section = content.get(place.section) if place.section and isinstance(content, Mapping) else content
            if not isinstance(section, Mapping):
                raise SchemaError(
                    f"{malformed} ({place.section} is {short(section)})",
                    "edge_schema.dim and node_schema.dim, as in feature_metadata.json",
                )
            if place.key in section:
                given[name] = section[place.key]
        try:
            return cls(**given)
        except ValidationError as error:
            at, found, expected = fault(error)
            place = PLACES[str(at[0])]
            key = f"{place.section}.{place.key}" if place.section else place.key
            raise SchemaError(f"{malformed} ({key} {found})", expected) from None

    def parameters(self) -> dict[str, str]:
        """The schema as run parameters."""
        modules = self.feature_modules
        ids = {f"schema.{kind}.module": modules.get(kind, {}).get("id") or "unknown" for kind in MODULE_KINDS}
        params = {kind: module["params"] for kind, module in modules.items() if module["params"] is not None}
        return {
            **ids,
            **{f"schema.{kind}.params": canonical(decisive(given)) for kind, given in params.items()},
            "schema.edge.dim": str(self.edge_dim),
            "schema.edge.alias": self.edge_alias or "none",
            "schema.edge.variant": self.edge_variant or "unknown",
            "schema.node.dim": str(self.node_dim),
            "schema.digest": self.digest,
            "schema.source": self.edge_source,
        }


def modules_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{kind: {id, params}} of what graphs or their builder record, as far as it is well formed."""
    found: dict[str, dict[str, Any]] = {}
    for kind in MODULE_KINDS:
        entry = record.get(kind)
        if isinstance(entry, Mapping) and isinstance(entry.get("id"), str):
            params = entry.get("params")
            found[kind] = {"id": entry["id"], "params": dict(params) if isinstance(params, Mapping) else None}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


PLACES: dict[str, Place] = {
    name: place
    for name, hint in get_type_hints(FeatureSchema, include_extras=True).items()
    for place in getattr(hint, "__metadata__", ())
    if isinstance(place, Place)
}
STATED = {name: place for name, place in PLACES.items() if place.stated}  # what metadata of graphs say
