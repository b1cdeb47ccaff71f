"""A model is judged on labelled graphs, and the verdict is on the server, in files and in figures."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client, point_mlflow_at
from topotrain.cli import main
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import read_split
from topotrain.errors import DataError, SchemaError, TrackingError
from topotrain.evaluation.evaluate import evaluate
from topotrain.fields import (
    EVAL_MSE,
    EVAL_PEARSON,
    EVAL_RANKING_LOSS,
    EVAL_SPEARMAN,
    TAG_COMMAND,
    TAG_EVAL_AT,
    TAG_EVAL_DIGEST,
    TAG_EVAL_TARGETS,
    VAL_LOSS,
)
from topotrain.metrics.ranking import mean_ranking_loss
from topotrain.scoring.load import load_scorer
from topotrain.tracking.store import Store


@pytest.fixture(scope="module")
def judged(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store of this module with a run of three epochs, two versions, and its graph set."""
    import topotrain

    root = tmp_path_factory.mktemp("judged")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    write_graph_set(root / "set", train_targets=4, val_targets=3)
    graph_set = GraphSet(root / "set")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    overrides = [*graph_set.overrides, "trainer.num_epochs=3", "checkpoints.keep=2"]
    return uri, graph_set, topotrain.fit(None, overrides=overrides, tracking_uri=uri)


def judge_it(judged: Any, **options: Any) -> Any:
    uri, graph_set, _ = judged
    given = {"graphs": str(graph_set.graphs), "labels": str(graph_set.val_labels), "tracking_uri": uri, **options}
    return evaluate(**given)


def version_of(judged: Any, number: str) -> Any:
    return mlflow_client(judged[0]).get_model_version("topoqa", number)


def known_metrics(uri, version):
    """What a gate sees of a version."""
    versions = Store.open(uri).versions
    return versions.known_metrics(versions.get(version.name, str(version.version)))


def test_the_verdict_is_on_the_server(judged):
    uri, graph_set, result = judged
    first = judge_it(judged, model="models:/topoqa@candidate")
    client = mlflow_client(uri)
    version = client.get_model_version_by_alias("topoqa", "candidate")
    assert (first.model.version, first.run_id) == (str(version.version), result.run_id)

    split = read_split("x", GraphDirectory(graph_set.graphs), graph_set.val_labels)
    scores = np.array(load_scorer("models:/topoqa@candidate", Store.open(uri)).score(list(split.graphs())))
    true = np.array([sample.dockq for sample in split.samples])
    expected = mean_ranking_loss(scores, true, [sample.target for sample in split.samples])
    assert first.reports["model"].metrics()["mean_ranking_loss"] == pytest.approx(expected, abs=1e-9)
    assert first.reports["model"].metrics()["mse"] == pytest.approx(np.mean((scores - true) ** 2), abs=1e-9)

    assert version.tags[TAG_EVAL_DIGEST] == split.digest[:36]
    assert version.tags[TAG_EVAL_TARGETS] == "folder; label DockQ"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", version.tags[TAG_EVAL_AT])
    linked = {
        one.key: one for one in client.get_logged_model(first.model.model_id).metrics if one.key.startswith("eval/")
    }
    assert linked[EVAL_RANKING_LOSS].value == pytest.approx(expected)
    assert linked[EVAL_PEARSON].value == first.reports["model"].means["mean_pearson"]
    assert linked[EVAL_MSE].dataset_digest == split.digest[:36]
    assert linked[EVAL_MSE].dataset_name == "graphs-val"
    assert client.get_run(result.run_id).data.metrics[EVAL_SPEARMAN] == linked[EVAL_SPEARMAN].value
    assert len(client.get_metric_history(result.run_id, EVAL_MSE)) == 1
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert client.get_run(result.run_id).data.tags[TAG_COMMAND] == "run"


