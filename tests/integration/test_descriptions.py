"""What the pages of MLflow say in words: of a run, a version, a registered model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

import topotrain
from kit.recorded import mlflow_client
from topotrain.config import load_config
from topotrain.tracking import new_versions
from topotrain.tracking.notes import SUMMARY
from topotrain.tracking.sync import deliver, journals
from topotrain.tracking.ui import serve_page
from topotrain.training.resume import resume

NOTE = "mlflow.note.content"


def note(uri: str, run_id: str) -> str:
    return str(mlflow_client(uri).get_run(run_id).data.tags[NOTE])


def test_a_run_says_in_short_what_it_is_and_how_it_does(finished, tmp_path):
    text, result = note(finished.uri, finished.result.run_id), finished.result
    loss = f"ranking loss {result.metrics['val_ranking_loss']:.4f}, Spearman {result.metrics['val_spearman_corr']:.4f}"
    assert text.startswith(f"made for tests\n\n{SUMMARY}**Best epoch: {result.best_epoch} of 5**, {loss}, MSE ")
    assert re.search(r" Its first choice is at least acceptable for \d of 2 targets\.\n", text)
    assert re.search(r"\n- trees: ranking loss [+-].*(better|worse|undecided), .*MSE [+-]", text)
    names = ("| training mean |", "| number of edges |", "| trees |", f"| epoch {result.best_epoch} |")
    assert [line.startswith(names) for line in text.splitlines()].count(True) == 4
    assert "12 training graphs of 3 targets and 8 validation graphs of 2 targets, `graphs`, predicting DockQ" in text
    assert "5 node and 3 edge columns by " in text
    assert "`edge/test/v1`" in text
    assert f"--run-id {result.run_id} \\\n  --artifact-path config/config.yaml " in text
    loaded = load_config(finished.artifacts / "config" / "config.yaml", [])
    assert loaded.config.trainer.num_epochs == 5, "what the command takes is the whole recipe"


def test_a_version_s_description_is_its_card(finished):
    client = mlflow_client(finished.uri)
    for version in client.search_model_versions("name = 'topoqa'"):
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        card = Path(url2pathname(urlsplit(model.artifact_location).path)) / "artifacts" / "README.md"
        assert version.description == card.read_text()
        assert f"training run the finished one (`{finished.result.run_id}`)" in version.description
    assert "made by topotrain" in client.get_registered_model("topoqa").description


def test_an_offline_run_is_described_by_the_id_that_it_is_given(graph_set, store_uri):
    overrides = [*graph_set.overrides, "trainer.num_epochs=1", "checkpoints.keep=1"]
    left = topotrain.fit(overrides=overrides, tracking_uri=store_uri, offline=True, notes="on a train")
    delivered = deliver(next(one.folder for one in journals() if one.run_id == left.run_id))
    assert delivered.run_id != left.run_id
    client = mlflow_client(store_uri)
    (version,) = client.search_model_versions("name = 'topoqa'")
    for text in (note(store_uri, delivered.run_id), version.description):
        assert delivered.run_id in text
        assert left.run_id not in text
    assert note(store_uri, delivered.run_id).startswith(f"on a train\n\n{SUMMARY}")


def test_notes_of_the_user_stay_when_a_run_goes_on(graph_set, store_uri):
    recipe: dict[str, Any] = {"tracking_uri": store_uri, "progress": False}
    made = topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1"], notes="my words", **recipe)
    before = note(store_uri, made.run_id)
    resume(made.run_id, overrides=["trainer.num_epochs=2"], **recipe)
    after = note(store_uri, made.run_id)
    assert "**Best epoch: 0 of 1**" in before
    assert " of 2**" in after
    assert after.startswith(f"my words\n\n{SUMMARY}")
    assert after.count(SUMMARY) == after.count("my words") == 1
    history = mlflow_client(store_uri).get_metric_history(made.run_id, "baseline_trees_val_loss")
    assert [point.step for point in history] == [0], "a run that goes on records its baselines no second time"


@pytest.mark.parametrize(("there", "kept"), [("", False), ("the group's own words", True)])
def test_a_registered_model_of_before_is_described_unless_somebody_did(graph_set, store_uri, there, kept, monkeypatch):
    client = mlflow_client(store_uri)
    client.create_registered_model("topoqa", description=there)
    monkeypatch.setattr(new_versions, "LONGEST", 300)
    overrides = [*graph_set.overrides, "trainer.num_epochs=1", "checkpoints.keep=1"]
    topotrain.fit(overrides=overrides, tracking_uri=store_uri, progress=False)
    described = client.get_registered_model("topoqa").description
    assert (described == there) is kept
    (version,) = client.search_model_versions("name = 'topoqa'")
    assert len(version.description) == 300
    assert version.description.endswith("the whole card is artifacts/README.md among the version's files)")


def test_the_page_opens_on_the_runs_of_the_experiment(finished, monkeypatch):
    said: list[str] = []
    started: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *given: started.append(given))
    serve_page(finished.uri, "127.0.0.1", 0, said.append)
    experiment = finished.run.info.experiment_id
    address = f"http://127.0.0.1:0/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert [line for line in said if address in line] == said
    assert json.dumps(started[0][1]).count("server") == 1


def test_the_page_of_a_store_without_a_run_lists_experiments(store_uri, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("os.execve", lambda *given: None)
    serve_page(store_uri, "127.0.0.1", 0, said.append)
    assert "http://127.0.0.1:0/#/experiments?workflowType=machine_learning" in said[-1]
