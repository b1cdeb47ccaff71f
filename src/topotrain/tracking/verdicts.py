"""What is judged: a model version, or a run's best checkpoint; and where the verdict is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from topotrain.config import TrainConfig
from topotrain.errors import TrackingError
from topotrain.fields import (
    EVAL_MSE,
    EVAL_PREFIX,
    EVALUATION_DIR,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TAG_COMMAND,
    TAG_EVAL_DIGEST,
    TAG_EVAL_RUN,
)
from topotrain.text import one_line
from topotrain.tracking.logged_models import MODEL_URI, logged_model_id
from topotrain.tracking.runs import best_version, metric_history, registered_versions
from topotrain.tracking.store import experiment_id


@dataclass(frozen=True)
class EvaluatedModel:
    """One model that is judged.

    Attributes:
        uri: where it is, an alias resolved to its version.
        name: of the registered model, if it is a version of one.
        version: number, as text.
        run_id: the run it came from, if there is one that can be written to.
        model_id: of the logged model.
        epoch: of its checkpoint.
    """

    uri: str
    name: str | None = None
    version: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    epoch: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} version {self.version}" if self.version else self.uri


def find_evaluated_model(client: MlflowClient, model: str) -> EvaluatedModel:
    """The model meant by ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID`` or a local folder.

    Raises:
        TrackingError: there is no such model.
    """
    parts = MODEL_URI.fullmatch(model)
    if not parts:
        return EvaluatedModel(model)  # a folder, or nothing: loading it tells
    name, alias, version = parts["name"], parts["alias"], parts["version"]
    try:
        if alias:
            return evaluated_version(client, client.get_model_version_by_alias(name, alias))
        if version:
            return evaluated_version(client, client.get_model_version(name, version))
        logged = client.get_logged_model(name)
    except MlflowException as error:
        raise TrackingError(
            f"model {model!r} can't be found ({one_line(error)})",
            "models:/NAME@alias or models:/NAME/VERSION",
            "train one, or give --tracking-uri",
        ) from None
    run_id = _writable(client, logged.source_run_id)
    for one in registered_versions(client, [run_id]) if run_id else []:
        if logged_model_id(one) == logged.model_id:
            return evaluated_version(client, one)
    return EvaluatedModel(model, run_id=run_id, model_id=str(logged.model_id))


def evaluated_version(client: MlflowClient, version: Any) -> EvaluatedModel:
    """A model version as the subject of a judgement."""
    return EvaluatedModel(
        uri=f"models:/{version.name}/{version.version}",
        name=str(version.name),
        version=str(version.version),
        run_id=_writable(client, version.run_id),
        model_id=logged_model_id(version),
        epoch=int(version.tags["epoch"]) if version.tags.get("epoch", "").isdigit() else None,
    )


def evaluated_run(client: MlflowClient, run: Run) -> EvaluatedModel:
    """A run's best version, or its best checkpoint where it registered none.

    Raises:
        TrackingError: the run has neither.
    """
    version = best_version(client, run.info.run_id)
    if version is not None:
        return evaluated_version(client, version)
    checkpoint = run.data.tags.get(TAG_BEST_CHECKPOINT)
    if not checkpoint:
        raise TrackingError(
            f"run {run.info.run_id} has no model version and no checkpoint", "a run that trained an epoch or more"
        )
    epoch = run.data.tags.get(TAG_BEST_EPOCH)
    return EvaluatedModel(
        f"runs:/{run.info.run_id}/{checkpoint}", run_id=run.info.run_id, epoch=int(epoch) if epoch else None
    )


@dataclass(frozen=True)
class Verdict:
    """What an evaluation leaves on the server.

    Attributes:
        metrics: by full name.
        dataset_name: shown beside the metrics.
        dataset_digest: of the evaluation data, cut to what MLflow takes.
        version_tags: for the model version.
        folder: of the files to keep under ``evaluation/``; or ``None``.
    """

    metrics: Mapping[str, float]
    dataset_name: str
    dataset_digest: str
    version_tags: Mapping[str, str]
    folder: Path | None = None


def record_verdict(client: MlflowClient, uri: str, subject: EvaluatedModel, verdict: Verdict) -> str | None:
    """Log a verdict with the subject's run, linked to its logged model and to the data, in one call.

    A point's step is the number of the run's evaluation, from 0, so that a later evaluation is a new point and the
    run shows the latest; the logged model keeps the latest of each data set. Files are those of the last evaluation.

    Args:
        client: of the store.
        uri: of the store.
        subject: what was judged; a version whose run is gone gets a run for its verdict, a folder gets none.
        verdict: what to log.

    Returns:
        The run's id, or ``None`` where nothing was logged.

    Raises:
        TrackingError: the store refuses.
    """
    if subject.run_id is None and subject.version is None and subject.model_id is None:
        return None
    try:
        if subject.run_id is None:
            home = experiment_id(client, uri, TrainConfig().mlflow.experiment)
            run = client.create_run(home, run_name=f"evaluation of {subject.title}", tags={TAG_COMMAND: "evaluate"})
            subject = replace(subject, run_id=run.info.run_id)
            client.set_terminated(run.info.run_id)
        run_id = str(subject.run_id)
        if verdict.folder is not None:
            client.log_artifacts(run_id, str(verdict.folder), EVALUATION_DIR)
        step = max(metric_history(client, run_id, EVAL_MSE), default=-1) + 1
        now = int(datetime.now(UTC).timestamp() * 1000)
        client.log_batch(
            run_id,
            metrics=[
                Metric(
                    name,
                    value,
                    now,
                    step,
                    model_id=subject.model_id,
                    dataset_name=verdict.dataset_name,
                    dataset_digest=verdict.dataset_digest,
                )
                for name, value in verdict.metrics.items()
            ],
        )
        if subject.version is not None:
            for key, text in {**verdict.version_tags, TAG_EVAL_RUN: run_id}.items():
                client.set_model_version_tag(subject.name, subject.version, key, text)
    except MlflowException as error:
        raise TrackingError(f"the verdict on {subject.title} can't be recorded ({one_line(error)})") from None
    return run_id


def known_metrics(client: MlflowClient, version: Any) -> dict[str, float]:
    """Every number that is known of a model version, by name.

    The logged model's come first (they are of its own epoch), then tags that are numbers, then the run's latest.
    Figures of evaluations are those on the data of the version's last evaluation, and of this version alone.
    """
    digest, model_id = version.tags.get(TAG_EVAL_DIGEST), logged_model_id(version)
    numbers: dict[str, float] = {}
    if run_id := _readable(client, version.run_id):
        values = client.get_run(run_id).data.metrics
        numbers |= {k: v for k, v in values.items() if not k.startswith(EVAL_PREFIX)}
    if not model_id and (judged_by := _readable(client, version.tags.get(TAG_EVAL_RUN))):
        values = client.get_run(judged_by).data.metrics
        numbers |= {k: v for k, v in values.items() if k.startswith(EVAL_PREFIX)}
    numbers |= {k: value for k, text in version.tags.items() if (value := _number(text)) is not None}
    try:
        logged = client.get_logged_model(model_id).metrics or [] if model_id else []
    except MlflowException:
        logged = []
    for one in sorted(logged, key=lambda one: one.step):
        if not one.key.startswith(EVAL_PREFIX) or one.dataset_digest == digest:
            numbers[one.key] = one.value
    return numbers


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _readable(client: MlflowClient, run_id: str | None) -> str | None:
    try:
        return client.get_run(run_id).info.run_id if run_id else None
    except MlflowException:
        return None


def _writable(client: MlflowClient, run_id: str | None) -> str | None:
    """A run that metrics can be logged to: one that is there and was not deleted."""
    if _readable(client, run_id) is None:
        return None
    return run_id if client.get_run(run_id).info.lifecycle_stage == "active" else None
