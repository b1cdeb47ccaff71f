"""Predictions of any predictor beside the truth, from a CSV."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.errors import DataError
from topotrain.fields import DOCKQ_COLUMN, predicted_name, quality_name, spread_name
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.reading.csv_file import read_csv, refuse_broken, what_is_wrong
from topotrain.reading.numbers import number

DATASET, TARGET, MODEL = "dataset", "target", "model"
PREFIX = predicted_name("")
PREDICTED, TRUE = " predicted", " true"  # whatever the quality is called; no column begins with a space
DEFAULT_DATASET = "all"

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class Prediction:
    """One row: a decoy, what was predicted of it and what is true."""

    dataset: str
    target: str
    model: str
    predicted: float
    true: float
    line: int


@dataclass(frozen=True)
class Predictions:
    """The rows of a file.

    Attributes:
        rows: in the order of the file.
        quality: the column of what was predicted: ``dockq`` of ``pred_dockq``.
    """

    rows: tuple[Prediction, ...]
    quality: str = DOCKQ_COLUMN


def ranking_metrics(predictions: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The command ``metrics``: ranking metrics of any predictions, as plain values, for each data set.

    Args:
        predictions: a CSV, as ``read_predictions`` takes it.

    Raises:
        DataError: missing or malformed file.
    """
    return {
        dataset: report.to_dict() for dataset, report in ranking_reports(read_predictions(Path(predictions))).items()
    }


def read_predictions(path: Path) -> Predictions:
    """Read a CSV with ``target,model,pred_dockq,true_dockq`` and optionally ``dataset``; other columns are skipped.

    The names of columns may be in any case, and ``DockQ`` stands for ``true_dockq`` where that is missing, so that
    the output of ``topotrain predict --labels`` can be read; its rows without DockQ are skipped. Where there is no
    ``pred_dockq`` but one other ``pred_QUALITY``, that is read, likewise. A row given twice with the same values
    counts once.

    Raises:
        DataError: missing or malformed file, or a decoy with two values; line numbers are given.
    """
    file = read_csv(path, TARGET, MODEL)
    columns = file.columns()
    quality = _quality(columns)
    predicted, true = predicted_name(quality), f"true_{quality}"
    of_predict = true not in columns and quality in columns
    file.columns(TARGET, MODEL, predicted, quality if of_predict else true)
    file.refuse_doubled(DATASET)
    where = {**columns, PREDICTED: columns[predicted], TRUE: columns[quality if of_predict else true]}
    names = {PREDICTED: predicted, TRUE: true}
    first: dict[tuple[str, str, str], Prediction] = {}
    unlabelled = 0
    for line, row in file.rows:
        values = {name: row[index].strip() for name, index in where.items()}
        if of_predict and not values[TRUE]:  # predict scores every graph, labelled or not
            unlabelled += 1
            continue
        one = _prediction(path, line, values, names)
        earlier = first.setdefault((one.dataset, one.target, one.model), one)
        if (earlier.predicted, earlier.true) != (one.predicted, one.true):
            raise DataError(
                f"{path}: {one.model} of {one.target} is {earlier.predicted}, {earlier.true} in line {earlier.line} "
                f"and {one.predicted}, {one.true} in line {line}",
                "one row for each decoy",
                "remove one of the lines",
            )
    name = quality_name(quality)
    if unlabelled:
        log.warning("%s: %d rows without %s are skipped", path, unlabelled, name)
    if unlabelled and not first:
        raise DataError(f"{path}: no row has a {name}", f"the true {name} of each decoy", "give predict --labels")
    return Predictions(tuple(first.values()), quality)


def _quality(columns: Iterable[str]) -> str:
    """What was predicted: DockQ, unless the only predictions are of something else."""
    found = [name.removeprefix(PREFIX) for name in columns if name.startswith(PREFIX) and name != PREFIX]
    spreads = {spread_name(name) for name in found}
    found = [name for name in found if predicted_name(name) not in spreads]
    return found[0] if len(found) == 1 else DOCKQ_COLUMN


def ranking_reports(predictions: Predictions) -> dict[str, RankingReport]:
    """How well the predictions rank each data set, in the order of the file."""
    reports = {}
    for dataset in dict.fromkeys(row.dataset for row in predictions.rows):
        chosen = [row for row in predictions.rows if row.dataset == dataset]
        predicted, true = (np.array(values) for values in zip(*((r.predicted, r.true) for r in chosen), strict=True))
        reports[dataset] = ranking_report(predicted, true, [row.target for row in chosen], quality=predictions.quality)
    return reports


def _prediction(path: Path, line: int, row: dict[str, str], names: dict[str, str]) -> Prediction:
    for name in (TARGET, MODEL):
        if not row[name]:
            raise DataError(f"{path}: line {line}: {name} is empty", "a name")
        refuse_broken(path, line, name, row[name])
    for name, expected in ((PREDICTED, "a number"), (TRUE, "a number in [0, 1]")):
        value = number(row[name])
        if not (math.isfinite(value) if name == PREDICTED else 0.0 <= value <= 1.0):
            wrong = what_is_wrong(row[name])
            raise DataError(
                f"{path}: line {line}: {names[name]} of {row[MODEL]} is {row[name]!r}{wrong}",
                expected,
                "write a point, not a comma" if wrong else "",
            )
    predicted, true = number(row[PREDICTED]), number(row[TRUE])
    return Prediction(row.get(DATASET) or DEFAULT_DATASET, row[TARGET], row[MODEL], predicted, true, line)
