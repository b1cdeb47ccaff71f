"""The served model: MLflow runs this file to load a model version, and unpickles nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from topotrain.errors import TopotrainError
from topotrain.fields import PRED_DOCKQ
from topotrain.scoring.predict import Scorer, decode_graph, open_graph


class ServedScorer(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Scores a table with a column ``graph`` (base64 of an ``.npz``) or ``path`` (a local file)."""

    def load_context(self, context: Any) -> None:
        """Read weights and schema of the model version."""
        self.scorer = Scorer.load(Path(context.artifacts["weights"]), Path(context.artifacts["schema"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Score each row; one that can't be scored gets an ``error`` and costs no other row anything."""
        rows = [self._score(row, position) for position, row in enumerate(model_input.to_dict("records"))]
        scores = pd.Series([score for score, _ in rows], dtype="float64")
        errors = pd.Series([error for _, error in rows], dtype=object)  # else pandas makes NaN of None
        return pd.DataFrame({PRED_DOCKQ: scores, "error": errors}).set_index(model_input.index)

    def _score(self, row: dict[Any, Any], position: int) -> tuple[float, str | None]:
        try:
            if isinstance(row.get("graph"), str) and row["graph"]:
                graph = decode_graph(row["graph"], f"row {position}")
            elif isinstance(row.get("path"), str) and row["path"]:
                graph = open_graph(Path(row["path"]))
            else:
                return float("nan"), f"row {position} has neither graph nor path; expected one of them"
            return self.scorer.score([graph])[0], None
        except TopotrainError as error:
            return float("nan"), str(error)


mlflow.models.set_model(ServedScorer())
