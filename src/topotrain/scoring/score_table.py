"""Tables of scores: ranked within targets, written as CSV or Parquet, a part in memory at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN, predicted_name, quality_name, spread_name
from topotrain.files import replacing
from topotrain.text import csv_writer

if TYPE_CHECKING:
    from topotrain.scoring.scorer import Prediction

DECIMALS = 6
ROW_GROUP = 10_000  # rows; of Parquet, whatever the batch size, so that the bytes do not depend on it

MODEL, TARGET, RANK, ERROR = "MODEL", "TARGET", "RANK", "ERROR"


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
        spread: of an ensemble's members around ``pred_dockq``, to the decimals that are written; ``None`` where a
            single network predicted.
        error: why there is no score; "" where there is one.
    """

    model: str
    target: str
    pred_dockq: float
    dockq: float | None = None
    rank: int = 0
    spread: float | None = None
    error: str = ""

    @classmethod
    def of(cls, model: str, target: str, predicted: Prediction, dockq: float | None = None) -> Scored:
        """A row, its numbers rounded and its names made fit for a text file."""
        spread = None if predicted.spread is None else round(predicted.spread, DECIMALS)
        return cls(_text(model), _text(target), round(predicted.score, DECIMALS), dockq, spread=spread)

    @classmethod
    def failed(cls, model: str, target: str, error: str) -> Scored:
        """A row of a decoy that has no score."""
        return cls(_text(model), _text(target), math.nan, error=_text(error))


@dataclass(frozen=True)
class Columns:
    """Which columns a table of scores has.

    Attributes:
        quality: what is predicted; columns of it bear its name.
        spread: whether an ensemble predicted.
        labelled: whether the true quality stands beside the predicted one.
        ranked: whether rows have ranks.
        errors: whether rows without a score are there, and say why.
    """

    quality: str = DOCKQ_COLUMN
    spread: bool = False
    labelled: bool = False
    ranked: bool = False
    errors: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        predicted, spread, true = predicted_name(self.quality), spread_name(self.quality), quality_name(self.quality)
        return (MODEL, TARGET, *self._chosen(predicted.upper(), spread.upper(), true, RANK, ERROR))

    def values(self, row: Scored) -> list[Any]:
        """What a row has in them."""
        return [row.model, row.target, *self._chosen(row.pred_dockq, row.spread, row.dockq, row.rank, row.error)]

    def texts(self, row: Scored) -> list[Any]:
        """The same for a text file: what is predicted has all its decimals, the true quality those it came with."""
        spread = None if row.spread is None else _decimals(row.spread)
        predicted, rank = (None, None) if row.error else (_decimals(row.pred_dockq), row.rank)
        return [row.model, row.target, *self._chosen(predicted, spread, row.dockq, rank, row.error)]

    def _chosen(self, *values: Any) -> list[Any]:
        """Those that are shown of predicted, spread, true quality, rank and error."""
        shown = (True, self.spread, self.labelled, self.ranked, self.errors)
        return [value for value, wanted in zip(values, shown, strict=True) if wanted]


def _decimals(value: float) -> str:
    return f"{value:.{DECIMALS}f}"


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
    text = io.StringIO()
    spread, errors = any(row.spread is not None for row in rows), any(row.error for row in rows)
    _write_csv(text, rows, Columns(quality, spread=spread, ranked=True, errors=errors))
    return text.getvalue()


def check_table_path(out: Path) -> None:
    """Refuse a table's path whose suffix says neither CSV nor Parquet.

    Raises:
        DataError: it does not.
    """
    if out.suffix.lower() not in WRITERS:
        raise DataError(f"{out}: a table of unknown kind", f"a name that ends in {' or '.join(WRITERS)}")


def write_table(out: Path, rows: Iterable[Scored], columns: Columns) -> int:
    """Write rows as they come, whole or not at all.

    Args:
        out: the file; its suffix says which kind.
        rows: the rows.
        columns: which ones.

    Returns:
        How many rows there were.

    Raises:
        DataError: it can't be written.
    """
    check_table_path(out)
    counted = _Counted(rows)
    try:
        with replacing(out) as aside:
            WRITERS[out.suffix.lower()](aside, counted, columns)
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


def _write_csv(file: TextIO, rows: Iterable[Scored], columns: Columns) -> None:
    writer = csv_writer(file)
    writer.writerow(columns.names)
    writer.writerows(map(columns.texts, rows))  # csv writes None as nothing


def _csv_file(path: Path, rows: Iterable[Scored], columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        _write_csv(file, rows, columns)


def _parquet_file(path: Path, rows: Iterable[Scored], columns: Columns) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {MODEL: pa.string(), TARGET: pa.string(), RANK: pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns.names])
    rest = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(rest, ROW_GROUP)):
            table = zip(*map(columns.values, part), strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(table, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS: dict[str, Callable[[Path, Iterable[Scored], Columns], None]] = {
    ".csv": _csv_file,
    ".parquet": _parquet_file,
}


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # a file name need not be UTF-8
