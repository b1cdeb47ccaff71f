"""Structures to graphs: feature modules, the graph builder, DockQ labels."""

from topotrain.features.builder import BuildReport, build_graphs, build_recorded_graphs
from topotrain.features.dockq import LabelReport, LabelRow, label_decoys
from topotrain.features.registry import ModuleInfo, list_modules

__all__ = [
    "BuildReport",
    "LabelReport",
    "LabelRow",
    "ModuleInfo",
    "build_graphs",
    "build_recorded_graphs",
    "label_decoys",
    "list_modules",
]
