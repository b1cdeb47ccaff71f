"""Where the verdict of an evaluation is kept: with the run, the logged model and the version that it is on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from topotrain.config import TrainConfig
from topotrain.errors import TrackingError
from topotrain.fields import EARLIER_EVAL_PREFIX, EVAL_MSE, EVAL_PREFIX, EVALUATION_DIR, TAG_COMMAND, TAG_EVAL_RUN
from topotrain.text import one_line
from topotrain.tracking.outages import Asker
from topotrain.tracking.records import EvaluatedModel, Verdict
from topotrain.tracking.runs import Runs


class Verdicts(Asker):
    """The verdicts of a store.

    Args:
        client: of the store.
        runs: of the store.
    """

    def __init__(self, client: MlflowClient, runs: Runs) -> None:
        super().__init__(client)
        self._runs = runs

    def record(self, model: EvaluatedModel, verdict: Verdict) -> str | None:
        """Log a verdict with the model's run, linked to its logged model and to the data, in one call.

        A point's step is the number of the run's evaluation, from 0, so that a later evaluation is a new point and
        the run shows the latest; the logged model keeps the latest of each data set. Files are those of the last
        evaluation.

        Args:
            model: what was evaluated; a version whose run is gone gets a run for its verdict, a folder gets none.
            verdict: what to log.

        Returns:
            The run's id, or ``None`` where nothing was logged.

        Raises:
            TrackingError: the store refuses.
        """
        if model.run_id is None and model.version is None and model.model_id is None:
            return None
        client = self._client
        try:
            if model.run_id is None:
                home = self._runs.experiment_id(TrainConfig().mlflow.experiment)
                run = client.create_run(home, run_name=f"evaluation of {model.title}", tags={TAG_COMMAND: "evaluate"})
                model = replace(model, run_id=run.info.run_id)
                client.set_terminated(run.info.run_id)
            run_id = str(model.run_id)
            if verdict.folder is not None:
                client.log_artifacts(run_id, str(verdict.folder), EVALUATION_DIR)
            client.log_batch(run_id, metrics=self._points(run_id, model.model_id, verdict))
            if model.version is not None:
                for key, text in {**verdict.version_tags, TAG_EVAL_RUN: run_id}.items():
                    client.set_model_version_tag(model.name, model.version, key, text)
        except (MlflowException, OSError) as error:  # OSError: what requests raises for an artifact, too
            raise TrackingError(f"the verdict on {model.title} can't be recorded ({one_line(error)})") from None
        return run_id

    def _points(self, run_id: str, model_id: str | None, verdict: Verdict) -> list[Metric]:
        names = (EVAL_MSE, EVAL_MSE.replace(EVAL_PREFIX, EARLIER_EVAL_PREFIX))
        step = max((step for name in names for step in self._runs.values(run_id, name)), default=-1) + 1
        now = int(datetime.now(UTC).timestamp() * 1000)
        name, digest = verdict.dataset_name, verdict.dataset_digest
        return [
            Metric(key, value, now, step, model_id=model_id, dataset_name=name, dataset_digest=digest)
            for key, value in verdict.metrics.items()
        ]
