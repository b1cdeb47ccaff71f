"""Tuning: trials as children of one run, remembered by the tracking server alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow.entities import Run

import topotrain
from kit.commands import exit_status
from kit.dying import ended
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import artifact_names, metric_history, mlflow_client
from kit.servers import Server
from kit.unreliable import Unreliable
from kit.waiting import PATIENCE, wait_for
from topotrain.batches import scheduler, study, tune
from topotrain.batches.display import BatchDisplay, JobReport
from topotrain.batches.space import load_space
from topotrain.batches.study import Study
from topotrain.batches.tune_plan import plan_tuning
from topotrain.batches.tune_report import TrialReport, TuneResult, failure_line, table_lines
from topotrain.errors import DataError, TrackingError
from topotrain.tracking.opening import hold_run, open_run
from topotrain.tracking.store import Store
from topotrain.training.resume import AlreadyComplete

ROOT = Path(__file__).resolve().parents[2]
SPACE = "optimizer.learning_rate: {log: [1e-4, 1e-2]}\nmodel.attention_head: {choice: [2, 4]}\n"


def write_recipe(root: Path, graph_set: GraphSet, **sections: Any) -> Path:
    """A recipe of moments; the defaults but for what is given."""
    paths = {"graph": str(graph_set.graphs), "train_labels": str(graph_set.train_labels)}
    recipe = {
        "paths": {**paths, "val_labels": str(graph_set.val_labels)},
        "dataloader": {"batch_size": 4},
        "trainer": {"num_epochs": 2},
        "model": {"attention_head": 2},
        "checkpoints": {"keep": 1},
    }
    merged = {name: {**recipe.get(name, {}), **sections.get(name, {})} for name in {*recipe, *sections}}
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(merged))
    return path


def all_runs(uri: str, command: str) -> list[Run]:
    client = mlflow_client(uri)
    everything = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [run for run in everything if run.data.tags["topotrain.command"] == command]


def trials_of(uri: str) -> dict[int, list[Run]]:
    """Runs of each trial."""
    found: dict[int, list[Run]] = {}
    for run in all_runs(uri, "run"):
        if "topotrain.tune_trial" in run.data.tags:
            found.setdefault(int(run.data.tags["topotrain.tune_trial"]), []).append(run)
    return found


def versions_of(uri: str) -> list[Any]:
    return list(mlflow_client(uri).search_model_versions("name = 'topoqa'"))


@pytest.fixture
def quickly(quick_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are started by a Python that has everything imported, and looked at often."""
    monkeypatch.setattr(sys, "executable", quick_python)
    monkeypatch.setattr(scheduler, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(scheduler, "TICK_SECONDS", 0.05)


# One good trial, one that is stopped, one that fails


class Tried:
    """A grid of three learning rates: one learns, one is too small, one blows up."""

    EPOCHS = 80
    RATES = [0.002, 1e-7, 1e30]

    def __init__(self, root: Path, uri: str) -> None:
        self.uri, self.root = uri, root
        write_graph_set(root / "set")
        self.space = root / "rates.yaml"
        self.space.write_text(yaml.safe_dump({"optimizer.learning_rate": {"choice": self.RATES}}))
        space = load_space(self.space)
        good = {"optimizer.learning_rate": self.RATES[0]}
        seed = next(seed for seed in range(99) if Study(space, "grid", seed, maximise=False).suggest(0) == good)
        epochs = {"trainer": {"num_epochs": self.EPOCHS}, "early_stopping": {"patience": self.EPOCHS}}
        self.recipe = write_recipe(root, GraphSet(root / "set"), **epochs)
        self.options: dict[str, Any] = {"trials": 3, "config": self.recipe, "overrides": [f"seed={seed}"]}
        self.options |= {"sampler": "grid", "tracking_uri": uri}
        self.result = topotrain.tune(self.space, **self.options)
        self.parent = all_runs(uri, "tune")[0]
        self.trials = {trial.values["optimizer.learning_rate"]: trial for trial in self.result.trials}
        self.runs = {rate: trials_of(uri)[trial.number][0] for rate, trial in self.trials.items()}


@pytest.fixture(scope="module")
def tried(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory, quick_python: str) -> Tried:
    root = tmp_path_factory.mktemp("tried")
    (root / "store").mkdir()
    shutil.copyfile(_empty_store, root / "store" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_") and "TELEMETRY" not in name]:
            patch.delenv(name)
        patch.chdir(root)
        patch.setattr(sys, "executable", quick_python)
        patch.setattr(scheduler, "WATCH_SECONDS", 0.1)
        patch.setattr(study, "FIRST_WHOLE", 1)
        made = Tried(root, f"sqlite:///{root / 'store' / 'mlflow.db'}")
    return made


def test_one_finishes_one_is_pruned_one_fails(tried: Tried) -> None:
    good, small, large = (tried.trials[rate] for rate in Tried.RATES)
    assert [good.status, small.status, large.status] == ["finished", "pruned", "failed"]
    assert "training loss is nan" in large.note
    assert tried.result.best == good.number == 0
    assert tried.result.exit_status == 0
    run = tried.runs[Tried.RATES[0]]
    assert good.value == run.data.metrics["best_val_loss"]
    assert good.runs == {next(iter(good.runs)): run.info.run_id}
    assert (tried.parent.info.run_name, tried.parent.info.status) == ("rates", "FINISHED")


def test_a_pruned_trial_is_finished_and_says_so(tried: Tried) -> None:
    run = tried.runs[Tried.RATES[1]]
    assert run.info.status == "FINISHED"
    assert re.fullmatch(r"after epoch \d+: val_loss 0\.\d+", run.data.tags["topotrain.pruned"])
    assert "topotrain.status_note" not in run.data.tags
    epochs = len(metric_history(mlflow_client(tried.uri), run.info.run_id, "val_loss"))
    assert Tried.EPOCHS // 10 <= epochs < Tried.EPOCHS
    assert "topotrain.pruned" not in tried.runs[Tried.RATES[0]].data.tags


def test_only_the_winner_has_versions_and_the_alias(tried: Tried) -> None:
    winner = tried.runs[Tried.RATES[0]].info.run_id
    assert {version.run_id for version in versions_of(tried.uri)} == {winner}
    candidate = mlflow_client(tried.uri).get_model_version_by_alias("topoqa", "candidate")
    assert candidate.run_id == tried.result.winner_run == winner
    assert tried.result.candidates == {"topoqa": str(candidate.version)}
    assert tried.parent.data.tags["topotrain.best_child"] == winner


def test_children_say_what_they_are(tried: Tried) -> None:
    for rate, run in tried.runs.items():
        tags = run.data.tags
        assert json.loads(tags["topotrain.tune_values"]) == {"optimizer.learning_rate": rate}
        assert tags["mlflow.parentRunId"] == tried.parent.info.run_id
        assert tags["topotrain.tune_study"] == tried.parent.data.tags["topotrain.tune_study"]
        assert tags["topotrain.tune_seed"] == run.data.params["dataloader.seed"]
        assert run.info.run_name == f"trial_{int(tags['topotrain.tune_trial']):03d}"


def test_what_the_parent_holds(tried: Tried) -> None:
    client, run_id = mlflow_client(tried.uri), tried.parent.info.run_id
    assert artifact_names(client, run_id, "figures") == set(), "of one trial there is nothing to draw"
    summary = mlflow.artifacts.load_dict(f"{tried.parent.info.artifact_uri}/tune_summary.json")
    assert [trial["status"] for trial in summary["trials"]].count("finished") == 1
    assert (summary["status"], summary["best"], summary["winner_run"]) == ("finished", 0, tried.result.winner_run)
    note = mlflow_client(tried.uri).get_run(run_id).data.tags["mlflow.note.content"]
    assert (
        f"Best trial: **0**, {tried.result.winner_words} (its model: run `{tried.result.winner_run}`).\n\n| trial"
        in note
    )
    assert tried.parent.data.params["tune.sampler"] == "grid"
    assert metric_history(client, run_id, "tune_best") == {0: tried.result.trials[0].value}
    assert mlflow.artifacts.load_text(f"{tried.parent.info.artifact_uri}/tune/rates.yaml") == tried.space.read_text()
    assert "epoch 1/79" in mlflow.artifacts.load_text(f"{tried.parent.info.artifact_uri}/logs/trial_000.log")


def test_the_winning_configuration_runs(tried: Tried) -> None:
    """It is written where the user is, and recorded; the run that it makes is the winning one again."""
    assert tried.result.config is not None
    path = tried.root / tried.result.config
    text = mlflow.artifacts.load_text(f"{tried.parent.info.artifact_uri}/tune/winner.yaml")
    assert path.read_text() == text
    assert text.startswith("# trial 0 of the tuning rates")
    again = topotrain.fit(path, overrides=["mlflow.register=none"], tracking_uri=tried.uri)
    assert again.metrics["val_loss"] == tried.result.trials[0].value
    assert mlflow_client(tried.uri).get_run(again.run_id).data.params["optimizer.learning_rate"] == "0.002"


def test_resumed_when_nothing_is_left_it_runs_nothing_but_what_failed(
    tried: Tried, quickly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "FIRST_WHOLE", 1)
    before = {number: len(runs) for number, runs in trials_of(tried.uri).items()}
    again = topotrain.tune(tried.space, **tried.options, resume=True)
    assert again.run_id == tried.result.run_id
    assert [trial.status for trial in again.trials] == [trial.status for trial in tried.result.trials]
    assert [trial.value for trial in again.trials] == [trial.value for trial in tried.result.trials]
    failed = tried.trials[Tried.RATES[2]].number
    assert {number: len(runs) for number, runs in trials_of(tried.uri).items()} == {**before, failed: 2}
    assert len(versions_of(tried.uri)) == 1
    assert len(all_runs(tried.uri, "tune")) == 1


def test_another_process_that_goes_on_with_it_is_refused(tried: Tried) -> None:
    lease = hold_run(Store.open(tried.uri), tried.result.run_id)
    try:
        with pytest.raises(TrackingError, match="still being"):
            topotrain.tune(tried.space, **tried.options, resume=True)
    finally:
        lease.release()
    assert len(all_runs(tried.uri, "tune")) == 1


def test_a_loser_can_be_registered_later(tried: Tried, tmp_path: Path) -> None:
    """What was trained without versions gets them without training anew."""
    result = topotrain.fit(
        tried.recipe, overrides=["trainer.num_epochs=1", "mlflow.register=none"], tracking_uri=tried.uri
    )
    before = len(versions_of(tried.uri))
    assert isinstance(topotrain.resume(result.run_id, tracking_uri=tried.uri), AlreadyComplete)
    made = topotrain.resume(result.run_id, overrides=["mlflow.register=all"], tracking_uri=tried.uri)
    assert not isinstance(made, AlreadyComplete)
    assert (made.run_id, len(made.model_versions), made.epochs) == (result.run_id, 1, 1)
    assert len(versions_of(tried.uri)) == before + 1
    again = topotrain.resume(result.run_id, overrides=["mlflow.register=all"], tracking_uri=tried.uri)
    assert isinstance(again, AlreadyComplete)


# Seeds and folds


@pytest.mark.long
def test_folds_and_seeds(make_graph_set: Any, store_uri: str, tmp_path: Path, quickly: None, capsys: Any) -> None:
    """The mean over all is compared; the winner is trained once more, on the recipe's own labels."""
    graph_set = make_graph_set(train_targets=4)
    recipe = write_recipe(tmp_path, graph_set, trainer={"num_epochs": 1}, dataloader={"batch_size": 4, "seed": 5})
    (tmp_path / "space.yaml").write_text(SPACE)
    given = ("--space", "space.yaml", "--config", recipe, "--trials", 2, "--jobs", 2, "--folds", 2, "--seeds", 2)
    status = exit_status(
        "tune", *given, "--metric", "val_spearman_corr", "--tracking-uri", store_uri, "--out", "w.yaml"
    )
    said = capsys.readouterr()
    assert status == 0, said.err
    head, *rows = said.out.splitlines()
    assert head.split()[:5] == [
        "trial",
        "status",
        "val_spearman_corr",
        "optimizer.learning_rate",
        "model.attention_head",
    ]
    assert [row.split()[-2:] for row in rows] == [["4", "runs"]] * 2
    trials = trials_of(store_uri)
    client = mlflow_client(store_uri)
    values = {}
    for number, runs in trials.items():
        parts = {(run.data.tags["topotrain.tune_seed"], run.data.tags["topotrain.tune_fold"]) for run in runs}
        assert parts == {("5", "1"), ("5", "2"), ("6", "1"), ("6", "2")}
        assert {run.data.params["dataloader.seed"] for run in runs} == {"5", "6"}
        assert {int(run.data.params["data.num_train"]) + int(run.data.params["data.num_val"]) for run in runs} == {16}
        assert len({run.data.params["data.digest"] for run in runs}) == 2
        figures = [metric_history(client, run.info.run_id, "val_spearman_corr")[0] for run in runs]
        values[number] = sum(figures) / 4
    (parent,) = all_runs(store_uri, "tune")
    summary = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/tune_summary.json")
    assert {trial["number"]: trial["value"] for trial in summary["trials"]} == pytest.approx(values)
    assert summary["best"] == max(values, key=lambda number: (values[number], -number)), "larger is better"
    winner = client.get_run(summary["winner_run"])
    assert (winner.info.run_name, winner.data.params["dataloader.seed"]) == ("winner", "5")
    assert winner.data.params["paths.val_labels"] == str(graph_set.val_labels)
    assert (winner.data.params["data.num_train"], winner.data.params["data.num_val"]) == ("16", "8")
    assert {version.run_id for version in versions_of(store_uri)} == {winner.info.run_id}
    assert summary["winner_value"] == metric_history(client, winner.info.run_id, "val_spearman_corr")[0]
    assert yaml.safe_load((tmp_path / "w.yaml").read_text())["paths"]["train_labels"] == str(graph_set.train_labels)
    assert len(artifact_names(client, parent.info.run_id, "tune/folds")) == 4
    pictures = {"history.png", "importances.png", "parallel_coordinates.png", "slices.png", "tuning.html"}
    assert artifact_names(client, parent.info.run_id, "figures") == pictures
    lines = said.err.splitlines()
    assert "2/2 trials, best val_spearman_corr" in "\n".join(lines)
    assert lines[-1].endswith("topotrain run --config w.yaml")


# Cut off


@pytest.mark.long
def test_killed_outright_it_goes_on_from_what_the_server_knows(
    graph_set: GraphSet, store_uri: str, tmp_path: Path, held: Path, quick_python: str
) -> None:
    """As when a machine is gone: the trial under way is the same run, with each epoch once; what is suggested is what
    would have been."""
    epochs = 20
    recipe = write_recipe(tmp_path, graph_set, trainer={"num_epochs": epochs}, early_stopping={"patience": epochs})
    (tmp_path / "space.yaml").write_text(SPACE)
    options = ["--config", str(recipe), "--trials", "3", "--pruner", "none", "--tracking-uri", store_uri]
    command = ["-m", "topotrain", "tune", "--space", "space.yaml", *options]
    client = mlflow_client(store_uri)

    def reached(number: int) -> int:
        runs = trials_of(store_uri).get(number, [])
        return len(metric_history(client, runs[0].info.run_id, "val_loss")) if runs else 0

    held.write_text("--run-name=trial_001")
    first = subprocess.Popen([quick_python, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: reached(1) >= 2)
    for run in (all_runs(store_uri, "tune")[0], trials_of(store_uri)[1][0]):
        os.kill(json.loads(run.data.tags["topotrain.heartbeat"])["pid"], signal.SIGKILL)
    assert first.wait(PATIENCE) == -signal.SIGKILL
    (before,), (cut,) = trials_of(store_uri)[0], trials_of(store_uri)[1]
    assert (before.info.status, cut.info.status) == ("FINISHED", "RUNNING")
    assert reached(1) < epochs
    assert all_runs(store_uri, "tune")[0].info.status == "RUNNING"

    held.unlink()
    second = subprocess.run(
        [quick_python, *command, "--resume"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 0, second.stderr
    assert "1 trials have ended, 1 go on" in second.stderr
    trials = trials_of(store_uri)
    assert [len(trials[number]) for number in range(3)] == [1, 1, 1]
    assert (trials[0][0].info.run_id, trials[1][0].info.run_id) == (before.info.run_id, cut.info.run_id)
    for runs in trials.values():
        points = client.get_metric_history(runs[0].info.run_id, "val_loss")
        assert [point.step for point in points] == list(range(epochs)), "each epoch once"
        assert runs[0].info.status == "FINISHED"
    (parent,) = all_runs(store_uri, "tune")
    assert (parent.info.status, "topotrain.status_note" in parent.data.tags) == ("FINISHED", False)
    anew = Study(load_space("space.yaml", recipe), "tpe", 222, maximise=False)
    for number in range(3):
        (run,) = trials[number]
        assert json.loads(run.data.tags["topotrain.tune_values"]) == anew.suggest(number)
        anew.tell(number, run.data.metrics["best_val_loss"])
    assert len({version.run_id for version in versions_of(store_uri)}) == 1


def test_told_to_stop_it_takes_its_trials_with_it(
    graph_set: GraphSet, store_uri: str, tmp_path: Path, held: Path, quick_python: str
) -> None:
    recipe = write_recipe(tmp_path, graph_set, trainer={"num_epochs": 20})
    (tmp_path / "space.yaml").write_text(SPACE)
    options = ["--config", str(recipe), "--trials", "3", "--jobs", "2", "--tracking-uri", store_uri]
    command = [quick_python, "-m", "topotrain", "tune", "--space", "space.yaml", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: sum("val_loss" in run.data.metrics for run in all_runs(store_uri, "run")) == 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (143, ""), err
    assert err.splitlines()[-1] == "error: interrupted by signal 15"
    (parent,) = all_runs(store_uri, "tune")
    assert [run.info.status for run in (parent, *all_runs(store_uri, "run"))] == ["KILLED"] * 3
    summary = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/tune_summary.json")
    assert (summary["status"], summary["best"]) == ("interrupted", None)
    assert [trial["status"] for trial in summary["trials"]] == ["running", "running"]
    assert mlflow_client(store_uri).search_registered_models() == []


def test_what_was_stopped_while_a_trial_was_pruned_is_closed_by_who_goes_on(
    graph_set: GraphSet, store_uri: str, tmp_path: Path, quickly: None
) -> None:
    """The tag comes first: a run that has it, and was cut off, is pruned and not gone on with."""
    recipe = write_recipe(tmp_path, graph_set)
    (tmp_path / "space.yaml").write_text(SPACE)
    fixed = {"config": recipe, "overrides": (), "sampler": "random", "pruner": "median", "metric": None}
    plan = plan_tuning("space.yaml", trials=2, seeds=1, folds=None, timeout=None, **fixed)
    store = Store.open(store_uri)
    parent = open_run(store, "tests", command="tune", tags={"topotrain.tune_study": plan.digest})
    values = plan.study().suggest(0)
    job = plan.job(0, values, plan.parts[0])
    run = open_run(
        store, "tests", command="run", tags={**job.tags, "topotrain.batch_job": job.name}, parent_run_id=parent.run_id
    )
    run.metrics({"val_loss": 0.5}, step=0)
    run.tags({"topotrain.pruned": "after epoch 0: val_loss 0.5"})
    with pytest.raises(TrackingError, match=r"tune .* is still running"):
        topotrain.tune("space.yaml", trials=2, config=recipe, sampler="random", resume=True, tracking_uri=store_uri)
    ended(parent, "KILLED")
    with pytest.raises(TrackingError, match="trial_000 is still being trained"):
        topotrain.tune("space.yaml", trials=2, config=recipe, sampler="random", resume=True, tracking_uri=store_uri)
    ended(run, "KILLED", "interrupted by signal 15")
    options: dict[str, Any] = {"config": recipe, "sampler": "random", "resume": True, "tracking_uri": store_uri}
    result = topotrain.tune("space.yaml", trials=2, **options)
    assert [trial.status for trial in result.trials] == ["pruned", "finished"]
    closed = mlflow_client(store_uri).get_run(run.run_id)
    assert closed.info.status == "FINISHED"
    assert "topotrain.status_note" not in closed.data.tags
    assert result.best == 1
    assert len(trials_of(store_uri)[0]) == 1


@pytest.mark.server
@pytest.mark.parametrize("kind", ["tune", "batch"])
def test_a_server_that_is_away_when_all_has_run_is_waited_for(
    graph_set: GraphSet,
    mlflow_server: Server,
    tmp_path: Path,
    quickly: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """Which version is the best, and which has the alias, is asked at the very end."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    proxy = Unreliable(mlflow_server.address)
    owner, method = (tune, "record_pictures") if kind == "tune" else (scheduler.Scheduler, "run")
    real = getattr(owner, method)

    def then_away(*given: Any) -> None:
        real(*given)
        proxy.mode = "refuse"

    def come_back() -> None:
        wait_for(lambda: "what is left to do waits for it" in caplog.text)
        proxy.mode = "pass"

    monkeypatch.setattr(owner, method, then_away)
    other = threading.Thread(target=come_back)
    other.start()
    recipe = write_recipe(tmp_path, graph_set, trainer={"num_epochs": 1})
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump({"jobs": [{"name": "a", "config": str(recipe)}]}))
    if kind == "tune":
        result = topotrain.tune("space.yaml", trials=1, config=recipe, tracking_uri=proxy.address)
    else:
        result = topotrain.batch("jobs.yaml", tracking_uri=proxy.address)
    other.join()
    proxy.stop()
    assert caplog.text.count("asking again") == 1
    assert (result.exit_status, result.undelivered, result.candidates) == (0, None, {"topoqa": "1"})
    assert all_runs(mlflow_server.address, kind)[0].info.status == "FINISHED"


def test_after_the_time_is_up_no_trial_begins(
    graph_set: GraphSet, store_uri: str, tmp_path: Path, quickly: None
) -> None:
    recipe = write_recipe(tmp_path, graph_set, trainer={"num_epochs": 1}, mlflow={"register": "none"})
    (tmp_path / "space.yaml").write_text(SPACE)
    result = topotrain.tune("space.yaml", trials=50, timeout=0.1, config=recipe, tracking_uri=store_uri)
    assert [trial.status for trial in result.trials] == ["finished"]
    assert (result.best, result.candidates) == (0, {})
    assert result.winner_run == result.trials[0].runs["seed_222"]


def test_where_nothing_can_be_trained_it_stops_soon(
    graph_set: GraphSet, store_uri: str, tmp_path: Path, quickly: None, capsys: Any
) -> None:
    recipe = write_recipe(tmp_path, graph_set, paths={"graph": str(tmp_path / "absent")})
    (tmp_path / "space.yaml").write_text(SPACE)
    given = ("--space", "space.yaml", "--config", recipe, "--trials", "20", "--jobs", "2")
    assert exit_status("tune", *given, "--tracking-uri", store_uri) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: none of [345] trials finished; trial 0: .*absent: no such directory", said)
    assert all_runs(store_uri, "tune")[0].info.status == "FAILED"
    assert not (tmp_path / "space_winner.yaml").exists()


def test_a_winner_that_can_not_be_written_is_said_before_anything_runs(tmp_path: Path, store_uri: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    with pytest.raises(DataError, match="it is a folder"):
        topotrain.tune("space.yaml", trials=1, out=tmp_path, tracking_uri=store_uri)
    assert all_runs(store_uri, "tune") == []


# What is shown


def test_the_table_and_what_failed() -> None:
    values = {"optimizer.learning_rate": 0.00123456, "model.pooling_type": "mean", "edge_schema.use_layer_norm": True}
    good = TrialReport(0, "finished", values, 0.12345, 12, 61.25, {"seed_1": "f" * 32})
    bad = TrialReport(1, "failed", values, None, 0, 1.0, {"seed_1": None}, "why", (1, 2))
    own = {"run_id": "r", "run_name": "t", "tracking_uri": "sqlite:///x.db"}
    result = TuneResult("val_loss", [good, bad], best=0, **own)
    head, first, second = table_lines(result)
    assert head.split()[-3:] == ["seconds", "run", "id"]
    assert first.split() == ["0", "*", "finished", "0.1235", "0.001235", "mean", "true", "12", "61.2", "f" * 32]
    assert second.split() == ["1", "failed", "-", "0.001235", "mean", "true", "0", "1.0", "-"]
    none = TuneResult("val_loss", [bad], **own)
    assert (result.exit_status, none.exit_status) == (0, 1)
    assert failure_line(none).startswith("none of 1 trials finished; trial 1: why; expected one that did;")


def test_the_standing_is_told_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    with BatchDisplay() as display:
        for headline in ("1/3 trials", "1/3 trials", "2/3 trials"):
            display.headline = headline
            display.show([JobReport("a", 3, "val_loss", "a", "running")])
    assert caplog.messages == ["a: running", "1/3 trials", "2/3 trials"]


# The page


@pytest.mark.long
def test_the_walk_through_runs_as_it_is_written(
    graph_set: GraphSet, tmp_path: Path, store_uri: str, quick_python: str
) -> None:
    """With four trials of an epoch each, on few graphs."""
    page = (ROOT / "docs" / "tune.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 1
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", page, flags=re.DOTALL):
        (tmp_path / name).write_text(text)
    code = re.sub(r"--trials \d+", "--trials 4", blocks[0].replace("\\\n", ""))
    small = " ".join(f"--override {one}" for one in graph_set.overrides if not one.startswith("trainer"))
    code = re.sub(r"num_epochs=\d+", f"num_epochs=1 {small}", code)
    folders = [str(Path(quick_python).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "MLFLOW_TRACKING_URI": store_uri}
    done = subprocess.run(
        ["sh", "-ec", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(trials_of(store_uri)) == 4
    (tuned,) = (run for run in all_runs(store_uri, "run") if run.info.run_name == "tuned")
    winner = mlflow_client(store_uri).get_run(all_runs(store_uri, "tune")[0].data.tags["topotrain.best_child"])
    assert tuned.data.metrics["val_loss"] == winner.data.metrics["val_loss"], "its configuration is all it takes"
    assert "4/4 trials, best val_loss" in done.stderr
