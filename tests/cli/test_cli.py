"""The command line: exit statuses, what goes to which stream, and one line for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.recorded import mlflow_client
from kit.waiting import PATIENCE
from topotrain.cli import cli, main
from topotrain.fields import BEST_VAL_LOSS


class Outcome:
    """What a command left: status and both streams."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture
def topotrain(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = 0
        try:
            main(arguments)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


def assert_refused(outcome: Outcome, *words: str, expected: bool = True) -> str:
    """Status 2, nothing on standard output, and one line that says what, what was expected."""
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome
    assert outcome.err.splitlines()[-1] == errors[0], "the error is the last line"
    for word in words:
        assert word in errors[0], errors[0]
    if expected:
        assert "; expected " in errors[0] or "; see " in errors[0], errors[0]
    return errors[0]


def overrides_of(graph_set: Any, *more: str) -> list[str]:
    return [part for override in [*graph_set.overrides, *more] for part in ("--override", override)]


def test_run_summarise_and_schema(topotrain, graph_set, store_uri):
    made = topotrain(
        *("train", "--tracking-uri", store_uri, "--run-name", "by hand", "--notes", "n", "--trial-label", "t"),
        *("--overrides", "trainer.num_epochs=1 mlflow.tags.words='two words'"),
        *overrides_of(graph_set, "trainer.num_epochs=2", "checkpoints.keep=1"),
    )
    assert made.status == 0, made
    run_id = made.out.strip()
    assert made.out == f"{run_id}\n"
    assert re.fullmatch(r"[0-9a-f]{32}", run_id)
    assert "epoch 0/1" in made.err
    assert "epoch 1/1" in made.err
    last = made.err.splitlines()[-1]
    asked = f"topotrain evaluate --run-id {run_id} --tracking-uri {store_uri} --graphs {graph_set.graphs} --labels"
    assert asked in last, "the one next command"
    run = mlflow_client(store_uri).get_run(run_id)
    assert run.info.run_name == "by hand"
    assert run.data.tags["words"] == "two words"
    assert run.data.tags["topotrain.trial_label"] == "t"

    for asked in ("latest", run_id, run_id[:8], "by hand"):
        told = topotrain("summarise", "--run-id", asked, "--tracking-uri", store_uri)
        assert told.status == 0, told
        document = json.loads(told.out)
        assert document["run_id"] == run_id
    assert document["status"] == "FINISHED"
    assert document["best_val_loss"] == run.data.metrics[BEST_VAL_LOSS]
    assert document["best_epoch"] == int(run.data.tags["topotrain.best_epoch"])
    checkpoint = document["best_checkpoint"]
    assert checkpoint["uri"] == f"runs:/{run_id}/checkpoints/epoch_{document['best_epoch']:04d}.ckpt"
    assert Path(checkpoint["local_path"]).is_file()
    assert document["schema"]["edge_schema"]["dim"] == 3
    assert document["progress"]["epochs_completed"] == 2
    assert document["progress"]["epochs_total"] == 2
    assert [row["rank"] for row in document["top_checkpoints"]] == [1]
    assert document["top_checkpoints"][0]["model_version"] == "models:/topoqa/1"
    assert document["warnings"] == []

    for old in (f"training_runs/{run_id}", "training_runs/latest", "training_runs/by hand/"):
        told = topotrain("summarise", "--run-dir", old, "--tracking-uri", store_uri)
        assert json.loads(told.out)["run_id"] == run_id

    shown = topotrain("schema", str(graph_set.graphs), "--json")
    assert shown.status == 0
    assert json.loads(shown.out)["digest"] == document["schema"]["digest"]
    table = topotrain("schema", str(graph_set.graphs))
    assert table.status == 0
    assert document["schema"]["digest"] in table.out
    assert "edge/test/v1" in table.out


def test_fast_dev_run(topotrain, graph_set, store_uri):
    made = topotrain("run", "--fast-dev-run", "--tracking-uri", store_uri, *overrides_of(graph_set))
    assert made.status == 0, made
    assert re.fullmatch(r"[0-9a-f]{32}\n", made.out)
    assert mlflow_client(store_uri).search_registered_models() == []


def test_missing_configuration(topotrain, tmp_path):
    assert_refused(topotrain("run", "--config", "no/such.yaml"), str(tmp_path / "no/such.yaml"), "no such file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trainer: {num_epoch: 3}\n", ["trainer.num_epoch", "trainer.num_epochs"]),
        ("trainr: {num_epochs: 3}\n", ["trainr", "trainer"]),
        ("trainer: {num_epochs: many}\n", ["trainer.num_epochs", "many"]),
        ("trainer: [1, 2\n", ["not YAML", "line"]),
        ("- 1\n", ["list"]),
        ("trainer: {num_epochs: 1, num_epochs: 2}\n", ["given twice"]),
        ("optimizer: {learning_rate: .nan}\n", ["learning_rate"]),
        ("model: {dropout: 1.0}\n", ["model.dropout"]),
    ],
)
def test_bad_configuration(topotrain, tmp_path, content, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    assert_refused(topotrain("run", "--config", str(path)), str(path), *words)
    assert not (tmp_path / "mlflow.db").exists(), "no run, and so no store"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.num_epoch=3", ["did you mean 'trainer.num_epochs'"]),
        ("trainer.num_epochs", ["malformed"]),
        ("=3", ["malformed"]),
        ("trainer.num_epochs=[", ["not YAML"]),
        ("trainer.num_epochs=0", ["trainer.num_epochs"]),
        ("trainer=3", ["trainer"]),
    ],
)
def test_bad_override(topotrain, override, words):
    assert_refused(topotrain("run", "--override", override), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("jobs: [{name: a, confg: x}]\n", ["job 1 ('a')", "did you mean 'config'?"]),
        ("jobs: [{name: a, overrides: {trainer.num_epoch: 3}}]\n", ["job 'a'", "did you mean 'trainer.num_epochs'"]),
        ("jobs: [{name: a, config: absent.yaml}]\n", ["absent.yaml", "no such file"]),
    ],
)
def test_bad_manifest(topotrain, tmp_path, content, words):
    path = tmp_path / "manifest.yaml"
    path.write_text(content)
    assert_refused(topotrain("batch", "--manifest", str(path)), str(path), *words)
    assert_refused(topotrain("batch", "--manifest", "absent.yaml"), str(tmp_path / "absent.yaml"), "a YAML manifest")
    assert not (tmp_path / "mlflow.db").exists(), "no run, and so no store"


