#!/usr/bin/env python
"""Make the model version of an earlier topotrain that the tests load: ``tests/data/version_0_1.*``.

It was made once, with the code of that time (``PYTHONPATH=CHECKOUT/src python scripts/make_version_fixture.py``), and
is not made again: what it holds is that versions made then still load and score the same.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "version_0_1"
NUM_SCORED = 4
OVERRIDES = ["trainer.num_epochs=10", "model.hidden_dim=8", "checkpoints.keep=1", "optimizer.learning_rate=0.03"]
# Where it was made: parts of recipe.json, and the heading of the card from which on it is of no use to a test.
WHERE_IT_WAS_MADE = ("system", "code", "packages")
MADE_WITH = "## What it was made with"
# Of the code that versions carried then, what loading and scoring never touch; with it the file is twice as large.
NEVER_IMPORTED = ("features", "reports", "training", "cli.py")


def main() -> None:
    """Train on a small graph set, and keep the version's folder with the scores of some graphs."""
    import mlflow
    import pandas as pd

    import topotrain

    kit = _tests_kit()
    with tempfile.TemporaryDirectory(prefix="topotrain-version-") as name:
        folder = Path(name)
        kit.write_graph_set(folder / "set")
        graph_set = kit.GraphSet(folder / "set")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        topotrain.fit(overrides=[*graph_set.overrides, *OVERRIDES], tracking_uri=uri)
        mlflow.set_tracking_uri(uri)
        version = Path(
            mlflow.artifacts.download_artifacts("models:/topoqa@candidate", dst_path=str(folder / "version"))
        )
        graphs = _scored_graphs(graph_set)
        answer = mlflow.pyfunc.load_model(str(version)).predict(pd.DataFrame({"graph": graphs}))
        assert answer["error"].isna().all(), answer
        expected = {"graphs": graphs, "scores": answer["pred_dockq"].tolist()}
        _keep(version, ROOT / "tests" / "data", expected, checkout=str(Path(topotrain.__file__).parents[2]))


def _scored_graphs(graph_set: Any) -> list[str]:
    """Graphs as the served model takes them, each with what the sidecar says of it."""
    from dataclasses import replace

    encode_graph = importlib.import_module("topotrain.scoring.predict").encode_graph  # as it was called then

    from topotrain.data.graph_file import read_graph

    described = json.loads(graph_set.sidecar.read_text())
    graphs = []
    for path in sorted(graph_set.graphs.rglob("*.pt"))[:NUM_SCORED]:
        entry = dict(described[path.relative_to(graph_set.graphs).with_suffix("").as_posix()])
        entry["edge_info"] = entry.pop("edge_metadata")
        graphs.append(encode_graph(replace(read_graph(path), metadata=entry)))
    return graphs


def _keep(version: Path, data: Path, expected: dict[str, Any], checkout: str) -> None:
    for cache in list(version.rglob("__pycache__")):
        shutil.rmtree(cache)
    recipe = version / "artifacts" / "recipe.json"
    content = json.loads(recipe.read_text())
    recipe.write_text(json.dumps({key: value for key, value in content.items() if key not in WHERE_IT_WAS_MADE}))
    card = version / "artifacts" / "README.md"
    card.write_text(card.read_text().partition(MADE_WITH)[0])
    for name in NEVER_IMPORTED:
        path = version / "code" / "topotrain" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    about = version / "MLmodel"
    about.write_text(about.read_text().replace(checkout, "/checkout"))
    data.mkdir(exist_ok=True)
    (data / f"{NAME}.json").write_text(json.dumps(expected, indent=1) + "\n")
    with tarfile.open(data / f"{NAME}.tar.xz", "w:xz", preset=9) as archive:
        archive.add(version, NAME, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _tests_kit() -> Any:
    spec = importlib.util.spec_from_file_location("tests_kit", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    return kit


if __name__ == "__main__":
    main()
