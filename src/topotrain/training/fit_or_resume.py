"""One command for a run that may be cut off and started again: begun, gone on with, or found to be complete."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topotrain.config import LoadedConfig, TrainConfig
from topotrain.errors import ConfigError, TrackingError
from topotrain.fields import CHECKPOINT_DIR, TAG_RECIPE_DIGEST, VAL_LOSS
from topotrain.invocation import adopted_run
from topotrain.messages import lines_shown
from topotrain.signals import interruptible
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.heartbeat import is_alive, is_of_this_host, signs
from topotrain.tracking.records import RunRecord
from topotrain.tracking.runs import RUN_COMMANDS
from topotrain.tracking.store import Store
from topotrain.tracking.sync import deliver_first
from topotrain.training.crew import dismiss
from topotrain.training.fit import fit, load_recipe, recipe_digest
from topotrain.training.loop import Limits
from topotrain.training.ranks import outer_place
from topotrain.training.register import TakeCandidate
from topotrain.training.resume import AlreadyComplete, resume
from topotrain.training.training_run import TrainResult

log = logging.getLogger("topotrain")
LOOK_SECONDS = 1.0


def fit_or_resume(
    config: TrainConfig | LoadedConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    run_name: str | None = None,
    resume_from: str | None = None,
    limits: Limits | None = None,
    tracking_uri: str | None = None,
    take_candidate: TakeCandidate = "if_better",
    progress: bool = True,
    **options: Any,
) -> TrainResult | AlreadyComplete:
    """``fit``, or ``resume`` where a run of this name and recipe was cut off, so that one call may be made again.

    The recipe is the configuration apart from where a run is tracked and what it shows, what cuts it short, and the
    weights that it begins with. The run is looked for in the configuration's experiment.

    Args:
        config: as of ``fit``.
        overrides: as of ``fit``.
        run_name: by default ``mlflow.run_name``, else the name of the configuration's file without its ending.
        resume_from: as of ``fit``.
        limits: as of ``fit``.
        tracking_uri: as of ``fit``.
        take_candidate: as of ``fit``.
        progress: as of ``fit``.
        **options: others of ``fit``, for a run that begins.

    Raises:
        ConfigError: there is no name.
        TrackingError: a process still trains it.
        TopotrainError: as of ``fit`` and ``resume``.
    """
    if options.get("offline"):
        raise ConfigError("a run can't be looked for offline", "either --continue or --offline")
    loaded = load_recipe(config, overrides)
    recipe = loaded.config
    name = run_name or recipe.mlflow.run_name or (Path(config).stem if isinstance(config, str | os.PathLike) else None)
    if not name:
        raise ConfigError("there is no name to find the run by", "--run-name, mlflow.run_name, or a configuration file")
    with lines_shown(progress), interruptible():
        uri = resolve_tracking_uri(tracking_uri, recipe.mlflow.tracking_uri, log.info)
        store = Store.open(uri, patience=recipe.mlflow.connect_timeout)
        earlier = _earlier(store, recipe, name, recipe_digest(recipe, limits, resume_from))
        if earlier is not None and _is_complete(store, earlier):
            dismiss(outer_place())
            epochs = len(store.runs.values(earlier.run_id, VAL_LOSS))
            return AlreadyComplete(earlier.run_id, earlier.name, epochs)
        goes_on = earlier is not None and _has_checkpoint(store, earlier)
    shared: dict[str, Any] = {"tracking_uri": uri, "take_candidate": take_candidate, "progress": progress}
    if earlier is not None and goes_on:
        return resume(earlier.run_id, run_name=name, **shared)
    if earlier is not None:
        log.info("run %s (%s) was cut off before its first checkpoint: beginning anew", earlier.run_id, name)
    return fit(loaded, run_name=name, resume_from=resume_from, limits=limits, **shared, **options)


def _earlier(store: Store, recipe: TrainConfig, name: str, digest: str) -> RunRecord | None:
    """The newest run of this name and recipe."""
    adopted = store.runs.known(adopted_run())
    experiment = adopted.experiment_id if adopted else store.runs.experiment_id(recipe.mlflow.experiment)
    found = [
        run
        for command in RUN_COMMANDS
        for run in store.runs.tagged(TAG_RECIPE_DIGEST, digest, command)
        if (run.name, run.experiment_id) == (name, experiment)
    ]
    return max(found, key=lambda run: run.started, default=None)


def _is_complete(store: Store, run: RunRecord) -> bool:
    """Whether a run that nobody trains is complete, once this machine has delivered what it has of it.

    Raises:
        TrackingError: somebody trains it.
    """
    if run.status != "FINISHED":
        _outlive(store, run)
        deliver_first(store, run.run_id)
    return store.runs.get(run.run_id).status == "FINISHED"


def _outlive(store: Store, run: RunRecord) -> None:
    """See that nobody trains a run; whose machine was lost a moment ago seems to, until it has been silent for long.

    Raises:
        TrackingError: somebody trains it.
    """
    said, waits = signs(run), False
    while is_alive(run):
        if is_of_this_host(run) or signs(run) != said:
            raise TrackingError(
                f"run {run.run_id} ({run.name}) is still being trained",
                "a run that ended or was cut off",
                "wait for it or stop it, or give another --run-name",
            )
        if not waits:
            log.info("run %s was trained elsewhere until now: waiting whether it goes on", run.run_id)
        waits = True
        time.sleep(LOOK_SECONDS)
        run = store.runs.get(run.run_id)


def _has_checkpoint(store: Store, run: RunRecord) -> bool:
    return any(name.endswith(".ckpt") for name in store.artifacts.names(run, CHECKPOINT_DIR))
