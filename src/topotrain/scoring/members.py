"""The members of an ensemble: which versions are meant, what they say of themselves, and whether they go together."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from topotrain.data.column_ranges import joined_ranges, read_ranges
from topotrain.errors import DataError, TrackingError, UserInputError
from topotrain.fields import RECIPE_ARTIFACT, TAG_BATCH_JOB, WEIGHTS_ARTIFACT, quality_name
from topotrain.reading.json_file import read_json
from topotrain.schema.check import check_same_schema
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.load import fetch_files, scorer_of_files
from topotrain.tracking.batches import COMMAND
from topotrain.tracking.records import RunRecord, VersionRecord
from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")

MOST_MEMBERS = 100  # each is one more network in memory and one more pass over every graph
UNSHARED = ("mlflow", "logging")  # sections of a configuration that decide nothing of a network


@dataclass(frozen=True)
class Member:
    """A version that becomes part of an ensemble.

    Attributes:
        version: as the server knows it.
        weights: its file; the others of the version lie beside it.
        schema: what its network takes.
        recipe: how it was made, as far as it says.
    """

    version: VersionRecord
    weights: Path
    schema: FeatureSchema
    recipe: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """Of its training, without what decides nothing; empty where it was imported."""
        return {name: part for name, part in self.recipe.get("config", {}).items() if name not in UNSHARED}

    def split(self, name: str) -> Mapping[str, Any] | None:
        """What its recipe says of a split of its data: ``train`` or ``val``."""
        split: Mapping[str, Any] | None = self.recipe.get("data", {}).get(name)
        return split

    def to_dict(self, shared: Mapping[str, Any]) -> dict[str, Any]:
        """What an ensemble's recipe says of it.

        Args:
            shared: of the configuration, what all members have in common.
        """
        train = self.split("train")
        return {
            "version": self.version.uri,
            "run": self.recipe.get("run") or {"id": self.version.run_id, "name": None},
            "epoch": self.version.epoch,
            "weights_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "network": self.recipe.get("network"),
            "train_graphs": train["num_graphs"] if train else None,
            "own_settings": dict(_own(self.config, shared)),
            "metrics": self.recipe.get("metrics"),
        }


def find_members(
    store: Store, given: Sequence[str], from_batch: str | None, experiment: str | None
) -> list[VersionRecord]:
    """The versions that are meant, in an order of their own.

    Args:
        store: that they are on.
        given: versions (``models:/NAME/VERSION``, ``models:/NAME@alias``), or runs, whose best version is meant.
        from_batch: a batch, or a run of one: the best version of each of its jobs.
        experiment: look for runs in this experiment only.

    Raises:
        TrackingError: no such version, run or batch, or a run without a version.
        DataError: fewer than two, more than ``MOST_MEMBERS``, or one of them twice.
    """
    found = [_version(store, one, experiment) for one in given]
    if from_batch is not None:
        found += _of_batch(store, store.runs.find(from_batch, experiment))
    found.sort(key=lambda version: (version.name, int(version.number)))
    for one, following in pairwise(found):
        if one.uri == following.uri:
            raise DataError(f"{one.uri} is meant twice", "each member once")
    if not 2 <= len(found) <= MOST_MEMBERS:
        names = ", ".join(version.uri for version in found[:1]) or "none"
        what = f"an ensemble of {len(found)}" if len(found) > 1 else f"one member is not an ensemble ({names})"
        raise DataError(what if found else "no members", f"2 to {MOST_MEMBERS} versions or runs")
    return found


def read_members(versions: Sequence[VersionRecord], store: Store, folder: Path) -> list[Member]:
    """Fetch versions, see that their files are those that were registered, and that they go together.

    Args:
        versions: two or more.
        store: that they are on.
        folder: for the files.

    Raises:
        TrackingError: one can't be fetched, or its files were changed.
        SchemaError: they have not the same features.
        DataError: one is no single model of topotrain, or predicts another quality.
    """
    members = [_read(version, store, folder / str(number)) for number, version in enumerate(versions)]
    first = members[0]
    for other in members[1:]:
        names = f"{first.version.uri} and {other.version.uri}"
        if other.schema.label_column != first.schema.label_column:
            both = " and ".join(quality_name(one.schema.label_column) for one in (first, other))
            raise DataError(f"{names} predict {both}", "members that predict the same quality")
        check_same_schema(
            *(first.schema, other.schema, other.version.uri),
            of=first.version.uri,
            beside=other.version.uri,
            wanted="members with the same features",
        )
    return members


def common_split(members: Sequence[Member], name: str) -> Mapping[str, Any] | None:
    """A split that all members say to be the same, graphs and labels; ``None`` where there is none."""
    splits = [member.split(name) for member in members]
    return splits[0] if splits[0] and all(one and one["digest"] == splits[0]["digest"] for one in splits) else None


def learned_together(members: Sequence[Member]) -> dict[str, Any]:
    """What members that did not learn from the same learned from together; empty where not all say.

    Returns:
        ``train_targets``: the names of all their targets, and ``column_ranges``: of all their training graphs.
    """
    splits = [split for member in members if (split := member.split("train"))]
    if len(splits) < len(members):
        return {}
    ranges = joined_ranges([read_ranges(split.get("column_ranges")) for split in splits])
    targets = sorted({target for split in splits for target in split["targets"]})
    return {"train_targets": targets, **({"column_ranges": ranges} if ranges else {})}


def in_common(first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """What nested mappings share."""
    shared: dict[str, Any] = {}
    for key, value in first.items():
        values: list[Any] = [other[key] for other in others if key in other]
        if len(values) == len(others) and all(one == value for one in values):
            shared[key] = value
        elif len(values) == len(others) and all(isinstance(one, Mapping) for one in (value, *values)):
            shared[key] = in_common(value, *values)
    return shared


def _own(config: Mapping[str, Any], shared: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings that not all members share, by dotted name."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _own(value, shared.get(key, {}), f"{prefix}{key}.")
        elif key not in shared:
            yield f"{prefix}{key}", value


def _version(store: Store, given: str, experiment: str | None) -> VersionRecord:
    if given.startswith("models:/"):
        version = store.versions.loaded(given)
        if version is None:
            store.versions.evaluated(given)  # says what is wrong with it
            raise TrackingError(f"{given} is not registered", "a version, or a run that registered one")
        return version
    run = store.runs.find(given, experiment)
    version = store.versions.best_of_run(run.run_id)
    if version is None:
        raise TrackingError(
            f"run {run.run_id} ({run.name}) has no model version",
            "a run that registered one",
            "train with mlflow.register all or best; trials and runs on part of the data register none",
        )
    return version


def _of_batch(store: Store, run: RunRecord) -> list[VersionRecord]:
    """The best version of each job, of its newest run that finished."""
    batch = store.runs.get(run.parent_run_id) if run.command != COMMAND and run.parent_run_id else run
    if batch.command != COMMAND:
        raise TrackingError(f"run {run.run_id} ({run.name}) is no batch, nor of one", "a batch, or a run of one")
    finished: dict[str, RunRecord] = {}
    children = store.batches.earlier_children(batch)
    for one in children:  # the newest first
        if one.status == "FINISHED":
            finished.setdefault(one.tags[TAG_BATCH_JOB], one)
    lost = sorted({one.tags[TAG_BATCH_JOB] for one in children} - finished.keys())
    if lost:
        raise TrackingError(
            f"jobs of batch {batch.run_id} ({batch.name}) have not finished: {', '.join(lost)}",
            "a batch whose jobs have all finished",
            "finish it with topotrain batch --resume, or name the members",
        )
    return [_version(store, one.run_id, None) for one in finished.values()]


def _read(version: VersionRecord, store: Store, folder: Path) -> Member:
    folder.mkdir()
    files = fetch_files(version.uri, store, folder)
    scorer = scorer_of_files(files, version.uri)
    if scorer.gives_spread:
        raise DataError(f"{version.uri} is an ensemble itself", "single models", "name its members")
    recipe = files / RECIPE_ARTIFACT
    try:
        content = read_json(recipe, "a model version made by topotrain") if recipe.is_file() else {}
    except UserInputError as error:
        raise DataError(f"{version.uri}: {error.what}", error.expected) from None
    return Member(version, files / WEIGHTS_ARTIFACT, scorer.schema, content)
