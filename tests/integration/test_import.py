"""Checkpoints of the original networks: imported, they score as they did; whatever is wrong with one is one line."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from kit.commands import exit_status
from kit.recorded import artifact_json, mlflow_client, point_mlflow_at
from kit.waiting import PATIENCE
from topotrain.cli import main
from topotrain.data.graph_file import Graph
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.model.original import RENAMED
from topotrain.scoring.load import load_scorer
from topotrain.scoring.wire_format import encode_graph
from topotrain.tracking.store import Store

VECTORS = ("encoder_n172_e11_h8_add_noln", "encoder_n172_e24_h8_mean_ln", "flat_n172_e11_h8_mean")


def original_weights(spec: NetworkSpec, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a small network under the original's names, the unused third convolution included."""
    torch.manual_seed(seed)
    names = [(new, old) for old, new in RENAMED]
    weights = {
        next(old + name.removeprefix(new) for new, old in names if name.startswith(new)): value.detach().clone()
        for name, value in TopoQANetwork(spec).named_parameters()
    }
    return {**weights, "conv3.0.att": torch.zeros(1, 2, 3)}


SMALL = NetworkSpec(node_dim=5, edge_dim=3, attention_head=4, hidden_dim=8, pooling_type="add")


@pytest.fixture
def run(store_uri: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command; returns exit status and both streams."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        status = exit_status("import-checkpoint", *arguments, "--model-name", "old", "--tracking-uri", store_uri)
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


def vector(shared_data: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(shared_data / "vectors" / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        spec = json.loads(file.metadata()["spec"])
    weights = {k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")}
    return weights, spec, tensors


def graphs_of(tensors: dict[str, Tensor]) -> list[Graph]:
    """The graphs of a batch, each for itself."""
    graphs = []
    for number in range(int(tensors["batch"].max()) + 1):
        nodes = (tensors["batch"] == number).nonzero().squeeze(1)
        edges = torch.isin(tensors["edge_index"][0], nodes)
        index = tensors["edge_index"][:, edges] - nodes[0]
        graphs.append(Graph(str(number), tensors["x"][nodes].float(), index, tensors["edge_attr"][edges].float()))
    return graphs


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", VECTORS)
def test_an_imported_network_scores_as_the_original(run, store_uri, shared_data, tmp_path, name, precision):
    import mlflow

    weights, spec, tensors = vector(shared_data, name)
    weights = {key: value.to(getattr(torch, precision)) for key, value in weights.items()}
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": weights, "epoch": 7, "global_step": 100, "pytorch-lightning_version": "1.6"}, path)
    status, out, err = run(path, "--pooling", spec["pooling"])
    assert status == 0, err
    assert out == "models:/old/1\n"
    expected = tensors["expected"].tolist()
    assert len(set(expected)) > 2
    graphs = graphs_of(tensors)
    scorer = load_scorer("models:/old/1", Store.open(store_uri))
    assert (scorer.schema.node_dim, scorer.schema.edge_dim) == (spec["node_dim"], spec["edge_dim"])
    assert scorer.network.spec.use_layer_norm is bool(spec["use_layer_norm"])
    tolerance = 2e-7 if precision == "float64" else 2e-6  # the graphs themselves are float32
    assert scorer.score(graphs) == pytest.approx(expected, abs=tolerance)
    batch = (tensors["edge_index"], tensors["edge_attr"], tensors["batch"], len(expected))
    direct = scorer.network(tensors["x"], *batch).tolist()
    assert direct == pytest.approx(expected, abs=1e-10 if precision == "float64" else 2e-6)
    point_mlflow_at(store_uri)
    served = mlflow.pyfunc.load_model("models:/old/1")
    answer = served.predict(pd.DataFrame({"graph": [encode_graph(graph) for graph in graphs]}))
    assert answer["error"].tolist() == [None] * len(graphs)
    assert answer["pred_dockq"].tolist() == pytest.approx(scorer.score(graphs), abs=1e-12)


def test_an_import_is_a_run_and_a_version_and_no_training_run(run, store_uri, tmp_path, capsys):
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": original_weights(SMALL), "hyper_parameters": {"pooling_type": "add"}, "epoch": 3}, path)
    for number in (1, 2):
        status, out, err = run(path)
        assert (status, out) == (0, f"models:/old/{number}\n"), err
    assert "the columns have no names: graphs will be checked for 5 node and 3 edge columns alone" in err
    client = mlflow_client(store_uri)
    version = client.get_model_version("old", "1")
    made = client.get_run(version.run_id)
    assert made.info.status == "FINISHED"
    assert made.data.tags["topotrain.command"] == "import"
    assert made.data.params["schema.edge.dim"] == "3"
    assert made.data.params["model.pooling_type"] == "add"
    schema = artifact_json(client, version.run_id, "feature_metadata.json")
    assert schema["node_schema"] == {"columns": None, "dim": 5, "source": "weights"}
    assert version.tags["schema_digest"] == schema["digest"] == made.data.tags["topotrain.schema_digest"]
    assert version.tags["imported_from"] == "old.ckpt"
    assert version.tags["pooling_type"] == "add"
    assert len(version.tags["checkpoint_sha256"]) == 64
    assert client.get_registered_model("old").aliases == {}
    with pytest.raises(Exception, match="no training run"):
        Store.open(store_uri).runs.find("latest")
    main(["describe", "models:/old/1", "--tracking-uri", store_uri])
    told = capsys.readouterr().out
    assert f"Imported from `old.ckpt` (SHA-256 `{version.tags['checkpoint_sha256']}`)" in told
    assert "the weights were trained elsewhere" in told
    main(["describe", "models:/old/1", "--json", "--tracking-uri", store_uri])
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert recipe["checkpoint"]["epoch"] == 3
    assert recipe["network"]["attention_head"] == 4


def named_metadata(**changes: Any) -> dict[str, Any]:
    edge = {"dim": 3, "columns": ["e0", "e1", "e2"], "module": "edge/test/v1", "use_layer_norm": False}
    return {
        "edge_schema": {**edge, **changes},
        "node_schema": {"dim": 5, "columns": [f"n{i}" for i in range(5)]},
    }


def test_metadata_of_the_checkpoint_or_beside_it_name_the_columns(run, store_uri, graph_set, tmp_path, capsys):
    inside, beside = tmp_path / "inside.ckpt", tmp_path / "beside.ckpt"
    weights = original_weights(SMALL)
    carried = {"feature_metadata": named_metadata(), "model_hyperparameters": {"pooling_type": "add"}}
    torch.save({"state_dict": weights, **carried}, inside)
    torch.save({"state_dict": weights}, beside)
    metadata = tmp_path / "feature_metadata.json"
    metadata.write_text(json.dumps(named_metadata(module="edge/other/v1")))
    assert run(inside)[1] == "models:/old/1\n"
    status, out, err = run(beside, "--metadata", metadata)
    assert (status, out) == (0, "models:/old/2\n")
    assert "mean is taken" in err
    assert load_scorer("models:/old/1", Store.open(store_uri)).schema.use_layer_norm is True, (
        "the weights have the last word"
    )

    def predict(version: int) -> tuple[int, str]:
        where = ["--graphs", graph_set.graphs, "--out", "t.csv", "--tracking-uri", store_uri]
        status = exit_status("predict", "--model", f"models:/old/{version}", *where)
        return status, capsys.readouterr().err

    graph_set.edit_sidecar(lambda content: [e.pop("edge_params") for k, e in content.items() if k != "_builder"])
    assert predict(1)[0] == 0
    status, told = predict(2)
    assert status == 2
    assert "'edge/other/v1' against 'edge/test/v1'" in told


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda weights: weights.__delitem__(name)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda weights: weights.update({name: value})


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (_without("fc1.weight"), "'fc1.weight' is missing; expected shape (16, 16)"),
        (_without("embed.0.weight"), "no weight named 'embed.0.weight'"),
        (_without("conv1.0.att"), "no weight named 'conv1.0.att'"),
        (_without("edge_embed.0.1.weight"), "edge_embed.0.1.weight"),
        (_set("fc1.weight", torch.zeros(16, 15)), "'fc1.weight' has shape (16, 15)"),
        (_set("surprise.weight", torch.zeros(1)), "unexpected weight 'surprise.weight'"),
        (_set("fc1.extra", torch.zeros(1)), "unexpected weight 'fc1.extra'"),
        (_set("layers.0.conv.att", torch.zeros(1)), "unexpected weight"),
        (_set("embed.0.weight", torch.zeros(8)), "'embed.0.weight' has shape (8,)"),
        (_set("embed.0.weight", torch.zeros(8, 0)), "'embed.0.weight' has shape (8, 0)"),
        (_set("embed.0.weight", torch.zeros(1, 1).expand(8, 10**12)), "fewer stored values"),
        (_set("embed.0.weight", "text"), "'embed.0.weight' is str"),
        (_set("out.bias", torch.tensor([1])), "'out.bias' is torch.int64"),
        (_set("out.bias", torch.tensor([float("nan")])), "not finite"),
        (_set("conv1.0.att", torch.zeros(1, 1_000_000, 8)), "expected shape (8000000, 8)"),
    ],
)
def test_wrong_weights_say_which(run, store_uri, tmp_path, edit, word):
    weights: dict[str, Any] = original_weights(SMALL)
    edit(weights)
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": weights}, path)
    refused(run(path), str(path), word)
    assert mlflow_client(store_uri).search_registered_models() == []


def refused(outcome: tuple[int, str, str], *words: str) -> None:
    status, out, err = outcome
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_files_that_are_no_checkpoint_or_hostile_are_refused(run, store_uri, tmp_path):
    path, trap = tmp_path / "old.ckpt", tmp_path / "trap"
    refused(run(path), "no such file")
    refused(run(tmp_path), "no regular file")
    for content in (b"", b"PK\x03\x04", b"text"):
        path.write_bytes(content)
        refused(run(path), str(path), "not a readable checkpoint")
    weights = original_weights(SMALL)
    torch.save({"state_dict": weights, "callbacks": Trap(str(trap))}, path)
    refused(run(path), "refused, it names posix.mkdir")
    assert not trap.exists()
    for content in ([1, 2], {"state_dict": [1]}, {1: 2}, torch.zeros(3)):
        torch.save(content, path)
        refused(run(path), str(path), "holds no state_dict")
    torch.save({"state_dict": {}}, path)
    refused(run(path), "no weight named")
    torch.save({"state_dict": weights, "hyper_parameters": {"pooling_type": "median"}}, path)
    refused(run(path), "pooling 'median'", "mean, add, max")
    assert mlflow_client(store_uri).search_registered_models() == []


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (named_metadata(dim=4), ["edge dim: 3 against 4"]),
        (named_metadata(columns=["e0"]), ["edge columns: 1 names for 3 columns"]),
        ({"edge_schema": {}}, ["malformed"]),
        ([1], ["holds a list"]),
    ],
)
def test_metadata_of_other_weights_are_refused(run, tmp_path, metadata, words):
    path, beside = tmp_path / "old.ckpt", tmp_path / "m.json"
    torch.save({"state_dict": original_weights(SMALL), "feature_metadata": metadata}, path)
    refused(run(path), str(path), *words)
    torch.save({"state_dict": original_weights(SMALL)}, path)
    beside.write_text(json.dumps(metadata))
    refused(run(path, "--metadata", beside), str(beside), *words)
    refused(run(path, "--metadata", tmp_path / "absent.json"), "absent.json", "not readable")


