"""``predict``: a directory of graphs to a table, held to the model's schema, the same whatever the batch size."""

from __future__ import annotations

import csv
import json
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from torch_geometric.data import Data

from kit.commands import exit_status
from kit.recorded import point_mlflow_at
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.stored_schema import inspect_directory
from topotrain.scoring import directory_scores
from topotrain.scoring.load import load_scorer
from topotrain.scoring.scorer import Scorer

MODEL = "models:/topoqa@candidate"
CHECKED = "were checked by width alone"


@pytest.fixture(scope="module")
def model_dir(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the candidate, as a user may have copied them to a machine without a store."""
    from mlflow.artifacts import download_artifacts

    point_mlflow_at(finished.uri)
    return Path(download_artifacts(MODEL, dst_path=str(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def scorer(model_dir: Path) -> Scorer:
    return load_scorer(str(model_dir), None)


@pytest.fixture
def predict(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command; returns exit status and standard error, and holds standard output to be empty."""

    def run(*arguments: Any, model: Any = model_dir) -> tuple[int, str]:
        status = exit_status("predict", "--model", model, *arguments)
        told = capsys.readouterr()
        assert told.out == ""
        return status, told.err

    return run


@pytest.fixture
def copied(finished: Any, tmp_path: Path) -> Any:
    """The graphs that the model was trained on, in a place where they may be changed."""
    root = tmp_path / "copied"
    shutil.copytree(finished.graph_set.root, root)
    return type(finished.graph_set)(root)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refused(outcome: tuple[int, str], out: Path, *words: str) -> None:
    status, told = outcome
    assert status == 2, told
    line = told.splitlines()[-1]
    assert line.startswith("error: ")
    assert "Traceback" not in told
    for word in words:
        assert word in line, line
    assert not out.exists()
    assert not list(out.parent.glob(".topotrain-*"))


def test_every_graph_is_scored_by_the_model_of_the_alias(predict, finished, scorer, tmp_path):
    out = tmp_path / "new" / "scores.csv"
    graphs = finished.graph_set.graphs
    status, told = predict("--graphs", graphs, "--out", out, "--tracking-uri", finished.uri, model=MODEL)
    assert status == 0, told
    targets = "T0 (4 decoys), T1 (4 decoys), T2 (4 decoys), V0 (4 decoys), V1 (4 decoys)"
    model, *rest = told.splitlines()
    assert model.startswith("topoqa version 2 (candidate): trained on 12 graphs of graphs, val_loss ")
    assert rest == [f"5 targets: {targets}", "20 graphs scored, 0 failed"]
    assert out.read_text().splitlines()[0] == "MODEL,TARGET,PRED_DOCKQ"
    rows = rows_of(out)
    keys = GraphDirectory(graphs).keys
    assert [row["MODEL"] for row in rows] == keys
    assert [row["TARGET"] for row in rows] == [key.split("/")[0] for key in keys]
    expected = scorer.score([read_graph(graphs / f"{key}.pt", key) for key in keys])
    assert [row["PRED_DOCKQ"] for row in rows] == [f"{value:.6f}" for value in expected]
    assert len(set(expected)) == len(keys)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("options", [[], ["--rank"]], ids=["plain", "ranked"])
def test_the_same_bytes_whatever_the_batch_size(predict, finished, tmp_path, kind, options):
    graphs, labels = finished.graph_set.graphs, finished.graph_set.val_labels
    tables = []
    for size in (1, 7, 64):
        out = tmp_path / f"{size}.{kind}"
        arguments = ["--graphs", graphs, "--out", out, "--batch-size", size, "--labels", labels, *options]
        assert predict(*arguments)[0] == 0
        tables.append(out.read_bytes())
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) > 400