def test_a_later_evaluation_is_a_new_point(judged):
    """Of other data, then of a sibling version; neither hides what is known of the first."""
    uri, graph_set, result = judged
    client = mlflow_client(uri)
    candidate = str(client.get_model_version_by_alias("topoqa", "candidate").version)
    before = len(client.get_metric_history(result.run_id, EVAL_MSE))
    curve = client.get_metric_history(result.run_id, VAL_LOSS)
    on_val = judge_it(judged)  # by default the candidate
    on_train = judge_it(judged, labels=str(graph_set.train_labels))
    (sibling,) = {"1", "2"} - {candidate}
    judge_it(judged, model=f"models:/topoqa/{sibling}")
    points = client.get_metric_history(result.run_id, EVAL_MSE)
    assert [point.step for point in points] == list(range(before + 3))
    assert client.get_run(result.run_id).data.metrics[EVAL_MSE] == points[-1].value
    assert [p.step for p in client.get_metric_history(result.run_id, VAL_LOSS)] == [p.step for p in curve]
    version = version_of(judged, candidate)
    assert version.tags[TAG_EVAL_DIGEST] == on_train.data["digest"] != on_val.data["digest"]
    known = known_metrics(judged[0], version)
    assert known[EVAL_MSE] == on_train.reports["model"].metrics()["mse"]  # of its last data, not of its sibling
    assert known[VAL_LOSS] == float(version.tags[VAL_LOSS])
    mine = {
        p.dataset_digest: p.value for p in client.get_logged_model(on_val.model.model_id).metrics if p.key == EVAL_MSE
    }
    assert mine == {
        on_val.data["digest"]: on_val.reports["model"].metrics()["mse"],
        on_train.data["digest"]: on_train.reports["model"].metrics()["mse"],
    }


def test_files_and_figures(judged, tmp_path):
    uri, graph_set, result = judged
    evaluation = judge_it(judged, run=result.run_id[:10])
    assert evaluation.model.version == str(mlflow_client(uri).get_model_version_by_alias("topoqa", "candidate").version)
    client = mlflow_client(uri)
    names = {Path(one.path).name: one for one in client.list_artifacts(result.run_id, "evaluation")}
    pictures = {"predicted_against_true.png", "ranking_loss.png", "calibration.png", "learning_curves.png"}
    assert set(names) == {"report.json", "per_target.csv", "hit_rates.csv", "figures.html", *pictures}
    folder = Path(client.download_artifacts(result.run_id, "evaluation", str(tmp_path)))
    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads(json.dumps(evaluation.to_dict()))
    assert report["model"]["uri"] == f"models:/topoqa/{evaluation.model.version}"
    assert list(report["figures"]) == ["model", "constant", "best raw feature", "trees"]
    rates = {(row["predictor"], row["top"]): row for row in csv.DictReader((folder / "hit_rates.csv").open())}
    model = evaluation.reports["model"].metrics()
    assert len(rates) == 12
    assert float(rates["model", "5"]["medium"]) == model["hit_rate_top5_medium"]
    assert not [name for name in client.get_run(result.run_id).data.metrics if "hit_rate" in name]
    version = version_of(judged, evaluation.model.version)
    assert known_metrics(uri, version)["eval/hit_rate_top1_acceptable"] == model["hit_rate_top1_acceptable"]
    rows = list(csv.DictReader((folder / "per_target.csv").open()))
    assert [(row["predictor"], row["target"]) for row in rows[:3]] == [("model", f"V{i}") for i in range(3)]
    assert len(rows) == 12
    for name in pictures:
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    page = (folder / "figures.html").read_text()
    assert len(page) < 6_000_000
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)  # nothing is fetched
    assert page.count('"modeBarButtonsToRemove": ["sendChartToCloud"]') == 4  # and nothing is sent
    assert page.count("<figcaption>") == 4
    assert re.search(r"V0(/|.u002f)m0", page)


def test_baselines_by_hand(judged):
    _, graph_set, _ = judged
    evaluation = judge_it(judged)
    split = read_split("x", GraphDirectory(graph_set.graphs), graph_set.val_labels)
    true = np.array([sample.dockq for sample in split.samples])
    constant = evaluation.reports["constant"].to_dict()
    assert constant["mse"] == pytest.approx(true.var())
    assert constant["mean_spearman"] is None
    assert constant["targets"]["V0"]["ranking_loss"] == pytest.approx(true[:4].max() - true[:4].mean())
    name, feature = evaluation.data["raw_feature"], evaluation.reports["best raw feature"]
    counts = {
        "number of contacts": [one.edge_index.shape[1] / 2 for one in split.graphs()],
        "number of residues": [one.x.shape[0] for one in split.graphs()],
        "contacts per residue": [one.edge_index.shape[1] / 2 / one.x.shape[0] for one in split.graphs()],
    }
    assert feature.predicted.tolist() == pytest.approx(counts[name])
    residual = true - np.polyval(np.polyfit(counts[name], true, 1), counts[name])
    assert feature.to_dict()["mse"] == pytest.approx(np.mean(residual**2))
    assert feature.to_dict()["mse"] <= constant["mse"]


