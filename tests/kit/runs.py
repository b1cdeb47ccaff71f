"""Runs written by hand, as training records them, in moments instead of minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from kit.recorded import experiment_id, mlflow_client
from topotrain.config import TrainConfig
from topotrain.fields import (
    BEST_OF,
    CHECKPOINT_DIR,
    EPOCH_SECONDS,
    KEPT_INDEX,
    LEARNING_RATE,
    SELECTION_METRIC,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TAG_COMMAND,
    TAG_HEARTBEAT,
    TAG_SCHEMA_DIGEST,
    TRAIN_MSE,
    VAL_LOSS,
    VAL_PEARSON,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
)
from topotrain.tracking.heartbeat import sign_of_life

DIGEST = "0123456789abcdef" * 4


def epoch(val_loss: float, spearman: float = 0.5, *, rate: float = 0.01, seconds: float = 2.0) -> dict[str, float]:
    """Metrics of one epoch."""
    return {
        TRAIN_MSE: val_loss / 2,
        VAL_LOSS: val_loss,
        VAL_PEARSON: spearman / 2,
        VAL_SPEARMAN: spearman,
        VAL_RANKING_LOSS: val_loss * 2,
        SELECTION_METRIC: val_loss - spearman,
        LEARNING_RATE: rate,
        EPOCH_SECONDS: seconds,
    }


class HandMadeRun:
    """A run of an own experiment; epochs are added one by one."""

    def __init__(
        self,
        uri: str,
        name: str = "by hand",
        *,
        experiment: str = "by hand",
        command: str | None = "run",
        primary: str = VAL_LOSS,
        num_epochs: int = 50,
        start_time: int | None = None,
        params: bool = True,
        changed: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        heartbeat: Mapping[str, Any] | None = None,
    ) -> None:
        self.client: MlflowClient = mlflow_client(uri)
        self.primary, self.history = primary, dict[int, dict[str, float]]()
        home = experiment_id(self.client, uri, experiment)
        everything = {**(tags or {}), TAG_HEARTBEAT: json.dumps(heartbeat or sign_of_life())}
        if command:
            everything[TAG_COMMAND] = command
        self.run_id = self.client.create_run(home, start_time=start_time, run_name=name, tags=everything).info.run_id
        self.config = TrainConfig.model_validate(
            {"selection": {"primary_metric": primary}, "trainer": {"num_epochs": num_epochs}}
        )
        if params:
            schema = {"schema.edge.module": "edge/test/v1", "schema.edge.dim": "3", "schema.node.dim": "5"}
            pairs = {**self.config.flat(), **schema, **(changed or {})}
            self.client.log_batch(self.run_id, params=[Param(key, value) for key, value in pairs.items()])
            self.client.set_tag(self.run_id, TAG_SCHEMA_DIGEST, DIGEST)

    def epochs(self, *metrics: Mapping[str, float]) -> HandMadeRun:
        """Add epochs, with what training records at the end of each."""
        for one in metrics:
            step, now = len(self.history), int(time.time() * 1000)
            before = self.history.values()
            improved = {best: one[name] for name, best in BEST_OF.items() if all(one[name] < e[name] for e in before)}
            points = [Metric(key, value, now, step) for key, value in {**one, **improved}.items()]
            is_best = all(one[self.primary] < earlier[self.primary] for earlier in before)
            self.history[step] = dict(one)
            tags = []
            if is_best:
                file = f"epoch_{step:04d}.ckpt"
                self.client.log_text(self.run_id, "weights", f"{CHECKPOINT_DIR}/{file}")
                index = [{"rank": 1, "epoch": step, "file": file, **one}]
                self.client.log_text(self.run_id, json.dumps(index), f"{CHECKPOINT_DIR}/{KEPT_INDEX}")
                tags = [RunTag(TAG_BEST_CHECKPOINT, f"{CHECKPOINT_DIR}/{file}"), RunTag(TAG_BEST_EPOCH, str(step))]
            self.client.log_batch(self.run_id, metrics=points, tags=tags)
        return self

    def tag(self, **tags: str) -> HandMadeRun:
        """Set tags ``topotrain.KEY``."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, f"topotrain.{key}", value)
        return self

    def end(self, status: str = "FINISHED") -> HandMadeRun:
        """End it."""
        self.client.set_terminated(self.run_id, status=status)
        return self

    def register(self, epochs: Sequence[int], model: str = "topoqa") -> list[str]:
        """Register versions of epochs, as training does; returns their numbers."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(model)
        except MlflowException:
            pass
        made = []
        for step in epochs:
            source = f"runs:/{self.run_id}/{CHECKPOINT_DIR}/epoch_{step:04d}.ckpt"
            tags = {"epoch": str(step), "run_id": self.run_id}
            made.append(str(self.client.create_model_version(model, source, self.run_id, tags).version))
        return made


def silent_beat(minutes: float = 60) -> dict[str, Any]:
    """A sign of life of another machine, some time ago."""
    from datetime import UTC, datetime, timedelta

    then = datetime.now(UTC) - timedelta(minutes=minutes)
    return {"host": "elsewhere", "pid": 1, "process_start": 0.0, "time": then.isoformat(timespec="seconds")}
