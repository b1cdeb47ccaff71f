"""Predictions of any predictor beside true DockQ, from a CSV."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.data.csv_file import number, read_csv
from topotrain.errors import DataError
from topotrain.fields import PRED_DOCKQ
from topotrain.metrics.report import RankingReport, ranking_report

DATASET, TARGET, MODEL, TRUE_DOCKQ = "dataset", "target", "model", "true_dockq"
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


def read_predictions(path: Path) -> list[Prediction]:
    """Read a CSV with ``target,model,pred_dockq,true_dockq`` and optionally ``dataset``; other columns are skipped.

    The names of columns may be in any case, and ``DockQ`` stands for ``true_dockq`` where that is missing, so that
    the output of ``topotrain predict --labels`` can be read; its rows without DockQ are skipped. A row given
    twice with the same values counts once.

    Raises:
        DataError: missing or malformed file, or a decoy with two values; line numbers are given.
    """
    file = read_csv(path, TARGET, MODEL, PRED_DOCKQ)
    columns = file.columns()
    of_predict = TRUE_DOCKQ not in columns and "dockq" in columns
    if of_predict:
        columns[TRUE_DOCKQ] = columns["dockq"]
    else:
        file.columns(TARGET, MODEL, PRED_DOCKQ, TRUE_DOCKQ)
    first: dict[tuple[str, str, str], Prediction] = {}
    unlabelled = 0
    for line, row in file.rows:
        values = {name: row[index].strip() for name, index in columns.items()}
        if of_predict and not values[TRUE_DOCKQ]:  # predict scores every graph, labelled or not
            unlabelled += 1
            continue
        one = _prediction(path, line, values)
        earlier = first.setdefault((one.dataset, one.target, one.model), one)
        if (earlier.predicted, earlier.true) != (one.predicted, one.true):
            raise DataError(
                f"{path}: {one.model} of {one.target} is {earlier.predicted}, {earlier.true} in line {earlier.line} "
                f"and {one.predicted}, {one.true} in line {line}",
                "one row for each decoy",
                "remove one of the lines",
            )
    if unlabelled:
        log.warning("%s: %d rows without DockQ are skipped", path, unlabelled)
    if unlabelled and not first:
        raise DataError(f"{path}: no row has a DockQ", "the true DockQ of each decoy", "give predict --labels")
    return list(first.values())


def ranking_reports(rows: Sequence[Prediction]) -> dict[str, RankingReport]:
    """How well the predictions rank each data set, in the order of the file."""
    reports = {}
    for dataset in dict.fromkeys(row.dataset for row in rows):
        chosen = [row for row in rows if row.dataset == dataset]
        predicted, true = (np.array(values) for values in zip(*((r.predicted, r.true) for r in chosen), strict=True))
        reports[dataset] = ranking_report(predicted, true, [row.target for row in chosen])
    return reports


def _prediction(path: Path, line: int, row: dict[str, str]) -> Prediction:
    for name in (TARGET, MODEL):
        if not row[name]:
            raise DataError(f"{path}: line {line}: {name} is empty", "a name")
    predicted, true = number(row[PRED_DOCKQ]), number(row[TRUE_DOCKQ])
    if not math.isfinite(predicted):
        raise DataError(f"{path}: line {line}: {PRED_DOCKQ} of {row[MODEL]} is {row[PRED_DOCKQ]!r}", "a number")
    if not 0.0 <= true <= 1.0:
        raise DataError(
            f"{path}: line {line}: {TRUE_DOCKQ} of {row[MODEL]} is {row[TRUE_DOCKQ]!r}", "a number in [0, 1]"
        )
    return Prediction(row.get(DATASET) or DEFAULT_DATASET, row[TARGET], row[MODEL], predicted, true, line)
