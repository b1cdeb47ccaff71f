"""Choosing the four modules of a build: by id, by settings, or as a feature schema records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topotrain.errors import SchemaError, UserInputError
from topotrain.features.modules import (
    KINDS,
    EdgeModule,
    FeatureModule,
    InterfaceModule,
    NodeModule,
    TopologyModule,
)
from topotrain.features.parameters import describe_parameters
from topotrain.features.registry import find_module, registered_modules
from topotrain.text import did_you_mean

DEFAULT_MODULES = {
    "interface": "interface/polar_cutoff/v1",
    "topology": "topology/persistence_basic/v1",
    "node": "node/dssp_topo_merge/v1",
    "edge": "edge/legacy_band/v11",
}
# Settings of the older stack that say how to run, not what to compute.
EXECUTION_KEYS = ("jobs",)


@dataclass(frozen=True)
class ModuleSet:
    """The four modules of one build."""

    interface: InterfaceModule
    topology: TopologyModule
    node: NodeModule
    edge: EdgeModule

    def by_kind(self) -> dict[str, FeatureModule]:
        """The modules by kind, in the order of work."""
        return {kind: getattr(self, kind) for kind in KINDS}

    def specification(self) -> dict[str, dict[str, Any]]:
        """{kind: {id, params}}: all that decides the output; enough to make the set again."""
        return {kind: {"id": module.module_id(), "params": module.params} for kind, module in self.by_kind().items()}

    @property
    def topology_columns(self) -> tuple[str, ...]:
        """Columns of the topology module."""
        return self.topology.columns()

    @property
    def node_columns(self) -> tuple[str, ...]:
        """Columns of ``x``."""
        return self.node.columns(self.topology_columns)

    @property
    def edge_columns(self) -> tuple[str, ...]:
        """Columns of ``edge_attr``."""
        return self.edge.columns(self.topology_columns)


def select_modules(
    interface_module: str | None = None,
    topology_module: str | None = None,
    node_module: str | None = None,
    edge_module: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ModuleSet:
    """Make the modules of a build.

    Args:
        interface_module: id or alias; None for the default.
        topology_module: likewise.
        node_module: likewise.
        edge_module: likewise.
        settings: ``{"edge.distance_max": "12"}``: kind, dot, parameter; values as such or as YAML text.

    Raises:
        UserInputError: an unknown module or parameter.
    """
    chosen = {
        "interface": interface_module,
        "topology": topology_module,
        "node": node_module,
        "edge": edge_module,
    }
    params = _split_settings(settings or {})
    edge_class = find_module("edge", chosen["edge"] or DEFAULT_MODULES["edge"])
    if issubclass(edge_class, EdgeModule) and not chosen["interface"]:
        params["interface"] = {**edge_class.interface_params, **params["interface"]}
    elif issubclass(edge_class, EdgeModule):
        interface_class = find_module("interface", str(chosen["interface"]))
        known = interface_class.parameters.model_fields
        usable = {name: value for name, value in edge_class.interface_params.items() if name in known}
        params["interface"] = {**usable, **params["interface"]}
    made = {kind: find_module(kind, chosen[kind] or DEFAULT_MODULES[kind])(params[kind]) for kind in KINDS}
    return ModuleSet(**made)  # type: ignore[arg-type]


def recorded_modules(module_registry: Mapping[str, Any]) -> ModuleSet:
    """Make exactly the modules a feature schema records.

    Args:
        module_registry: the schema's ``module_registry``: {kind: {id, params or defaults, ...}}.

    Raises:
        SchemaError: the record is incomplete, a module is not installed, is installed in another version,
            or does not know a recorded parameter.
    """
    made: dict[str, FeatureModule] = {}
    for kind in KINDS:
        entry = module_registry.get(kind)
        if not isinstance(entry, Mapping) or not entry.get("id"):
            raise SchemaError(
                f"the feature schema records no {kind} module",
                "an id for " + ", ".join(KINDS),
                "train on graphs that topotrain build-graphs made",
            )
        identifier = str(entry["id"])
        params = entry["params"] if entry.get("params") is not None else entry.get("defaults") or {}
        params = {name: value for name, value in params.items() if name not in EXECUTION_KEYS}
        package = (
            f" (recorded from package {entry['package']} {entry.get('package_version', '')})"
            if entry.get("package")
            else ""
        )
        if identifier not in registered_modules()[0]:
            raise SchemaError(
                f"the model needs {kind} module {identifier}{package}, which is not installed",
                _installed_versions(kind, identifier),
                f"install the package that brings {identifier}",
            )
        try:
            made[kind] = registered_modules()[0][identifier].module(params)
        except UserInputError as error:
            raise SchemaError(
                f"the model's recorded parameters do not fit {identifier}: {error.what}",
                error.expected,
                "use the topotrain version that built its graphs",
            ) from error
    return ModuleSet(**made)  # type: ignore[arg-type]


def describe_set(modules: ModuleSet, jobs: int | None = None) -> dict[str, dict[str, Any]]:
    """The ``modules`` part of the builder's summary, and a schema's ``module_registry``.

    Args:
        modules: the modules in force.
        jobs: processes, recorded beside them where given.

    Returns:
        {kind: {id, kind, alias, summary, defaults, params, parameters, columns, package, package_version,
        scaling, orientation_dependent, jobs}}; ``params`` are the values in force.
    """
    columns = {
        "topology": modules.topology_columns,
        "node": modules.node_columns,
        "edge": modules.edge_columns,
    }
    described: dict[str, dict[str, Any]] = {}
    for kind, module in modules.by_kind().items():
        item = registered_modules()[0][module.module_id()]
        parameters = describe_parameters(module.parameters)
        described[kind] = {
            "id": module.module_id(),
            "kind": kind,
            "alias": module.alias,
            "summary": module.summary,
            "defaults": {name: facts["default"] for name, facts in parameters.items()},
            "params": module.params,
            "parameters": {name: facts["summary"] for name, facts in parameters.items()},
            "columns": list(columns.get(kind, ())),
            "scaling": module.scaling,
            "orientation_dependent": module.orientation_dependent,
            "package": item.package,
            "package_version": item.package_version,
        }
        if jobs is not None:
            described[kind]["jobs"] = jobs
    return described


def _split_settings(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    params: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for key, value in settings.items():
        kind, dot, name = key.partition(".")
        if not dot or kind not in KINDS:
            raise UserInputError(
                f"setting {key!r} names no module",
                "KIND.PARAMETER=VALUE with KIND " + ", ".join(KINDS),
                did_you_mean(kind, KINDS),
            )
        params[kind][name] = value
    return params


def _installed_versions(kind: str, identifier: str) -> str:
    stem = identifier.rpartition("/")[0]
    same = [known for known in registered_modules()[0] if known.rpartition("/")[0] == stem]
    return f"that version; installed is {', '.join(same)}" if same else f"an installed {kind} module of that id"
