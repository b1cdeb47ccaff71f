"""The served model: MLflow runs this file to load a model version, and unpickles nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from topotrain.data.graph_file import Graph
from topotrain.errors import DataError, UserInputError
from topotrain.fields import predicted_name
from topotrain.scoring.scorer import SCORING_BATCH, Scorer
from topotrain.scoring.wire_format import decode_graph, open_graph

# MLflow sets it in a server, whose answer is JSON: that has null but no NaN, which most readers would trip over.
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


class ServedScorer(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Scores a table with a column ``graph`` (base64 of an ``.npz``) or ``path`` (a local file)."""

    def load_context(self, context: Any) -> None:
        """Read weights and schema of the model version."""
        self.scorer = Scorer.load(Path(context.artifacts["weights"]), Path(context.artifacts["schema"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Score each row; one that can't be scored gets an ``error`` and costs no other row anything."""
        records = model_input.to_dict("records")
        results: list[float | UserInputError] = []
        for start in range(0, len(records), SCORING_BATCH):
            opened = [_open(row, start + i) for i, row in enumerate(records[start : start + SCORING_BATCH])]
            scored = iter(self.scorer.score_each([graph for graph in opened if isinstance(graph, Graph)]))
            results += [next(scored) if isinstance(graph, Graph) else graph for graph in opened]
        scores = pd.Series([r if isinstance(r, float) else float("nan") for r in results], dtype="float64")
        if os.environ.get(SERVING) == "true":
            scores = scores.astype(object).where(scores.notna(), None)
        # Of kind object: pandas would make NaN of None.
        errors = pd.Series([None if isinstance(r, float) else str(r) for r in results], dtype=object)
        return pd.DataFrame({predicted_name(self.scorer.schema.label_column): scores, "error": errors}).set_index(
            model_input.index
        )


def _open(row: dict[Any, Any], position: int) -> Graph | UserInputError:
    try:
        if isinstance(row.get("graph"), str) and row["graph"]:
            return decode_graph(row["graph"], f"row {position}")
        if isinstance(row.get("path"), str) and row["path"]:
            return open_graph(Path(row["path"]))
    except DataError as error:
        return error
    return DataError(f"row {position} has neither graph nor path", "one of them")


mlflow.models.set_model(ServedScorer())
