"""Graphs that a job of a batch builds before it trains on them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topotrain.config import absolute_path
from topotrain.data.demo import demo_paths, demo_structures, demo_version
from topotrain.errors import ConfigError
from topotrain.fields import DEMO
from topotrain.files import cache_dir


@dataclass(frozen=True)
class Build:
    """What to build, and where it goes.

    Attributes:
        structures: absolute path, or ``demo``.
        modules: {kind: id}, as given; kinds left out have the builder's default.
        settings: {KIND.PARAMETER: value}, as given.
        out: the graph folder; the same structures, modules and parameters always go to the same one.
    """

    structures: str
    modules: Mapping[str, str]
    settings: Mapping[str, Any]
    out: Path = field(default_factory=Path)

    def paths(self, given: Mapping[str, Any]) -> dict[str, str]:
        """The job's ``paths``: the graphs and, for the demo structures, their labels where none are given."""
        paths = {"graph": str(self.out)}
        if self.structures == DEMO:
            demo = demo_paths()
            for key, labels in (("train_labels", demo.train_labels), ("val_labels", demo.val_labels)):
                if given.get(key, DEMO) == DEMO:
                    paths[key] = str(labels)
        return paths

    def arguments(self, jobs: int) -> list[str]:
        """The command ``build-graphs`` that makes the graphs, or completes them."""
        structures = demo_structures() if self.structures == DEMO else Path(self.structures)
        return [
            *("build-graphs", str(structures), "--out", str(self.out), "--jobs", str(jobs)),
            *(part for kind, name in self.modules.items() for part in (f"--{kind}-module", name)),
            *(part for key, value in self.settings.items() for part in ("--set", f"{key}={_as_yaml(value)}")),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record; not where the graphs go, which differs between machines."""
        return {"structures": self.structures, "modules": dict(self.modules), "set": dict(self.settings)}


def plan_build(structures: str, modules: Mapping[str, str], settings: Mapping[str, Any], base: Path) -> Build:
    """Check what is to be built, and choose its folder.

    Args:
        structures: path relative to ``base``, or ``demo``.
        modules: {kind: id or alias}.
        settings: {KIND.PARAMETER: value}.
        base: folder of the manifest.

    Raises:
        UserInputError: no such structures, module or parameter.
    """
    from topotrain.features.module_set import select_modules

    chosen = select_modules(**{f"{kind}_module": name for kind, name in modules.items()}, settings=settings)
    where = structures
    if structures != DEMO:
        where = absolute_path(structures, base)
        if not os.path.exists(where):
            raise ConfigError(f"structures {where}: no such file or folder", "structure files", "check the path")
    identity = [where if where != DEMO else demo_version(), chosen.specification()]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    name = f"{Path(where).name}-{chosen.edge.module_id().replace('/', '-')}-{digest[:12]}"
    return Build(where, dict(modules), dict(settings), cache_dir() / "graphs" / name)


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