def test_overrides_with_an_open_quote(topotrain):
    assert_refused(topotrain("run", "--overrides", "mlflow.run_name='half"), "quot")


def test_missing_graph_directory(topotrain, graph_set, store_uri):
    outcome = topotrain(
        *("run", "--tracking-uri", store_uri), *overrides_of(graph_set, f"paths.graph={graph_set.root / 'absent'}")
    )
    assert_refused(outcome, str(graph_set.root / "absent"), "no such directory")
    _one_failed_run(store_uri)
    assert_refused(topotrain("schema", "absent"), str(Path.cwd() / "absent"), "no such directory")


def _one_failed_run(store_uri: str) -> None:
    client = mlflow_client(store_uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.info.status for run in runs] == ["FAILED"]


def _labels(text: str) -> Callable[[Any], None]:
    return lambda graph_set: graph_set.train_labels.write_text(text)


def _malformed_graph(graph_set: Any) -> None:
    (graph_set.graphs / "T0" / "m0.pt").write_bytes(b"PK\x03\x04 not a graph")


def _empty_graph(graph_set: Any) -> None:
    (graph_set.graphs / "T0" / "m0.pt").write_bytes(b"")


def _sidecar(text: str) -> Callable[[Any], None]:
    return lambda graph_set: graph_set.sidecar.write_text(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_labels("MODEL,dockq\nT0/m0,0.5\nT0/m1,1.2\n"), ["train.csv", "line 3", "1.2", "[0, 1]"]),
        (_labels("MODEL,dockq\nT0/m0,nan\n"), ["line 2", "nan"]),
        (_labels("MODEL,dockq\nT0/m0,0.5\nT0/m0,0.6\n"), ["line 2", "line 3"]),
        (_labels("MODEL|dockq\nT0/m0|0.5\n"), ["no column MODEL"]),
        (_labels(""), ["empty"]),
        (_labels("MODEL,dockq\nT9/m9,0.5\n"), ["T9/m9", "no graph"]),
        (_malformed_graph, ["m0.pt", "not a readable graph"]),
        (_empty_graph, ["m0.pt"]),
        (_sidecar("{"), ["graph_metadata.json"]),
        (_sidecar("[]"), ["graph_metadata.json"]),
    ],
)
def test_bad_data(topotrain, graph_set, store_uri, spoil, words):
    spoil(graph_set)
    assert_refused(topotrain("run", "--tracking-uri", store_uri, *overrides_of(graph_set)), *words)
    _one_failed_run(store_uri)


