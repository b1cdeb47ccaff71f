"""Model versions: kept checkpoints as logged models in the registry, and the aliases that point at them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema

from topotrain.errors import TrackingError
from topotrain.fields import PRED_DOCKQ
from topotrain.text import one_line
from topotrain.tracking.store import open_store, resolve_tracking_uri

log = logging.getLogger("topotrain")

CANDIDATE = "candidate"
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>.+)|/(?P<version>\d+))?")
LOGGED_MODEL = re.compile(r"models:/(?P<id>m-[0-9a-f]+)")

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "graph", required=False), ColSpec("string", "path", required=False)]),
    outputs=Schema([ColSpec("double", PRED_DOCKQ), ColSpec("string", "error", required=False)]),
)


@dataclass(frozen=True)
class ModelFiles:
    """What a logged model is made of, on disk.

    Attributes:
        loader: the Python file that MLflow runs to load it.
        code: folder with the package it imports.
        artifacts: its files by name.
        requirements: pinned, one a line.
        input_example: a table as the served model takes it.
    """

    loader: Path
    code: Path
    artifacts: Mapping[str, Path]
    requirements: list[str]
    input_example: Any


def log_model(
    client: MlflowClient, files: ModelFiles, name: str, run_id: str, step: int, tags: Mapping[str, str]
) -> str:
    """Make a logged model of a run; nothing of it is pickled. MLflow links the run's metrics of that step to it.

    Args:
        client: of the store.
        files: what it is made of.
        name: for the page; characters that a logged model's name may not have are replaced.
        run_id: the run.
        step: epoch.
        tags: of the logged model.

    Returns:
        The model's id.
    """
    run = client.get_run(run_id)
    allowed = re.sub(r"""[/:.%"']""", "-", name)
    model = client.create_logged_model(
        run.info.experiment_id, allowed, source_run_id=run_id, tags=dict(tags), params=run.data.params
    )
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises on type hints that a table model has no use for
    try:
        Model.log(
            None,
            mlflow.pyfunc,
            run_id=run_id,
            model_id=model.model_id,
            step=step,
            python_model=str(files.loader),
            code_paths=[str(files.code)],
            artifacts={key: str(path) for key, path in files.artifacts.items()},
            signature=SIGNATURE,
            input_example=files.input_example,
            pip_requirements=files.requirements,
        )
    finally:
        logger.setLevel(level)
    return str(model.model_id)


def register(client: MlflowClient, model_id: str, model_name: str, run_id: str, tags: Mapping[str, str]) -> str:
    """Register a logged model as the next version.

    Returns:
        The version number, as text.

    Raises:
        TrackingError: the registry refuses the name.
    """
    try:
        client.create_registered_model(model_name)
    except mlflow.MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise TrackingError(f"model name {model_name!r} is refused ({one_line(error)})", "another name") from None
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        model_name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
    )
    return str(version.version)


def model_client(uri: str, tracking_uri: str | None) -> MlflowClient | None:
    """Open the store that a model is on; a local folder needs none.

    Args:
        uri: of the model.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store is not there, or can't be used.
    """
    if Path(uri).is_dir():
        return None
    return open_store(resolve_tracking_uri(tracking_uri, None, log.info), create=False)


def download_model(uri: str, folder: Path) -> Path:
    """Fetch the files of a model version, without running any of them.

    Args:
        uri: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID``, or a local folder.
        folder: where to put them.

    Raises:
        TrackingError: there is no such model on the store.
    """
    if Path(uri).is_dir():
        return Path(uri)
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
        raise TrackingError(
            f"model {uri!r} can't be fetched ({one_line(error)})",
            "models:/NAME@alias or models:/NAME/VERSION",
            "train one, set the alias, or give --tracking-uri",
        ) from None


def find_version(client: MlflowClient, uri: str) -> ModelVersion | None:
    """The version that ``models:/NAME@alias`` or ``models:/NAME/VERSION`` means, where there is one."""
    parts = MODEL_URI.fullmatch(uri)
    try:
        if parts and parts["alias"]:
            return client.get_model_version_by_alias(parts["name"], parts["alias"])
        return client.get_model_version(parts["name"], parts["version"]) if parts and parts["version"] else None
    except mlflow.MlflowException:
        return None


def logged_model_id(version: Any) -> str | None:
    """The logged model that a version was made from; a local registry keeps it in the source alone."""
    found = LOGGED_MODEL.fullmatch(version.source or "")
    return version.model_id or (found["id"] if found else None)


