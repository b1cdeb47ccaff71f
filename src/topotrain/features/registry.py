"""The feature modules there are: shipped ones and those of installed third-party packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from topotrain.errors import UserInputError
from topotrain.features.modules import (
    EdgeModule,
    FeatureModule,
    InterfaceModule,
    NodeModule,
    TopologyModule,
)
from topotrain.features.parameters import Parameters, describe_parameters
from topotrain.features.topology_persistence_basic import PersistenceBasic
from topotrain.text import did_you_mean, one_line
from topotrain.version import __version__

ENTRY_POINT_GROUP = "topotrain.features"
OWN_PACKAGE = "topotrain"
SHIPPED = (
    "interface_polar_cutoff",
    "topology_persistence_basic",
    "topology_none",
    "node_dssp_topo_merge",
    "node_plddt",
    "edge_legacy_band",
    "edge_multi_scale",
    "edge_distance",
    "edge_plus_topo_min",
)
NAME_PATTERN = re.compile(r"[a-z0-9_]+")
VERSION_PATTERN = re.compile(r"v[0-9]+")
BASES = (InterfaceModule, TopologyModule, NodeModule, EdgeModule)


@dataclass(frozen=True)
class ModuleInfo:
    """One row of ``topotrain features``.

    Attributes:
        id: ``kind/name/version``.
        kind: interface, topology, node or edge.
        alias: a short name.
        summary: one line.
        parameters: {name: {default, summary, type}}.
        columns: output columns with default parameters (and, for node and edge, the default topology).
        width: how many there are; None for an interface module.
        package: the distribution that brings it.
        package_version: its version.
        orientation_dependent: whether rotating the structure changes the output.
    """

    id: str
    kind: str
    alias: str
    summary: str
    parameters: dict[str, dict[str, Any]]
    columns: tuple[str, ...]
    width: int | None
    package: str
    package_version: str
    orientation_dependent: bool


@dataclass(frozen=True)
class RegisteredModule:
    """A module class and the distribution that brings it."""

    module: type[FeatureModule]
    package: str
    package_version: str


def list_modules(kind: str | None = None) -> list[ModuleInfo]:
    """Every usable module, shipped ones first.

    Args:
        kind: only this kind.
    """
    found, _ = registered_modules()
    return [_inform(item) for item in found.values() if kind in (None, item.module.kind)]


def broken_packages() -> dict[str, str]:
    """{entry point: what went wrong} for third-party modules that could not be loaded."""
    return dict(registered_modules()[1])


def find_module(kind: str, wanted: str) -> type[FeatureModule]:
    """The module class of an id or alias.

    Args:
        kind: interface, topology, node or edge.
        wanted: ``kind/name/version``, or an alias.

    Raises:
        UserInputError: there is no such module; installed versions or the nearest id are named.
    """
    found, broken = registered_modules()
    mine = {identifier: item for identifier, item in found.items() if item.module.kind == kind}
    if wanted in mine:
        return mine[wanted].module
    by_alias = [item.module for item in mine.values() if item.module.alias.lower() == wanted.lower() != ""]
    if len(by_alias) == 1:
        return by_alias[0]
    versions = [identifier for identifier in mine if identifier.rpartition("/")[0] == wanted.rpartition("/")[0]]
    trouble = "".join(f"; {name} could not be loaded: {why}" for name, why in broken.items())
    if versions:
        raise UserInputError(
            f"{kind} module {wanted} is not installed{trouble}",
            f"the installed version {versions[-1]}",
            "name that one, or install the package version that brings the other",
        )
    raise UserInputError(
        f"there is no {kind} module {wanted}{trouble}",
        "one of " + ", ".join(mine),
        did_you_mean(wanted, list(mine)) or "install the package that brings it",
    )


def _inform(item: RegisteredModule) -> ModuleInfo:
    module = item.module
    instance = module()
    columns: tuple[str, ...] = ()
    if isinstance(instance, TopologyModule):
        columns = instance.columns()
    elif isinstance(instance, NodeModule | EdgeModule):
        columns = instance.columns(PersistenceBasic().columns())
    return ModuleInfo(
        id=module.module_id(),
        kind=module.kind,
        alias=module.alias,
        summary=module.summary,
        parameters=describe_parameters(module.parameters),
        columns=columns,
        width=None if module.kind == "interface" else len(columns),
        package=item.package,
        package_version=item.package_version,
        orientation_dependent=module.orientation_dependent,
    )


def registered_modules() -> tuple[dict[str, RegisteredModule], dict[str, str]]:
    """Modules by id, and what went wrong with entry points that could not be loaded."""
    # Keyed by sys.path, so that a package installed or made importable later is seen.
    return _load(tuple(sys.path))


@lru_cache(maxsize=4)
def _load(_path: Sequence[str]) -> tuple[dict[str, RegisteredModule], dict[str, str]]:
    found: dict[str, RegisteredModule] = {}
    broken: dict[str, str] = {}
    for name in SHIPPED:
        module = import_module(f"topotrain.features.{name}").MODULE
        found[module.module_id()] = RegisteredModule(module, OWN_PACKAGE, __version__)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value)):
        try:
            for module in _classes(point):
                package = point.dist.name if point.dist else ""
                version = point.dist.version if point.dist else ""
                item = RegisteredModule(module, package, version)
                _check_module(item, found)
                found[module.module_id()] = item
        except Exception as error:  # noqa: BLE001  a broken package must not take the others down
            broken[f"{point.name} = {point.value}"] = f"{type(error).__name__}: {one_line(error)}"
    return found, broken


def _classes(point: EntryPoint) -> Iterable[type[FeatureModule]]:
    loaded = point.load()
    return loaded if isinstance(loaded, list | tuple) else [loaded]


def _check_module(item: RegisteredModule, found: Mapping[str, RegisteredModule]) -> None:
    """Refuse what is no usable module class, so that it can't fail in the middle of a build."""
    module: Any = item.module
    if not (isinstance(module, type) and issubclass(module, BASES)):
        raise TypeError(f"{module!r} is no feature module class (subclass one of topotrain.features.modules)")
    if not (NAME_PATTERN.fullmatch(module.name) and VERSION_PATTERN.fullmatch(module.version)):
        raise ValueError(f"{module.__name__}: name {module.name!r}, version {module.version!r} (want a_name, v1)")
    if not (isinstance(module.parameters, type) and issubclass(module.parameters, Parameters)):
        raise TypeError(f"{module.__name__}: parameters are no subclass of topotrain.features.parameters.Parameters")
    if module.module_id() in found:
        raise ValueError(f"{module.module_id()} exists already, from {found[module.module_id()].package}")
    _inform(item)