def test_a_run_without_versions_is_judged_by_its_checkpoint(graph_set, store_uri):
    import topotrain

    overrides = [*graph_set.overrides, "trainer.num_epochs=1", "mlflow.register=none"]
    result = topotrain.fit(None, overrides=overrides, tracking_uri=store_uri)
    where = {"graphs": str(graph_set.graphs), "labels": str(graph_set.val_labels), "tracking_uri": store_uri}
    evaluation = evaluate(run="latest", **where)
    assert evaluation.model.version is None
    assert evaluation.model.uri == result.best_checkpoint
    assert mlflow_client(store_uri).get_run(result.run_id).data.metrics[EVAL_MSE] == pytest.approx(
        result.metrics[VAL_LOSS], rel=1e-4
    )


def test_a_version_whose_run_is_gone_gets_a_run_for_its_verdict(judged, tmp_path, store_uri):
    """As one registered by hand in the web page."""
    import mlflow

    point_mlflow_at(judged[0])
    files = mlflow.artifacts.download_artifacts("models:/topoqa@candidate", dst_path=str(tmp_path))
    client = mlflow_client(store_uri)
    client.create_registered_model("byhand")
    client.create_model_version("byhand", files)
    evaluation = judge_it(judged, model="models:/byhand/1", tracking_uri=store_uri)
    run = client.get_run(evaluation.run_id)
    assert run.data.tags[TAG_COMMAND] == "evaluate"
    assert run.info.status == "FINISHED"
    assert run.data.metrics[EVAL_RANKING_LOSS] == evaluation.reports["model"].metrics()["mean_ranking_loss"]
    version = client.get_model_version("byhand", "1")
    assert version.tags[TAG_EVAL_DIGEST] == evaluation.data["digest"]
    expected = evaluation.reports["model"].metrics()["mean_ranking_loss"]
    assert known_metrics(store_uri, version)[EVAL_RANKING_LOSS] == expected, "a gate looks here"
    folder = judge_it(judged, model=files, tracking_uri=f"sqlite:///{tmp_path}/absent.db")  # needs no store
    assert folder.run_id is None
    assert not (tmp_path / "absent.db").exists()


def test_a_model_without_names_is_checked_by_widths(judged, tmp_path, make_graph_set, caplog):
    """As an imported one: its schema was read from tensors alone."""
    import mlflow

    point_mlflow_at(judged[0])
    files = Path(mlflow.artifacts.download_artifacts("models:/topoqa@candidate", dst_path=str(tmp_path)))
    schema = next(files.rglob("feature_metadata.json"))
    content = json.loads(schema.read_text())
    for section in ("edge_schema", "node_schema"):
        content[section] = {"dim": content[section]["dim"]}
    schema.write_text(json.dumps(content))
    named = judge_it(judged, model="models:/topoqa@candidate")
    assert "by width alone" not in caplog.text
    nameless = judge_it(judged, model=str(files))
    assert "by width alone" in caplog.text
    assert nameless.reports["model"].metrics() == named.reports["model"].metrics()
    wide = make_graph_set("wide", edge_dim=4)
    with pytest.raises(SchemaError, match="edge dim: 3 against 4"):
        judge_it(judged, model=str(files), graphs=str(wide.graphs), labels=str(wide.val_labels))


def test_graphs_that_nobody_names_need_a_word(judged, tmp_path, caplog):
    """As for predict: one graph that the sidecar leaves out is enough."""
    shutil.copytree(judged[1].root, tmp_path / "set")
    graph_set = GraphSet(tmp_path / "set")
    graph_set.edit_sidecar(lambda content: content.pop("V1/m2"))
    data = {"graphs": str(graph_set.graphs), "labels": str(graph_set.val_labels)}
    with pytest.raises(SchemaError, match="V1/m2.*--allow-unverified"):
        judge_it(judged, **data)
    done = judge_it(judged, **data, allow_unverified=True)
    assert "1 graphs with unnamed columns were checked by width alone" in caplog.text
    assert done.reports["model"].metrics() == judge_it(judged).reports["model"].metrics()


