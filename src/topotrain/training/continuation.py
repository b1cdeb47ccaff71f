"""Where a run goes on from, and bringing a run's records and selection to that point."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topotrain.config import LoadedConfig, TrainConfig, completed
from topotrain.data.prepare import PreparedData
from topotrain.errors import ConfigError, DataError
from topotrain.fields import (
    CHECKPOINT_DIR,
    CONFIG_ARTIFACT,
    LAST_CHECKPOINT,
    MID_EPOCH_CHECKPOINT,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TAG_PARAM_DRIFT,
)
from topotrain.model.lightning import STEP
from topotrain.model.network import NetworkSpec
from topotrain.reading.json_file import parse_json
from topotrain.schema.check import check_same_schema
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.text import one_line
from topotrain.tracking.recorder import MAX_TAG_LENGTH, Recorder
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import Store
from topotrain.training.network_shape import check_shape, network_spec
from topotrain.training.ranks import Place
from topotrain.training.selection import Selection, write_kept_index
from topotrain.training.step_end import MID_EPOCH, batches_seen, checkpoint_name

log = logging.getLogger("topotrain")

# Where a run is tracked and what it shows are no settings of its training.
NOT_DRIFT = ("mlflow.", "logging.", "paths.cache")
RATE, OPTIMIZER, SCHEDULER = "optimizer.learning_rate", "optimizer.type", "scheduler.type"
BATCHES = (  # decide what they are
    *("dataloader.batch_size", "dataloader.batches", "dataloader.decoys_per_target", "dataloader.seed"),
    "trainer.accumulate_grad_batches",
)


@dataclass(frozen=True)
class Recorded:
    """What a run holds, asked for before it goes on: from then on no outage of the server matters.

    Attributes:
        checkpoints: names of those that are there, as they are.
        metrics: names of those that have a point.
        steps: at which each metric of an epoch has one.
        versions: number of each version, by epoch.
        drift: the tag that tells which settings were changed.
    """

    checkpoints: Set[str] = frozenset()
    metrics: Set[str] = frozenset()
    steps: Mapping[str, Set[int]] = field(default_factory=dict)
    versions: Mapping[int, str] = field(default_factory=dict)
    drift: str = "[]"

    @classmethod
    def of(cls, store: Store, run: RunRecord, selection: Selection, checkpoints: Set[str]) -> Recorded:
        """What the server has of a run; the lease is held.

        Raises:
            OutageError: the store does not answer.
        """
        versions = {one.epoch: one.number for one in store.versions.of_runs([run.run_id]) if one.epoch is not None}
        steps = store.runs.steps(run.run_id, next(iter(selection.points.values()), {}))
        return cls(checkpoints, run.metrics.keys(), steps, versions, run.tags.get(TAG_PARAM_DRIFT, "[]"))


@dataclass(frozen=True)
class Continuation:
    """A checkpoint of this or another run, and what is there to go on with.

    Attributes:
        content: of the checkpoint, as ``read_checkpoint`` gives it.
        source: folder that holds it under ``name``, and those of the others that could be fetched.
        selection: its state when the checkpoint was made.
        drift: settings that differ from the checkpoint's, each with the old and the new value, as text.
        same_run: whether the run goes on in place, with its records up to the checkpoint.
        recorded: what the run holds already; nothing of a new run.
    """

    content: Mapping[str, Any]
    source: Path
    selection: Selection
    drift: Mapping[str, tuple[str, str]]
    same_run: bool
    recorded: Recorded

    @property
    def name(self) -> str:
        """Of the checkpoint's file, where it is the newest of its run."""
        return checkpoint_name(self.content)

    def restore(self, recorder: Recorder, loaded: LoadedConfig, checkpoints: Path) -> dict[int, str]:
        """Bring checkpoint folder and the run's records to where the checkpoint was made.

        Points that the server lacks are filled in from the checkpoint's history, so that none is doubled.

        Returns:
            Versions that the run registered already, by epoch.
        """
        for file in self.source.glob("*.ckpt"):
            file.replace(checkpoints / file.name)
        selection = self.selection
        _keep_what_is_there(selection, checkpoints)
        newest, batches = max(selection.history, default=-1), batches_seen(self.content)
        where = f"in epoch {newest + 1}, after {batches} batches" if batches else f"after epoch {newest}"
        log.info("going on %s", where)
        if self.content.get("step", 1) != STEP:
            log.warning(
                "the checkpoint is of another topotrain (%s), whose dropout falls otherwise: the results will differ "
                "from those of a run that was never cut off",
                self.content.get("topotrain_version", "unknown"),
            )
        kept_names = [kept.file_name for kept in selection.kept]
        for name in [LAST_CHECKPOINT, *kept_names, MID_EPOCH_CHECKPOINT]:
            if name not in self.recorded.checkpoints and (checkpoints / name).exists():
                recorder.checkpoint(checkpoints / name)
        recorder.checkpoint(write_kept_index(selection, checkpoints))
        steps = self.recorded.steps
        for epoch, metrics in selection.points.items():
            missing = {name: value for name, value in metrics.items() if epoch not in steps.get(name, ())}
            if missing:
                recorder.epoch(missing, step=epoch)
        for name in self.recorded.checkpoints - {*kept_names, self.name}:
            # Dropped, but the run was cut off before it was removed; or not what is gone on from.
            if name.startswith("epoch_") or name == MID_EPOCH_CHECKPOINT:
                recorder.remove(f"{CHECKPOINT_DIR}/{name}")
        if selection.best is not None:
            best = selection.best
            recorder.tags({TAG_BEST_CHECKPOINT: f"{CHECKPOINT_DIR}/{best.file_name}", TAG_BEST_EPOCH: str(best.epoch)})
        self._record_drift(recorder, loaded, epoch=max(selection.history, default=-1) + 1)
        return dict(self.recorded.versions)

    def _record_drift(self, recorder: Recorder, loaded: LoadedConfig, epoch: int) -> None:
        if not self.drift:
            return
        for key, (old, new) in self.drift.items():
            log.info("%s: %s -> %s, from epoch %d on", key, old, new, epoch)
        entries = [{"epoch": epoch, "key": key, "from": old, "to": new} for key, (old, new) in self.drift.items()]
        recorder.tags({TAG_PARAM_DRIFT: drift_tag(self.recorded.drift, entries)})
        recorder.text(loaded.config.to_yaml(), CONFIG_ARTIFACT)


