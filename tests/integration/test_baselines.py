"""Free baselines beside every verdict: with the run, in the version, in an evaluation; on the demo data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

import topotrain
from kit.recorded import mlflow_client
from topotrain.data.demo import demo_paths
from topotrain.data.graph_file import read_graph
from topotrain.data.labels import read_labels
from topotrain.metrics.ranking import mean_ranking_loss
from topotrain.tracking.store import Store, fetch_model

BASELINES = ("training mean", "number of edges", "trees")


@pytest.fixture(scope="module")
def demo(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of one epoch on the demo data, the files of its version, and where it is."""
    root = tmp_path_factory.mktemp("baselines")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    result = topotrain.fit(None, overrides=["trainer.num_epochs=1"], tracking_uri=uri, progress=False)
    (root / "model").mkdir()
    return uri, result, fetch_model("models:/topoqa/1", Store.open(uri), root / "model") / "artifacts"


def by_hand(labels: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pooled columns, truth and targets, from the files."""
    rows, found = [], read_labels(labels)
    for label in found:
        graph = read_graph(demo_paths().graphs / f"{label.model}.pt")
        x, edges = graph.x.double().numpy(), graph.edge_attr.double().numpy()
        pooled = [f(part, axis=0) for part in (x, edges) for f in (np.mean, np.std, np.max)]
        rows.append(np.concatenate([[len(x), len(edges)], *pooled]))
    return np.array(rows), np.array([one.dockq for one in found]), [one.model.split("/")[0] for one in found]


def test_the_trees_learned_from_the_training_graphs_alone(demo):
    uri, result, files = demo
    recipe = json.loads((files / "recipe.json").read_text())
    assert tuple(recipe["baselines"]) == BASELINES
    train, learned, _ = by_hand(demo_paths().train_labels)
    val, true, targets = by_hand(demo_paths().val_labels)
    model = HistGradientBoostingRegressor(max_leaf_nodes=8, early_stopping=False, random_state=0).fit(train, learned)
    predicted = model.predict(val)
    trees = recipe["baselines"]["trees"]
    # Columns pooled in another order of sums: the last bits may move a graph over a threshold.
    assert trees["val_loss"] == pytest.approx(np.mean((predicted - true) ** 2), rel=0.05)
    assert trees["val_spearman_corr"] == pytest.approx(stats.spearmanr(predicted, true).statistic, abs=0.03)
    assert trees["val_ranking_loss"] == pytest.approx(mean_ranking_loss(predicted, true, targets), abs=0.1)


def test_the_run_shows_them_once(demo):
    uri, result, files = demo
    recipe, client = json.loads((files / "recipe.json").read_text()), mlflow_client(uri)
    metrics = client.get_run(result.run_id).data.metrics
    for name, short in zip(BASELINES, ("constant", "edges", "trees"), strict=True):
        for metric, value in recipe["baselines"][name].items():
            logged = f"baseline_{short}_{metric}"
            if metric == "val_pearson_corr":
                assert logged not in metrics
                continue
            assert metrics.get(logged) == value, logged  # an undefined one is not logged
            if value is not None:
                assert [one.step for one in client.get_metric_history(result.run_id, logged)] == [0]
    model = client.get_logged_model(client.get_model_version("topoqa", "1").source.removeprefix("models:/"))
    assert "val_loss" in {one.key for one in model.metrics}
    assert not [one.key for one in model.metrics if one.key.startswith("baseline")], "they are no metrics of a network"


def test_differences_and_first_choices_in_the_recipe(demo):
    uri, result, files = demo
    recipe = json.loads((files / "recipe.json").read_text())
    against, mine = recipe["against_baselines"], recipe["metrics"]
    assert tuple(against) == BASELINES
    for name, row in against.items():
        assert set(row) == {"ranking_loss", "mse"} | ({"spearman"} if name != "training mean" else set())
        for found in row.values():
            assert found["low"] <= found["difference"] <= found["high"]
            decided = found["low"] > 0 or found["high"] < 0
            assert found["verdict"] in (("better", "worse") if decided else ("undecided",))
        loss = mine["val_ranking_loss"] - recipe["baselines"][name]["val_ranking_loss"]
        assert row["ranking_loss"]["difference"] == pytest.approx(loss, abs=1e-6)
    assert recipe["first_choice"]["targets"] == 4
    assert 0 <= recipe["first_choice"]["acceptable"] <= 4
    card = (files / "README.md").read_text()
    assert f"acceptable (DockQ 0.23) for {recipe['first_choice']['acceptable']} of the 4 validation targets" in card
    assert f"{against['trees']['mse']['difference']:+.4f} [" in card


def test_an_evaluation_shows_the_version_s_own_trees(demo):
    uri, result, files = demo
    recipe = json.loads((files / "recipe.json").read_text())
    demo_val = {"graphs": str(demo_paths().graphs), "labels": str(demo_paths().val_labels)}
    evaluation = topotrain.evaluate(**demo_val, tracking_uri=uri)
    document = evaluation.to_dict()
    assert document["figures"]["trees"]["mse"] == pytest.approx(recipe["baselines"]["trees"]["val_loss"], abs=1e-12)
    assert document["first_choice"] == recipe["first_choice"]
    theirs, mine = recipe["against_baselines"]["trees"]["mse"], document["against_baselines"]["trees"]["mse"]
    assert mine["verdict"] == theirs["verdict"]
    assert mine["difference"] == pytest.approx(theirs["difference"], abs=1e-5)
    feature = document["against_baselines"]["best raw feature"]["mse"]
    assert abs(feature["difference"]) < 0.1, "errors are those of a line in it, not of the number of contacts"
    text = evaluation.text("table")
    assert "trees: boosted trees on pooled columns, which learned from the model's own training graphs" in text
    assert f"{mine['difference']:+.4f}" in text


def test_a_version_that_brings_none_says_so(demo, tmp_path):
    uri, result, files = demo
    folder = tmp_path / "earlier"
    shutil.copytree(files.parent, folder)
    (folder / "artifacts" / "trees.json").unlink()
    evaluation = topotrain.evaluate(model=str(folder))
    assert list(evaluation.reports) == ["model", "constant", "best raw feature"]
    assert "trees: none" in evaluation.text("table")
