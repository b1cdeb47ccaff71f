"""Label files: which decoy has which DockQ, and which target it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topotrain.data.csv_file import number, read_csv
from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN, MODEL_COLUMN, TARGET_COLUMN


@dataclass(frozen=True)
class Label:
    """One row of a label file.

    Attributes:
        model: ``MODEL`` as written.
        dockq: true DockQ in [0, 1].
        target: the label file's own word for the target, empty when it has none.
        line: line number in the file, from 1.
    """

    model: str
    dockq: float
    target: str
    line: int


def read_labels(path: Path) -> list[Label]:
    """Read a CSV with ``MODEL,dockq`` and optionally ``target``; other columns are ignored.

    A row given twice with the same value counts once.

    Raises:
        DataError: missing or malformed file, DockQ out of range, a model with two values; line numbers are given.
    """
    file = read_csv(path, MODEL_COLUMN, DOCKQ_COLUMN)
    columns = file.columns()
    labels = [_label(path, line, row, columns) for line, row in file.rows]
    return _once_each(path, labels)


def target_of(label: Label, key: str) -> str:
    """A decoy's target: the label's own column, else its folder, else MODEL before the first underscore."""
    return label.target or target_of_key(key)


def target_of_key(key: str) -> str:
    """The target of a graph without a label: its folder, else its name before the first underscore."""
    folder, _, stem = key.rpartition("/")
    return folder.rsplit("/", 1)[-1] if folder else stem.split("_", 1)[0]


def _label(path: Path, line: int, row: list[str], columns: dict[str, int]) -> Label:
    model = row[columns[MODEL_COLUMN.lower()]].strip()
    text = row[columns[DOCKQ_COLUMN.lower()]].strip()
    if not model:
        raise DataError(f"{path}: line {line}: {MODEL_COLUMN} is empty", "the name of a decoy")
    dockq = number(text)
    if not 0.0 <= dockq <= 1.0:
        raise DataError(f"{path}: line {line}: {DOCKQ_COLUMN} of {model} is {text!r}", "a number in [0, 1]")
    target = row[columns[TARGET_COLUMN]].strip() if TARGET_COLUMN in columns else ""
    return Label(model, dockq, target, line)


def _once_each(path: Path, labels: list[Label]) -> list[Label]:
    first: dict[str, Label] = {}
    for label in labels:
        earlier = first.setdefault(label.model, label)
        if earlier.dockq != label.dockq:
            raise two_values(path, label.model, earlier, label)
    return list(first.values())


def two_values(path: Path, name: str, one: Label, other: Label) -> DataError:
    """The error for a decoy that is labelled twice, differently."""
    return DataError(
        f"{path}: {name} is {one.dockq} in line {one.line} and {other.dockq} in line {other.line}",
        "one value for each decoy",
        "remove one of the lines",
    )