def test_widths_that_disagree(topotrain, graph_set, store_uri):
    graph_set.edit_sidecar(lambda content: content["T0/m0"]["edge_metadata"].update(feature_dim=9))
    error = assert_refused(topotrain("run", "--tracking-uri", store_uri, *overrides_of(graph_set)), "T0/m0")
    assert "9" in error
    assert "3" in error
    _one_failed_run(store_uri)
    assert_refused(topotrain("schema", str(graph_set.graphs)), "T0/m0")


@pytest.mark.parametrize("command", [("run",), ("summarise",), ("monitor", "--follow"), ("leaderboard",)])
def test_unreachable_server(topotrain, graph_set, command):
    start = time.monotonic()
    arguments = overrides_of(graph_set) if command == ("run",) else []
    assert_refused(topotrain(*command, "--tracking-uri", "http://127.0.0.1:9", *arguments), "http://127.0.0.1:9")
    assert time.monotonic() - start < 120  # MLflow itself would try for four minutes


@pytest.mark.parametrize("asked", ["nobody", "f" * 32, "it's", "a'b\"c", "latest"])
def test_a_run_that_is_not_there(topotrain, store_uri, asked):
    assert_refused(topotrain("summarise", "--run-id", asked, "--tracking-uri", store_uri), "run")
    assert_refused(topotrain("monitor", "--run-id", asked, "--tracking-uri", store_uri), "run")


@pytest.mark.parametrize("command", ["summarise", "monitor", "leaderboard"])
def test_an_experiment_that_is_not_there(topotrain, store_uri, command):
    outcome = topotrain(command, "--experiment", "nothing", "--tracking-uri", store_uri)
    assert_refused(outcome, "'nothing'")


@pytest.mark.parametrize("command", ["summarise", "monitor", "leaderboard"])
def test_a_store_that_is_not_there(topotrain, tmp_path, command):
    assert_refused(topotrain(command), str(tmp_path / "mlflow.db"))
    assert list(tmp_path.iterdir()) == [], "asking makes no store"


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "0.0", "nan", "inf", "many"])
def test_bad_limit(topotrain, limit):
    assert_refused(topotrain("run", "--limit-val-batches", limit), "--limit-val-batches")


def test_a_limit_that_leaves_no_batch(topotrain, graph_set, store_uri):
    outcome = topotrain("run", "--limit-train-batches", "0.1", "--tracking-uri", store_uri, *overrides_of(graph_set))
    assert_refused(outcome, "limit_train_batches")
    _one_failed_run(store_uri)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "--no-such"], "--no-such"),
        (["no-such-command"], "no-such-command"),
        (["run", "surplus"], "surplus"),
        (["run", "--config"], "--config"),
        (["schema"], "GRAPH_DIR"),
        (["batch"], "--manifest"),
        (["batch", "--manifest", "m.yaml", "--jobs", "0"], "--jobs"),
        (["tune", "--trials", "3"], "--space"),
        (["tune", "--space", "s.yaml"], "--trials"),
        (["tune", "--space", "s.yaml", "--trials", "0"], "--trials"),
        (["tune", "--space", "s.yaml", "--trials", "1", "--folds", "1"], "--folds"),
        (["tune", "--space", "s.yaml", "--trials", "1", "--timeout", "soon"], "2h, 90m, 1h30m or 45s"),
        (["tune", "--space", "s.yaml", "--trials", "1", "--sampler", "best"], "--sampler"),
        (["ui", "--port", "0"], "--port"),
        (["leaderboard", "--limit", "-1"], "--limit"),
        (["leaderboard", "--format", "xml"], "--format"),
        (["monitor", "--interval", "0"], "--interval"),
        (["monitor", "--format", "csv"], "--format"),
        (["monitor", "--follow", "maybe"], "--follow"),
    ],
)
def test_usage_errors(topotrain, arguments, word):
    assert_refused(topotrain(*arguments), word)


def test_no_command_shows_the_help(topotrain):
    outcome = topotrain()
    assert outcome.status == 0
    assert outcome.err == ""
    assert outcome.out == topotrain("--help").out


def test_a_fault_of_ours_has_a_traceback_and_status_1(topotrain, monkeypatch):
    from topotrain.data import stored_schema

    monkeypatch.setattr(stored_schema, "inspect_directory", lambda *_: 1 / 0)
    outcome = topotrain("schema", "anything")
    assert outcome.status == 1
    assert outcome.out == ""
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError" in outcome.err


