"""A labels file, with new labels put in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from topotrain.data.csv_file import read_csv
from topotrain.features.dockq import LabelRow
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN
from topotrain.text import as_csv

CAPRI_COLUMN = "capri"


def merged_labels(rows: Iterable[LabelRow], existing: Path | None) -> str:
    """A labels CSV: what the file holds already, with ``dockq`` and ``capri`` of the labelled decoys put in.

    Args:
        rows: new labels.
        existing: a labels file, which may be missing yet; other columns and other decoys of it stay.

    Raises:
        DataError: the file is malformed; line numbers are given.
    """
    columns = [MODEL_COLUMN, DOCKQ_COLUMN, CAPRI_COLUMN]
    merged: dict[str, dict[str, str]] = {}
    if existing is not None and existing.exists():
        table = read_csv(existing, MODEL_COLUMN, rows_needed=False)
        ours = {name.lower(): name for name in columns}  # as readers of labels take them, in any case
        header = [ours.get(name.strip().lower(), name.strip()) for name in table.header]
        columns += [name for name in header if name not in columns]
        for _, cells in table.rows:
            row = dict(zip(header, cells, strict=True))
            if row[MODEL_COLUMN]:
                merged[row[MODEL_COLUMN]] = row
    for label in rows:
        new = {DOCKQ_COLUMN: f"{label.dockq:.4f}", CAPRI_COLUMN: str(label.capri)}
        merged[label.MODEL] = {**merged.get(label.MODEL, {MODEL_COLUMN: label.MODEL}), **new}
    return as_csv([columns, *([row.get(name, "") for name in columns] for row in merged.values())])
