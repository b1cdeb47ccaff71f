"""Several model versions to one that gives the mean of their scores, and how far these lie apart."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.config import TrainConfig, flat_values
from topotrain.errors import UserInputError
from topotrain.fields import (
    BEST_OF,
    DOCKQ_COLUMN,
    LABEL_PARAMETER,
    MEMBERS_GRAPHS,
    SCHEMA_ARTIFACT,
    SELECTION_METRIC,
    TAG_LABEL_COLUMN,
    TAG_MEMBERS,
    TAG_NUM_MEMBERS,
    TAG_RANKED_BY,
    TAG_SCHEMA_DIGEST,
    TAG_VALIDATION_DIGEST,
    TREES_ARTIFACT,
    VAL_LOSS,
    VAL_SPEARMAN,
    VALIDATION_PARAMETER,
)
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.common_validation import Judged, judge_together
from topotrain.scoring.export import export_ensemble, two_residues
from topotrain.scoring.members import (
    Member,
    common_split,
    find_members,
    in_common,
    learned_together,
    read_members,
)
from topotrain.scoring.out_of_fold import out_of_fold
from topotrain.scoring.recipe import base_recipe
from topotrain.scoring.scorer import Scorer
from topotrain.scoring.version_run import uri_of, version_run
from topotrain.scratch import scratch
from topotrain.text import least_to_most
from topotrain.tracking.recorder import NewVersion, Recorder
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.runs import ENSEMBLE
from topotrain.tracking.store import Store, find_store
from topotrain.tracking.versions import CANDIDATE, DEFAULT_NAME

log = logging.getLogger("topotrain")

MEMBERS_ARTIFACT = "ensemble.json"
STEP = 0  # it has no epochs


@dataclass(frozen=True)
class Ensemble:
    """An ensemble that is registered.

    Attributes:
        version: ``models:/NAME/VERSION``.
        run_id: of the run that holds it.
        members: the versions that it is of, likewise.
        metrics: on the validation data that its members share; empty where it could not be judged on them.
        earlier: whether it was registered before.
    """

    version: str
    run_id: str
    members: tuple[str, ...]
    metrics: Mapping[str, float]
    earlier: bool = False


def ensemble(
    members: Sequence[str] = (),
    *,
    from_batch: str | None = None,
    name: str = DEFAULT_NAME,
    run_name: str | None = None,
    experiment: str | None = None,
    take_candidate: bool = False,
    parent_run_id: str | None = None,
    tracking_uri: str | None = None,
) -> Ensemble:
    """Register several versions as one; the same ones are not registered twice.

    It becomes the candidate where it is better than that on the validation data which all members share.

    Args:
        members: versions (``models:/NAME/VERSION``, ``models:/NAME@alias``), or runs, whose best version is meant.
        from_batch: a batch, or a run of one: the best version of each of its jobs, beside ``members``.
        name: of the registered model.
        run_name: of the run that holds it.
        experiment: look for runs in this experiment only.
        take_candidate: whether it becomes the candidate in any case.
        parent_run_id: of a run that this one is part of.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: no such run or version, or the store can't be used.
        SchemaError: the members have not the same features.
        DataError: fewer than two members, one of them twice, one that is no single model, or of another quality.
        UndeliveredError: the server does not have all of it yet.
    """
    store = find_store(tracking_uri)
    versions = find_members(store, members, from_batch, experiment)
    uris = tuple(version.uri for version in versions)
    earlier = _earlier(store, name, uris)
    if earlier is not None:
        log.info("%s is an ensemble of these already", earlier.uri)
        if take_candidate:
            _take(store, earlier)
        return Ensemble(earlier.uri, str(earlier.run_id), uris, {}, earlier=True)
    with scratch("ensemble") as folder:
        found = read_members(versions, store, folder)
        weights, *others = (member.weights for member in found)
        scorer = Scorer.load(weights, weights.with_name(SCHEMA_ARTIFACT), *others)
        judged = _judged(found, scorer)
        with version_run(
            *(store, _experiment(store, versions)),
            command=ENSEMBLE,
            run_name=run_name,
            default_name=f"ensemble_of_{len(found)}",
            tags={TAG_SCHEMA_DIGEST: scorer.schema.digest, TAG_MEMBERS: " ".join(uris)},
            parent_run_id=parent_run_id,
        ) as recorder:
            made = _register(recorder, name, found, scorer.schema, judged, folder / "model")
            if judged or take_candidate:
                recorder.alias(name, CANDIDATE, made, if_better=not take_candidate)
            else:
                log.info("%s of %s stays where it is: --take-candidate takes it all the same", CANDIDATE, name)
    return Ensemble(uri_of(made, name, recorder), recorder.run_id, uris, judged.metrics if judged else {})


def _earlier(store: Store, name: str, uris: Sequence[str]) -> VersionRecord | None:
    """The version that an earlier run made of the same members."""
    runs = store.runs.tagged(TAG_MEMBERS, " ".join(uris), ENSEMBLE)
    return next(filter(None, (store.versions.best_of_run(run.run_id, name) for run in runs)), None)


def _take(store: Store, version: VersionRecord) -> None:
    holder = store.versions.with_alias(version.name, CANDIDATE)
    store.versions.move_alias(
        *(version.name, CANDIDATE, version.number), expected=holder.number if holder else None, tags={}
    )
    log.info("%s of %s is version %s", CANDIDATE, version.name, version.number)


def _experiment(store: Store, versions: Sequence[VersionRecord]) -> str:
    """That of a member's run, so that they stand side by side."""
    run = next(filter(None, (store.runs.known(version.run_id) for version in versions)), None)
    return TrainConfig().mlflow.experiment if run is None else store.runs.experiment_name(run.experiment_id)


