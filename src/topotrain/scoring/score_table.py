"""Tables of scores: ranked within targets, written as CSV or Parquet, a part in memory at a time."""

from __future__ import annotations

import io
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

MODEL, TARGET, RANK = "MODEL", "TARGET", "RANK"


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored decoy.

    Attributes:
        model: its path below the directory, without suffix.
        target: the complex it is a model of.
        pred_dockq: predicted DockQ, or the quality that the model predicts, to the decimals that are written, so that
            a rank can be checked against them.
        dockq: the true one, where it is known.
        rank: its place within its target, from 1; 0 where no ranks were asked for.
        spread: of an ensemble's members around ``pred_dockq``, to the decimals that are written; ``None`` where a
            single network predicted.
    """

    model: str
    target: str
    pred_dockq: float
    dockq: float | None = None
    rank: int = 0
    spread: float | None = None

    @classmethod
    def of(cls, model: str, target: str, predicted: Prediction, dockq: float | None = None) -> Scored:
        """A row, its numbers rounded and its names made fit for a text file."""
        spread = None if predicted.spread is None else round(predicted.spread, DECIMALS)
        return cls(_text(model), _text(target), round(predicted.score, DECIMALS), dockq, spread=spread)


@dataclass(frozen=True)
class Columns:
    """Which columns a table of scores has.

    Attributes:
        quality: what is predicted; columns of it bear its name.
        spread: whether an ensemble predicted.
        labelled: whether the true quality stands beside the predicted one.
        ranked: whether rows have ranks.
    """

    quality: str = DOCKQ_COLUMN
    spread: bool = False
    labelled: bool = False
    ranked: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        predicted, spread, true = predicted_name(self.quality), spread_name(self.quality), quality_name(self.quality)
        return (MODEL, TARGET, *self._chosen(predicted.upper(), spread.upper(), true, RANK))

    def values(self, row: Scored) -> list[Any]:
        """What a row has in them."""
        return [row.model, row.target, *self._chosen(row.pred_dockq, row.spread, row.dockq, row.rank)]

    def texts(self, row: Scored) -> list[Any]:
        """The same for a text file: what is predicted has all its decimals, the true quality those it came with."""
        spread = None if row.spread is None else _decimals(row.spread)
        return [row.model, row.target, *self._chosen(_decimals(row.pred_dockq), spread, row.dockq, row.rank)]

    def _chosen(self, predicted: Any, spread: Any, true: Any, rank: Any) -> list[Any]:
        wanted = ((predicted, True), (spread, self.spread), (true, self.labelled), (rank, self.ranked))
        return [value for value, shown in wanted if shown]


def _decimals(value: float) -> str:
    return f"{value:.{DECIMALS}f}"


def rank_by_target(rows: Iterable[Scored]) -> list[Scored]:
    """Rank rows within each target, the best first; equal scores are ordered by name."""
    ranked: list[Scored] = []
    for row in sorted(rows, key=lambda row: (row.target, -row.pred_dockq, row.model)):
        follows = ranked and ranked[-1].target == row.target
        ranked.append(replace(row, rank=ranked[-1].rank + 1 if follows else 1))
    return ranked


def scores_csv(rows: Sequence[Scored], quality: str = DOCKQ_COLUMN) -> str:
    """Ranked scores as the text of a CSV."""
    text = io.StringIO()
    spread = any(row.spread is not None for row in rows)
    _write_csv(text, rows, Columns(quality, spread=spread, ranked=True))
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