def drift_tag(earlier: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """The tag with more entries; one that is there already (cut off before its first epoch ended) is not doubled.

    The oldest go where the server would cut the tag, which could not be read then.
    """
    try:
        entries_so_far = list(parse_json(earlier))
    except ValueError:
        entries_so_far = []
    entries_so_far += [entry for entry in entries if entry not in entries_so_far]
    while len(entries_so_far) > 1 and len(json.dumps(entries_so_far)) > MAX_TAG_LENGTH:
        del entries_so_far[0]
    return json.dumps(entries_so_far)


def restored_selection(content: Mapping[str, Any], config: TrainConfig) -> Selection:
    """The selection as it was when a checkpoint was made.

    Raises:
        DataError: the state is malformed.
    """
    selection = Selection(config)
    try:
        selection.load_state_dict(content["selection"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the checkpoint's selection state is malformed ({type(error).__name__}: {error})",
            "a checkpoint written by topotrain",
        ) from None
    return selection


def _keep_what_is_there(selection: Selection, checkpoints: Path) -> None:
    """A kept checkpoint whose file is gone is no longer kept."""
    newest, last = max(selection.history, default=-1), checkpoints / LAST_CHECKPOINT
    for kept in list(selection.kept):
        path = checkpoints / kept.file_name
        if kept.epoch == newest and not path.exists() and last.exists():  # cut off after last.ckpt, before its copy
            shutil.copyfile(last, path)
        if not path.exists():
            log.warning("the checkpoint of epoch %d is no longer there; it is not kept", kept.epoch)
            selection.kept.remove(kept)
    if selection.history and not selection.kept and last.exists():  # none is left: the one at hand is the best there is
        selection.keep(newest)
        shutil.copyfile(last, checkpoints / selection.kept[0].file_name)


def drift_of(config: TrainConfig, content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Settings in which a configuration differs from the one that a checkpoint carries.

    The configured learning rate, asked for again, is held against the one that the scheduler had come to; a cosine
    comes to another at every step, and goes on from none of them.

    Raises:
        DataError: the stored configuration is malformed.
        ConfigError: the optimiser is another, whose state is no state of this one.
    """
    try:
        stored = completed(content["config"], "", [])
        before, now = TrainConfig.model_validate(stored).flat(), config.flat()
    except ValueError as error:
        raise DataError(
            f"the checkpoint's configuration is malformed ({one_line(error)})", "a checkpoint written by topotrain"
        ) from None
    if before[OPTIMIZER] != now[OPTIMIZER]:
        raise ConfigError(
            f"{OPTIMIZER} is {now[OPTIMIZER]}, and the checkpoint's is {before[OPTIMIZER]}",
            "the same optimiser",
            "train a new run from the weights with: topotrain run --resume-from",
        )
    asked = now[SCHEDULER] != "cosine" and any(
        one.partition("=")[0].strip() in (RATE, "learning_rate") for one in overrides
    )
    if asked and before[RATE] == now[RATE]:
        before[RATE] = json.dumps(content["optimizer_states"][0]["param_groups"][0]["lr"])
    return {
        key: (before.get(key, "null"), now.get(key, "null"))
        for key in sorted({*before, *now})
        if before.get(key, "null") != now.get(key, "null") and not key.startswith(NOT_DRIFT)
    }


def why_from_its_beginning(content: Mapping[str, Any], config: TrainConfig, place: Place | None, newest: int) -> str:
    """Why the epoch within which a checkpoint was made is trained from its beginning; empty where it goes on.

    Args:
        content: of the checkpoint.
        config: of today.
        place: of this process among several that train together.
        newest: epoch that has ended.

    Raises:
        DataError: the checkpoint is malformed.
    """
    if not content.get(MID_EPOCH):
        return ""
    selection, drift = restored_selection(content, config), drift_of(config, content, ())
    if place is not None:
        return "several processes train it now"
    if max(selection.history, default=-1) < newest or not selection.has_epochs_left:
        return "it has ended since, or is asked for no more"
    return ", ".join(f"{key} is {now} and was {was}" for key, (was, now) in drift.items() if key in BATCHES)


def check_same(content: Mapping[str, Any], data: PreparedData, config: TrainConfig) -> None:
    """Hold data and network of today against those of a checkpoint.

    Raises:
        SchemaError: the graphs have other features.
        DataError: the graphs or labels are others.
        ConfigError: the network has another shape.
    """
    schema = FeatureSchema.from_dict(content["feature_metadata"])
    check_same_schema(
        *(schema, data.schema, str(data.graph_dir)),
        of="checkpoint",
        beside="graphs",
        wanted="graphs with the same features",
        do="give those by --override paths.graph=DIR, or train a new run",
    )
    if content["data_digest"] != data.digest:
        raise DataError(
            f"{data.graph_dir}: graphs and labels have data.digest {data.digest[:12]}, the checkpoint's have "
            f"{content['data_digest'][:12]}",
            "the same graphs and labels",
            "give those by --override paths.graph=DIR paths.train_labels=CSV paths.val_labels=CSV, or train a new run "
            "from the weights with: topotrain run --resume-from",
        )
    check_shape(NetworkSpec(**content["model_hyperparameters"]), network_spec(data.schema, config))
