"""One judge of what fits what: the same graphs get the same verdict, in the same words, at every door."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

import topotrain
from kit.graphs import write_graph_set
from kit.recorded import point_mlflow_at
from topotrain.config import load_config
from topotrain.data.graph_file import read_graph
from topotrain.data.prepare import PreparedData, prepare_data
from topotrain.errors import SchemaError, UserInputError
from topotrain.model.checkpoint import network_of, read_checkpoint
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.model.original import RENAMED
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.import_checkpoint import import_checkpoint
from topotrain.scoring.predict_directory import predict_directory
from topotrain.scoring.scorer import Scorer
from topotrain.scoring.structures import score_structures
from topotrain.scoring.wire_format import encode_graph
from topotrain.training.continuation import check_same
from topotrain.training.initial_weights import InitialWeights
from topotrain.training.network_shape import network_spec

MODULES = {
    "interface": {"id": "interface/test/v1", "params": {"cutoff": 10.0}},
    "topology": {"id": "topology/none/v1", "params": {}},
    "node": {"id": "node/test/v1", "params": {}},
    "edge": {"id": "edge/test/v1", "params": {"cutoff": 10.0, "jobs": 4}},
}
BANDS = ["near", "far"]


@dataclass(frozen=True)
class Trained:
    """A model of the features below, as a folder and as a checkpoint."""

    folder: Path
    content: dict[str, Any]
    served: Any
    labels: Path

    @property
    def weights(self) -> Path:
        return self.folder / "artifacts" / "weights.safetensors"


@pytest.fixture(scope="module")
def trained(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The finished run's model, which is said to have bands and feature modules too."""
    point_mlflow_at(finished.uri)
    folder = tmp_path_factory.mktemp("trained")
    files = mlflow.artifacts.download_artifacts("models:/topoqa@candidate", dst_path=str(folder / "model"))
    schema = Path(files) / "artifacts" / "feature_metadata.json"
    document = json.loads(schema.read_text())
    document["edge_schema"]["bands"] = BANDS
    document["module_registry"] = {kind: {**entry, "jobs": 1} for kind, entry in MODULES.items()}
    schema.write_text(json.dumps(document))
    content = read_checkpoint(finished.artifacts / "checkpoints" / "last.ckpt")
    labels = folder / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/m0,0.5\nT0/m1,0.25\nV0/m0,0.75\n")
    served = mlflow.pyfunc.load_model(files)
    return Trained(Path(files), {**content, "feature_metadata": document}, served, labels)


@dataclass(frozen=True)
class Case:
    """What graphs say that differs from what the model was trained on, and how that is called; "" where it fits."""

    text: str = ""
    edit: Callable[[dict[str, Any]], object] = lambda entry: None
    widths: dict[str, int] = field(default_factory=dict)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """Change what every graph says; ``a.b`` is in the section ``a``."""

    def edit(entry: dict[str, Any]) -> None:
        *sections, last = name.split(".")
        for section in sections:
            entry = entry[section]
        if value is None:
            del entry[last]
        else:
            entry[last] = value

    return edit


