"""``compare``: two models, or the seeds of two recipes, on the same labelled graphs."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest

import topotrain
from kit.commands import exit_status
from kit.recorded import mlflow_client
from topotrain.errors import DataError


@pytest.fixture(scope="module")
def arguments(finished):
    graphs, labels = finished.graph_set.graphs, finished.graph_set.train_labels
    return ("--graphs", str(graphs), "--labels", str(labels), "--tracking-uri", finished.uri)


@pytest.fixture(scope="module")
def versions(finished):
    found = mlflow_client(finished.uri).search_model_versions("name = 'topoqa'")
    return sorted(str(one.version) for one in found)


def said(capsys, *arguments):
    capsys.readouterr()
    assert exit_status("compare", *arguments) == 0
    return capsys.readouterr().out


def test_two_versions_as_evaluate_finds_them(finished, arguments, versions, capsys):
    uris = [f"models:/topoqa/{number}" for number in versions[:2]]
    document = json.loads(said(capsys, *uris, *arguments, "--format", "json"))
    assert document["first"] == [f"topoqa version {versions[0]}"]
    assert set(document["metrics"]) == {"ranking_loss", "spearman", "mse"}
    assert document["num_decoys"] == 12
    for side, uri in zip(("first", "second"), uris, strict=True):
        judged = topotrain.evaluate(
            model=str(_folder(finished, uri)),
            graphs=str(finished.graph_set.graphs),
            labels=str(finished.graph_set.train_labels),
        )
        report = judged.reports["model"]
        assert document["metrics"]["spearman"][side]["mean"] == pytest.approx(report.means["mean_spearman"])
        assert document["metrics"]["ranking_loss"][side]["mean"] == pytest.approx(report.means["mean_ranking_loss"])
        assert document["metrics"]["mse"][side]["mean"] == pytest.approx(report.overall["mse"])  # targets of one size
    table = said(capsys, *uris, *arguments)
    assert f"first: topoqa version {versions[0]}" in table
    assert "ranking loss (DockQ)" in table
    rows = list(csv.DictReader(io.StringIO(said(capsys, *uris, *arguments, "--format", "csv"))))
    assert float(rows[1]["difference"]) == pytest.approx(document["metrics"]["spearman"]["difference"])


def _folder(finished, uri):
    import mlflow

    mlflow.set_tracking_uri(finished.uri)
    return mlflow.artifacts.download_artifacts(uri)


def test_a_run_means_its_best_version_and_several_are_averaged(finished, arguments, versions, capsys):
    run = finished.result.run_id
    document = json.loads(said(capsys, run[:8], "models:/topoqa@candidate", *arguments, "--format", "json"))
    assert document["first"] == document["second"]
    assert {one["difference"] for one in document["metrics"].values()} == {0.0}
    assert {one["better"] for one in document["metrics"].values()} == {None}
    several = ",".join(f"models:/topoqa/{number}" for number in versions)
    table = said(capsys, several, run, *arguments)
    assert f"first: {', '.join(f'topoqa version {number}' for number in versions)}" in table
    assert " ±" in table
    assert "can't be told" in table


def test_each_side_may_have_graphs_of_its_own_but_of_the_same_decoys(finished, arguments, tmp_path, capsys):
    other = shutil.copytree(finished.graph_set.graphs, tmp_path / "graphs")
    pair = ("latest", "latest", *arguments)
    document = json.loads(said(capsys, *pair, "--other-graphs", str(other), "--format", "json"))
    assert document["metrics"]["mse"]["difference"] == 0.0
    (other / "T1" / "m2.pt").unlink()
    capsys.readouterr()
    status = exit_status("compare", *pair, "--other-graphs", str(other))
    assert (status, capsys.readouterr().err.count("error: ")) == (2, 1)


@pytest.mark.parametrize("name", ["", ",", "models:/topoqa/99", "nobody"])
def test_what_is_no_model_is_one_line(arguments, name, capsys):
    assert exit_status("compare", name, "latest", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_an_empty_side_is_refused_from_python(finished):
    with pytest.raises(DataError, match="names no model"):
        topotrain.compare(" , ", "latest", tracking_uri=finished.uri)
