"""A model version tells its whole story, though the run that made it is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kit.recorded import mlflow_client, point_mlflow_at
from topotrain.cli import main
from topotrain.data.graph_file import read_graph
from topotrain.data.labels import read_labels
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.card import model_card

MODEL = "models:/topoqa@candidate"


@pytest.fixture
def orphaned(finished: Any, tmp_path: Path) -> str:
    """The store of the finished run, without that run: artifacts are shared, the database is a copy."""
    (tmp_path / "store").mkdir()
    database = tmp_path / "store" / "mlflow.db"
    shutil.copyfile(finished.uri.removeprefix("sqlite:///"), database)
    for suffix in ("-wal", "-shm"):
        log = Path(finished.uri.removeprefix("sqlite:///") + suffix)
        if log.exists():
            shutil.copyfile(log, f"{database}{suffix}")
    uri = f"sqlite:///{database}"
    mlflow_client(uri).delete_run(finished.result.run_id)
    return uri


@pytest.fixture
def describe(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command and returns what it printed."""

    def run(model: str, *arguments: str) -> str:
        capsys.readouterr()
        try:
            main(["describe", model, *arguments])
        except SystemExit as stop:
            told = capsys.readouterr()
            assert told.out == ""
            return f"{stop.code}: {told.err}"
        return capsys.readouterr().out

    return run


def test_the_recipe_is_that_of_the_run(describe, orphaned, finished):
    document = json.loads(describe(MODEL, "--json", "--tracking-uri", orphaned))
    run, recipe = finished.run, document["recipe"]
    assert document["run_id"] == recipe["run"]["id"] == run.info.run_id
    assert recipe["run"]["name"] == "the finished one"
    assert document["aliases"] == ["candidate"]
    assert recipe["config"] == yaml.safe_load((finished.artifacts / "config" / "config.yaml").read_text())
    assert recipe["config"]["trainer"]["num_epochs"] == 5
    assert document["schema"] == json.loads((finished.artifacts / "feature_metadata.json").read_text())
    assert recipe["data"]["digest"] == run.data.params["data.digest"]
    inputs = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    for name, context, labels in (
        ("train", "training", finished.graph_set.train_labels),
        ("val", "validation", finished.graph_set.val_labels),
    ):
        split = recipe["data"][name]
        assert split["digest"][:36] == inputs[context].digest
        assert split["labels"] == str(labels)
        assert split["num_graphs"] == len(read_labels(labels))
        assert len(split["label_digest"]) == 64
    assert recipe["data"]["val"]["targets"] == ["V0", "V1"]
    assert recipe["code"].get("topotrain.git_commit") == run.data.tags.get("topotrain.git_commit")
    assert f"torch=={metadata.version('torch')}" in recipe["packages"]
    assert recipe["system"]["python"].startswith("3.")
    kept = json.loads((finished.artifacts / "checkpoints" / "kept.json").read_text())[0]
    assert recipe["checkpoint"] == {"epoch": kept["epoch"], "file": kept["file"]}
    assert recipe["metrics"] == {name: kept[name] for name in recipe["metrics"]}
    assert {"val_loss", "val_spearman_corr", "val_ranking_loss", "train_mse"} <= set(recipe["metrics"])
    assert recipe["network"]["edge_dim"] == 3
    logged = {metric["name"]: metric["value"] for metric in document["metrics"]}
    assert logged["val_loss"] == kept["val_loss"]


def test_the_baselines_are_what_they_say(describe, finished):
    recipe = json.loads(describe(MODEL, "--json", "--tracking-uri", finished.uri))["recipe"]

    def read(path: Path) -> tuple[Any, Any]:
        labels = read_labels(path)
        graphs = [read_graph(finished.graph_set.graphs / f"{label.model}.pt") for label in labels]
        return np.array([g.edge_index.shape[1] for g in graphs], float), np.array([label.dockq for label in labels])

    (train_edges, train), (val_edges, val) = read(finished.graph_set.train_labels), read(finished.graph_set.val_labels)
    mean = recipe["baselines"]["training mean"]
    assert mean["val_loss"] == pytest.approx(((val - train.mean()) ** 2).mean())
    assert mean["val_spearman_corr"] is None
    assert mean["val_ranking_loss"] == pytest.approx(np.mean([v.max() - v.mean() for v in (val[:4], val[4:])]))
    edges = recipe["baselines"]["number of edges"]
    design = np.column_stack([train_edges, np.ones(len(train))])
    slope, intercept = np.linalg.lstsq(design, train, rcond=None)[0]
    assert edges["val_loss"] == pytest.approx(((val - slope * val_edges - intercept) ** 2).mean())
    assert edges["val_pearson_corr"] == pytest.approx(np.sign(slope) * np.corrcoef(val_edges, val)[0, 1])


