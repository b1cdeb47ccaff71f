"""A trained network as the files of a model version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from topotrain.data.graph_file import Graph
from topotrain.fields import (
    CARD_ARTIFACT,
    RECIPE_ARTIFACT,
    SCHEMA_ARTIFACT,
    TREES_ARTIFACT,
    WEIGHTS_ARTIFACT,
    predicted_name,
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
    texts = {
        "schema": (SCHEMA_ARTIFACT, schema.to_json()),
        "recipe": (RECIPE_ARTIFACT, as_json(recipe)),
        "card": (CARD_ARTIFACT, model_card(recipe, schema)),
    }
    if trees is not None:
        texts["trees"] = (TREES_ARTIFACT, json.dumps(trees.to_dict()))
    for name, text in texts.values():
        (folder / name).write_bytes(text.encode("utf-8", "replace"))  # a file name need not be UTF-8
    needed = import_closure(LOADER)
    return ModelFiles(
        loader=LOADER,
        code=_copy(needed.files, folder.parent),
        artifacts={"weights": weights, **{key: folder / name for key, (name, _) in texts.items()}},
        requirements=needed.requirements(),
        input_example=pd.DataFrame({"graph": [encode_graph(example)]}),
        output=predicted_name(schema.label_column),
    )


def _copy(files: Sequence[Path], folder: Path) -> Path:
    """The package as far as the served model imports it."""
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE.parent / path, target)
    return folder / PACKAGE.name
