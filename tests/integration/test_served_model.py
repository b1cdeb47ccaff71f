"""The registered model: it stands alone, scores as the network does, and no row costs another anything."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from kit.recorded import point_mlflow_at
from kit.served import pinned_names, score_alone
from topotrain.data.graph_file import Graph, read_graph
from topotrain.errors import DataError, SchemaError
from topotrain.model.checkpoint import read_checkpoint
from topotrain.scoring.scorer import Scorer
from topotrain.scoring.wire_format import decode_graph, encode_graph


@pytest.fixture(scope="module")
def model_dir(finished: Any) -> Path:
    """The files of the candidate."""
    from mlflow.artifacts import download_artifacts

    point_mlflow_at(finished.uri)  # a model is looked up in the registry that MLflow's globals point at
    return Path(download_artifacts("models:/topoqa@candidate"))


@pytest.fixture(scope="module")
def scorer(model_dir: Path) -> Scorer:
    (weights,) = model_dir.rglob("*.safetensors")
    (schema,) = model_dir.rglob("feature_metadata.json")
    return Scorer.load(weights, schema)


@pytest.fixture(scope="module")
def served(finished: Any) -> Any:
    """The model as MLflow loads it, in this process."""
    import mlflow

    point_mlflow_at(finished.uri)
    return mlflow.pyfunc.load_model("models:/topoqa@candidate")


@pytest.fixture(scope="module")
def graphs(finished: Any) -> list[Graph]:
    return [read_graph(path) for path in sorted(finished.graph_set.graphs.rglob("*.pt"))]


def npz(**arrays: Any) -> str:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def arrays_of(graph: Graph) -> dict[str, Any]:
    return {"x": graph.x.numpy(), "edge_index": graph.edge_index.numpy(), "edge_attr": graph.edge_attr.numpy()}


def test_a_fresh_process_elsewhere_scores_as_the_network_does(finished, model_dir, scorer, graphs, tmp_path):
    paths = [str(path) for path in sorted(finished.graph_set.graphs.rglob("*.pt"))]
    example = json.loads((model_dir / "input_example.json").read_text())["data"][0][0]
    table = {"graph": [*(encode_graph(graph) for graph in graphs), example], "path": paths}
    pinned = pinned_names(model_dir / "requirements.txt")
    answer = score_alone("models:/topoqa@candidate", table, tmp_path, store=finished.uri, pinned=pinned)
    assert "/src/topotrain/" not in answer["code"]
    assert {Path(answer["code"]).parent} <= {parent for file in answer["loaded"] for parent in Path(file).parents}
    assert answer["unpickled"] == []
    expected = scorer.score(graphs)
    assert len(set(expected)) > 10
    (of_example,) = scorer.score([decode_graph(example, "example")])
    assert answer["scores"]["graph"]["error"] == [None] * (len(graphs) + 1)
    assert answer["scores"]["graph"]["pred_dockq"] == pytest.approx([*expected, of_example], abs=1e-6)
    assert answer["scores"]["path"]["error"] == [None] * len(graphs)
    assert answer["scores"]["path"]["pred_dockq"] == pytest.approx(expected, abs=1e-6)


def test_a_version_carries_what_loading_and_scoring_import(model_dir):
    carried = {path.relative_to(model_dir / "code").as_posix() for path in (model_dir / "code").rglob("*.py")}
    assert {"topotrain/__init__.py", "topotrain/scoring/scorer.py", "topotrain/schema/check.py"} < carried
    assert len(carried) <= 39, "what did served.py come to import?"
    assert sum((model_dir / "code" / name).read_text().count("\n") for name in carried) < 4800
    rooms = {Path(name).parts[1] for name in carried if name.count("/") > 1}
    assert rooms == {"data", "model", "reading", "schema", "scoring"}
    assert "topotrain/config.py" not in carried
    requirements = pinned_names(model_dir / "requirements.txt")
    assert sorted(requirements) == requirements
    assert not {"scipy", "pyyaml", "pytorch_lightning", "click", "gemmi"} & set(requirements)


def test_the_scorer_is_the_best_checkpoint(finished, scorer, graphs):
    from topotrain.model.checkpoint import load_network

    best = finished.artifacts / "checkpoints" / f"epoch_{finished.result.best_epoch:04d}.ckpt"
    network, schema = load_network(best)
    assert Scorer(network, schema).score(graphs) == scorer.score(graphs)
    assert schema.digest == scorer.schema.digest == finished.run.data.params["schema.digest"]


def test_the_model_directory(model_dir):
    files = {path.relative_to(model_dir).as_posix() for path in model_dir.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}  # of processes that loaded it
    carried = ("weights.safetensors", "feature_metadata.json", "recipe.json", "README.md")
    assert {f"artifacts/{name}" for name in carried} < files
    assert not [name for name in files if Path(name).suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")]
    for name in files:
        assert not (model_dir / name).read_bytes().startswith(b"\x80"), f"{name} looks like a pickle"
    content = yaml.safe_load((model_dir / "MLmodel").read_text())
    assert json.loads(content["signature"]["inputs"])
    assert {column["name"] for column in json.loads(content["signature"]["inputs"])} == {"graph", "path"}
    assert {column["name"] for column in json.loads(content["signature"]["outputs"])} == {"pred_dockq", "error"}
    assert (model_dir / content["saved_input_example_info"]["artifact_path"]).is_file()
    requirements = (model_dir / "requirements.txt").read_text().split()
    assert {"mlflow", "torch", "torch-geometric", "safetensors"} <= {line.split("==")[0] for line in requirements}
    assert all("==" in line for line in requirements)
    assert not [line for line in requirements if "+" in line], "a local version can't be installed"
    code = {name for name in files if name.startswith("code/")}
    assert "code/topotrain/model/network.py" in code
    assert all(name.endswith(".py") for name in code)


def test_the_input_example_scores(served, model_dir):
    content = yaml.safe_load((model_dir / "MLmodel").read_text())
    example = json.loads((model_dir / content["saved_input_example_info"]["artifact_path"]).read_text())
    table = pd.DataFrame(example["data"], columns=example["columns"])
    answer = served.predict(table)
    assert answer["error"].tolist() == [None]
    assert 0 <= answer["pred_dockq"][0] <= 1


def test_every_checkpoint_loads_with_weights_only(finished):
    paths = list((finished.artifacts / "checkpoints").glob("*.ckpt"))
    assert len(paths) == 3
    for path in paths:
        assert torch.load(path, weights_only=True)["feature_metadata"]["digest"]


def test_a_hostile_checkpoint_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    trap = tmp_path / "trap"
    torch.save({"state_dict": Trap(str(trap))}, path)
    with pytest.raises(DataError, match="refused, it names"):
        read_checkpoint(path)
    assert not trap.exists()
    path.write_bytes(b"")
    with pytest.raises(DataError):
        read_checkpoint(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def _header_of_giant(graph: Graph) -> str:
    """An array whose header claims 8 TB over a few bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays_of(graph).items():
            part = io.BytesIO()
            np.save(part, array)
            raw = part.getvalue()
            if name == "x":
                header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000), }"
                raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
            archive.writestr(f"{name}.npy", raw)
    return base64.b64encode(buffer.getvalue()).decode()