DIFFERENT = {
    "node width": Case('node dim: 5 against 6; node columns: unexpected ["n5"]', widths={"node_dim": 6}),
    "edge width": Case(
        'edge dim: 3 against 4; edge columns: unexpected ["e3"]',
        _set("edge_info.edge_feature_variant", "test_3"),
        {"edge_dim": 4},
    ),
    "both widths, columns without names": Case(
        "edge dim: 3 against 2; node dim: 5 against 4",
        lambda entry: entry.clear(),
        {"edge_dim": 2, "node_dim": 4},
    ),
    "edge column renamed": Case(
        'edge columns: missing ["e2"], unexpected ["z"]', _set("edge_feature_columns", ["e0", "e1", "z"])
    ),
    "edge columns in another order": Case(
        "edge columns: the same names in another order, from column 1 on",
        _set("edge_feature_columns", ["e0", "e2", "e1"]),
    ),
    "node columns in another order": Case(
        "node columns: the same names in another order, from column 0 on",
        _set("node_feature_columns", ["n1", "n0", "n2", "n3", "n4"]),
    ),
    "edge module": Case(
        "edge module: 'edge/test/v1' against 'edge/other/v2'",
        lambda entry: (_set("edge_module", "edge/other/v2")(entry), _set("modules.edge.id", "edge/other/v2")(entry)),
    ),
    "edge variant": Case("edge variant: 'test_3' against 'test_9'", _set("edge_info.edge_feature_variant", "test_9")),
    "edge bands": Case('edge bands: ["near", "far"] against ["near"]', _set("edge_info.bands", ["near"])),
    "edge parameters": Case(
        'edge parameters: {"cutoff": 10.0} against {"cutoff": 8.0}', _set("edge_params", {"cutoff": 8.0, "jobs": 4})
    ),
    "parameters of the interface module": Case(
        'interface module: {"id": "interface/test/v1", "params": {"cutoff": 10.0}} against '
        '{"id": "interface/test/v1", "params": {"cutoff": 12.0}}',
        _set("modules.interface.params.cutoff", 12.0),
    ),
    "another node module": Case(
        'node module: {"id": "node/test/v1", "params": {}} against {"id": "node/test/v2", "params": {}}',
        _set("modules.node.id", "node/test/v2"),
    ),
}
HARMLESS = {
    "the same": Case(),
    "execution settings": Case(edit=_set("edge_params", {"cutoff": 10.0, "jobs": 99, "log_dir": "/x"})),
    "10 and 10.0": Case(edit=_set("edge_params", {"cutoff": 10})),
    "execution settings of a feature module": Case(edit=_set("modules.topology.params.jobs", 3)),
    "one feature module is not known": Case(edit=_set("modules.interface", None)),
    "no feature module is known": Case(edit=_set("modules", None)),
}
UNKNOWN = {
    "variant": Case("edge variant", _set("edge_info.edge_feature_variant", None)),
    "bands": Case("edge bands", _set("edge_info.bands", None)),
    "parameters": Case("edge parameters", _set("edge_params", None)),
}
UNVERIFIED = {
    "edge columns": Case(
        "edge columns, edge module",
        lambda entry: [entry.pop(name) for name in ("edge_feature_columns", "edge_module", "modules")],
    ),
    "node columns": Case("node columns", _set("node_feature_columns", None)),
}


class Doors:
    """Every way in which graphs meet a model; each takes graphs in, or raises."""

    def __init__(self, trained: Trained, graphs: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.trained, self.graphs, self.tmp_path, self.patch = trained, graphs, tmp_path, patch

    def data(self) -> tuple[PreparedData, Any]:
        paths = {"graph": self.graphs, "train_labels": self.trained.labels, "val_labels": self.trained.labels}
        loaded = load_config(None, [f"paths.{name}={path}" for name, path in paths.items()])
        return prepare_data(loaded.config), loaded.config

    def resume(self) -> None:
        data, config = self.data()
        check_same({**self.trained.content, "data_digest": data.digest}, data, config)

    def fine_tune(self) -> None:
        data, config = self.data()
        weights = InitialWeights("models:/x/1", *network_of(self.trained.content), None)
        weights.check(network_spec(data.schema, config), data.schema)

    def evaluate(self, allow_unverified: bool = False) -> None:
        topotrain.evaluate(
            model=str(self.trained.folder),
            graphs=str(self.graphs),
            labels=str(self.trained.labels),
            allow_unverified=allow_unverified,
        )

    def predict(self, allow_unverified: bool = False) -> None:
        out = self.tmp_path / "scores.csv"
        predict_directory(str(self.trained.folder), self.graphs, out, allow_unverified=allow_unverified)

    def structures(self) -> None:
        def build(structures: Path, out: Path, *_: Any, **__: Any) -> Any:
            shutil.copytree(self.graphs, out, dirs_exist_ok=True)
            return type(
                "Report",
                (),
                {"num_graphs": 1, "failures": {}, "changes_line": "", "root": self.tmp_path, "flat": False},
            )

        self.patch.setattr("topotrain.scoring.structures.build_recorded_graphs", build)
        score_structures(self.tmp_path, str(self.trained.folder))

    def serve(self) -> None:
        """In its process, and by itself; both see what the graph alone says."""
        graph = read_graph(self.graphs / "T0" / "m0.pt")
        (error,) = self.trained.served.predict(pd.DataFrame({"graph": [encode_graph(graph)]}))["error"]
        try:
            Scorer.load(self.trained.weights, self.trained.weights.with_name("feature_metadata.json")).score([graph])
        except UserInputError as raised:
            assert str(raised).replace("graph m0", "graph row 0") == error
            raise
        assert error is None


GRAPH_DOORS = ("resume", "fine_tune", "evaluate", "predict", "structures")


@pytest.fixture(params=["graph files", "sidecar"])
def said_in(request: pytest.FixtureRequest) -> str:
    """Where graphs say what they are; both ways count the same."""
    return str(request.param)


@pytest.fixture
def open_doors(
    trained: Trained, said_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Case], dict[str, Callable[..., None]]]:
    """Graphs of a case, and the doors that they can be taken to."""

    def make(case: Case) -> dict[str, Callable[..., None]]:
        root = tmp_path / "set"
        write_graph_set(root, train_targets=1, val_targets=1, decoys=2, **case.widths)
        graphs = root / "graphs"
        sidecar = graphs / "graph_metadata.json"
        content = json.loads(sidecar.read_text())
        modules: Any = None
        for key in [key for key in content if key != "_builder"]:
            own = content.pop(key)
            own["edge_info"] = {**own.pop("edge_metadata"), "bands": BANDS}
            own["modules"] = json.loads(json.dumps(MODULES))
            case.edit(own)
            path = graphs / f"{key}.pt"
            graph = read_graph(path)
            data = Data(x=graph.x, edge_index=graph.edge_index, edge_attr=graph.edge_attr)
            if said_in == "graph files":
                data.metadata = own
            else:
                modules = own.pop("modules", None)
                content[key] = {**own, "edge_metadata": own.pop("edge_info", {})}
            torch.save(data, path)
        sidecar.unlink()
        if said_in == "sidecar":
            sidecar.write_text(json.dumps({**content, "_module_registry": modules or {}}))
        doors = Doors(trained, graphs, tmp_path, monkeypatch)
        names = (*GRAPH_DOORS, "serve") if said_in == "graph files" else GRAPH_DOORS  # no sidecar is served
        return {name: getattr(doors, name) for name in names}

    return make


