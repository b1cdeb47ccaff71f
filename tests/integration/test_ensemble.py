"""``ensemble``: several versions as one, which is used, judged, kept and told of as any other."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import topotrain
from kit.commands import exit_status
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import artifact_json, artifact_names, mlflow_client, point_mlflow_at
from kit.served import pinned_names, score_alone
from kit.servers import Server
from kit.unreliable import Unreliable
from kit.waiting import PATIENCE
from topotrain.data.graph_file import Graph, read_graph
from topotrain.errors import DataError, InterruptedRunError, SchemaError, TrackingError, UndeliveredError
from topotrain.fields import VAL_LOSS, VAL_SPEARMAN
from topotrain.metrics.ranking import epoch_metrics
from topotrain.scoring import ensemble as ensembles
from topotrain.scoring.load import load_scorer
from topotrain.scoring.wire_format import encode_graph
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.store import Store

SEEDS = (1, 2, 3)
SHORT = ("trainer.num_epochs=2", "checkpoints.keep=2")


@dataclass(frozen=True)
class Trained:
    """A store with a run of each seed, each of which registered two versions."""

    uri: str
    graph_set: GraphSet

    @property
    def store(self) -> Store:
        return Store.open(self.uri)

    @property
    def best(self) -> list[str]:
        """URI of the best version of each seed."""
        versions = self.store.versions
        runs = [self.store.runs.find(f"seed{seed}") for seed in SEEDS]
        return [version.uri for run in runs if (version := versions.best_of_run(run.run_id))]

    def ensemble(self, *members: str, **options: Any) -> ensembles.Ensemble:
        return topotrain.ensemble(members or [f"seed{seed}" for seed in SEEDS], tracking_uri=self.uri, **options)


def train(graph_set: GraphSet, uri: str, name: str, *overrides: str) -> None:
    topotrain.fit(overrides=[*graph_set.overrides, *SHORT, *overrides], run_name=name, tracking_uri=uri, progress=False)


def aliases(trained: Trained, name: str) -> dict[str, str]:
    found = mlflow_client(trained.uri).get_registered_model(name).aliases
    return {alias: str(number) for alias, number in found.items()}


@pytest.fixture(scope="module")
def trained(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Tests add to it what they make under names of their own, and change nothing else."""
    root = tmp_path_factory.mktemp("ensemble")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    write_graph_set(root / "set")
    one = Trained(f"sqlite:///{root / 'mlflow.db'}", GraphSet(root / "set"))
    for seed in SEEDS:
        train(one.graph_set, one.uri, f"seed{seed}", f"dataloader.seed={seed}")
    return one


@pytest.fixture(scope="module")
def graphs(trained: Trained) -> list[Graph]:
    folder = trained.graph_set.graphs
    paths = sorted(folder.rglob("*.pt"))
    return [read_graph(path, path.relative_to(folder).with_suffix("").as_posix()) for path in paths]


@pytest.fixture(scope="module")
def made(trained: Trained) -> ensembles.Ensemble:
    """An ensemble that tests look at."""
    return trained.ensemble(name="looked_at", run_name="the ensemble")


