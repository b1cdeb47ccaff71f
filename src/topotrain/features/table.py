"""The feature modules as a table for people, and labels as a file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.dockq import LabelRow
from topotrain.features.registry import ModuleInfo
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN
from topotrain.text import as_csv


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
        try:
            rows_there = list(csv.reader(existing.read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{existing}: can't be read ({error})", "a labels CSV in UTF-8") from None
        ours = {name.lower(): name for name in columns}  # as readers of labels take them, in any case
        header = [ours.get(name.strip().lower(), name.strip()) for name in (rows_there or [[]])[0]]
        if MODEL_COLUMN not in header:
            raise DataError(f"{existing}: no column {MODEL_COLUMN}", "a labels CSV")
        columns += [name for name in header if name not in columns]
        for row in rows_there[1:]:
            there = dict(zip(header, row, strict=False))
            if there.get(MODEL_COLUMN):
                table[there[MODEL_COLUMN]] = there
    for label in rows:
        new = {DOCKQ_COLUMN: f"{label.dockq:.4f}", "capri": str(label.capri)}
        table[label.MODEL] = {**table.get(label.MODEL, {MODEL_COLUMN: label.MODEL}), **new}
    return as_csv([columns, *([row.get(name, "") for name in columns] for row in table.values())])
