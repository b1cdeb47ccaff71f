"""A trained network as the files of a model version."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pandas as pd

import topotrain
from topotrain.data.graph_file import Graph
from topotrain.fields import SCHEMA_ARTIFACT
from topotrain.model.network import TopoQANetwork
from topotrain.schema import FeatureSchema
from topotrain.scoring.predict import encode_graph, save_weights
from topotrain.tracking.registry import ModelFiles

# What loading and scoring import; a version pins what it was trained with.
REQUIRED = (
    "mlflow",
    "torch",
    "torch-geometric",
    "numpy",
    "pandas",
    "scipy",
    "safetensors",
    "pydantic",
    "pyyaml",
)


def export_model(network: TopoQANetwork, schema: FeatureSchema, example: Graph, folder: Path) -> ModelFiles:
    """Write weights and schema, and gather what the served model needs to stand alone.

    Args:
        network: the trained network.
        schema: what it was trained on.
        example: a graph for the input example.
        folder: an empty folder for the files, which must stay until the model is logged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, schema_path = folder / "weights.safetensors", folder / SCHEMA_ARTIFACT
    save_weights(network, weights)
    schema_path.write_text(schema.to_json(), encoding="utf-8")
    return ModelFiles(
        loader=Path(__file__).with_name("served.py"),
        code=_package_copy(folder.parent),
        artifacts={"weights": weights, "schema": schema_path},
        requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in REQUIRED],
        input_example=pd.DataFrame({"graph": [encode_graph(example)]}),
    )


def _package_copy(folder: Path) -> Path:
    """The package's code alone, without caches and data."""
    target = folder / "topotrain"
    if not target.exists():
        source = Path(topotrain.__file__).parent
        shutil.copytree(source, target, ignore=_all_but_code)
    return target


def _all_but_code(folder: str, names: list[str]) -> set[str]:
    return {n for n in names if n == "__pycache__" or not (n.endswith(".py") or (Path(folder) / n).is_dir())}
