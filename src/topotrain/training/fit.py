"""The front door of training: a configuration in, a finished run out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from topotrain.config import LoadedConfig, MlflowConfig, TrainConfig, config_of_mapping, load_config
from topotrain.errors import ConfigError
from topotrain.fields import TAG_RECIPE_DIGEST, TAG_TRIAL_LABEL
from topotrain.invocation import adopted_run
from topotrain.messages import lines_shown
from topotrain.scratch import check_scratch
from topotrain.signals import interruptible
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.opening import open_offline, open_run
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.store import Store
from topotrain.training.continuation import NOT_DRIFT
from topotrain.training.crew import place_of
from topotrain.training.hardware import check_hardware
from topotrain.training.loop import Limits
from topotrain.training.ranks import Place
from topotrain.training.register import TakeCandidate
from topotrain.training.training_run import TrainingRun, TrainResult

__all__ = ["Limits", "TrainResult", "fit"]
log = logging.getLogger("topotrain")


def fit(
    config: TrainConfig | LoadedConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    run_name: str | None = None,
    notes: str | None = None,
    trial_label: str | None = None,
    resume_from: str | None = None,
    limits: Limits | None = None,
    tracking_uri: str | None = None,
    parent_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    take_candidate: TakeCandidate = "if_better",
    progress: bool = True,
    offline: bool = False,
) -> TrainResult:
    """Train one network and record everything about it.

    Args:
        config: a ``TrainConfig``, nested plain values, or the path of a YAML file; by default the defaults.
        overrides: ``dotted.key=value``, on top of a file.
        run_name: by default ``mlflow.run_name``, else ``training_run_`` and the time.
        notes: shown on the run's page.
        trial_label: kept as a tag.
        resume_from: weights to begin with: the path of a checkpoint, ``runs:/ID/checkpoints/NAME``, or
            ``models:/NAME@alias``. Everything else is a new run's own.
        limits: cut the run short.
        tracking_uri: wins over the configuration's.
        parent_run_id: the run that this one is part of.
        tags: more tags for the run.
        take_candidate: whether the best version becomes the candidate; better on the same validation data is meant.
        progress: whether to show lines, and on a terminal bars, on standard error; where logging is set up to show
            the lines of the logger ``topotrain``, that is left to it.
        offline: need no server: the journal on this machine's disk holds the run until it is delivered.

    Raises:
        TopotrainError: bad input, a store that can't be used, or a loss that is not finite. The run, if one was
            opened, is closed as FAILED.
        InterruptedRunError: SIGINT, SIGTERM or SIGUSR1; the run is closed as KILLED.
    """
    loaded = load_recipe(config, overrides)
    recipe = loaded.config
    with lines_shown(progress), interruptible():
        place = _checked(loaded)
        uri = resolve_tracking_uri(tracking_uri, recipe.mlflow.tracking_uri, log.info)
        recorder = _open(
            *(uri, recipe.mlflow, offline),
            command="run",
            run_name=run_name or recipe.mlflow.run_name,
            tags={**_tags(recipe, limits, resume_from, trial_label), **(tags or {})},
            notes=notes,
            parent_run_id=parent_run_id,
        )
        return TrainingRun(
            *(loaded, recorder, limits or Limits()),
            initial=resume_from,
            take_candidate=take_candidate,
            progress=progress,
            place=place,
        ).execute()


def recipe_digest(recipe: TrainConfig, limits: Limits | None, initial: str | None) -> str:
    """SHA-256 over what a run is asked to do, as far as its result depends on it.

    Args:
        recipe: apart from where the run is tracked and what it shows.
        limits: cut the run short.
        initial: names the weights that it begins with.
    """
    flat = {key: value for key, value in recipe.flat().items() if not key.startswith(NOT_DRIFT)}
    deciding = {"config": flat, "limits": asdict(limits or Limits()), "initial": initial}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _tags(recipe: TrainConfig, limits: Limits | None, initial: str | None, trial: str | None) -> dict[str, str]:
    label = {TAG_TRIAL_LABEL: trial} if trial else {}
    return {
        **recipe.mlflow.tags,
        **provenance_tags(),
        TAG_RECIPE_DIGEST: recipe_digest(recipe, limits, initial),
        **label,
    }


def _checked(loaded: LoadedConfig) -> Place | None:
    """This process among those that a recipe asks for, where the machine has what it takes."""
    for notice in loaded.notices:
        log.info(notice)
    place = place_of(check_hardware(loaded.config), loaded.config.trainer.num_nodes)
    check_scratch()
    return place


def _open(uri: str, settings: MlflowConfig, offline: bool, **said: Any) -> Recorder:
    if not offline:
        return open_run(Store.open(uri, patience=settings.connect_timeout), settings.experiment, **said)
    if adopted_run():
        raise ConfigError("mlflow run has made a run already", "topotrain run --offline, without mlflow run")
    return open_offline(uri, settings.experiment, **said)


def load_recipe(
    config: TrainConfig | LoadedConfig | Mapping[str, Any] | str | os.PathLike[str] | None, overrides: Sequence[str]
) -> LoadedConfig:
    """The configuration that ``fit`` was given, in one form."""
    if isinstance(config, Mapping):
        config = config_of_mapping(config)
    if isinstance(config, TrainConfig):
        config = LoadedConfig(config, "# no configuration file: given from Python\n")
    if isinstance(config, LoadedConfig):
        if overrides:
            raise ConfigError("overrides go with a file, not with a configuration that is already validated")
        return config
    return load_config(config, overrides)
