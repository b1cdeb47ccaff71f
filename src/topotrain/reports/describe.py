"""A model version's story, by its own files and tags alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topotrain.credentials import mask_values
from topotrain.errors import DataError
from topotrain.fields import CARD_ARTIFACT, MODEL_FILES, RECIPE_ARTIFACT, SCHEMA_ARTIFACT, TAG_FILES
from topotrain.reading.json_file import read_json
from topotrain.schema.feature_schema import FeatureSchema

if TYPE_CHECKING:
    from topotrain.tracking.store import Store

SHOWN_DIGEST = 8  # characters

OURS = "a model version made by topotrain"


def describe(model: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Everything that a model version says of itself; the run that made it need not be there any more.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, a local folder or ``starter``.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Returns:
        ``model``, what the server says, ``schema``, ``recipe`` and ``card``; the last two are
        ``None`` for a version that carries none.

    Raises:
        TrackingError: no such model.
        DataError: it is no model of topotrain.
        SchemaError: its schema is malformed.
    """
    from topotrain.tracking.store import fetch_model, store_of_model

    store = store_of_model(model, tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        files = fetch_model(model, store, Path(folder)) / MODEL_FILES
        schema, recipe = (_json(files / name) for name in (SCHEMA_ARTIFACT, RECIPE_ARTIFACT))
        if schema is None:
            raise DataError(f"model {model!r} has no {SCHEMA_ARTIFACT}", OURS)
        FeatureSchema.from_dict(schema)  # refuses one that is malformed
        card = files / CARD_ARTIFACT
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    registered = _version_entry(store, model) if store else {}
    document = {"model": model, **registered, "schema": schema, "recipe": recipe, "card": text}
    shown: dict[str, Any] = mask_values(document)
    return shown


def _version_entry(store: Store, model: str) -> dict[str, Any]:
    """What the server says of a version, as plain values; nothing where it knows none of that URI."""
    version = store.versions.of_uri(model)
    if version is None:
        return {}
    return {
        "name": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "tags": dict(sorted(version.tags.items())),
        "created": version.created.isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "model_id": version.model_id,
        "metrics": [asdict(one) for one in store.versions.logged_metrics(version)],
    }


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = read_json(path, OURS, name=path.name)
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: holds a {type(content).__name__}", OURS)
    return content


def story(document: Mapping[str, Any]) -> str:
    """What ``describe`` found, as Markdown: the server's word, then the card, then the configuration."""
    return "\n".join([*_registered(document), *_card(document), *_configuration(document)]) + "\n"


def _registered(document: Mapping[str, Any]) -> Iterator[str]:
    if "version" not in document:
        yield f"{document['model']}: not a registered version"
        yield ""
        return
    aliases = ", ".join(document["aliases"]) or "none"
    yield f"{document['model']} is version {document['version']} of {document['name']} (aliases: {aliases})"
    yield f"created {document['created']}, run {document['run_id']}"
    yield ""
    tags = [(name, value) for name, value in document["tags"].items() if name != TAG_FILES]  # long, for programs
    for title, rows in (("Tags", tags), ("Metrics", list(_metric_rows(document)))):
        if rows:
            width = max(len(name) for name, _ in rows)
            yield f"{title}:"
            yield from (f"  {name:<{width}}  {value}" for name, value in rows)
            yield ""


def _metric_rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for metric in document["metrics"]:
        on = f" on {metric['dataset']} ({metric['dataset_digest'][:SHOWN_DIGEST]})" if metric["dataset"] else ""
        yield f"{metric['name']}{on}", f"{metric['value']:.6g}"


def _card(document: Mapping[str, Any]) -> Iterator[str]:
    if document["card"] is not None:
        yield document["card"].rstrip()
        return
    schema = document["schema"]
    yield "This version carries no model card."
    yield f"It takes {schema['node_schema']['dim']} node and {schema['edge_schema']['dim']} edge columns."


def _configuration(document: Mapping[str, Any]) -> Iterator[str]:
    config = (document["recipe"] or {}).get("config")
    if config:
        import yaml

        yield from ("", "## Configuration", "", "```yaml")
        yield yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
        yield "```"
