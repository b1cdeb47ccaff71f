"""The feature modules as lines for people."""

from __future__ import annotations

from collections.abc import Iterable

from topotrain.features.registry import ModuleInfo


def module_lines(modules: Iterable[ModuleInfo]) -> list[str]:
    """One block a module: id, width, alias, summary, parameters."""
    lines: list[str] = []
    for module in modules:
        width = "" if module.width is None else f"{module.width} columns, "
        marks = ", orientation-dependent" if module.orientation_dependent else ""
        lines.append(f"{module.id}  ({width}{module.alias}{marks}; {module.package} {module.package_version})")
        lines.append(f"    {module.summary}")
        for name, facts in module.parameters.items():
            lines.append(f"    {module.kind}.{name} = {facts['default']}   {facts['summary']}")
    return lines
