"""A version made by topotrain 0.1 (``scripts/make_version_fixture.py``) loads and scores as it did then."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from kit.served import score_alone
from topotrain.cli import main
from topotrain.scoring.load import load_scorer
from topotrain.scoring.wire_format import decode_graph

DATA = Path(__file__).resolve().parents[1] / "data"
MADE = json.loads((DATA / "version_0_1.json").read_text())
SCORES = pytest.approx(MADE["scores"], abs=1e-9)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(DATA / "version_0_1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "version_0_1"


def test_it_is_what_was_made_then(version):
    assert len(set(MADE["scores"])) == len(MADE["graphs"]) == 4
    assert "from topotrain.scoring.predict import" in (version / "served.py").read_text()
    assert (version / "code" / "topotrain" / "scoring" / "predict.py").is_file()


def test_with_its_own_code_in_a_process_without_the_checkout(version, tmp_path):
    answer = score_alone(str(version), {"graph": MADE["graphs"]}, tmp_path)
    assert Path(answer["code"]).is_relative_to(version)
    assert answer["scores"]["graph"] == {"pred_dockq": SCORES, "error": [None] * 4}
    assert answer["unpickled"] == []


def test_in_a_process_that_runs_the_code_of_today(version):
    """Its ``served.py`` then imports, by the names of its time, what scores today."""
    import mlflow

    answer = mlflow.pyfunc.load_model(str(version)).predict(pd.DataFrame({"graph": MADE["graphs"]}))
    assert answer["pred_dockq"].tolist() == SCORES
    assert answer["error"].tolist() == [None] * 4


def test_by_the_scorer_and_by_predict(version, tmp_path, capsys):
    graphs = [decode_graph(text, f"T0/m{number}") for number, text in enumerate(MADE["graphs"])]
    assert load_scorer(str(version), None).score(graphs) == SCORES
    for graph in graphs:
        path = tmp_path / "graphs" / f"{graph.key}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Any] = {"x": graph.x, "edge_index": graph.edge_index, "edge_attr": graph.edge_attr}
        torch.save(Data(**parts, metadata=dict(graph.metadata)), path)
    out = tmp_path / "scores.csv"
    main(["predict", "--model", str(version), "--graphs", str(tmp_path / "graphs"), "--out", str(out)])
    capsys.readouterr()
    rows = list(csv.DictReader(out.open()))
    assert [row["MODEL"] for row in rows] == [graph.key for graph in graphs]
    assert [float(row["PRED_DOCKQ"]) for row in rows] == pytest.approx(MADE["scores"], abs=5e-7)