def _corrupt_deflate(graph: Graph) -> str:
    raw = bytearray(base64.b64decode(encode_graph(graph)))
    for position in range(60, 120):
        raw[position] ^= 0xFF
    return base64.b64encode(bytes(raw)).decode()


def _unknown_compression(graph: Graph) -> str:
    raw = bytearray(base64.b64decode(npz(**arrays_of(graph))))
    for marker, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = raw.find(marker)
        while start >= 0:
            raw[start + offset : start + offset + 2] = (97).to_bytes(2, "little")
            start = raw.find(marker, start + 4)
    return base64.b64encode(bytes(raw)).decode()


def _encrypted(graph: Graph) -> str:
    raw = bytearray(base64.b64decode(npz(**arrays_of(graph))))
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = raw.find(marker)
        while start >= 0:
            raw[start + offset] |= 1
            start = raw.find(marker, start + 4)
    return base64.b64encode(bytes(raw)).decode()


def _with(graph: Graph, **changes: Any) -> str:
    return npz(**{**arrays_of(graph), **changes})


def _object_array(graph: Graph) -> str:
    return _with(graph, x=np.array([Trap("/tmp/never")], dtype=object))


def _pickled_text(graph: Graph) -> str:
    return base64.b64encode(pickle.dumps(arrays_of(graph))).decode()


