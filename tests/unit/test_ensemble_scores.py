"""The laws of an ensemble's scores: mean and spread of its members, whatever their order and the batch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph, read_graph
from topotrain.data.packing import KnownGraph
from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError, SchemaError
from topotrain.fields import MODEL_FILES
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.scoring import ensemble as ensembles
from topotrain.scoring.card import model_card
from topotrain.scoring.common_validation import judge_together
from topotrain.scoring.directory_scores import score_directory
from topotrain.scoring.load import load_scorer
from topotrain.scoring.members import Member
from topotrain.scoring.score_table import Columns, Scored, scores_csv, write_table
from topotrain.scoring.scorer import Prediction, Scorer, save_weights
from topotrain.tracking.records import VersionRecord


def make_network(seed: int, **spec: int) -> TopoQANetwork:
    torch.manual_seed(seed)
    shape = {"node_dim": 5, "edge_dim": 3, "hidden_dim": 8, "attention_head": 2, **spec}
    return TopoQANetwork(NetworkSpec(**shape))


@pytest.fixture
def networks() -> list[TopoQANetwork]:
    """Of the same columns, and otherwise of any shape."""
    return [make_network(0), make_network(1), make_network(2, hidden_dim=16), make_network(3, num_layers=3)]


@pytest.fixture
def directory(graph_set) -> GraphDirectory:
    return GraphDirectory(graph_set.graphs)


@pytest.fixture
def graphs(directory) -> list[Graph]:
    return [read_graph(directory.path(key), key) for key in directory.keys]


@pytest.fixture
def schema(directory):
    return inspect_directory(directory.root)


def predictions(scorer: Scorer, graphs: Sequence[Graph]) -> list[Prediction]:
    return list(scorer.predictions(map(KnownGraph.of, graphs)))


def write_model(folder: Path, networks: Sequence[TopoQANetwork], schema) -> Path:
    (folder / MODEL_FILES).mkdir(parents=True)
    for number, network in enumerate(networks, start=1):
        save_weights(network, folder / MODEL_FILES / f"member_{number}_of_{len(networks)}.safetensors")
    (folder / MODEL_FILES / "feature_metadata.json").write_text(schema.to_json())
    return folder


def test_mean_and_spread_are_those_of_the_members(networks, schema, graphs):
    alone = [Scorer(one, schema).score(graphs) for one in networks]
    found = predictions(Scorer(networks[0], schema, *networks[1:]), graphs)
    for prediction, members in zip(found, zip(*alone, strict=True), strict=True):
        mean = sum(members) / len(members)
        spread = math.sqrt(sum((one - mean) ** 2 for one in members) / (len(members) - 1))
        assert prediction.score == pytest.approx(mean, abs=1e-14)
        assert prediction.spread == pytest.approx(spread, abs=1e-14)
        assert spread > 1e-4


def test_the_order_of_the_members_changes_no_bit(networks, schema, graphs):
    several = [predictions(Scorer(first, schema, *others), graphs) for first, *others in permutations(networks)]
    assert all(one == several[0] for one in several)


def test_a_member_twice_counts_twice_and_alike_members_have_no_spread(networks, schema, graphs):
    alone = Scorer(networks[0], schema).score(graphs)
    twice = predictions(Scorer(networks[0], schema, networks[0]), graphs)
    assert [one.score for one in twice] == alone
    assert {one.spread for one in twice} == {0.0}


def test_a_single_network_scores_as_ever_and_has_no_spread(networks, schema, graphs):
    scorer = Scorer(networks[0], schema)
    assert predictions(scorer, graphs) == [Prediction(score) for score in scorer.score(graphs)]
    assert scorer.network is scorer.networks[0]
    with pytest.raises(DataError, match="an ensemble of 2 networks; expected one"):
        _ = Scorer(networks[0], schema, networks[1]).network


def test_what_shares_a_batch_changes_neither(networks, schema, graphs, directory):
    scorer = Scorer(networks[0], schema, *networks[1:])
    together = predictions(scorer, graphs)
    for size in (1, 3, 100):
        found = dict(score_directory(scorer, directory, batch_size=size))
        for graph, expected in zip(graphs, together, strict=True):
            assert found[graph.key].score == pytest.approx(expected.score, abs=1e-12)
            assert found[graph.key].spread == pytest.approx(expected.spread, abs=1e-12)


def test_a_graph_that_does_not_fit_costs_no_other_anything(networks, schema, graphs):
    odd = Graph("odd", graphs[0].x, graphs[0].edge_index, graphs[0].edge_attr[:, :-1])
    first, wrong, last = Scorer(networks[0], schema, networks[1]).predict_each([graphs[0], odd, graphs[1]])
    assert isinstance(wrong, SchemaError)
    assert isinstance(first, Prediction) and isinstance(last, Prediction)


def test_the_files_of_an_ensemble_are_one_model(networks, schema, graphs, tmp_path):
    model = write_model(tmp_path / "model", networks, schema)
    found = predictions(load_scorer(str(model), None), graphs)
    assert found == predictions(Scorer(networks[0], schema, *networks[1:]), graphs)


def test_a_member_that_is_missing_or_of_another_ensemble_is_told(networks, schema, tmp_path):
    model = write_model(tmp_path / "model", networks, schema)
    first, second = (model / MODEL_FILES / f"member_{number}_of_4.safetensors" for number in (1, 2))
    second.rename(second.with_name("member_2_of_3.safetensors"))
    with pytest.raises(DataError, match="holds 4 members of an ensemble of 3 or 4"):
        load_scorer(str(model), None)
    second.with_name("member_2_of_3.safetensors").unlink()
    with pytest.raises(DataError, match="holds 3 members of an ensemble of 4; expected all members"):
        load_scorer(str(model), None)
    shutil.copyfile(first, second)
    save_weights(make_network(9, edge_dim=4), second)
    with pytest.raises(SchemaError, match=r"edge"):
        load_scorer(str(model), None)


def test_a_table_has_the_spread_beside_the_score_where_there_is_one(tmp_path):
    from pyarrow import parquet

    rows = [Scored.of("T/a", "T", Prediction(0.25, 0.0123456), 0.5), Scored.of("T/b", "T", Prediction(1 / 3, 0.0))]
    columns = Columns(spread=True, labelled=True)
    assert write_table(tmp_path / "table.csv", rows, columns) == 2
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "MODEL,TARGET,PRED_DOCKQ,PRED_DOCKQ_STD,DockQ",
        "T/a,T,0.250000,0.012346,0.5",
        "T/b,T,0.333333,0.000000,",
    ]
    write_table(tmp_path / "table.parquet", rows, columns)
    assert parquet.read_table(tmp_path / "table.parquet").to_pydict() == {
        "MODEL": ["T/a", "T/b"],
        "TARGET": ["T", "T"],
        "PRED_DOCKQ": [0.25, 0.333333],
        "PRED_DOCKQ_STD": [0.012346, 0.0],
        "DockQ": [0.5, None],
    }
    assert scores_csv(rows, "tm_score").splitlines()[0] == "MODEL,TARGET,PRED_TM_SCORE,PRED_TM_SCORE_STD,RANK"
    plain = [Scored.of("T/a", "T", Prediction(0.25))]
    assert scores_csv(plain) == "MODEL,TARGET,PRED_DOCKQ,RANK\nT/a,T,0.250000,0\n"


def test_members_that_were_imported_have_a_card_that_says_what_is_not_known(networks, schema, tmp_path):
    members = []
    for number, network in enumerate(networks[:2], start=1):
        weights = tmp_path / f"{number}.safetensors"
        save_weights(network, weights)
        version = VersionRecord("published", str(number), "0" * 32, None, datetime.now(UTC))
        members.append(Member(version, weights, schema, {"run": {"id": "0" * 32, "name": "import_old"}}))
    with pytest.raises(DataError, match="do not say that they were validated on the same data"):
        judge_together(members, Scorer(networks[0], schema, networks[1]))
    recorder = SimpleNamespace(run_id="1" * 32, run_name="ensemble_of_2")
    card = model_card(ensembles._recipe(recorder, "published", members, None), schema)
    assert "| models:/published/2 | import_old (" in card
    assert "Its members were trained on different data, or do not say on which." in card
    assert "No metrics: its members share no validation data that could be read." in card