@pytest.mark.parametrize(("signum", "status"), [(2, 130), (15, 143)])
def test_interrupted(topotrain, monkeypatch, signum, status):
    from topotrain.data import stored_schema
    from topotrain.errors import InterruptedRunError

    def interrupted(*_: Any) -> None:
        raise InterruptedRunError(signum)

    monkeypatch.setattr(stored_schema, "inspect_directory", interrupted)
    outcome = topotrain("schema", "anything")
    assert outcome.status == status
    assert outcome.err == f"error: interrupted by signal {signum}\n"


def test_ctrl_c_outside_a_run(topotrain, monkeypatch):
    from topotrain.data import stored_schema

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stored_schema, "inspect_directory", interrupted)
    outcome = topotrain("schema", "anything")
    assert outcome.status == 130
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_s_help_has_an_example(topotrain, command):
    outcome = topotrain(command, "--help")
    assert outcome.status == 0, outcome
    assert outcome.err == ""
    assert f"\n  topotrain {command}" in outcome.out


def test_the_help_lists_every_command(topotrain):
    outcome = topotrain("-h")
    assert outcome.status == 0
    for name in cli.commands:
        assert re.search(rf"^  {name} ", outcome.out, re.MULTILINE), name


@pytest.mark.parametrize("module", ["topotrain", "train_cli"])
def test_the_modules_are_the_same_program(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    from topotrain import __version__

    assert done.stdout == f"topotrain, version {__version__}\n"
    bad = subprocess.run([sys.executable, "-m", module, "run", "-x"], capture_output=True, text=True, timeout=PATIENCE)
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: ")
    assert "see topotrain run --help" in bad.stderr


def test_monitor_best_model_is_monitor(root):
    """The legacy command, as a script and as a module."""
    for way in ([str(root / "src" / "monitor_best_model.py")], ["-m", "monitor_best_model"]):
        command = [sys.executable, *way, "--run-id", "nobody", "--follow", "--tracking-uri", "sqlite:////nowhere/a.db"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith("error: /nowhere/a.db: no such tracking store")


def test_a_reader_that_goes_away_is_no_fault():
    """``topotrain --help | head -0``."""
    command = [sys.executable, "-m", "topotrain", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() in (1, 141), "click ends it with 1, and what is printed later ends with 141"


def test_metrics_of_any_predictions(topotrain, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        "dataset,target,model,pred_dockq,true_dockq\n"
        "one,A,a,0.9,0.85\none,A,b,0.2,0.3\none,B,a,0.1,0.5\none,B,b,0.4,0.1\ntwo,C,a,0.5,0.5\n"
    )
    told = topotrain("metrics", "--predictions", str(path), "--format", "json")
    assert (told.status, told.err) == (0, "")
    document = json.loads(told.out)
    assert list(document) == ["one", "two"]
    one = document["one"]
    assert (one["num_targets"], one["num_models"], one["hits_top1"]) == (2, 4, "1/1/1")
    assert one["mean_ranking_loss"] == pytest.approx(0.2)
    assert one["hits_top10"] == "2/2/1"
    assert (one["mean_spearman"], document["two"]["mean_spearman"]) == (0.0, None)
    table = topotrain("metrics", "--predictions", str(path), "--per-target")
    assert table.status == 0
    assert "undefined" in table.out
    assert "dataset two" in table.out
    rows = topotrain("metrics", "--predictions", str(path), "--format", "csv").out.splitlines()
    assert [row.split(",")[0] for row in rows] == ["dataset", "one", "two"]
    targets = topotrain("metrics", "--predictions", str(path), "--format", "csv", "--per-target").out.splitlines()
    assert [row.split(",")[:2] for row in targets[1:]] == [["one", "A"], ["one", "B"], ["two", "C"]]


def test_metrics_of_a_bad_file(topotrain, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("target,model,pred_dockq,true_dockq\nA,a,0.9,2\n")
    assert_refused(topotrain("metrics", "--predictions", str(path)), "line 2", "[0, 1]")
    assert_refused(topotrain("metrics", "--predictions", "absent.csv"), "absent.csv", "no such file")
    assert_refused(topotrain("metrics"), "--predictions")


def test_judging_without_a_store(topotrain, tmp_path):
    uri = str(tmp_path / "none" / "mlflow.db")
    assert_refused(topotrain("evaluate", "--tracking-uri", uri), "no such tracking store")
    assert_refused(topotrain("promote", "--tracking-uri", uri), "no such tracking store")