def test_scores_of_any_batch_agree_far_below_what_is_written(scorer, finished):
    graphs = [read_graph(path) for path in sorted(finished.graph_set.graphs.rglob("*.pt"))]
    together = scorer.score(graphs)
    alone = [scorer.score([graph])[0] for graph in graphs]
    assert max(abs(a - b) for a, b in zip(together, alone, strict=True)) < 1e-12


def test_parquet_says_what_csv_says(predict, finished, tmp_path):
    for kind in ("csv", "parquet"):
        arguments = ["--graphs", finished.graph_set.graphs, "--labels", finished.graph_set.val_labels, "--rank"]
        assert predict(*arguments, "--out", tmp_path / f"t.{kind}")[0] == 0
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column_names == ["MODEL", "TARGET", "PRED_DOCKQ", "DockQ", "RANK"]
    as_text = [
        {
            **row,
            "PRED_DOCKQ": f"{row['PRED_DOCKQ']:.6f}",
            "DockQ": "" if row["DockQ"] is None else str(row["DockQ"]),
            "RANK": str(row["RANK"]),
        }
        for row in table.to_pylist()
    ]
    assert as_text == rows_of(tmp_path / "t.csv")


def test_labels_add_true_dockq_and_targets_and_lose_no_graph(predict, finished, tmp_path):
    labels, out = tmp_path / "labels.csv", tmp_path / "t.csv"
    labels.write_text("MODEL,dockq,target\nT0__m0,0.25,other\nV1/m3.pt,1,\nnobody/m0,0.5,x\n")
    status, told = predict("--graphs", finished.graph_set.graphs, "--out", out, "--labels", labels)
    assert status == 0
    assert "1 of 3 decoys have no graph: nobody/m0" in told
    assert "T0/m0 is of target other by its label" in told
    rows = {row["MODEL"]: row for row in rows_of(out)}
    assert len(rows) == 20
    assert (rows["T0/m0"]["DockQ"], rows["T0/m0"]["TARGET"]) == ("0.25", "other")
    assert (rows["V1/m3"]["DockQ"], rows["V1/m3"]["TARGET"]) == ("1.0", "V1")
    assert {row["DockQ"] for key, row in rows.items() if key not in ("T0/m0", "V1/m3")} == {""}


def test_ranks_are_those_of_the_written_scores(predict, copied, tmp_path):
    shutil.copyfile(copied.graphs / "T0" / "m0.pt", copied.graphs / "T0" / "m9.pt")  # a tie
    copied.edit_sidecar(lambda content: content.update({"T0/m9": content["T0/m0"]}))
    out = tmp_path / "t.csv"
    assert predict("--graphs", copied.graphs, "--out", out, "--rank", "--batch-size", 3)[0] == 0
    rows = rows_of(out)
    assert len(rows) == 21
    for target in ("T0", "T1", "T2", "V0", "V1"):
        mine = [row for row in rows if row["TARGET"] == target]
        assert [int(row["RANK"]) for row in mine] == list(range(1, len(mine) + 1))
        order = [(-float(row["PRED_DOCKQ"]), row["MODEL"]) for row in mine]
        assert order == sorted(order)
    tied = {row["MODEL"]: row for row in rows if row["MODEL"] in ("T0/m0", "T0/m9")}
    assert tied["T0/m0"]["PRED_DOCKQ"] == tied["T0/m9"]["PRED_DOCKQ"]
    assert int(tied["T0/m9"]["RANK"]) == int(tied["T0/m0"]["RANK"]) + 1


def test_only_a_batch_of_graphs_is_in_memory(predict, finished, tmp_path, monkeypatch):
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def watched(path: Path, key: str) -> Any:
        nonlocal most
        graph = read_graph(path, key)
        alive.add(graph.x)
        most = max(most, len(alive))
        return graph

    monkeypatch.setattr(directory_scores, "read_graph", watched)
    elsewhere = shutil.copytree(finished.graph_set.graphs, tmp_path / "graphs")
    arguments = ["--graphs", elsewhere, "--out", tmp_path / "t.csv", "--rank"]
    assert predict(*arguments, "--batch-size", 2)[0] == 0
    assert 2 <= most <= 4  # the batch being read, and at most the one before it