def test_graphs_of_another_kind_are_refused_and_nothing_is_logged(judged, make_graph_set):
    client = mlflow_client(judged[0])
    before = len(client.get_metric_history(judged[2].run_id, EVAL_MSE))
    other = make_graph_set("other", module="edge/other/v1")
    with pytest.raises(SchemaError) as caught:
        judge_it(judged, graphs=str(other.graphs), labels=str(other.val_labels))
    assert "edge/other/v1" in str(caught.value)
    assert "edge/test/v1" in str(caught.value)
    assert len(client.get_metric_history(judged[2].run_id, EVAL_MSE)) == before


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"model": "models:/absent@champion"}, TrackingError, "models:/absent@champion"),
        ({"model": "models:/topoqa/99"}, TrackingError, "models:/topoqa/99"),
        ({"model": "models:/topoqa@nobody"}, TrackingError, "nobody"),
        ({"model": "models:/m-0123"}, TrackingError, "m-0123"),
        ({"model": "nonsense"}, TrackingError, "nonsense"),
        ({"run": "no such run"}, TrackingError, "no such run"),
        ({"model": "models:/topoqa/1", "run": "latest"}, DataError, "one of them"),
        ({"graphs": "demo"}, DataError, "demo"),
        ({"labels": "/nowhere.csv"}, DataError, "/nowhere.csv"),
        ({"graphs": "/nowhere"}, DataError, "/nowhere"),
    ],
)
def test_what_cannot_be_judged(judged, options, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        judge_it(judged, **options)


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_the_command(judged, capsys, monkeypatch, form):
    """Under mlflow run the report is kept by the run that was made for it."""
    uri, graph_set, result = judged
    client = mlflow_client(uri)
    adopted = client.create_run(client.get_run(result.run_id).info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", adopted)
    capsys.readouterr()
    arguments = ["evaluate", "--graphs", str(graph_set.graphs), "--labels", str(graph_set.val_labels)]
    main([*arguments, "--format", form, "--tracking-uri", uri])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert result.run_id in err
    if form == "json":
        assert json.loads(out)["figures"]["model"]["num_targets"] == 3
    elif form == "csv":
        assert [row["predictor"] for row in csv.DictReader(out.splitlines())][:2] == ["model", "constant"]
    else:
        assert f"best raw feature: {judge_it(judged).data['raw_feature']}" in out
        assert re.search(r"^ranking loss .* 0\.\d{4} \[0\.\d{3}, 0\.\d{3}\]", out, flags=re.MULTILINE)
    kept = {"table": "evaluate.txt", "json": "evaluate.json", "csv": "evaluate.csv"}[form]
    run = client.get_run(adopted)
    assert run.data.tags[TAG_COMMAND] == "evaluate"
    assert Path(client.download_artifacts(adopted, kept)).read_text() == out


@pytest.mark.server
def test_through_a_server_with_proxied_artifacts(graph_set, server, capsys):
    """Train, evaluate, promote, by the commands."""
    main(["run", "--tracking-uri", server, *(part for o in graph_set.overrides for part in ("-o", o))])
    run_id = capsys.readouterr().out.strip()
    data = ["--graphs", str(graph_set.graphs), "--labels", str(graph_set.val_labels)]
    main(["evaluate", "--tracking-uri", server, "--format", "json", *data])
    report = json.loads(capsys.readouterr().out)
    client = mlflow_client(server)
    assert {Path(one.path).name for one in client.list_artifacts(run_id, "evaluation")} >= {
        "report.json",
        "figures.html",
    }
    linked = {m.key: m for m in client.get_logged_model(report["model"]["model_id"]).metrics}
    assert linked[EVAL_RANKING_LOSS].dataset_digest == report["data"]["digest"]
    main(["promote", "--tracking-uri", server, "--gate", f"{EVAL_MSE}<=1"])
    assert "no champion" in capsys.readouterr().out
    assert str(client.get_model_version_by_alias("topoqa", "champion").version) == report["model"]["version"]


def test_the_demo_hold_out_is_the_default(judged, monkeypatch):
    """Other features than this model's: that they are refused shows which graphs were read."""
    logging.getLogger("topotrain").setLevel(logging.WARNING)
    with pytest.raises(SchemaError, match="node columns"):
        evaluate(tracking_uri=judged[0])
