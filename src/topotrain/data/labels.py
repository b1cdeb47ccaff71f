"""Label files: which decoy has which quality, and which target it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN, MODEL_NAME_COLUMN, TARGET_COLUMN
from topotrain.reading.csv_file import CsvFile, read_csv, refuse_broken, what_is_wrong
from topotrain.reading.numbers import number


@dataclass(frozen=True)
class Label:
    """One row of a label file.

    Attributes:
        model: ``MODEL`` as written.
        dockq: true DockQ in [0, 1], or the quality of another column that was asked for.
        target: the label file's own word for the target, empty when it has none.
        line: line number in the file, from 1.
    """

    model: str
    dockq: float
    target: str
    line: int

    @property
    def name(self) -> str:
        """For messages: as written, with the target where that is a column of its own and ``MODEL`` a name alone."""
        alone = "/" not in self.model and "\\" not in self.model
        return f"{self.target}/{self.model}" if self.target and alone else self.model


def read_labels(path: Path, column: str = DOCKQ_COLUMN) -> list[Label]:
    """Read a CSV with ``MODEL``, a quality, and optionally ``target``; other columns are ignored.

    The names of columns may be in any case, and ``model_name`` stands for ``MODEL`` where that is missing. A row given
    twice with the same value counts once.

    Args:
        path: the label file.
        column: which quality is read; a number in [0, 1].

    Raises:
        DataError: missing or malformed file, a quality out of range, a model with two values; line numbers are given.
    """
    file, models = _with_models(path, column)
    columns = file.columns(models, column)
    file.refuse_doubled(TARGET_COLUMN)
    where = columns[models.lower()], columns[column.lower()], columns.get(TARGET_COLUMN)
    return _once_each(path, [_label(path, line, row, column, where) for line, row in file.rows])


def _with_models(path: Path, column: str) -> tuple[CsvFile, str]:
    """The file, and which column names the decoys."""
    try:
        return read_csv(path, MODEL_COLUMN, column), MODEL_COLUMN
    except DataError:
        try:
            file = read_csv(path, MODEL_NAME_COLUMN, column)
        except DataError:
            file = None
        if file is None or MODEL_COLUMN.lower() in file.columns():
            raise
        return file, MODEL_NAME_COLUMN


def _label(path: Path, line: int, row: list[str], column: str, where: tuple[int, int, int | None]) -> Label:
    model, text = row[where[0]].strip(), row[where[1]].strip()
    if not model:
        raise DataError(f"{path}: line {line}: {MODEL_COLUMN} is empty", "the name of a decoy")
    refuse_broken(path, line, MODEL_COLUMN, row[where[0]])
    value = number(text)
    if not 0.0 <= value <= 1.0:
        wrong = what_is_wrong(text)
        do = "write a point, not a comma" if wrong else ""
        raise DataError(f"{path}: line {line}: {column} of {model} is {text!r}{wrong}", "a number in [0, 1]", do)
    return Label(model, value, "" if where[2] is None else row[where[2]].strip(), line)


def _once_each(path: Path, labels: list[Label]) -> list[Label]:
    first: dict[tuple[str, str], Label] = {}
    for label in labels:
        earlier = first.setdefault((label.target, label.model), label)
        if earlier.dockq != label.dockq:
            raise two_values(path, label.name, earlier, label)
    return list(first.values())


def two_values(path: Path, name: str, one: Label, other: Label) -> DataError:
    """The error for a decoy that is labelled twice, differently."""
    return DataError(
        f"{path}: {name} is {one.dockq} in line {one.line} and {other.dockq} in line {other.line}",
        "one value for each decoy",
        "remove one of the lines",
    )