def test_graphs_that_are_packed_already_are_not_read_again(predict, finished, tmp_path, monkeypatch):
    graphs = shutil.copytree(finished.graph_set.graphs, tmp_path / "graphs")
    arguments = ["--graphs", graphs, "--rank", "--out"]
    assert predict(*arguments, tmp_path / "read.csv")[0] == 0
    inspect_directory(graphs)
    read: list[str] = []

    def counted(path: Path, key: str) -> Any:
        read.append(key)
        return read_graph(path, key)

    monkeypatch.setattr(directory_scores, "read_graph", counted)
    changed = graphs / "V1" / "m3.pt"
    os.utime(changed, (1_700_000_000, 1_700_000_000))
    assert predict(*arguments, tmp_path / "packed.csv")[0] == 0
    assert read == ["V1/m3"]
    assert (tmp_path / "packed.csv").read_bytes() == (tmp_path / "read.csv").read_bytes()


def _swap_node_columns(content: dict[str, Any]) -> None:
    for key, entry in content.items():
        if key != "_builder":
            entry["node_feature_columns"] = ["n1", "n0", "n2", "n3", "n4"]


def _rename_edge_column(content: dict[str, Any]) -> None:
    content["V1/m3"]["edge_feature_columns"] = ["e0", "e1", "surprise"]


def _each(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: [entry.update(changes) for key, entry in content.items() if key != "_builder"] and None


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_swap_node_columns, ["T0/m0", "node columns", "another order", "column 0"]),
        (_rename_edge_column, ["V1/m3", "missing", "e2", "unexpected", "surprise"]),
        (_each(edge_module="edge/other/v2"), ["edge module: 'edge/test/v1' against 'edge/other/v2'"]),
        (_each(edge_params={"cutoff": 8.0, "jobs": 4}), ['"cutoff": 10.0', '"cutoff": 8.0']),
        (_each(edge_metadata={"edge_feature_variant": "test_9"}), ["'test_3' against 'test_9'"]),
        (_each(edge_metadata={"feature_dim": 9}), ["9", "tensors have 3"]),
    ],
    ids=["order", "name", "module", "parameters", "variant", "width"],
)
def test_other_features_are_refused_with_both_sides(predict, copied, tmp_path, edit, words):
    copied.edit_sidecar(edit)
    out = tmp_path / "t.csv"
    refused(predict("--graphs", copied.graphs, "--out", out, "--allow-unverified"), out, *words)


def test_execution_settings_are_no_difference(predict, copied, tmp_path):
    copied.edit_sidecar(_each(edge_params={"cutoff": 10, "jobs": 99}))
    assert predict("--graphs", copied.graphs, "--out", tmp_path / "t.csv")[0] == 0


def test_other_widths_and_a_file_s_own_word(predict, copied, make_graph_set, tmp_path):
    out = tmp_path / "t.csv"
    wide = make_graph_set("wide", node_dim=6)
    refused(predict("--graphs", wide.graphs, "--out", out), out, "node dim: 5 against 6", "unexpected", "n5")
    bare = make_graph_set("bare", edge_dim=4, sidecar=False)
    refused(predict("--graphs", bare.graphs, "--out", out, "--allow-unverified"), out, "edge dim: 3 against 4")
    path = copied.graphs / "V0" / "m0.pt"
    graph = read_graph(path)
    own = {"edge_module": "edge/liar/v1"}
    torch.save(Data(x=graph.x, edge_index=graph.edge_index, edge_attr=graph.edge_attr, metadata=own), path)
    refused(predict("--graphs", copied.graphs, "--out", out), out, "V0/m0", "edge/liar/v1", "edge/test/v1")