@pytest.fixture(scope="module")
def files(trained: Trained, made, tmp_path_factory) -> Path:
    """Its files."""
    return trained.store.versions.download(made.version, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def expected(trained: Trained, graphs) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the members' scores, by key."""
    alone = [load_scorer(uri, trained.store).score(graphs) for uri in trained.best]
    found = {}
    for graph, scores in zip(graphs, zip(*alone, strict=True), strict=True):
        mean = sum(scores) / len(scores)
        found[graph.key] = mean, math.sqrt(sum((one - mean) ** 2 for one in scores) / (len(scores) - 1))
    return found


def test_predict_gives_mean_and_spread_of_the_members(trained, made, expected, tmp_path):
    out = tmp_path / "scores.csv"
    where = ("--graphs", trained.graph_set.graphs, "--tracking-uri", trained.uri)
    assert exit_status("predict", "--model", made.version, "--out", out, "--rank", *where) == 0
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["MODEL", "TARGET", "PRED_DOCKQ", "PRED_DOCKQ_STD", "RANK"]
    found = {row["MODEL"]: (float(row["PRED_DOCKQ"]), float(row["PRED_DOCKQ_STD"])) for row in rows}
    assert found.keys() == expected.keys()
    for key, (mean, spread) in expected.items():
        assert found[key] == pytest.approx((mean, spread), abs=6e-7)
        assert spread > 1e-4
    by_two = tmp_path / "by_two.csv"
    arguments = ("--jobs", "2", "--batch-size", "3", "--rank", *where)
    assert exit_status("predict", "--model", made.version, "--out", by_two, *arguments) == 0
    assert by_two.read_bytes() == out.read_bytes()


def test_a_fresh_process_elsewhere_scores_as_the_members_do(trained, made, files, graphs, expected, tmp_path):
    pinned = pinned_names(files / "requirements.txt")
    table = {"graph": [*(encode_graph(graph) for graph in graphs), "not a graph"]}
    answer = score_alone(made.version, table, tmp_path, store=trained.uri, pinned=pinned)
    assert "/src/topotrain/" not in answer["code"]
    assert answer["unpickled"] == []
    scores = answer["scores"]["graph"]
    assert list(scores) == ["pred_dockq", "pred_dockq_std", "error"]
    assert scores["error"][:-1] == [None] * len(graphs)
    assert "base64" in scores["error"][-1]
    assert math.isnan(scores["pred_dockq"][-1]) and math.isnan(scores["pred_dockq_std"][-1])
    for number, graph in enumerate(graphs):
        found = scores["pred_dockq"][number], scores["pred_dockq_std"][number]
        assert found == pytest.approx(expected[graph.key], abs=1e-9)


def test_a_server_gives_null_for_a_row_that_has_no_score(trained, made, graphs, monkeypatch):
    import mlflow
    import pandas as pd

    point_mlflow_at(trained.uri)
    served = mlflow.pyfunc.load_model(made.version)
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    answer = served.predict(pd.DataFrame({"graph": ["bad", encode_graph(graphs[0])]}))
    assert answer["pred_dockq_std"][0] is None
    assert answer["pred_dockq_std"][1] > 0


def test_the_files_are_those_of_the_members(trained, made, files, tmp_path):
    names = {path.name for path in (files / "artifacts").iterdir()}
    members = [f"member_{number}_of_3.safetensors" for number in (1, 2, 3)]
    assert names == {*members, "feature_metadata.json", "recipe.json", "README.md", "trees.json"}
    assert made.members == tuple(trained.best)
    for number, uri in enumerate(made.members):
        own = trained.store.versions.download(uri, tmp_path) / "artifacts"
        assert (files / "artifacts" / members[number]).read_bytes() == (own / "weights.safetensors").read_bytes()
        assert (files / "artifacts" / "trees.json").read_bytes() == (own / "trees.json").read_bytes()
    content = yaml.safe_load((files / "MLmodel").read_text())
    outputs = [(one["name"], one["type"]) for one in json.loads(content["signature"]["outputs"])]
    assert outputs == [("pred_dockq", "double"), ("pred_dockq_std", "double"), ("error", "string")]
    recipe = json.loads((files / "artifacts" / "recipe.json").read_text())
    assert [one["version"] for one in recipe["members"]] == trained.best
    assert [one["own_settings"] for one in recipe["members"]] == [{"dataloader.seed": seed} for seed in SEEDS]
    assert "seed" not in recipe["config"]["dataloader"] and recipe["config"]["trainer"]["num_epochs"] == 2


def test_it_is_judged_on_the_validation_data_of_its_members(trained, made, files, expected):
    rows = list(csv.DictReader(trained.graph_set.val_labels.open()))
    import numpy as np

    predicted = np.array([expected[row["MODEL"]][0] for row in rows])
    true = np.array([float(row["dockq"]) for row in rows])
    metrics, _ = epoch_metrics(predicted, true, [row["MODEL"].split("/")[0] for row in rows])
    client = mlflow_client(trained.uri)
    run, version = client.get_run(made.run_id), client.get_model_version("looked_at", made.version.rpartition("/")[2])
    member = client.get_model_version("topoqa", trained.best[0].rpartition("/")[2])
    recipe = topotrain.describe(made.version, trained.uri)["recipe"]
    errors = [abs(one - other) for one, other in zip(predicted, true, strict=True)]
    spreads = [expected[row["MODEL"]][1] for row in rows]
    ratio = math.sqrt(sum(one**2 for one in errors) / sum(one**2 for one in spreads))
    assert recipe["spread"]["error_ratio"] == pytest.approx(ratio)
    assert set(recipe["against_baselines"]) == {"trees"}
    assert set(recipe["first_choice"]) == {"acceptable", "targets"} and recipe["within_target_error"] > 0
    assert set(recipe["data"]["train"]["column_ranges"]) >= {"node", "edge"}, "what score holds graphs against"
    for name, value in metrics.items():
        assert made.metrics[name] == pytest.approx(value)
        assert run.data.metrics[name] == pytest.approx(value)
    assert run.data.metrics["best_val_loss"] == run.data.metrics[VAL_LOSS]
    assert float(version.tags[VAL_LOSS]) == pytest.approx(metrics[VAL_LOSS])
    for tag in ("validation_digest", "ranked_by", "schema_digest"):
        assert version.tags[tag] == member.tags[tag]
    assert version.tags["members"] == "3"
    assert run.info.status == "FINISHED"
    assert (run.info.run_name, run.data.tags["topotrain.command"]) == ("the ensemble", "ensemble")
    assert run.data.tags["topotrain.members"].split() == trained.best
    assert [one["version"] for one in artifact_json(client, made.run_id, "ensemble.json")] == trained.best
    assert topotrain.summarise(made.run_id, tracking_uri=trained.uri)["warnings"] == []
    command = f"topotrain ensemble {' '.join(trained.best)} --name looked_at"
    assert command in run.data.tags["mlflow.note.content"]
    card = (files / "artifacts" / "README.md").read_text()
    assert version.description and card.startswith(version.description[:500])


def test_the_order_of_the_members_makes_no_other_ensemble(trained, made):
    again = trained.ensemble(*reversed(trained.best), name="looked_at")
    assert (again.version, again.run_id, again.earlier) == (made.version, made.run_id, True)
    assert trained.ensemble(*trained.best[:2], name="looked_at").version != made.version


def test_the_candidate_is_the_better_one_or_stays(trained, caplog):
    name = "rule"
    two = trained.ensemble(*trained.best[:2], name=name)
    assert aliases(trained, name) == {"candidate": "1"}, "there was none"
    three = trained.ensemble(*trained.best, name=name)
    better = three.metrics[VAL_LOSS] < two.metrics[VAL_LOSS]
    assert aliases(trained, name) == {"candidate": "2" if better else "1"}
    assert any("candidate of rule" in line for line in caplog.messages)
    for first, other in (("1", two), ("2", three)):
        members = trained.best[:2] if other is two else trained.best
        assert trained.ensemble(*members, name=name, take_candidate=True).version == other.version
        assert aliases(trained, name) == {"candidate": first}


def test_members_of_other_validation_data_are_not_judged(trained, tmp_path, caplog):
    graph_set = trained.graph_set
    lines = graph_set.val_labels.read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n")
    train(graph_set, trained.uri, "other data", f"paths.val_labels={tmp_path / 'fewer.csv'}", "mlflow.model_name=other")
    found = trained.ensemble("seed1", "other data", name="of_two_splits")
    assert found.metrics == {}
    assert "the ensemble is not judged (its members do not say that they were validated on the same" in caplog.text
    client = mlflow_client(trained.uri)
    assert aliases(trained, "of_two_splits") == {}
    assert "val_loss" not in client.get_run(found.run_id).data.metrics
    told = topotrain.describe(found.version, trained.uri)["card"]
    assert "its members share no validation data that could be read" in told
    assert "validation: not the same for all members" in told
    assert "out_of_fold" not in topotrain.describe(found.version, trained.uri)["recipe"], "they share a target"
    assert all(row["run_id"] != found.run_id for row in topotrain.leaderboard(tracking_uri=trained.uri, limit=None))
    taken = trained.ensemble("seed1", "other data", name="of_two_splits", take_candidate=True)
    assert aliases(trained, "of_two_splits") == {"candidate": taken.version.rpartition("/")[2]}


def test_validation_graphs_that_changed_or_are_gone_judge_nothing(trained, caplog):
    graph_set = trained.graph_set
    aside = graph_set.val_labels.with_suffix(".aside")
    text = graph_set.val_labels.read_text()
    graph_set.val_labels.rename(aside)
    try:
        assert trained.ensemble(name="gone").metrics == {}
        assert "the ensemble is not judged" in caplog.text
        head, first, *rest = text.splitlines()
        graph_set.val_labels.write_text("\n".join([head, f"{first.split(',')[0]},0.123", *rest]) + "\n")
        assert trained.ensemble(name="changed").metrics == {}
        assert "are not those of its members any more; expected digest" in caplog.text
    finally:
        aside.replace(graph_set.val_labels)


def test_it_stands_on_the_leaderboard_among_its_members(trained, made):
    rows = topotrain.leaderboard(tracking_uri=trained.uri, limit=None)
    (mine,) = [row for row in rows if row["run_id"] == made.run_id]
    assert mine["primary_value"] == pytest.approx(made.metrics[VAL_LOSS])
    assert mine[VAL_SPEARMAN] == pytest.approx(made.metrics[VAL_SPEARMAN])
    assert (mine["model_version"], mine["best_epoch"], mine["epochs"]) == (made.version, None, 0)
    beside = [row for row in rows if row["validation_digest"] == mine["validation_digest"]]
    assert {"seed1", "seed2", "seed3"} <= {row["run_name"] for row in beside}
    values = [row["primary_value"] for row in beside]
    assert values == sorted(values)


def test_latest_is_still_the_run_that_was_trained_last(trained, made):
    assert trained.store.runs.find("latest").command == "run"
    assert trained.store.runs.find("the ensemble").run_id == made.run_id


def test_it_is_promoted_used_by_default_and_told_of(trained, capsys, tmp_path):
    made = trained.ensemble(name="topoqa")
    number, uri = made.version.rpartition("/")[2], ("--tracking-uri", trained.uri)
    data = ("--graphs", trained.graph_set.graphs, "--labels", trained.graph_set.val_labels)
    assert exit_status("evaluate", "--run-id", made.run_id, *data, *uri) == 0
    assert exit_status("promote", "--version", number, *uri) == 0
    try:
        out = tmp_path / "scores.csv"
        capsys.readouterr()
        assert exit_status("predict", "--graphs", trained.graph_set.graphs, "--out", out, *uri) == 0
        said = f"topoqa version {number} (champion): ensemble of 3, trained on 12 graphs of graphs, val_loss"
        assert said in capsys.readouterr().err
        assert "PRED_DOCKQ_STD" in out.read_text()
        assert exit_status("describe", made.version, *uri) == 0
        told = capsys.readouterr().out
        assert "An ensemble of 3 models, made by run ensemble_of_3" in told
        for seed, member in zip(SEEDS, trained.best, strict=True):
            assert f"| {member} | seed{seed} (" in told
            assert f"dataloader.seed={seed} |" in told
        assert "the error is" in told and "no error bar" in told
        assert "| mean of its members |" in told and "| trees |" in told
    finally:
        mlflow_client(trained.uri).delete_registered_model_alias("topoqa", "champion")
    other = trained.best[0]
    assert exit_status("compare", made.version, other, *data, *uri) == 0


def test_evaluate_says_how_well_the_spread_tells_the_error(trained, made, expected, capsys, tmp_path):
    data = ("--graphs", trained.graph_set.graphs, "--labels", trained.graph_set.val_labels)
    where = (*data, "--tracking-uri", trained.uri)
    assert exit_status("evaluate", "--model", made.version, *where, "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["MODEL"]: float(row["dockq"]) for row in csv.DictReader(trained.graph_set.val_labels.open())}
    within = sum(abs(expected[key][0] - true) <= 2 * expected[key][1] for key, true in rows.items()) / len(rows)
    assert report["spread"]["within_2_std"] == pytest.approx(within)
    assert report["spread"]["mean"] == pytest.approx(sum(expected[key][1] for key in rows) / len(rows))
    client = mlflow_client(trained.uri)
    logged = client.get_run(made.run_id).data.metrics
    assert logged["eval/spread_within_2_std"] == pytest.approx(within)
    assert logged["eval/spread_mean"] == pytest.approx(report["spread"]["mean"])
    assert "spread_and_error.png" in artifact_names(client, made.run_id, "evaluation")
    assert exit_status("evaluate", "--model", made.version, *where) == 0
    assert "mean standard deviation over the members; the error is" in capsys.readouterr().out
    assert exit_status("evaluate", "--model", trained.best[0], *where) == 0
    assert "spread: none, a single model gives none (topotrain ensemble" in capsys.readouterr().out
    scores = tmp_path / "scores.csv"
    assert exit_status("predict", "--model", made.version, *where, "--out", scores) == 0
    assert exit_status("metrics", "--predictions", scores, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)["all"]["mean_spearman"]
    assert found == pytest.approx(report["figures"]["model"]["mean_spearman"])


def test_a_changed_member_file_is_refused_everywhere(trained, capsys):
    made = trained.ensemble(name="changed_file")
    client = mlflow_client(trained.uri)
    run = client.get_run(made.run_id)
    (output,) = run.outputs.model_outputs
    folder = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://"))
    member = folder / "artifacts" / "member_2_of_3.safetensors"
    assert exit_status("verify", made.version, "--tracking-uri", trained.uri) == 0
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(content)
    capsys.readouterr()
    assert exit_status("verify", made.version, "--tracking-uri", trained.uri) == 2
    assert "changed: artifacts/member_2_of_3.safetensors" in capsys.readouterr().err
    with pytest.raises(TrackingError, match="its files are not those that were registered"):
        load_scorer(made.version, trained.store)
    member.unlink()
    with pytest.raises(TrackingError, match=r"missing: artifacts/member_2_of_3\.safetensors"):
        load_scorer(made.version, trained.store)


def test_a_member_that_was_changed_makes_no_ensemble(trained):
    client = mlflow_client(trained.uri)
    train(trained.graph_set, trained.uri, "tampered", "mlflow.model_name=tampered", "checkpoints.keep=1")
    model = client.get_model_version("tampered", "1").source.removeprefix("models:/")
    folder = Path(client.get_logged_model(model).artifact_location.removeprefix("file://"))
    weights = folder / "artifacts" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(TrackingError, match="models:/tampered/1: its files are not those"):
        trained.ensemble("seed1", "tampered", name="never")
    assert "never" not in {one.name for one in client.search_registered_models()}


def test_what_does_not_go_together_is_told(trained, made, tmp_path):
    write_graph_set(tmp_path / "wide", edge_dim=4)
    train(GraphSet(tmp_path / "wide"), trained.uri, "wide", "mlflow.model_name=wide", "checkpoints.keep=1")
    first = trained.best[0]
    differs = rf"models:/wide/1 does not have the features of the {first} \({first} against models:/wide/1: edge dim"
    with pytest.raises(SchemaError, match=differs):
        trained.ensemble("seed1", "wide")
    for path in (trained.graph_set.train_labels, trained.graph_set.val_labels):
        (tmp_path / path.name).write_text(path.read_text().replace("dockq", "tm_score"))
    quality = [f"paths.{name}_labels={tmp_path / f'{name}.csv'}" for name in ("train", "val")]
    own = ("labels.column=tm_score", "mlflow.model_name=quality", "checkpoints.keep=1")
    train(trained.graph_set, trained.uri, "quality", *quality, *own)
    with pytest.raises(DataError, match=rf"models:/quality/1 and {first} predict tm_score and DockQ"):
        trained.ensemble("quality", "seed1")
    with pytest.raises(DataError, match=rf"{made.version} is an ensemble itself.*name its members"):
        trained.ensemble("seed1", made.version)
    with pytest.raises(DataError, match=rf"one member is not an ensemble \({first}\); expected 2 to 100"):
        trained.ensemble("seed1")
    with pytest.raises(DataError, match=rf"{first} is meant twice"):
        trained.ensemble("seed1", first, "seed2")
    with pytest.raises(DataError, match="no members; expected 2 to 100"):
        topotrain.ensemble(tracking_uri=trained.uri)
    with pytest.raises(TrackingError, match="no run 'seed9' on this store.*did you mean 'seed"):
        trained.ensemble("seed1", "seed9")
    with pytest.raises(TrackingError, match=r"models:/topoqa/99.* can't be found"):
        trained.ensemble("seed1", "models:/topoqa/99")
    with pytest.raises(TrackingError, match=r"run .* \(seed1\) is no batch, nor of one"):
        trained.ensemble("seed1", from_batch="seed1")


def test_a_run_without_versions_is_told(trained):
    train(trained.graph_set, trained.uri, "unregistered", "mlflow.register=none")
    with pytest.raises(TrackingError, match=r"\(unregistered\) has no model version.*train with mlflow.register"):
        trained.ensemble("seed1", "unregistered")


@pytest.fixture(scope="module")
def five(trained: Trained, root: Path, quick_python: str) -> subprocess.CompletedProcess[str]:
    """The shipped five seeds, in small."""
    own = (*trained.graph_set.overrides, *SHORT, "trainer.num_epochs=1", "mlflow.model_name=five")
    text = (root / "manifests" / "five_seeds.yaml").read_text().replace("../configs", str(root / "configs"))
    manifest = trained.graph_set.root / "five_seeds.yaml"
    manifest.write_text(text.replace("{name: topoqa}", "{name: five}"))
    command = [quick_python, "-m", "topotrain", "batch", "--manifest", str(manifest), "--tracking-uri", trained.uri]
    overrides = [part for override in own for part in ("--override", override)]
    return subprocess.run([*command, *overrides], capture_output=True, text=True, timeout=PATIENCE, check=False)


def five_of(trained: Trained) -> list[Any]:
    return list(mlflow_client(trained.uri).search_model_versions("name = 'five' and tags.members = '5'"))


def test_five_seeds_end_in_an_ensemble(trained, five):
    assert five.returncode == 0, five.stderr
    (version,) = five_of(trained)
    assert f"ensemble: models:/five/{version.version}; its story: topotrain describe" in five.stderr
    client = mlflow_client(trained.uri)
    run = client.get_run(version.run_id)
    batch = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (run.info.run_name, batch.info.run_name) == ("five_seeds_ensemble", "five_seeds")
    members = artifact_json(client, version.run_id, "ensemble.json")
    seeds = (101, 222, 555, 777, 888)
    assert {one["own_settings"]["dataloader.seed"] for one in members} == set(seeds)
    summary = artifact_json(client, batch.info.run_id, "batch_summary.json")
    assert (summary["status"], summary["ensemble"]) == ("finished", f"models:/five/{version.version}")
    assert summary["candidates"] == {"five": aliases(trained, "five")["candidate"]}
    assert trained.ensemble(*(one["version"] for one in members), name="five").earlier
    assert topotrain.ensemble(from_batch="five_seeds", name="five", tracking_uri=trained.uri).run_id == version.run_id
    assert topotrain.ensemble(from_batch="seed101", name="five", tracking_uri=trained.uri).run_id == version.run_id


def test_a_batch_that_was_cut_off_in_its_ensemble_makes_one_when_it_goes_on(trained, five, monkeypatch):
    manifest = trained.graph_set.root / "five_seeds.yaml"
    manifest.write_text(manifest.read_text().replace("{name: five}", "{name: late, jobs: [seed101, seed888, seed222]}"))
    own = (*trained.graph_set.overrides, *SHORT, "trainer.num_epochs=1", "mlflow.model_name=five")
    again = {"overrides": own, "resume": True, "tracking_uri": trained.uri, "progress": False}

    def cut_off(*_: Any) -> None:
        raise InterruptedRunError(15)

    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
        patch.setattr("topotrain.scoring.ensemble.export_ensemble", cut_off)
        topotrain.batch(manifest, **again)
    client = mlflow_client(trained.uri)
    assert "late" not in {one.name for one in client.search_registered_models()}
    result = topotrain.batch(manifest, **again)
    assert (result.ensemble, result.no_ensemble, result.exit_status) == ("models:/late/1", None, 0)
    assert all(report.earlier for report in result.jobs)
    assert topotrain.batch(manifest, **again).ensemble == "models:/late/1"
    assert len(client.search_model_versions("name = 'late'")) == 1


def test_a_batch_says_why_there_is_no_ensemble(trained, five, monkeypatch):
    manifest = trained.graph_set.root / "five_seeds.yaml"
    own = (*trained.graph_set.overrides, *SHORT, "trainer.num_epochs=1", "mlflow.model_name=five")
    monkeypatch.setattr("topotrain.scoring.ensemble.find_members", refuse)
    result = topotrain.batch(manifest, overrides=own, resume=True, tracking_uri=trained.uri, progress=False)
    assert (result.ensemble, str(result.no_ensemble), result.exit_status) == (None, "they don't fit", 2)
    assert trained.store.runs.get(result.run_id).note == "no ensemble: they don't fit"


def refuse(*_: Any) -> None:
    raise SchemaError("they don't fit")


def test_the_commands_of_the_page_run_as_written(trained, five, root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.uri)
    blocks = re.findall(r"```bash\n(.*?)```", (root / "docs" / "ensembles.md").read_text(), flags=re.DOTALL)
    code, _ = blocks  # the other is of folds, and run by the tests of these
    lines = [shlex.split(line, comments=True) for line in code.strip().splitlines()]
    assert lines[0] == ["topotrain", "batch", "--manifest", "manifests/five_seeds.yaml"], "that of five"
    for line in lines[1:3]:
        assert exit_status(*line[1:]) == 0, capsys.readouterr().err
        assert re.fullmatch(r"models:/\w+/\d+\n", capsys.readouterr().out)
    assert lines[3][:5] == ["mlflow", "run", ".", "-e", "ensemble"]
    assert len(lines) == 4


@pytest.mark.project
def test_mlflow_run_of_an_ensemble(trained, root, quick_python, tmp_path):
    members = " ".join(trained.best[:2])
    command = ["mlflow", "run", str(root), "-e", "ensemble", "--env-manager", "local", "--experiment-name", "ensembles"]
    command += ["-P", f"members={members}", "-P", "name=of_a_project"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_TRACKING_URI": trained.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = os.pathsep.join([str(Path(quick_python).parent), environment["PATH"]])
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    client = mlflow_client(trained.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("ensembles").experiment_id])
    assert (run.data.tags["topotrain.command"], run.data.tags["topotrain.members"]) == ("ensemble", members)
    assert run.data.params["members"] == f"'{members}'", "as it was given, beside what the run says of itself"
    assert [version.run_id for version in client.search_model_versions("name = 'of_a_project'")] == [run.info.run_id]


def test_no_training_begins_with_an_ensemble(trained, made):
    with pytest.raises(DataError, match="the model is an ensemble of 3 networks; expected one; take a member of it"):
        topotrain.fit(
            overrides=[*trained.graph_set.overrides, *SHORT],
            resume_from=made.version,
            tracking_uri=trained.uri,
            progress=False,
        )
    for command in (("resume", "--run-id", made.run_id), ("resume", "--run-id", "the ensemble")):
        assert exit_status(*command, "--tracking-uri", trained.uri) == 2


@pytest.mark.server
def test_an_ensemble_that_the_server_did_not_take_is_delivered_later(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = Server(trained.uri, tmp_path / "kept", tmp_path / "server.log")
    flush, close, export = Recorder.flush, Recorder.close, ensembles.export_ensemble
    try:
        server.start()
        proxy = Unreliable(server.address)

        def goes_away(*given: Any) -> Any:
            proxy.mode = "refuse"
            return export(*given)

        with monkeypatch.context() as patch, pytest.raises(UndeliveredError) as told:
            patch.setattr(ensembles, "export_ensemble", goes_away)
            patch.setattr(Recorder, "flush", lambda self, *_, **__: flush(self, 0.5))
            patch.setattr(Recorder, "close", lambda self, *_: close(self, 0.5))
            topotrain.ensemble(trained.best, name="late_delivered", tracking_uri=proxy.address)
        client = mlflow_client(trained.uri)
        assert "late_delivered" not in {one.name for one in client.search_registered_models()}
        proxy.mode = "pass"
        assert exit_status("sync", told.value.journal) == 0
        (version,) = client.search_model_versions("name = 'late_delivered'")
        assert client.get_run(version.run_id).info.status == "FINISHED"
        assert aliases(trained, "late_delivered") == {"candidate": "1"}
        assert topotrain.ensemble(trained.best, name="late_delivered", tracking_uri=proxy.address).earlier
        assert exit_status("verify", "models:/late_delivered/1", "--tracking-uri", proxy.address) == 0
        assert len(load_scorer("models:/late_delivered/1", Store.open(proxy.address)).networks) == 3
    finally:
        server.stop()
