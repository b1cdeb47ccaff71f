"""Tables of scores: ranked within targets, written as CSV or Parquet, a part in memory at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN, predicted_name, quality_name
from topotrain.files import replacing
from topotrain.text import csv_writer

DECIMALS = 6
ROW_GROUP = 10_000  # rows; of Parquet, whatever the batch size, so that the bytes do not depend on it

MODEL, TARGET, RANK, ERROR = "MODEL", "TARGET", "RANK", "ERROR"
PREDICTED_AT = 2  # among the columns


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored decoy.

    Attributes:
        model: its path below the directory, without suffix.
        target: the complex it is a model of.
        pred_dockq: predicted DockQ, or the quality that the model predicts, to the decimals that are written, so that
            a rank can be checked against them.
        dockq: the true one, where it is known.
        rank: its place within its target, from 1; 0 where no ranks were asked for, or there is no score.
        error: why there is no score; "" where there is one.
    """

    model: str
    target: str
    pred_dockq: float
    dockq: float | None = None
    rank: int = 0
    error: str = ""

    @classmethod
    def of(cls, model: str, target: str, score: float, dockq: float | None = None) -> Scored:
        """A row, its score rounded and its names made fit for a text file."""
        return cls(_text(model), _text(target), round(score, DECIMALS), dockq)

    @classmethod
    def failed(cls, model: str, target: str, error: str) -> Scored:
        """A row of a decoy that has no score."""
        return cls(_text(model), _text(target), math.nan, error=_text(error))


def columns(*, labelled: bool = False, ranked: bool = False, quality: str = DOCKQ_COLUMN) -> tuple[str, ...]:
    """The columns of a table of scores, in order; those of a quality bear its name."""
    predicted = predicted_name(quality).upper()
    return (MODEL, TARGET, predicted, *([quality_name(quality)] if labelled else []), *([RANK] if ranked else []))


def rank_by_target(rows: Iterable[Scored]) -> list[Scored]:
    """Rank rows within each target, the best first; equal scores are ordered by name, rows without one come last."""
    ranked: list[Scored] = []
    for row in sorted(rows, key=_place):
        follows = ranked and ranked[-1].target == row.target
        ranked.append(row if row.error else replace(row, rank=ranked[-1].rank + 1 if follows else 1))
    return ranked


def _place(row: Scored) -> tuple[str, bool, float, str]:
    return row.target, bool(row.error), 0.0 if row.error else -row.pred_dockq, row.model


def scores_csv(rows: Sequence[Scored], quality: str = DOCKQ_COLUMN) -> str:
    """Ranked scores as the text of a CSV; with a column of errors where there are any."""
    text, names = io.StringIO(), columns(ranked=True, quality=quality)
    _write_csv(text, rows, (*names, ERROR) if any(row.error for row in rows) else names)
    return text.getvalue()


def check_table_path(out: Path) -> None:
    """Refuse a table's path whose suffix says neither CSV nor Parquet.

    Raises:
        DataError: it does not.
    """
    if out.suffix.lower() not in WRITERS:
        raise DataError(f"{out}: a table of unknown kind", f"a name that ends in {' or '.join(WRITERS)}")


def write_table(out: Path, rows: Iterable[Scored], names: Sequence[str]) -> int:
    """Write rows as they come, whole or not at all.

    Args:
        out: the file; its suffix says which kind.
        rows: the rows.
        names: of ``columns``.

    Returns:
        How many rows there were.

    Raises:
        DataError: it can't be written.
    """
    check_table_path(out)
    counted = _Counted(rows)
    try:
        with replacing(out) as aside:
            WRITERS[out.suffix.lower()](aside, counted, names)
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{out}: can't be written ({why})", EXPECTED, "make room, or choose another") from None
    return counted.number


class _Counted:
    def __init__(self, rows: Iterable[Scored]) -> None:
        self.rows, self.number = rows, 0

    def __iter__(self) -> Iterator[Scored]:
        for row in self.rows:
            self.number += 1
            yield row


def _values(row: Scored, names: Sequence[str]) -> list[Any]:
    last: list[Any] = [row.rank or None] if RANK in names else []
    last += [row.error] if ERROR in names else []
    true = [row.dockq] if len(names) > PREDICTED_AT + 1 + len(last) else []
    return [row.model, row.target, row.pred_dockq, *true, *last]


def _write_csv(file: TextIO, rows: Iterable[Scored], names: Sequence[str]) -> None:
    writer = csv_writer(file)
    writer.writerow(names)
    for row in rows:
        values = _values(row, names)
        values[PREDICTED_AT] = None if row.error else f"{row.pred_dockq:.{DECIMALS}f}"
        writer.writerow(values)  # csv writes None as nothing


def _csv_file(path: Path, rows: Iterable[Scored], names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        _write_csv(file, rows, names)


def _parquet_file(path: Path, rows: Iterable[Scored], names: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {MODEL: pa.string(), TARGET: pa.string(), RANK: pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in names])
    rest = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(rest, ROW_GROUP)):
            table = zip(*(_values(row, names) for row in part), strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(table, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS: dict[str, Callable[[Path, Iterable[Scored], Sequence[str]], None]] = {
    ".csv": _csv_file,
    ".parquet": _parquet_file,
}


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # a file name need not be UTF-8