def test_a_refusal_leaves_an_earlier_table_alone(predict, copied, tmp_path):
    out = tmp_path / "t.csv"
    out.write_text("earlier")
    copied.edit_sidecar(_rename_edge_column)
    assert predict("--graphs", copied.graphs, "--out", out)[0] == 2
    assert out.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.glob("*t.csv*")) == ["t.csv"]


def test_graphs_that_nobody_names_need_a_word(predict, copied, tmp_path):
    named, out = tmp_path / "named.csv", tmp_path / "t.csv"
    assert predict("--graphs", copied.graphs, "--out", named)[0] == 0
    copied.edit_sidecar(lambda content: content.pop("T1/m2"))
    outcome = predict("--graphs", copied.graphs, "--out", out)
    refused(outcome, out, "T1/m2", "edge and node columns", "--allow-unverified")
    status, told = predict("--graphs", copied.graphs, "--out", out, "--allow-unverified")
    assert status == 0
    assert f"1 graphs with unnamed columns {CHECKED}" in told
    assert out.read_bytes() == named.read_bytes()
    copied.edit_sidecar(_each(node_feature_columns=None))
    outcome = predict("--graphs", copied.graphs, "--out", tmp_path / "u.csv")
    refused(outcome, tmp_path / "u.csv", "names the node columns")
    copied.sidecar.unlink()
    out.unlink()
    refused(predict("--graphs", copied.graphs, "--out", out), out, "T0/m0", "--allow-unverified")
    status, told = predict("--graphs", copied.graphs, "--out", out, "--allow-unverified", "true")
    assert status == 0
    assert f"20 graphs with unnamed columns {CHECKED}" in told
    assert out.read_bytes() == named.read_bytes()


def test_a_model_that_knows_widths_alone_checks_widths_and_warns_once(predict, model_dir, copied, tmp_path):
    nameless, out = tmp_path / "nameless", tmp_path / "t.csv"
    shutil.copytree(model_dir, nameless)
    schema = nameless / "artifacts" / "feature_metadata.json"
    schema.write_text(json.dumps({"edge_schema": {"dim": 3}, "node_schema": {"dim": 5}}))
    for _ in range(2):  # graphs with names, then without
        status, told = predict("--graphs", copied.graphs, "--out", out, model=nameless)
        assert status == 0, told
        warnings = told.splitlines()[1:-1]
        assert len(warnings) == 1
        assert "names no columns" in warnings[0]
        assert len(rows_of(out)) == 20
        copied.sidecar.unlink(missing_ok=True)


def test_a_graph_without_edges_is_scored(predict, copied, tmp_path):
    path = copied.graphs / "T0" / "m0.pt"
    nothing = torch.zeros((2, 0), dtype=torch.int64)
    torch.save(Data(x=read_graph(path).x, edge_index=nothing, edge_attr=torch.zeros((0, 0))), path)
    sidecar = json.loads((copied.graphs / "graph_metadata.json").read_text())
    sidecar["T0/m0"]["edge_metadata"]["edge_count"] = 0
    (copied.graphs / "graph_metadata.json").write_text(json.dumps(sidecar))
    assert predict("--graphs", copied.graphs, "--out", tmp_path / "t.csv")[0] == 0
    assert 0 <= float(rows_of(tmp_path / "t.csv")[0]["PRED_DOCKQ"]) <= 1


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_bad_graphs_cost_no_other_graph_anything(predict, copied, tmp_path, size):
    good, out = tmp_path / "good.csv", tmp_path / "t.csv"
    assert predict("--graphs", copied.graphs, "--out", good)[0] == 0
    (copied.graphs / "T0" / "m0.pt").write_bytes(b"not a graph")
    torch.save({"x": Trap(str(tmp_path / "trap"))}, copied.graphs / "T1" / "m1.pt")
    path = copied.graphs / "V1" / "m2.pt"
    graph = read_graph(path)
    torch.save(Data(x=graph.x, edge_index=graph.edge_index, edge_attr=graph.edge_attr * 0 + 3e38), path)
    arguments = ["--graphs", copied.graphs, "--out", out, "--batch-size", size]
    status, told = predict(*arguments)
    assert status == 0, told
    failed = [line for line in told.splitlines() if line.startswith("failed: ")]
    assert [name in line for name, line in zip(("m0.pt", "m1.pt", "V1/m2"), failed, strict=True)] == [True] * 3
    assert told.endswith("17 graphs scored, 3 failed\n")
    assert not (tmp_path / "trap").exists()
    bad = {"T0/m0", "T1/m1", "V1/m2"}
    assert rows_of(out) == [row for row in rows_of(good) if row["MODEL"] not in bad]
    out.unlink()
    refused(predict(*arguments, "--strict"), out, "3 of 20 graphs can't be scored", "m0.pt")