BAD_GRAPHS = {
    "not base64": lambda g: "%%%",
    "letters beyond ascii": lambda g: "Grüße",
    "not an npz": lambda g: base64.b64encode(b"hello").decode(),
    "a pickle": _pickled_text,
    "pickled object array": _object_array,
    "a part is missing": lambda g: npz(x=g.x.numpy()),
    "too few node columns": lambda g: _with(g, x=g.x.numpy()[:, :-1]),
    "too many edge columns": lambda g: _with(g, edge_attr=np.pad(g.edge_attr.numpy(), ((0, 0), (0, 1)))),
    "edges beyond the nodes": lambda g: _with(g, edge_index=g.edge_index.numpy() + 1000),
    "negative nodes": lambda g: _with(g, edge_index=g.edge_index.numpy() - 1000),
    "not a number": lambda g: _with(g, x=np.full_like(g.x.numpy(), np.nan)),
    "numbers too large to add": lambda g: _with(g, edge_attr=np.full_like(g.edge_attr.numpy(), 3e38)),
    "no nodes": lambda g: _with(g, x=g.x.numpy()[:0]),
    "text": lambda g: _with(g, x=np.array(["a"])),
    "dates": lambda g: _with(g, x=np.array([["2020-01-01"]], dtype="datetime64[D]")),
    "big-endian": lambda g: _with(g, x=g.x.numpy().astype(">f8") * np.nan),
    "three dimensions": lambda g: _with(g, x=g.x.numpy()[None]),
    "another module": lambda g: _with(g, metadata=np.array(json.dumps({"edge_module": "edge/other/v9"}))),
    "other parameters": lambda g: _with(g, metadata=np.array(json.dumps({"edge_params": {"cutoff": 8.0}}))),
    "metadata that is a list": lambda g: _with(g, metadata=np.array("[1]")),
    "metadata that is no json": lambda g: _with(g, metadata=np.array("{")),
    "metadata that is deep": lambda g: _with(g, metadata=np.array("[" * 100_000)),
    "a header of 8 TB": _header_of_giant,
    "corrupt compression": _corrupt_deflate,
    "unknown compression": _unknown_compression,
    "encrypted": _encrypted,
}


def test_bad_rows_cost_no_other_row_anything(served, scorer, graphs):
    good = [encode_graph(graph) for graph in graphs[:2]]
    bad = {name: make(graphs[0]) for name, make in BAD_GRAPHS.items()}
    table = pd.DataFrame({"graph": [good[0], *bad.values(), good[1]]}, index=[f"row {i}" for i in range(len(bad) + 2)])
    answer = served.predict(table)
    assert answer.index.tolist() == table.index.tolist()
    expected = scorer.score(graphs[:2])
    assert [answer["pred_dockq"].iloc[0], answer["pred_dockq"].iloc[-1]] == pytest.approx(expected, abs=1e-6)
    assert [answer["error"].iloc[0], answer["error"].iloc[-1]] == [None, None]
    for (name, _), score, error in zip(
        bad.items(), answer["pred_dockq"].iloc[1:-1], answer["error"].iloc[1:-1], strict=True
    ):
        assert isinstance(error, str), f"{name}: no error, score {score}"
        assert error.strip(), f"{name}: an empty error"
        assert "\n" not in error, name
        assert math.isnan(score), name


def test_rows_that_unpack_to_more_than_they_may_cost_no_other_row_anything(served, scorer, graphs, monkeypatch):
    good, bomb = encode_graph(graphs[0]), _zeros(600_000)
    assert len(bomb) < 100_000
    table = pd.DataFrame({"graph": [good, *[bomb] * 8, good]})
    monkeypatch.setenv("TOPOTRAIN_MAX_ROW_BYTES", str(2**20))
    tracemalloc.start()
    answer = served.predict(table)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 2**22
    expected = scorer.score(graphs[:1])[0]
    assert answer["pred_dockq"].dropna().tolist() == pytest.approx([expected] * 2, abs=1e-6)
    assert answer["error"].isna().tolist() == [True, *[False] * 8, True]
    assert all("TOPOTRAIN_MAX_ROW_BYTES raises the limit" in error for error in answer["error"][1:9])


def test_a_request_may_unpack_to_so_much(served, graphs, monkeypatch):
    row = _zeros(2_000)  # 40 kB
    monkeypatch.setenv("TOPOTRAIN_MAX_REQUEST_BYTES", "100000")
    errors = served.predict(pd.DataFrame({"graph": [row, row, row, encode_graph(graphs[0])]}))["error"].tolist()
    assert [error is None for error in errors] == [True, True, False, True]
    assert "TOPOTRAIN_MAX_REQUEST_BYTES raises the limit" in errors[2]
    monkeypatch.setenv("TOPOTRAIN_MAX_ROW_EDGES", "1000")
    assert "2000 nodes and 1 edges, over 1000" in served.predict(pd.DataFrame({"graph": [row]}))["error"][0]


def test_whatever_is_raised_costs_its_row_alone(served, scorer, graphs, monkeypatch):
    network = served.unwrap_python_model().scorer.network
    plain, odd = network.forward, graphs[1].x.shape[0]

    def raising(x, *rest, **more):
        if x.shape[0] != graphs[0].x.shape[0]:
            raise MemoryError(f"no room for {odd}")
        return plain(x, *rest, **more)

    monkeypatch.setattr(network, "forward", raising)
    answer = served.predict(pd.DataFrame({"graph": [encode_graph(graphs[0]), _zeros(100), encode_graph(graphs[0])]}))
    assert answer["error"].isna().tolist() == [True, False, True]
    assert "can't be scored (no room" in answer["error"][1]


