"""Checkpoints of the original networks to registered model versions that score as they did."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from topotrain.config import TrainConfig
from topotrain.errors import DataError, SchemaError
from topotrain.fields import SCHEMA_ARTIFACT, TAG_SCHEMA_DIGEST
from topotrain.model.checkpoint import load_plain
from topotrain.model.network import TopoQANetwork
from topotrain.model.original import load_original
from topotrain.reading.json_file import read_json
from topotrain.schema.check import check_fits
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.export import export_model, two_residues
from topotrain.scoring.recipe import base_recipe
from topotrain.scoring.version_run import uri_of, version_run
from topotrain.scratch import scratch
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.recorder import NewVersion, Recorder
from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")
UNNAMED = "the columns have no names"
EXPECTED = "a Lightning checkpoint of an original TopoQA network"
KEEP_WEIGHTS = (
    "if you trust the file, keep its weights alone: "
    "ckpt = torch.load(FILE, weights_only=False); torch.save({'state_dict': ckpt['state_dict']}, NEW_FILE)"
)


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        version: ``models:/NAME/VERSION``.
        run_id: of the run that holds it.
    """

    version: str
    run_id: str


def import_checkpoint(
    path: Path,
    model_name: str,
    *,
    pooling: str | None = None,
    metadata: Path | None = None,
    tracking_uri: str | None = None,
) -> Imported:
    """Register the network of an original checkpoint.

    Args:
        path: the checkpoint; widths, heads and layer norm are read from its weights.
        model_name: of the registered model.
        pooling: ``mean``, ``add`` or ``max``; by default what the checkpoint says, else ``mean``.
        metadata: ``feature_metadata.json``; by default what the checkpoint carries, else widths alone.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        DataError: no checkpoint of such a network; what is wrong with it is said.
        SchemaError: the metadata are not those of the weights.
        TrackingError: the store can't be used.
    """
    content = load_plain(path, EXPECTED, KEEP_WEIGHTS)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise DataError(f"{path}: holds no state_dict", EXPECTED)
    try:
        network = load_original(weights, pooling or _pooling(content))
        schema = _schema(path, content, metadata, network)
    except DataError as error:
        raise DataError(f"{path}: {error.what}", error.expected, error.do) from None
    network.requires_grad_(False)
    uri = resolve_tracking_uri(tracking_uri, None, log.info)
    name, tags = f"import_{path.stem}", {TAG_SCHEMA_DIGEST: schema.digest}
    experiment = TrainConfig().mlflow.experiment
    with version_run(
        Store.open(uri), experiment, command="import", run_name=name, default_name=name, tags=tags
    ) as recorder:
        version = _register(recorder, path, content, model_name, network, schema)
    return Imported(uri_of(version, model_name, recorder), recorder.run_id)


def _pooling(content: Mapping[str, Any]) -> str:
    for section in ("model_hyperparameters", "hyper_parameters"):
        stated = content.get(section)
        if isinstance(stated, Mapping) and isinstance(stated.get("pooling_type"), str):
            return str(stated["pooling_type"])
    log.warning("the checkpoint does not say how it pools; mean is taken (--pooling says otherwise)")
    return "mean"


def _schema(path: Path, content: Mapping[str, Any], metadata: Path | None, network: TopoQANetwork) -> FeatureSchema:
    """The given metadata, else the checkpoint's own, else widths alone; held against the weights."""
    spec = network.spec
    source, stated = f"{path} (feature_metadata)", content.get("feature_metadata")
    if metadata is not None:
        source, stated = str(metadata), read_json(metadata, SCHEMA_ARTIFACT, SchemaError)
    if stated is None:
        log.warning(
            UNNAMED + ": graphs will be checked for %d node and %d edge columns alone", spec.node_dim, spec.edge_dim
        )
        return FeatureSchema(
            node_dim=spec.node_dim,
            edge_dim=spec.edge_dim,
            edge_source="weights",
            node_source="weights",
            use_layer_norm=spec.use_layer_norm,
            notes=(f"widths come from the weights of {path.name}: {UNNAMED}",),
        )
    if not isinstance(stated, Mapping):
        raise SchemaError(f"{source}: holds a {type(stated).__name__}", SCHEMA_ARTIFACT)
    schema = FeatureSchema.from_dict(stated, source)
    check_fits(
        *(FeatureSchema(node_dim=spec.node_dim, edge_dim=spec.edge_dim), schema, source),
        of="weights",
        beside="metadata",
        wanted="the metadata that the network was trained with",
    )
    return replace(schema, use_layer_norm=spec.use_layer_norm)


def _register(
    recorder: Recorder,
    path: Path,
    content: Mapping[str, Any],
    model_name: str,
    network: TopoQANetwork,
    schema: FeatureSchema,
) -> NewVersion:
    origin: dict[str, Any] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    origin |= {name: content[name] for name in ("epoch", "global_step") if isinstance(content.get(name), int)}
    recorder.text(schema.to_json(), SCHEMA_ARTIFACT)
    recorder.params({**schema.parameters(), "model.pooling_type": network.spec.pooling_type}, see=SCHEMA_ARTIFACT)
    recipe = {**base_recipe(recorder, model_name), "checkpoint": origin, "network": network.spec.to_dict()}
    tags = {
        "run_id": recorder.run_id,
        "schema_digest": schema.digest,
        "imported_from": path.name,
        "checkpoint_sha256": origin["sha256"],
        "pooling_type": network.spec.pooling_type,
    }
    with scratch("import") as folder:
        files = export_model(network, schema, two_residues(schema), folder / "model", recipe)
        version = recorder.version(files, model_name, title=f"{model_name}-imported", step=0, tags=tags)
    return version
