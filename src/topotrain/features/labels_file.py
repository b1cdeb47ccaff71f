"""A labels file, with new labels put in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.dockq import LabelRow
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN, TARGET_COLUMN
from topotrain.reading.csv_file import read_csv
from topotrain.reading.numbers import number
from topotrain.text import as_csv

CAPRI_COLUMN = "capri"
COLUMNS = (MODEL_COLUMN, DOCKQ_COLUMN, CAPRI_COLUMN)
# Values written with fewer decimals are compared as they are: 0.5 is no rounded 0.5025.
ROUNDED_DECIMALS = 3
WRITTEN_DECIMALS = 4
SHOWN_ROWS = 3


@dataclass(frozen=True)
class MergedLabels:
    """A labels file with new labels put in.

    Attributes:
        text: the file.
        added: how many rows are new.
        changed: a line for each row whose values are others now.
    """

    text: str
    added: int
    changed: tuple[str, ...]


@dataclass
class _Row:
    """A row that the file holds: its line number, and its cells by column."""

    line: int
    cells: dict[str, str]

    @property
    def decoys(self) -> set[str]:
        """The spellings of the decoy that it is about."""
        model = self.cells[MODEL_COLUMN].strip().replace("\\", "/").removeprefix("./")
        target = self.cells.get(TARGET_COLUMN, "").strip()
        spellings = {model} if "/" in model else {model.replace("__", "/")}
        if target and not any(spelling.startswith(f"{target}/") for spelling in spellings):
            return {f"{target}/{spelling}" for spelling in spellings}
        return spellings


def merged_labels(rows: Iterable[LabelRow], existing: Path | None, replace: bool = False) -> MergedLabels:
    """A labels CSV: what the file holds already, with ``dockq`` and ``capri`` of the labelled decoys put in.

    A row that has the same value already, also rounded to three decimals, stays as it is.

    Args:
        rows: new labels.
        existing: a labels file, which may be missing yet; other columns and other decoys of it stay.
        replace: whether rows may get other values.

    Raises:
        DataError: the file is malformed, or (without ``replace``) a row would get another value; line numbers are
            given.
    """
    columns, kept = _read(existing)
    places = {decoy: row for row in reversed(kept) for decoy in row.decoys}
    changed: list[str] = []
    before = len(kept)
    for label in rows:
        new = {DOCKQ_COLUMN: f"{label.dockq:.{WRITTEN_DECIMALS}f}", CAPRI_COLUMN: str(label.capri)}
        row = places.get(label.MODEL)
        if row is None:
            target = {TARGET_COLUMN: label.target} if TARGET_COLUMN in columns else {}
            kept.append(_Row(0, {MODEL_COLUMN: label.MODEL, **target, **new}))
            continue
        other = [name for name in new if not _same(row.cells.get(name, ""), new[name])]
        changed += [f"line {row.line}: {name} of {label.MODEL} is {row.cells[name]}, not {new[name]}" for name in other]
        row.cells.update({name: new[name] for name in new if name in other or not row.cells.get(name, "").strip()})
    if changed and not replace:
        more = f" and {len(changed) - SHOWN_ROWS} more" if len(changed) > SHOWN_ROWS else ""
        raise DataError(
            f"{existing}: rows have other values: {'; '.join(changed[:SHOWN_ROWS])}{more}",
            "the values that were computed now",
            "--replace to change them, or --target NAME where these are decoys of another target",
        )
    lines = [columns, *([row.cells.get(name, "") for name in columns] for row in kept)]
    return MergedLabels(as_csv(lines), len(kept) - before, tuple(changed))


def _read(existing: Path | None) -> tuple[list[str], list[_Row]]:
    columns = list(COLUMNS)
    if existing is None or not existing.exists():
        return columns, []
    table = read_csv(existing, MODEL_COLUMN, rows_needed=False)
    ours = {name.lower(): name for name in (*columns, TARGET_COLUMN)}  # as readers of labels take them, in any case
    header = [ours.get(name.strip().lower(), name.strip()) for name in table.header]
    columns += [name for name in header if name not in columns]
    found = [_Row(line, dict(zip(header, cells, strict=True))) for line, cells in table.rows]
    return columns, [row for row in found if row.cells[MODEL_COLUMN].strip()]


def _same(written: str, new: str) -> bool:
    """Whether a cell is empty, or says what the new value says, also rounded."""
    written = written.strip()
    decimals = len(written.partition(".")[2])
    if decimals >= ROUNDED_DECIMALS:
        return abs(number(written) - number(new)) <= 0.5 * 10.0 ** -min(decimals, WRITTEN_DECIMALS) + 1e-9
    return not written or number(written) == number(new)