def test_the_story_is_for_people(describe, orphaned, finished):
    client = mlflow_client(orphaned)
    client.set_registered_model_alias("topoqa", "champion", "2")
    client.set_model_version_tag("topoqa", "2", "topotrain.promoted_reason", "it ranks better")
    version = client.get_model_version("topoqa", "2")
    model_id = version.source.removeprefix("models:/")
    client.restore_run(finished.result.run_id)
    client.log_metric(finished.result.run_id, "eval_mean_spearman", 0.625, model_id=model_id, dataset_name="held-out",
                      dataset_digest="0123abcd")  # fmt: skip
    client.delete_run(finished.result.run_id)
    text = describe("models:/topoqa@champion", "--tracking-uri", orphaned)
    assert text.startswith("models:/topoqa@champion is version 2 of topoqa (aliases: candidate, champion)\n")
    assert "it ranks better" in text
    assert "eval/mean_spearman on held-out (0123abcd)" in text
    assert "0.625" in text
    for heading in (
        "What it takes and gives",
        "What it was trained on",
        "How it does",
        "What it must not be used for",
        "How to use it",
        "What it was made with",
        "Configuration",
    ):
        assert f"\n\n## {heading}\n\n" in text
    assert "5 node and 3 edge columns" in text
    assert "edge module: edge/test/v1, variant: test_3" in text
    assert "- training: 12 graphs of 3 targets (T0, T1, T2)" in text
    assert f"`{finished.run.data.params['schema.digest']}`" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    names = ["training mean", "number of edges", "trees"]
    rows = ["", "this model", *names, "", *(f"less {name}" for name in names)]
    assert [line.split("|")[1].strip() for line in table] == rows
    assert f"{finished.result.metrics['val_loss']:.4f}" in table[1]
    assert "undefined" in table[2]
    recipe = json.loads(describe("models:/topoqa@champion", "--json", "--tracking-uri", orphaned))["recipe"]
    lost = "; ".join(not_beaten(recipe))
    assert lost, "the sentence on what it beats has a test of its own"
    assert f"\n\n**It does not beat: {lost}.**\n" in text
    assert "It beats" not in text
    assert "num_epochs: 5" in text


SHOWN = (("mean squared error", "val_loss"), ("ranking loss", "val_ranking_loss"))
SHOWN_WHERE_MORE_IS_BETTER = (("Spearman", "val_spearman_corr"), ("Pearson", "val_pearson_corr"))


def not_beaten(recipe: dict[str, Any]) -> list[str]:
    """Metrics in which a baseline is as good as the model or better."""
    mine, lost = recipe["metrics"], list[str]()
    for name, theirs in recipe["baselines"].items():
        lost += [f"{shown} of the {name}" for shown, metric in SHOWN if theirs[metric] <= mine[metric]]
        known = [(shown, metric) for shown, metric in SHOWN_WHERE_MORE_IS_BETTER if theirs[metric] is not None]
        lost += [f"{shown} of the {name}" for shown, metric in known if theirs[metric] >= mine[metric]]
    return lost


@pytest.mark.parametrize(
    ("mine", "sentence"),
    [
        (
            {"val_loss": 0.1, "val_ranking_loss": 0.1, "val_spearman_corr": 0.9},
            "It beats all of them in every metric that is defined.",
        ),
        (
            {"val_loss": 0.2, "val_ranking_loss": 0.1, "val_spearman_corr": 0.5},
            "**It does not beat: mean squared error of the training mean; Spearman of the number of edges.**",
        ),
    ],
)
def test_the_card_says_what_the_model_beats(describe, finished, mine, sentence):
    """As good is not better; a correlation that is not defined can't be beaten."""
    recipe = json.loads(describe(MODEL, "--json", "--tracking-uri", finished.uri))["recipe"]
    flat = {"val_loss": 0.2, "val_ranking_loss": 0.4, "val_spearman_corr": None, "val_pearson_corr": None}
    edges = {"val_loss": 0.3, "val_ranking_loss": 0.4, "val_spearman_corr": 0.5, "val_pearson_corr": 0.5}
    changed = {
        **recipe,
        "metrics": {**mine, "val_pearson_corr": 0.6},
        "baselines": {"training mean": flat, "number of edges": edges},
    }
    content = json.loads((finished.artifacts / "feature_metadata.json").read_text())
    card = model_card(changed, FeatureSchema.from_dict(content))
    (told,) = (line for line in card.splitlines() if "beat" in line)
    assert told == sentence


def test_a_folder_tells_its_story_without_a_store(describe, finished, tmp_path):
    from mlflow.artifacts import download_artifacts

    point_mlflow_at(finished.uri)
    folder = Path(download_artifacts(MODEL, dst_path=str(tmp_path / "model")))
    text = describe(str(folder))
    assert text.startswith(f"{folder}: not a registered version\n\n# topoqa: predicted DockQ")
    card = folder / "artifacts" / "README.md"
    assert card.read_text() in text
    for name in ("README.md", "recipe.json"):  # as legacy versions are
        (folder / "artifacts" / name).unlink()
    assert "carries no model card" in describe(str(folder))
    document = json.loads(describe(str(folder), "--json"))
    assert document["recipe"] is None
    for text, word in (("{", "not readable as JSON"), ("[" * 100_000, "not readable as JSON"), ("[]", "holds a list")):
        (folder / "artifacts" / "recipe.json").write_text(text)
        assert describe(str(folder)).startswith(f"2: error: recipe.json: {word}")
    (folder / "artifacts" / "recipe.json").unlink()
    (folder / "artifacts" / "feature_metadata.json").write_text("{}")
    assert describe(str(folder)).startswith("2: error: feature metadata is malformed")
    (folder / "artifacts" / "feature_metadata.json").unlink()
    assert describe(str(folder)).startswith("2: error: model ")


def test_a_model_that_is_not_there(describe, finished):
    for model in ("models:/topoqa@nobody", "models:/topoqa/99", "models:/nobody/1"):
        told = describe(model, "--tracking-uri", finished.uri)
        assert told.startswith(f"2: error: model {model!r} can't be fetched"), told
    told = describe("nonsense", "--tracking-uri", finished.uri)
    assert told.startswith("2: error: there is no model 'nonsense'; expected models:/NAME@alias"), told
