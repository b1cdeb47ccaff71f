"""The feature schema: what the columns of a graph directory are, and whether two of them agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topotrain.errors import SchemaError
from topotrain.text import as_json

# How a module was executed, not what it computes: never part of the digest.
EXECUTION_SETTINGS = frozenset(
    {"jobs", "n_jobs", "num_workers", "workers", "threads", "verbose", "progress", "log_level"}
    | {"log_dir", "log_path", "output_dir", "work_dir", "metadata_path", "summary_path", "source"}
)
DIGEST_VERSION = 1
SHOWN_GRAPHS = 5


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
class FeatureSchema:
    """One resolved schema: sizes the network, and every later use of a model is held to it.

    ``columns`` are ``None`` where nobody named them. ``sources`` say where widths and names come from:
    the sidecar's path, ``graph files`` (their own metadata) or ``tensors`` (widths alone).
    """

    node_dim: int
    edge_dim: int
    node_columns: tuple[str, ...] | None = None
    edge_columns: tuple[str, ...] | None = None
    edge_module: str | None = None
    edge_variant: str | None = None
    edge_params: Mapping[str, Any] | None = None
    edge_bands: tuple[Any, ...] | None = None
    edge_alias: str | None = None
    edge_jobs: Any = None
    edge_summary: str | None = None
    edge_source: str = "tensors"
    node_source: str = "tensors"
    use_layer_norm: bool = True
    module_registry: Mapping[str, Any] = field(default_factory=dict)
    metadata_path: str | None = None
    summary_path: str | None = None
    notes: tuple[str, ...] = ()
    sample_graph: str | None = None
    sample_edge_count: int | None = None
    sample_node_count: int | None = None

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides compatibility, as plain values."""
        return {
            "edge dim": self.edge_dim,
            "edge columns": None if self.edge_columns is None else list(self.edge_columns),
            "edge module": self.edge_module,
            "edge variant": self.edge_variant,
            "edge parameters": None if self.edge_params is None else decisive(self.edge_params),
            "edge bands": None if self.edge_bands is None else list(self.edge_bands),
            "node dim": self.node_dim,
            "node columns": None if self.node_columns is None else list(self.node_columns),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over what decides compatibility, the same on every machine."""
        return hashlib.sha256(canonical({"version": DIGEST_VERSION, **self.deciding}).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The content of ``feature_metadata.json``."""
        edge = {
            "dim": self.edge_dim,
            "columns": None if self.edge_columns is None else list(self.edge_columns),
            "module": self.edge_module,
            "variant": self.edge_variant,
            "module_params": None if self.edge_params is None else dict(self.edge_params),
            "bands": None if self.edge_bands is None else list(self.edge_bands),
            "source": self.edge_source,
            "alias": self.edge_alias,
            "jobs": self.edge_jobs,
            "summary": self.edge_summary,
            "use_layer_norm": self.use_layer_norm,
        }
        node_columns = None if self.node_columns is None else list(self.node_columns)
        return {
            "edge_schema": edge,
            "node_schema": {"columns": node_columns, "dim": self.node_dim, "source": self.node_source},
            "module_registry": dict(self.module_registry),
            "metadata_path": self.metadata_path,
            "summary_path": self.summary_path,
            "notes": list(self.notes),
            "sample_graph": self.sample_graph,
            "sample_edge_count": self.sample_edge_count,
            "sample_node_count": self.sample_node_count,
            "digest": self.digest,
        }

    def to_json(self) -> str:
        """``feature_metadata.json`` as text."""
        text = as_json(self.to_dict())
        return text.encode("utf-8", "replace").decode()  # a file name need not be UTF-8

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FeatureSchema:
        """Read ``feature_metadata.json``, today's or the older stack's.

        Raises:
            SchemaError: a section or a width is missing or malformed.
        """
        try:
            edge, node = dict(content["edge_schema"]), dict(content["node_schema"])
            edge_dim, node_dim = _width(edge["dim"]), _width(node["dim"])
            _check_kinds(edge, {"columns": list, "bands": list, "module_params": Mapping})
            _check_kinds(edge, dict.fromkeys(("module", "variant", "alias", "summary", "source"), str))
            _check_kinds(node, {"columns": list, "source": str})
            _check_kinds(content, {"module_registry": Mapping, "notes": list})
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(
                f"feature metadata is malformed ({type(error).__name__}: {error})",
                "edge_schema.dim and node_schema.dim, as in feature_metadata.json",
            ) from None
        return cls(
            node_dim=node_dim,
            edge_dim=edge_dim,
            node_columns=_names(node.get("columns")),
            edge_columns=_names(edge.get("columns")),
            edge_module=edge.get("module"),
            edge_variant=edge.get("variant"),
            edge_params=edge.get("module_params"),
            edge_bands=None if edge.get("bands") is None else tuple(edge["bands"]),
            edge_alias=edge.get("alias"),
            edge_jobs=edge.get("jobs"),
            edge_summary=edge.get("summary"),
            edge_source=edge.get("source") or "tensors",
            node_source=node.get("source") or "tensors",
            use_layer_norm=bool(edge.get("use_layer_norm", True)),
            module_registry=content.get("module_registry") or {},
            metadata_path=content.get("metadata_path"),
            summary_path=content.get("summary_path"),
            notes=tuple(content.get("notes") or ()),
            sample_graph=content.get("sample_graph"),
            sample_edge_count=content.get("sample_edge_count"),
            sample_node_count=content.get("sample_node_count"),
        )

    def parameters(self) -> dict[str, str]:
        """The schema as run parameters."""
        return {
            "schema.edge.dim": str(self.edge_dim),
            "schema.edge.module": self.edge_module or "unknown",
            "schema.edge.alias": self.edge_alias or "none",
            "schema.edge.variant": self.edge_variant or "unknown",
            "schema.node.dim": str(self.node_dim),
            "schema.digest": self.digest,
            "schema.source": self.edge_source,
        }

    def differences(self, other: FeatureSchema) -> list[str]:
        """One line for each deciding property in which ``other`` differs, both sides shown.

        A property that one side does not know is not a difference; widths are always known.
        """
        mine, theirs = self.deciding, other.deciding
        return [
            difference(name, mine[name], theirs[name])
            for name in mine
            if mine[name] is not None and theirs[name] is not None and canonical(mine[name]) != canonical(theirs[name])
        ]


def expect(schema: FeatureSchema, expectations: Mapping[str, Any]) -> None:
    """Hold what the configuration says of the edges against what was resolved.

    Args:
        schema: the resolved schema.
        expectations: keys of ``edge_schema`` (``dim``, ``module``, ...) with the values expected.

    Raises:
        SchemaError: one of them contradicts the graphs.
    """
    resolved = schema.to_dict()["edge_schema"]
    for key, value in expectations.items():
        found = resolved[key]
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            value, found = decisive(value), decisive(found)
        if canonical(value) != canonical(found):
            raise SchemaError(
                f"edge_schema.{key} is {_short(value)} in the configuration and {_short(found)} in the graphs",
                "no contradiction",
                f"remove edge_schema.{key}: it is computed from the graphs",
            )


def decisive(params: Any) -> Any:
    """Module parameters without execution settings, at every depth."""
    if isinstance(params, Mapping):
        return {str(key): decisive(value) for key, value in params.items() if str(key) not in EXECUTION_SETTINGS}
    if isinstance(params, list | tuple):
        return [decisive(value) for value in params]
    return params


def specification(registry: Mapping[str, Any]) -> dict[str, Any]:
    """{kind: {id, params}} of a module registry, for the modules that record the parameters in force."""
    return {
        str(kind): {"id": entry.get("id"), "params": entry["params"]}
        for kind, entry in registry.items()
        if isinstance(entry, Mapping) and entry.get("params") is not None
    }


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values: keys sorted, 10.0 written as 10."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def name_graphs(keys: Iterable[str]) -> str:
    """Up to five graphs by name, and how many more there are."""
    ordered = sorted(keys)
    more = f" and {len(ordered) - SHOWN_GRAPHS} more" if len(ordered) > SHOWN_GRAPHS else ""
    return ", ".join(ordered[:SHOWN_GRAPHS]) + more


def _width(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"dim is {_short(value)}")
    return value


def _check_kinds(section: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if section.get(key) is not None and not isinstance(section[key], kind):
            raise TypeError(f"{key} is a {type(section[key]).__name__}")


def _names(columns: Sequence[Any] | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(str(column) for column in columns)


def difference(name: str, mine: Any, theirs: Any) -> str:
    """One line that shows where two values of one property part."""
    if not (isinstance(mine, list) and isinstance(theirs, list)) or "columns" not in name:
        return f"{name}: {_short(mine)} against {_short(theirs)}"
    missing = [column for column in mine if column not in theirs]
    extra = [column for column in theirs if column not in mine]
    if not missing and not extra:
        at = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
        )
        return f"{name}: the same names in another order, from column {at} on"
    parts = [f"missing {_short(missing)}"] if missing else []
    parts += [f"unexpected {_short(extra)}"] if extra else []
    return f"{name}: {', '.join(parts)}"


def _short(value: Any, limit: int = 400) -> str:
    text = json.dumps(value, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + " ..."