def _zeros(num_nodes: int) -> str:
    """A graph of nothing but zeros, packed as far as it goes: 20 bytes for each node become a few hundredths of one."""
    buffer = io.BytesIO()
    arrays = {"x": np.zeros((num_nodes, 5), np.float32), "edge_index": np.zeros((2, 1), np.int64)}
    np.savez_compressed(buffer, **arrays, edge_attr=np.zeros((1, 3), np.float32))
    return base64.b64encode(buffer.getvalue()).decode()


def test_an_error_says_both_sides(served, graphs):
    rows = [BAD_GRAPHS[name](graphs[0]) for name in ("too few node columns", "another module")]
    errors = served.predict(pd.DataFrame({"graph": rows}))["error"].tolist()
    assert "node dim: 5 against 4" in errors[0]
    assert "edge/other/v9" in errors[1]
    assert "edge/test/v1" in errors[1]


def test_paths(served, scorer, finished, graphs, tmp_path):
    good = sorted(finished.graph_set.graphs.rglob("*.pt"))[0]
    as_npz = tmp_path / "one.npz"
    as_npz.write_bytes(base64.b64decode(encode_graph(graphs[0])))
    trap = tmp_path / "trap"
    hostile = tmp_path / "hostile.pt"
    torch.save({"x": Trap(str(trap))}, hostile)
    bad = [str(tmp_path / "absent.pt"), str(tmp_path), str(hostile), "nul\0.npz", "nul\0.pt", str(tmp_path / "no.npz")]
    answer = served.predict(pd.DataFrame({"path": [str(good), str(as_npz), *bad]}))
    expected = scorer.score(graphs[:1])[0]
    assert answer["pred_dockq"][:2].tolist() == pytest.approx([expected, expected], abs=1e-6)
    assert answer["error"][:2].tolist() == [None, None]
    assert all(isinstance(error, str) and error for error in answer["error"][2:])
    assert answer["pred_dockq"][2:].isna().all()
    assert not trap.exists()


def test_rows_with_neither_and_empty_tables(served, graphs):
    table = pd.DataFrame({"graph": [None, encode_graph(graphs[0]), ""], "path": [None, None, None]}, dtype=object)
    errors = served.predict(table)["error"].tolist()
    assert errors[1] is None
    assert "neither graph nor path" in errors[0]
    assert "neither graph nor path" in errors[2]
    empty = served.predict(pd.DataFrame({"graph": pd.Series([], dtype=object)}))
    assert list(empty.columns) == ["pred_dockq", "error"]
    assert len(empty) == 0


def test_a_graph_survives_its_encoding(graphs):
    one = Graph("k", *arrays_to_tensors(graphs[0]), {"edge_module": "edge/test/v1", "edge_params": {"cutoff": 10.0}})
    back = decode_graph(encode_graph(one), "k")
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(getattr(back, name), getattr(one, name))
    assert back.metadata == one.metadata


def arrays_to_tensors(graph: Graph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return graph.x, graph.edge_index, graph.edge_attr


def test_a_graph_without_edges_scores(served, graphs):
    x = graphs[0].x.numpy()
    nothing = {"edge_index": np.zeros((2, 0), dtype=np.int64)}
    rows = [npz(x=x, edge_attr=np.zeros((0, width), dtype=np.float32), **nothing) for width in (3, 0)]
    answer = served.predict(pd.DataFrame({"graph": rows}))
    assert answer["error"].tolist() == [None, None]
    assert answer["pred_dockq"].between(0, 1).all()


def test_scores_keep_the_order_beyond_one_batch(scorer, graphs):
    many = graphs * 3
    assert len(many) > 32
    expected = [scorer.score([graph])[0] for graph in graphs]
    assert scorer.score(many) == pytest.approx(expected * 3, abs=1e-6)
    assert scorer.score([]) == []


def test_weights_and_schema_of_different_models(model_dir, tmp_path):
    (weights,) = model_dir.rglob("*.safetensors")
    (schema,) = model_dir.rglob("feature_metadata.json")
    content = json.loads(schema.read_text())
    content["node_schema"]["dim"] = 6
    other = tmp_path / "feature_metadata.json"
    other.write_text(json.dumps(content))
    with pytest.raises(SchemaError, match="weights and schema of one model"):
        Scorer.load(weights, other)
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="not a model's weights"):
        Scorer.load(broken, schema)
    for text in ("{", "[]", "{}"):
        other.write_text(text)
        with pytest.raises(SchemaError):
            Scorer.load(weights, other)