def test_what_to_do_with_a_checkpoint_that_pickles_its_options_works_as_written(run, tmp_path, quick_python):
    path, kept = tmp_path / "old.ckpt", tmp_path / "kept.ckpt"
    torch.save({"state_dict": original_weights(SMALL), "hyper_parameters": argparse.Namespace(lr=1)}, path)
    outcome = run(path)
    refused(outcome, "refused, it names argparse.Namespace", "keep its weights alone")
    advice = outcome[2].strip().splitlines()[-1].partition("keep its weights alone: ")[2]
    code = "import torch; " + advice.replace("NEW_FILE", repr(str(kept))).replace("FILE", repr(str(path)))
    subprocess.run([quick_python, "-c", code], check=True, timeout=PATIENCE)
    assert run(kept, "--pooling", "add")[1] == "models:/old/1\n"


def test_the_page_on_importing_runs_as_written(root, store_uri, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    page = (root / "docs" / "import.md").read_text()
    (commands,) = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    torch.save({"state_dict": original_weights(SMALL)}, "topoqa.ckpt")
    for line in commands.strip().splitlines():
        main(shlex.split(line)[1:])
    assert "predicted DockQ" in capsys.readouterr().out
    exec(code)
    assert set(torch.load("weights.ckpt", weights_only=True)) == {"state_dict"}


def test_a_name_that_the_registry_refuses(store_uri, tmp_path, capsys):
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": original_weights(SMALL)}, path)
    with pytest.raises(SystemExit) as stop:
        main(["import-checkpoint", str(path), "--model-name", "a/b", "--tracking-uri", store_uri])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: model name 'a/b' is refused")