def run_of_model(client: MlflowClient, uri: str) -> str | None:
    """Id of the run that made ``models:/NAME@alias`` or ``models:/NAME/VERSION``, where it is known."""
    version = find_version(client, uri)
    return str(version.run_id) if version else None


def version_facts(client: MlflowClient, uri: str) -> dict[str, Any]:
    """What the registry says of a model version, as plain values; nothing where it knows none of that URI.

    Returns:
        ``name``, ``version``, ``aliases``, ``tags``, ``created``, ``run_id``, ``model_id``, and ``metrics``, the
        latest of each metric and data set that was logged to the model.
    """
    version = find_version(client, uri)
    if version is None:
        return {}
    model_id = logged_model_id(version)
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        "tags": dict(sorted(version.tags.items())),
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "model_id": model_id,
        "metrics": _logged_metrics(client, model_id),
    }


def _logged_metrics(client: MlflowClient, model_id: str | None) -> list[dict[str, Any]]:
    try:
        logged = client.get_logged_model(model_id).metrics or [] if model_id else []
    except mlflow.MlflowException:  # registered from elsewhere, or the logged model was deleted
        return []
    latest = {(one.key, one.dataset_digest): one for one in sorted(logged, key=lambda one: (one.step, one.timestamp))}
    return [
        {
            "name": one.key,
            "value": one.value,
            "step": one.step,
            "dataset": one.dataset_name,
            "dataset_digest": one.dataset_digest,
        }
        for _, one in sorted(latest.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    ]


def tag_version(client: MlflowClient, model_name: str, version: str, tags: Mapping[str, str | None]) -> None:
    """Set tags of a model version; ``None`` removes one."""
    present = client.get_model_version(model_name, version).tags
    for key, value in tags.items():
        if value is not None:
            client.set_model_version_tag(model_name, version, key, value)
        elif key in present:
            client.delete_model_version_tag(model_name, version, key)


def set_alias(client: MlflowClient, model_name: str, alias: str, version: str) -> None:
    """Point an alias at a version.

    Raises:
        TrackingError: the registry refuses.
    """
    try:
        client.set_registered_model_alias(model_name, alias, version)
    except mlflow.MlflowException as error:
        raise TrackingError(f"alias {alias!r} of {model_name!r} can't be set ({error})") from None


def alias_version(client: MlflowClient, model_name: str, alias: str) -> Any | None:
    """The version that has an alias, or ``None`` where none has.

    Raises:
        TrackingError: there is no such model.
    """
    try:
        version = client.get_registered_model(model_name).aliases.get(alias)
    except mlflow.MlflowException as error:
        raise TrackingError(
            f"registered model {model_name!r} can't be found ({one_line(error)})", "a registered model's name"
        ) from None
    return None if version is None else model_version(client, model_name, str(version))


def model_version(client: MlflowClient, model_name: str, version: str) -> Any:
    """A version with all its tags.

    Raises:
        TrackingError: there is none of that number.
    """
    try:
        return client.get_model_version(model_name, version)
    except mlflow.MlflowException as error:
        raise TrackingError(
            f"version {version} of {model_name!r} can't be found ({one_line(error)})", "the number of a version"
        ) from None


def move_alias(
    client: MlflowClient,
    model_name: str,
    alias: str,
    version: str,
    *,
    expected: str | None,
    tags: Mapping[str, str],
    tagged: str | None = None,
) -> None:
    """Point an alias at a version if it is still where it was when that was decided, then say so in tags.

    The registry can't compare and set in one step: the alias is read again right before it is set.

    Args:
        client: of the store.
        model_name: of the registered model.
        alias: to move.
        version: to point it at.
        expected: version that has it now, or ``None`` for none.
        tags: to set once it has moved.
        tagged: version that is tagged; by default the one the alias now points at.

    Raises:
        TrackingError: the alias was moved meanwhile, or the registry refuses.
    """
    now = alias_version(client, model_name, alias)
    if (None if now is None else str(now.version)) != expected:
        raise TrackingError(
            f"{alias} of {model_name} was moved from version {expected or 'none'} to "
            f"{'none' if now is None else now.version} meanwhile",
            "an alias that nobody else moves",
            "decide again",
        )
    set_alias(client, model_name, alias, version)
    try:
        for key, value in tags.items():
            client.set_model_version_tag(model_name, tagged or version, key, value)
    except mlflow.MlflowException as error:
        raise TrackingError(
            f"{alias} of {model_name} is version {version} now, but its tags can't be set ({one_line(error)})"
        ) from None