def test_no_graph_that_can_be_scored_is_an_error(predict, tmp_path):
    (tmp_path / "g").mkdir()
    out = tmp_path / "t.parquet"
    refused(predict("--graphs", tmp_path / "g", "--out", out), out, "no graphs")
    (tmp_path / "g" / "a.pt").write_bytes(b"")
    refused(predict("--graphs", tmp_path / "g", "--out", out), out, "1 of 1 graphs can't be scored", "a.pt")


def test_mistakes_are_one_line(predict, finished, tmp_path, monkeypatch):
    graphs, out = finished.graph_set.graphs, tmp_path / "t.csv"
    refused(predict("--graphs", graphs, "--out", tmp_path / "t.xlsx"), tmp_path / "t.xlsx", ".csv or .parquet")
    refused(predict("--graphs", tmp_path / "absent", "--out", out), out, "no such directory")
    refused(predict("--graphs", graphs, "--out", out, "--batch-size", 0), out, "--batch-size")
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/m0,2\n")
    refused(predict("--graphs", graphs, "--out", out, "--labels", labels), out, "line 2")
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "t.csv"
    status, told = predict("--graphs", graphs, "--out", inside)
    assert (status, "can't be written" in told) == (2, True)
    uri = ("--tracking-uri", finished.uri)
    for model in ("models:/topoqa@nobody", "models:/absent/1", "models:/topoqa"):
        refused(predict("--graphs", graphs, "--out", out, *uri, model=model), out, model, "can't be fetched")
    refused(predict("--graphs", graphs, "--out", out, *uri, model="nonsense"), out, "there is no model 'nonsense'")
    refused(predict("--graphs", graphs, "--out", out, model="models:/topoqa@x"), out, "no such tracking store")
    refused(predict("--graphs", graphs, "--out", out, model=tmp_path), out, "has no weights.safetensors")


@pytest.mark.parametrize("spoil", ["schema", "weights", "spec", "widths"])
def test_a_hostile_model_is_refused(predict, model_dir, finished, tmp_path, spoil):
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder, out = tmp_path / "hostile", tmp_path / "t.csv"
    shutil.copytree(model_dir, folder)
    weights, schema = folder / "artifacts" / "weights.safetensors", folder / "artifacts" / "feature_metadata.json"
    with safe_open(weights, "pt") as file:
        spec, state = json.loads(file.metadata()["spec"]), {name: file.get_tensor(name) for name in file.keys()}
    if spoil == "schema":
        schema.write_text("[" * 100_000)
    elif spoil == "weights":
        torch.save({"x": Trap(str(tmp_path / "trap"))}, weights)
    elif spoil == "spec":  # a network of terabytes over a small file
        save_file(state, weights, metadata={"spec": json.dumps({**spec, "hidden_dim": 2_000_000})})
    else:
        save_file(state, weights, metadata={"spec": json.dumps({**spec, "num_layers": 1_000_000_000})})
    refused(predict("--graphs", finished.graph_set.graphs, "--out", out, model=folder), out)
    assert not (tmp_path / "trap").exists()
