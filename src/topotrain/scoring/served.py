"""The served model: MLflow runs this file to load a model version, and unpickles nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from topotrain.data.graph_file import Graph
from topotrain.errors import DataError, UserInputError
from topotrain.fields import WEIGHTS_SUFFIX, predicted_name, spread_name
from topotrain.limits import REQUEST_BYTES
from topotrain.scoring.scorer import SCORING_BATCH, Prediction, Scorer
from topotrain.scoring.wire_format import Allowance, decode_graph, num_bytes, open_graph
from topotrain.text import one_line

LARGE_BATCH = 8 * 2**20  # bytes of graphs after which those that are waiting are scored
# MLflow sets it in a server, whose answer is JSON: that has null but no NaN, which most readers would trip over.
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


class ServedScorer(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Scores a table with a column ``graph`` (base64 of an ``.npz``) or ``path`` (a local file)."""

    def load_context(self, context: Any) -> None:
        """Read weights and schema of the model version."""
        weights, *others = (Path(path) for path in context.artifacts.values() if path.endswith(WEIGHTS_SUFFIX))
        self.scorer = Scorer.load(weights, Path(context.artifacts["schema"]), *others)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Score each row; one that can't be scored gets an ``error`` and costs no other row anything."""
        results: list[Prediction | UserInputError] = []
        for opened in _batches(model_input.to_dict("records")):
            scored = iter(self.scorer.predict_each([graph for graph in opened if isinstance(graph, Graph)]))
            results += [next(scored) if isinstance(graph, Graph) else graph for graph in opened]
        none, column = Prediction(float("nan"), float("nan")), self.scorer.schema.label_column
        predicted = [r if isinstance(r, Prediction) else none for r in results]
        answer = {predicted_name(column): _numbers([one.score for one in predicted])}
        if self.scorer.gives_spread:
            answer[spread_name(column)] = _numbers([one.spread for one in predicted])
        # Of kind object: pandas would make NaN of None.
        answer["error"] = pd.Series([None if isinstance(r, Prediction) else str(r) for r in results], dtype=object)
        return pd.DataFrame(answer).set_index(model_input.index)


def _numbers(values: Sequence[float | None]) -> pd.Series:
    numbers = pd.Series(np.array(values, dtype="float64"))
    return numbers.astype(object).where(numbers.notna(), None) if os.environ.get(SERVING) == "true" else numbers


def _batches(rows: Sequence[Mapping[Any, Any]]) -> Iterator[list[Graph | UserInputError]]:
    """The rows opened, some at a time: few of those that are large."""
    batch: list[Graph | UserInputError] = []
    allowance, size = Allowance(REQUEST_BYTES.value), 0
    for position, row in enumerate(rows):
        graph = _open(row, position, allowance)
        batch.append(graph)
        size += num_bytes(graph) if isinstance(graph, Graph) else 0
        if len(batch) == SCORING_BATCH or size > LARGE_BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _open(row: Mapping[Any, Any], position: int, allowance: Allowance) -> Graph | UserInputError:
    try:
        if isinstance(row.get("graph"), str) and row["graph"]:
            return decode_graph(row["graph"], f"row {position}", allowance)
        if isinstance(row.get("path"), str) and row["path"]:
            return open_graph(Path(row["path"]))
    except UserInputError as error:
        return error
    except Exception as error:  # noqa: BLE001 (such as too little memory: of this row, and not of the others)
        return DataError(f"row {position} can't be read ({one_line(error)})", "one interface graph")
    return DataError(f"row {position} has neither graph nor path", "one of them")


mlflow.models.set_model(ServedScorer())