def difference(door: Callable[[], None]) -> str:
    """What a door says that differs."""
    with pytest.raises(SchemaError) as caught:
        door()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    found = re.search(r" does not have the features of the \w+ \(\w+ against \w+: (.*)\); expected ", str(caught.value))
    assert found, str(caught.value)
    return found[1]


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_refused_everywhere_in_the_same_words(name, open_doors):
    doors = open_doors(DIFFERENT[name])
    assert {door: difference(enter) for door, enter in doors.items()} == dict.fromkeys(doors, DIFFERENT[name].text)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_differ_is_accepted_everywhere(name, open_doors):
    for enter in open_doors(HARMLESS[name]).values():
        enter()


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_graphs_do_not_say_is_no_difference_but_to_a_resumed_run(name, open_doors):
    doors = open_doors(UNKNOWN[name])
    with pytest.raises(SchemaError, match=f"one side does not state {UNKNOWN[name].text} "):
        doors.pop("resume")()
    for enter in doors.values():
        enter()


@pytest.mark.parametrize("name", UNVERIFIED)
def test_columns_without_names_need_a_word_where_a_directory_is_judged(name, open_doors):
    doors = open_doors(UNVERIFIED[name])
    with pytest.raises(SchemaError, match=f"one side does not state {UNVERIFIED[name].text} "):
        doors.pop("resume")()
    for door in ("evaluate", "predict"):
        with pytest.raises(SchemaError, match=f"nothing names the {name} of graph T0/m0"):
            doors[door]()
        doors.pop(door)(allow_unverified=True)
    for enter in doors.values():
        enter()


def original_weights() -> dict[str, torch.Tensor]:
    """Weights of a network of 5 node and 3 edge columns, under the names that the original's have."""
    state = TopoQANetwork(NetworkSpec(node_dim=5, edge_dim=3, hidden_dim=8)).named_parameters()
    names = {new: old for old, new in RENAMED}
    return {
        next(old + name.removeprefix(new) for new, old in names.items() if name.startswith(new)): value.detach()
        for name, value in state
    }


WIDTHS = {"node width": {"node_dim": 6}, "edge width": {"edge_dim": 4}}


@pytest.mark.parametrize("name", WIDTHS)
def test_weights_know_widths_and_say_them_in_the_same_words(name, trained, tmp_path, store_uri):
    schema = FeatureSchema(**{"node_dim": 5, "edge_dim": 3, **WIDTHS[name]})
    text = DIFFERENT[name].text.partition(";")[0]
    metadata, old = tmp_path / "feature_metadata.json", tmp_path / "old.ckpt"
    metadata.write_text(schema.to_json())
    torch.save({"state_dict": original_weights()}, old)
    doors: dict[str, Callable[[], Any]] = {
        "load": lambda: Scorer.load(trained.weights, metadata),
        "import": lambda: import_checkpoint(old, "old", metadata=metadata, tracking_uri=store_uri),
    }
    assert {door: difference(enter) for door, enter in doors.items()} == dict.fromkeys(doors, text)
