"""The feature modules as a table for people, and labels as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.labels import LabelRow
from topotrain.features.registry import ModuleInfo
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN


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


def merged_labels(rows: Iterable[LabelRow], existing: Path | None) -> str:
    """A labels CSV: what the file holds already, with ``dockq`` and ``capri`` of the labelled models put in.

    Args:
        rows: new labels.
        existing: a labels file; other columns and other models of it stay.

    Raises:
        DataError: the file is malformed.
    """
    table: dict[str, dict[str, str]] = {}
    columns = [MODEL_COLUMN, DOCKQ_COLUMN, "capri"]
    if existing is not None and existing.exists():
        with existing.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if MODEL_COLUMN not in (reader.fieldnames or ()):
                raise DataError(f"{existing}: no column {MODEL_COLUMN}", "a labels CSV")
            columns += [name for name in reader.fieldnames or () if name not in columns]
            for row in reader:
                table[row[MODEL_COLUMN]] = {name: value or "" for name, value in row.items() if name is not None}
    for label in rows:
        new = {DOCKQ_COLUMN: f"{label.dockq:.4f}", "capri": str(label.capri)}
        table[label.MODEL] = {**table.get(label.MODEL, {MODEL_COLUMN: label.MODEL}), **new}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(table.values())
    return text.getvalue()
