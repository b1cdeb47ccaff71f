"""A model version to a scorer."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.errors import DataError
from topotrain.fields import (
    MEMBER_ARTIFACT,
    MODEL_FILES,
    RECIPE_ARTIFACT,
    SCHEMA_ARTIFACT,
    STARTER,
    TREES_ARTIFACT,
    WEIGHTS_ARTIFACT,
)
from topotrain.metrics.trees import WRITTEN, Trees
from topotrain.reading.json_file import read_json
from topotrain.scoring.scorer import Scorer
from topotrain.tracking.in_words import version_in_words, version_name
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.store import Store, fetch_checked, store_of_model
from topotrain.tracking.versions import CANDIDATE, CHAMPION, DEFAULT_NAME

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class LoadedModel:
    """A model version, ready to score.

    Attributes:
        scorer: its networks and schema.
        uri: its URI, the local folder, or ``starter``.
        name: in words.
        recipe: what it was made from; empty where its files do not say.
        line: which it is, what it learned from, how it was judged; "" for a local folder.
    """

    scorer: Scorer
    uri: str
    name: str
    recipe: Mapping[str, Any]
    line: str = ""


def load_model(model: str | None, tracking_uri: str | None) -> LoadedModel:
    """As ``load_scorer``, from the store that the model is on, with what the version says of itself.

    Args:
        model: as for ``find_version``.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: no such model, or no such store.
        DataError: it is no model of topotrain.
    """
    store, uri, version = find_version(model, tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        files = fetch_files(uri, store, Path(folder))
        scorer, recipe = scorer_of_files(files, uri), _recipe(files)
    if version is None or store is None:
        return LoadedModel(scorer, uri, "the starter model" if uri == STARTER else f"the model {uri}", recipe)
    return LoadedModel(scorer, uri, version_name(version), recipe, version_in_words(version, store))


def find_version(model: str | None, tracking_uri: str | None) -> tuple[Store | None, str, VersionRecord | None]:
    """Which model is meant; where none is named and the store has none to choose, one line says so.

    Args:
        model: a URI, a local folder, or ``starter`` for the model that comes with topotrain; by default the store's
            champion, else its candidate, else the starter, which is used without a store too.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Returns:
        The store that it is on, its URI or folder, and its version where it is one.

    Raises:
        TrackingError: no such store.
    """
    store = store_of_model(model, tracking_uri)
    if model is not None:
        return store, model, store.versions.loaded(model) if store else None
    version = store.versions.default() if store else None
    if version is not None:
        return store, version.uri, version
    missing = "there is no tracking store here"
    if store is not None:
        names = ", ".join(store.versions.names()) or "none"
        missing = f"no version of {DEFAULT_NAME} is {CHAMPION} or {CANDIDATE} (registered models: {names})"
    log.info("%s: the starter model that comes with topotrain is used", missing)
    return None, STARTER, None


def _recipe(files: Path) -> Mapping[str, Any]:
    try:
        recipe: Mapping[str, Any] = read_json(files / RECIPE_ARTIFACT, RECIPE_ARTIFACT)
    except DataError:  # of a version made before there were recipes
        return {}
    return recipe


def scorer_of(model: str | None, tracking_uri: str | None) -> tuple[Scorer, str]:
    """The scorer and the URI of :func:`load_model`; one line says which model it is.

    Args:
        model: as there.
        tracking_uri: as there.

    Raises:
        TrackingError: no such model, or no such store.
        DataError: it is no model of topotrain.
    """
    loaded = load_model(model, tracking_uri)
    if loaded.line:
        log.info(loaded.line)
    return loaded.scorer, loaded.uri


def load_scorer(model: str, store: Store | None) -> Scorer:
    """Load a model version's networks and schema; nothing is unpickled.

    A version whose files are not those that were registered is refused; one that was registered without their digest
    is taken, and a line says so.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID``, ``starter`` or a local folder.
        store: that the model is on; a local folder needs none.

    Raises:
        TrackingError: no such model, or its files were changed since.
        DataError: it is no model of topotrain.
    """
    with tempfile.TemporaryDirectory() as folder:
        return scorer_of_files(fetch_files(model, store, Path(folder)), model)


def fetch_files(model: str, store: Store | None, folder: Path) -> Path:
    """Where a model version's files are, those that it was registered with; as for ``load_scorer``."""
    files, verified = fetch_checked(model, store, folder)
    if verified is None and store is not None:
        log.info("%s was registered without a digest of its files: whether they are the same is not known", model)
    return files / MODEL_FILES


def scorer_of_files(files: Path, model: str) -> Scorer:
    """The networks and the schema in a model's files.

    Args:
        files: the folder of schema and weights.
        model: names it.

    Raises:
        DataError: it is no model of topotrain.
    """
    schema, weights, *others = _parts(files)
    for path in (weights, schema, *others):
        if not path.is_file():
            raise DataError(f"model {model!r} has no {path.name}", "a model version made by topotrain")
    return Scorer.load(weights, schema, *others)


def trees_of_files(files: Path) -> Trees | None:
    """The boosted trees that learned from a model's training graphs; ``None`` where it carries none.

    Raises:
        DataError: they are malformed.
    """
    path = files / TREES_ARTIFACT
    return Trees.from_dict(read_json(path, WRITTEN), str(path)) if path.is_file() else None


def _parts(folder: Path) -> list[Path]:
    """What a model is made of: its schema and its weights, or those of every member of an ensemble."""
    members = sorted(folder.glob(MEMBER_ARTIFACT.format(number="*", total="*")))
    totals = {path.stem.rpartition("_")[2] for path in members}  # a member that is missing would change every score
    if members and totals != {str(len(members))}:
        what = f"{folder}: holds {len(members)} members of an ensemble of {' or '.join(sorted(totals))}"
        raise DataError(what, "all members of one ensemble")
    return [folder / SCHEMA_ARTIFACT, *(members or [folder / WEIGHTS_ARTIFACT])]
