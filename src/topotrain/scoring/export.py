"""A trained network as the files of a model version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from topotrain.data.graph_file import Graph
from topotrain.fields import (
    CARD_ARTIFACT,
    MEMBER_ARTIFACT,
    RECIPE_ARTIFACT,
    SCHEMA_ARTIFACT,
    TREES_ARTIFACT,
    WEIGHTS_ARTIFACT,
    predicted_name,
    spread_name,
)
from topotrain.metrics.trees import Trees
from topotrain.model.network import TopoQANetwork
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.card import model_card
from topotrain.scoring.closure import PACKAGE, import_closure
from topotrain.scoring.scorer import save_weights
from topotrain.scoring.wire_format import encode_graph
from topotrain.text import as_json
from topotrain.tracking.logged_models import ModelFiles

LOADER = PACKAGE / "scoring" / "served.py"


def export_model(
    network: TopoQANetwork,
    schema: FeatureSchema,
    example: Graph,
    folder: Path,
    recipe: Mapping[str, Any],
    trees: Trees | None = None,
) -> ModelFiles:
    """Write weights, schema, recipe and model card, and gather what the served model needs to stand alone.

    Args:
        network: the trained network.
        schema: what it was trained on.
        example: a graph for the input example.
        folder: an empty folder for the files, which must stay until the model is logged.
        recipe: how it was made, as plain values.
        trees: the baseline that learned from the same graphs, where there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_ARTIFACT
    save_weights(network, weights)
    if trees is not None:
        (folder / TREES_ARTIFACT).write_text(json.dumps(trees.to_dict()), encoding="utf-8")
    return _model_files([weights], schema, example, folder, recipe)


def export_ensemble(
    members: Sequence[Path],
    schema: FeatureSchema,
    example: Graph,
    folder: Path,
    recipe: Mapping[str, Any],
    trees: Path | None = None,
) -> ModelFiles:
    """As ``export_model``, for several networks of which there are weights: these are copied as they are.

    Args:
        members: the weights.
        schema: what all of them take.
        example: as there.
        folder: as there.
        recipe: as there.
        trees: of the baseline that learned from the same graphs as all members, where there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = []
    for number, path in enumerate(members, start=1):
        weights.append(folder / MEMBER_ARTIFACT.format(number=number, total=len(members)))
        shutil.copyfile(path, weights[-1])
    if trees is not None:
        shutil.copyfile(trees, folder / TREES_ARTIFACT)
    return _model_files(weights, schema, example, folder, recipe)


def two_residues(schema: FeatureSchema) -> Graph:
    """Two residues in contact, every feature zero: what a served model takes, not what it is good for."""
    edge_index = torch.tensor([[0, 1], [1, 0]])
    return Graph("example", torch.zeros(2, schema.node_dim), edge_index, torch.zeros(2, schema.edge_dim))


def _model_files(
    weights: Sequence[Path], schema: FeatureSchema, example: Graph, folder: Path, recipe: Mapping[str, Any]
) -> ModelFiles:
    texts = {
        "schema": (SCHEMA_ARTIFACT, schema.to_json()),
        "recipe": (RECIPE_ARTIFACT, as_json(recipe)),
        "card": (CARD_ARTIFACT, model_card(recipe, schema)),
    }
    for name, text in texts.values():
        (folder / name).write_bytes(text.encode("utf-8", "replace"))  # a file name need not be UTF-8
    needed, column = import_closure(LOADER), schema.label_column
    return ModelFiles(
        loader=LOADER,
        code=_copy(needed.files, folder.parent),
        artifacts={
            **{path.stem: path for path in weights},
            **{key: folder / name for key, (name, _) in texts.items()},
            **({"trees": folder / TREES_ARTIFACT} if (folder / TREES_ARTIFACT).is_file() else {}),
        },
        requirements=needed.requirements(),
        input_example=pd.DataFrame({"graph": [encode_graph(example)]}),
        outputs=(predicted_name(column), *([spread_name(column)] if len(weights) > 1 else [])),
    )


def _copy(files: Sequence[Path], folder: Path) -> Path:
    """The package as far as the served model imports it."""
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE.parent / path, target)
    return folder / PACKAGE.name