def _judged(members: Sequence[Member], scorer: Scorer) -> Judged | None:
    try:
        return judge_together(members, scorer)
    except UserInputError as error:
        log.warning("the ensemble is not judged (%s): topotrain evaluate does, on other data", error)
        return None


def _register(
    recorder: Recorder,
    name: str,
    members: Sequence[Member],
    schema: FeatureSchema,
    judged: Judged | None,
    folder: Path,
) -> NewVersion:
    """Record what it is made of and how it does, and make the version."""
    recipe = _recipe(recorder, name, members, judged)
    recorder.text(schema.to_json(), SCHEMA_ARTIFACT)
    recorder.json(recipe["members"], MEMBERS_ARTIFACT)
    recorder.summary(_summary(name, members, judged))
    validation = {VALIDATION_PARAMETER: judged.label_digest} if judged else {}
    recorder.params({**_parameters(recipe, schema), **validation}, see=MEMBERS_ARTIFACT)
    tags = {
        "run_id": recorder.run_id,
        "rank": "1",
        "schema_digest": schema.digest,
        TAG_NUM_MEMBERS: str(len(members)),
        **({} if schema.label_column == DOCKQ_COLUMN else {TAG_LABEL_COLUMN: schema.label_column}),
    }
    if judged is not None:
        best = {BEST_OF[metric]: judged.metrics[metric] for metric in BEST_OF}
        recorder.metrics({**judged.metrics, **best}, step=STEP)
        tags |= {metric: repr(judged.metrics[metric]) for metric in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC)}
        tags |= {TAG_RANKED_BY: judged.scale, TAG_VALIDATION_DIGEST: judged.label_digest}
    example = judged.example if judged else two_residues(schema)
    trees = members[0].weights.with_name(TREES_ARTIFACT) if "baselines" in recipe else None
    trees = trees if trees and trees.is_file() else None
    files = export_ensemble([member.weights for member in members], schema, example, folder, recipe, trees)
    return recorder.version(files, name, title=f"{name}-ensemble-of-{len(members)}", step=STEP, tags=tags)


def _recipe(recorder: Recorder, name: str, members: Sequence[Member], judged: Judged | None) -> dict[str, Any]:
    """As that of a single model: what all members share stands where it stands there."""
    shared = in_common(*(member.config for member in members))
    splits = {split: common_split(members, split) for split in ("train", "val")}
    recipe: dict[str, Any] = {
        **base_recipe(recorder, name),
        "members": [member.to_dict(shared) for member in members],
        "config": shared,
        "data": {split: facts for split, facts in splits.items() if facts},
    }
    if splits["train"] is None:
        recipe["data"] |= learned_together(members)
    if all(splits.values()):  # what costs nothing learned from the same, too
        recipe["baselines"] = members[0].recipe.get("baselines", {})
        recipe["data"]["warnings"] = members[0].recipe["data"].get("warnings", [])
    folds = out_of_fold(members)
    recipe |= {"out_of_fold": folds} if folds else {}
    if judged is not None:
        recipe["metrics"] = judged.metrics
        recipe["first_choice"] = judged.report.first_choice
        recipe["within_target_error"] = judged.report.within_target_error
        recipe["spread"] = judged.spread.to_dict()
        recipe |= {"against_baselines": judged.against} if judged.against else {}
    return recipe


def _summary(name: str, members: Sequence[Member], judged: Judged | None) -> str:
    """For the run's page: what it is, how it does, and the command that makes it."""
    uris = [member.version.uri for member in members]
    figures = (
        ", ".join(f"{metric} {judged.metrics[metric]:.4f}" for metric in (VAL_LOSS, VAL_SPEARMAN)) if judged else ""
    )
    judgement = (
        f"On the validation data that they share: {figures}." if judged else "It was not judged when it was made."
    )
    command = shlex.join(["topotrain", "ensemble", *uris, "--name", name])
    return f"An ensemble of {len(uris)} models.\n\n{judgement}\n\n```bash\n{command}\n```\n"


def _parameters(recipe: Mapping[str, Any], schema: FeatureSchema) -> dict[str, str]:
    """As those of a training run, as far as all members share them."""
    data = recipe["data"]
    counts = {f"data.num_{split}": str(data[split]["num_graphs"]) for split in ("train", "val") if split in data}
    own = {**schema.parameters(), LABEL_PARAMETER: schema.label_column, "ensemble.members": str(len(recipe["members"]))}
    each = [member["train_graphs"] for member in recipe["members"]]
    folds = {MEMBERS_GRAPHS: least_to_most(each)} if "train_targets" in data else {}
    return {**flat_values(recipe["config"]), **counts, **folds, **own}
