"""Batches: jobs as children of one run, each in a process of its own."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import psutil
import pytest
import torch
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import topotrain
from kit.commands import exit_status
from kit.dying import ended
from kit.graphs import write_graph_set
from kit.recorded import fetch_artifact, metric_history, mlflow_client
from kit.structures import write_models
from kit.waiting import PATIENCE, wait_for
from topotrain.batches import local_engine
from topotrain.batches.batch import BatchResult, batch, best_state
from topotrain.batches.display import BatchDisplay, JobReport, failure_line, summary_lines
from topotrain.batches.engine import Work
from topotrain.batches.manifest import load_manifest
from topotrain.batches.scheduler import JobState, Scheduler
from topotrain.errors import InterruptedRunError, TrackingError
from topotrain.fields import TAG_BATCH_JOB, TAG_COMMAND
from topotrain.model.checkpoint import read_checkpoint
from topotrain.tracking.journal import journals_dir
from topotrain.tracking.notes import SUMMARY
from topotrain.tracking.opening import open_run
from topotrain.tracking.store import Store

RECIPE = {
    "paths": {"graph": "set/graphs", "train_labels": "set/train.csv", "val_labels": "set/val.csv"},
    "trainer": {"num_epochs": 2, "accumulate_grad_batches": 1},
    "dataloader": {"batch_size": 4},
    "checkpoints": {"keep": 1},
}
BROKEN = {"paths": {"graph": "set/absent"}}


def write_manifest(folder: Path, jobs: list[dict[str, Any]], name: str = "sweep.yaml", **more: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"shared": {"overrides": RECIPE}, "jobs": jobs, **more}))
    return path


def command(python: str, path: Path, uri: str, *options: str) -> list[str]:
    return [python, "-m", "topotrain", "batch", "--manifest", str(path), "--tracking-uri", uri, *options]


def run_batch(
    python: str, path: Path, uri: str, *options: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(python, path, uri, *options), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def all_runs(uri: str) -> list[Run]:
    client = mlflow_client(uri)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def parents(uri: str) -> list[Run]:
    return [run for run in all_runs(uri) if run.data.tags.get(TAG_COMMAND) == "batch"]


def children_by_job(uri: str) -> dict[str, list[Run]]:
    jobs: dict[str, list[Run]] = {}
    for run in all_runs(uri):
        if TAG_BATCH_JOB in run.data.tags:
            jobs.setdefault(run.data.tags[TAG_BATCH_JOB], []).append(run)
    return jobs


def table(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines()[1:]}


class Sweep:
    """A batch of five jobs that ran once; one failed, and one waited for it in vain."""

    JOBS: list[dict[str, Any]] = [
        {"name": "one", "overrides": {"seed": 1}, "run_name": "the first", "notes": "own words", "trial_label": "t1"},
        {"name": "broken", "overrides": BROKEN},
        {"name": "two", "overrides": {"seed": 2, "optimizer.learning_rate": 0.1}},
        {"name": "fine", "resume_from": "best-of(one, two)", "overrides": {"optimizer.learning_rate": 0.0001}},
        {"name": "in vain", "resume_from": "best-of(broken)"},
    ]

    def __init__(self, root: Path, uri: str, python: str) -> None:
        self.uri, self.project = uri, root / "project"
        self.project.mkdir()
        write_graph_set(self.project / "set")
        (self.project / "set.yaml").write_text("# shared recipe\nlogging: {log_every_n_steps: 5}\n")
        jobs = [{"config": "set.yaml", **job} for job in self.JOBS]
        self.manifest = write_manifest(self.project, jobs, continue_on_error=True)
        self.done = run_batch(python, self.manifest, uri, "--jobs", "2", cwd=root)
        self.parent = parents(uri)[0]
        self.children = {name: runs[0] for name, runs in children_by_job(uri).items()}
        self.candidate = mlflow_client(uri).get_model_version_by_alias("topoqa", "candidate")
        self.summary = mlflow.artifacts.load_dict(f"{self.parent.info.artifact_uri}/batch_summary.json")


@pytest.fixture(scope="module")
def sweep(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory, quick_python: str) -> Iterator[Sweep]:
    root = tmp_path_factory.mktemp("a sweep")
    (root / "store").mkdir()
    shutil.copyfile(_empty_store, root / "store" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_") and "TELEMETRY" not in name]:
            patch.delenv(name)
        yield Sweep(root, f"sqlite:///{root / 'store' / 'mlflow.db'}", quick_python)


def test_streams_and_exit_status(sweep: Sweep) -> None:
    assert sweep.done.returncode == 2, sweep.done.stderr
    rows = table(sweep.done.stdout)
    assert list(rows) == ["name", "one", "broken", "two", "fine", "in"][1:]
    assert rows["one"][1:4:2] == ["finished", sweep.children["one"].data.tags["topotrain.best_epoch"]]
    assert rows["broken"][1] == "failed"
    assert rows["in"][2] == "skipped"
    last = sweep.done.stderr.splitlines()[-1]
    assert last.startswith("error: 2 of 5 jobs did not finish: broken (failed), in vain (skipped); expected all to; ")
    assert f"broken: {sweep.project / 'set' / 'absent'}: no such directory" in last
    assert "Traceback" not in sweep.done.stderr
    assert "one: running" in sweep.done.stderr
    assert "fine: finished, 2/2 epochs, best val_loss 0." in sweep.done.stderr


def test_children_are_nested_below_their_parent(sweep: Sweep) -> None:
    assert set(sweep.children) == {"one", "broken", "two", "fine"}
    assert (sweep.parent.info.run_name, sweep.parent.info.status) == ("sweep", "FAILED")
    assert sweep.parent.data.tags["topotrain.status_note"].startswith("2 of 5 jobs did not finish: broken (failed)")
    for name, run in sweep.children.items():
        assert run.data.tags["mlflow.parentRunId"] == sweep.parent.info.run_id
        assert run.data.tags[TAG_COMMAND] == "run"
        assert run.info.experiment_id == sweep.parent.info.experiment_id
        assert run.info.status == ("FAILED" if name == "broken" else "FINISHED")
    one = sweep.children["one"]
    assert one.info.run_name == "the first"
    assert one.data.tags["mlflow.note.content"].startswith(f"own words\n\n{SUMMARY}**Best epoch: ")
    assert one.data.tags["topotrain.trial_label"] == "t1"
    assert one.data.params["dataloader.seed"] == "1"
    assert one.data.params["logging.log_every_n_steps"] == "5"
    assert not [key for key in one.data.params if "batch_job" in key]


def test_the_parent_s_page_names_the_best_child_and_shows_all(sweep: Sweep) -> None:
    text, summary = sweep.parent.data.tags["mlflow.note.content"], sweep.summary
    best = next(row for row in summary["jobs"] if row["name"] == summary["best"])
    assert text.startswith(
        f"{SUMMARY}Best job: **{best['name']}**, val_loss {best['primary_value']:.4f} in epoch {best['best_epoch']} "
        f"(run `{best['run_id']}`).\n\n| name | status | "
    )
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert {row[0].removeprefix("| "): row[1] for row in rows} == {
        row["name"]: row["status"] for row in summary["jobs"]
    }


def test_the_summary_agrees_with_the_server(sweep: Sweep) -> None:
    summary = sweep.summary
    assert (summary["run_id"], summary["status"]) == (sweep.parent.info.run_id, "failed")
    rows = {row["name"]: row for row in summary["jobs"]}
    for name in ("one", "two", "fine"):
        run, row = sweep.children[name], rows[name]
        assert (row["status"], row["run_id"], row["exit_status"]) == ("finished", run.info.run_id, 0)
        assert row["best_epoch"] == int(run.data.tags["topotrain.best_epoch"])
        assert row["primary_value"] == run.data.metrics["best_val_loss"]
        losses = metric_history(mlflow_client(sweep.uri), run.info.run_id, "val_loss")
        assert row["val_loss"] == losses[row["best_epoch"]]
        assert row["epochs"] == 2
        assert row["seconds"] > 0
    assert rows["broken"]["exit_status"] == 2
    assert rows["in vain"]["note"] == "broken did not finish"


def test_artifacts_of_the_parent(sweep: Sweep) -> None:
    root = sweep.parent.info.artifact_uri
    assert mlflow.artifacts.load_text(f"{root}/batch/sweep.yaml") == sweep.manifest.read_text()
    resolved = yaml.safe_load(mlflow.artifacts.load_text(f"{root}/batch/resolved.yaml"))
    assert [job["name"] for job in resolved["jobs"]] == [job["name"] for job in Sweep.JOBS]
    assert resolved["jobs"][2]["config"]["optimizer"]["learning_rate"] == 0.1
    assert "no such directory" in mlflow.artifacts.load_text(f"{root}/logs/broken.log")
    assert "epoch 1/1" in mlflow.artifacts.load_text(f"{root}/logs/one.log")
    original = mlflow.artifacts.load_text(f"{sweep.children['one'].info.artifact_uri}/config/original_config.yaml")
    assert original.startswith("# job 'one' of the batch manifest sweep.yaml, from set.yaml\n")


def best_of(*runs: Run) -> Run:
    return min(runs, key=lambda run: run.data.metrics["best_val_loss"])


def test_best_of_begins_with_the_best_checkpoint(sweep: Sweep) -> None:
    best = best_of(sweep.children["one"], sweep.children["two"])
    fine = sweep.children["fine"].data
    assert fine.tags["topotrain.resumed_from"] == best.info.run_id
    assert fine.tags["topotrain.resumed_checkpoint"] == (
        f"runs:/{best.info.run_id}/{best.data.tags['topotrain.best_checkpoint']}"
    )


def test_the_candidate_is_the_best_version_of_the_best_child(sweep: Sweep) -> None:
    finished = [run for run in sweep.children.values() if run.info.status == "FINISHED"]
    best = best_of(*finished)
    assert sweep.candidate.run_id == best.info.run_id
    assert sweep.candidate.tags["rank"] == "1"
    assert sweep.candidate.tags["epoch"] == best.data.tags["topotrain.best_epoch"]
    assert sweep.parent.data.tags["topotrain.best_child"] == best.info.run_id
    assert sweep.summary["candidates"] == {"topoqa": str(sweep.candidate.version)}


def weights(client: MlflowClient, run_id: str, folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(fetch_artifact(client, run_id, "checkpoints/last.ckpt", folder))["state_dict"]


def test_a_job_is_the_same_run_as_one_alone(sweep: Sweep, tmp_path: Path) -> None:
    """To the last bit, whatever runs beside it."""
    config = tmp_path / "recipe.yaml"
    recipe = {**RECIPE, "paths": {key: str(sweep.project / path) for key, path in RECIPE["paths"].items()}}
    config.write_text(yaml.safe_dump(recipe))
    alone = topotrain.fit(config, overrides=["seed=1", "mlflow.register=none"], tracking_uri=sweep.uri)
    client = mlflow_client(sweep.uri)
    (tmp_path / "alone").mkdir()
    mine = weights(client, alone.run_id, tmp_path / "alone")
    theirs = weights(client, sweep.children["one"].info.run_id, tmp_path)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_resume_in_another_place_runs_only_what_is_missing(sweep: Sweep, tmp_path: Path, quick_python: str) -> None:
    """Finished jobs are recognised on the server, though the project has moved; what failed is mended and run."""
    project = tmp_path / "elsewhere"
    shutil.move(sweep.project, project)
    manifest = project / "sweep.yaml"
    content = yaml.safe_load(manifest.read_text())
    del content["jobs"][1]["overrides"]
    manifest.write_text(yaml.safe_dump(content))
    again = run_batch(quick_python, manifest, sweep.uri, "--resume", "--jobs", "2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    rows = table(again.stdout)
    assert [rows[name][1:3] for name in ("one", "two", "fine")] == [["finished", "(earlier)"]] * 3
    assert rows["broken"][1] == "finished"
    assert "3 jobs are finished, 0 go on, 2 are run" in again.stderr

    (parent,) = parents(sweep.uri)
    assert parent.info.run_id == sweep.parent.info.run_id, "it continues under the same parent"
    assert parent.info.status == "FINISHED"
    assert "topotrain.status_note" not in parent.data.tags
    jobs = children_by_job(sweep.uri)
    assert {name: len(runs) for name, runs in jobs.items()} == {
        "one": 1,
        "two": 1,
        "fine": 1,
        "broken": 2,
        "in vain": 1,
    }
    assert jobs["in vain"][0].data.tags["topotrain.resumed_from"] == jobs["broken"][0].info.run_id

    nothing = run_batch(quick_python, manifest, sweep.uri, "--resume", cwd=tmp_path)
    assert nothing.returncode == 0, nothing.stderr
    assert {name: len(runs) for name, runs in children_by_job(sweep.uri).items()} == {
        n: len(r) for n, r in jobs.items()
    }


def test_after_a_failure_no_job_starts(graph_set: Any, store_uri: str, quick_python: str) -> None:
    jobs = [{"name": "broken", "overrides": BROKEN}, {"name": "other"}]
    manifest = write_manifest(graph_set.root.parent, jobs)
    done = run_batch(quick_python, manifest, store_uri)
    assert done.returncode == 2, done.stderr
    assert [row[1] for row in table(done.stdout).values()] == ["failed", "skipped"]
    assert set(children_by_job(store_uri)) == {"broken"}
    assert mlflow_client(store_uri).search_registered_models() == []


def epochs_of(uri: str, job: str) -> int:
    runs = children_by_job(uri).get(job, [])
    return len(metric_history(mlflow_client(uri), runs[0].info.run_id, "val_loss")) if runs else 0


@pytest.mark.long
def test_killed_and_resumed(graph_set: Any, store_uri: str, held: Path, quick_python: str) -> None:
    """Told to stop, it takes its jobs with it; killed outright, they follow; resumed, the same runs go on."""
    epochs = 20
    overrides = {"trainer.num_epochs": epochs, "early_stopping.patience": epochs}
    jobs = [{"name": "long", "overrides": overrides}, {"name": "next", "resume_from": "best-of(long)"}]
    manifest = write_manifest(graph_set.root.parent, jobs)

    def start(*options: str, python: str = sys.executable) -> subprocess.Popen[str]:
        started = command(python, manifest, store_uri, *options)
        return subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start()
    wait_for(lambda: epochs_of(store_uri, "long") >= 2)
    served = psutil.Process(first.pid).children()
    assert len(served) == 1
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=PATIENCE)
    assert (first.returncode, out) == (143, ""), err
    assert err.splitlines()[-1] == "error: interrupted by signal 15"
    assert not served[0].is_running()
    (run,), (parent,) = children_by_job(store_uri)["long"], parents(store_uri)
    assert (run.info.status, parent.info.status) == ("KILLED", "KILLED")
    summary = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/batch_summary.json")
    assert summary["status"] == "interrupted"
    assert [row["status"] for row in summary["jobs"]] == ["killed", "waiting"]
    reached = epochs_of(store_uri, "long")
    assert 2 <= reached < epochs

    second = start("--resume")
    wait_for(lambda: epochs_of(store_uri, "long") > reached)
    served = psutil.Process(second.pid).children()
    second.kill()
    second.wait()
    psutil.wait_procs(served, timeout=PATIENCE)
    assert not [process for process in served if process.is_running()], "an orphan"
    assert children_by_job(store_uri)["long"][0].info.status == "KILLED"

    held.unlink()
    third = start("--resume", python=quick_python)
    out, err = third.communicate(timeout=PATIENCE)
    assert third.returncode == 0, err
    assert "0 jobs are finished, 1 go on, 1 are run" in err
    (run,) = children_by_job(store_uri)["long"]
    assert run.info.status == "FINISHED"
    points = mlflow_client(store_uri).get_metric_history(run.info.run_id, "val_loss")
    assert [point.step for point in points] == list(range(epochs)), "one point an epoch"
    assert parents(store_uri)[0].info.status == "FINISHED"
    assert len(parents(store_uri)) == 1


def test_resume_refuses_a_batch_that_is_still_running(graph_set: Any, store_uri: str) -> None:
    manifest = write_manifest(graph_set.root.parent, [{"name": "a"}])
    recorder = open_run(
        Store.open(store_uri), "dynamic_topoqa", command="batch", tags={"topotrain.batch_name": "sweep"}
    )
    other = open_run(Store.open(store_uri), "dynamic_topoqa", command="run", parent_run_id=recorder.run_id)
    (job,) = load_manifest(manifest).jobs
    other.tags({TAG_BATCH_JOB: "a", "topotrain.batch_job_digest": job.digest})
    try:
        # What a run is called is delivered beside it, and not before its first sign of life.
        for run_id, tag in ((recorder.run_id, "topotrain.batch_name"), (other.run_id, "topotrain.batch_job_digest")):
            wait_for(
                lambda run_id=run_id, tag=tag: (
                    {"topotrain.heartbeat", tag} <= mlflow_client(store_uri).get_run(run_id).data.tags.keys()
                )
            )
        with pytest.raises(TrackingError, match="is still running; expected one that ended"):
            batch(manifest, resume=True, tracking_uri=store_uri)
        ended(recorder, "KILLED")
        with pytest.raises(TrackingError, match="job 'a' is still being trained"):
            batch(manifest, resume=True, tracking_uri=store_uri)
    finally:
        ended(other, "KILLED")
    assert len(parents(store_uri)) == 1


@pytest.mark.server
def test_a_server_that_is_away_for_a_while(graph_set: Any, mlflow_server: Any, held: Path, quick_python: str) -> None:
    """The batch asks again, and knows in the end what its jobs achieved meanwhile."""
    uri = mlflow_server.address
    overrides = {"trainer.num_epochs": 40, "early_stopping.patience": 40, "mlflow.register": "none"}
    jobs = [{"name": "long", "overrides": overrides}, {"name": "next", "resume_from": "best-of(long)"}]
    manifest = write_manifest(graph_set.root.parent, jobs)
    log = graph_set.root / "batch.log"
    with log.open("w") as err:
        process = subprocess.Popen(command(quick_python, manifest, uri), stdout=subprocess.PIPE, stderr=err, text=True)
    wait_for(lambda: epochs_of(uri, "long") >= 2)
    mlflow_server.stop()
    wait_for(lambda: "asking again" in log.read_text())
    held.unlink()
    mlflow_server.start()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, log.read_text()
    assert [row[1] for row in table(out).values()] == ["finished", "finished"]
    assert log.read_text().count("asking again") == 1
    client = mlflow_client(uri)
    (run,) = children_by_job(uri)["long"]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")] == list(range(40))
    fine = children_by_job(uri)["next"][0].data.tags
    assert fine["topotrain.resumed_checkpoint"].startswith(f"runs:/{run.info.run_id}/checkpoints/epoch_")


def test_build_then_train(tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch, quick_python: str) -> None:
    """Two edge modules, one recipe: the runs differ in their schemas, and graphs are built once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for target in ("T1", "T2"):
        keys = write_models(tmp_path / "pdb", (0.0, 1.0, 2.5), target)
        lines = ["MODEL,dockq", *(f"{key},{0.9 - 0.3 * n:.1f}" for n, key in enumerate(keys))]
        (tmp_path / f"{target}.csv").write_text("\n".join(lines) + "\n")
    recipe = {**RECIPE, "paths": {"train_labels": "T1.csv", "val_labels": "T2.csv"}, "trainer": {"num_epochs": 1}}
    build = {"structures": "pdb", "modules": {"topology": "topology/none/v1"}}
    jobs = [
        {"name": "legacy", "build": {"modules": {"edge": "edge/legacy_band/v11"}}},
        {"name": "distance", "build": {"modules": {"edge": "edge/distance/v1"}, "set": {"edge.distance_max": 9}}},
    ]
    manifest = tmp_path / "features.yaml"
    manifest.write_text(yaml.safe_dump({"shared": {"build": build, "overrides": recipe}, "jobs": jobs}))
    done = run_batch(quick_python, manifest, store_uri, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    runs = {name: made[0].data.params for name, made in children_by_job(store_uri).items()}
    assert (runs["legacy"]["schema.edge.dim"], runs["distance"]["schema.edge.dim"]) == ("11", "1")
    assert runs["distance"]["schema.edge.module"] == "edge/distance/v1"
    assert runs["legacy"]["schema.digest"] != runs["distance"]["schema.digest"]
    graphs = Path(runs["distance"]["paths.graph"])
    assert graphs.is_relative_to(tmp_path / "cache")
    assert len(list(graphs.rglob("*.pt"))) == 6
    log = mlflow.artifacts.load_text(f"{parents(store_uri)[0].info.artifact_uri}/logs/distance.log")
    assert "6 graphs built, 0 kept" in log


def test_a_build_that_ends_while_the_batch_is_stopped_starts_no_training(
    tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(write_manifest(tmp_path, [{"name": "a"}]))
    recorder = open_run(Store.open(store_uri), "tests", command="batch")
    state = JobState(manifest.jobs[0], report("a", "building"))
    engine = local_engine.LocalEngine(store_uri, tmp_path, 1)
    scheduler = Scheduler(manifest, {"a": state}, recorder, engine, BatchDisplay())
    state.process = engine.submit(Work("a", ("--version",)))
    state.process.process.wait()
    started: list[Any] = []
    monkeypatch.setattr(Scheduler, "_begin", lambda self, *given: started.append(given))

    def stop(self: Scheduler) -> None:
        raise InterruptedRunError(signal.SIGTERM)

    monkeypatch.setattr(Scheduler, "_start_ready", stop)
    with pytest.raises(InterruptedRunError):
        scheduler.run()
    ended(recorder, "KILLED")
    assert not started
    assert (state.report.status, state.process) == ("killed", None)


def test_a_job_that_had_finished_when_its_node_was_lost_is_finished(tmp_path: Path, store_uri: str) -> None:
    """The server knows it, though nobody heard its process end: there is nothing to go on with, and no failure."""
    manifest = load_manifest(write_manifest(tmp_path, [{"name": "a"}]))
    parent = open_run(Store.open(store_uri), "tests", command="batch")
    run = open_run(parent.store, "tests", command="run", tags={TAG_BATCH_JOB: "a"}, parent_run_id=parent.run_id)
    ended(run)
    words = {"run_id": None, "lost": True, "seconds": 1.0, "last_words": "its node was lost", "progress": None}
    state = JobState(manifest.jobs[0], report("a", "running"), process=SimpleNamespace(poll=lambda: -9, **words))
    engine = local_engine.LocalEngine(store_uri, tmp_path, 1)
    Scheduler(manifest, {"a": state}, parent, engine, BatchDisplay()).run()
    ended(parent)
    assert (state.report.status, state.report.run_id) == ("finished", run.run_id)
    assert (state.report.exit_status, state.report.note) == (0, "")
    assert result(state.report).exit_status == 0


def report(name: str, status: Any, **more: Any) -> JobReport:
    return JobReport(name, 10, "val_loss", name, status, **more)


def result(*reports: JobReport) -> BatchResult:
    return BatchResult(list(reports), run_id="r", run_name="b", tracking_uri="sqlite:///x.db")


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([("finished", 0)], 0),
        ([("finished", 0), ("failed", 2)], 2),
        ([("failed", 2), ("failed", 1)], 1),
        ([("killed", -9), ("failed", 2)], 1),
        ([("failed", 2), ("skipped", None)], 2),
        ([("finished", 0), ("skipped", None)], 1),
    ],
)
def test_the_exit_status_of_a_batch(outcomes: list[tuple[Any, int | None]], status: int) -> None:
    assert result(*(report("j", kind, exit_status=code) for kind, code in outcomes)).exit_status == status


def test_a_batch_whose_jobs_are_not_delivered_ends_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Its jobs have finished, and it says where what the server lacks is."""
    late = result(report("a", "finished", exit_status=0), report("b", "finished", exit_status=4))
    monkeypatch.setattr("topotrain.batches.batch.batch", lambda *_, **__: late)
    assert (late.exit_status, late.undelivered) == (0, journals_dir())
    assert exit_status("batch", "--manifest", tmp_path / "any.yaml") == 4
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"{journals_dir()} keeps what it lacks; deliver it with: topotrain sync")
    assert result(report("a", "finished", exit_status=0)).undelivered is None


def test_the_best_of_different_primary_metrics(tmp_path: Path) -> None:
    """No value of one metric is held against a value of another."""
    other = {"overrides": {"selection.primary_metric": "selection_metric"}}
    jobs = [{"name": "a", **other}, {"name": "b"}, {"name": "c"}, {"name": "d", **other}]
    manifest = write_manifest(tmp_path, jobs)
    states = [JobState(job, report(job.name, "finished")) for job in load_manifest(manifest).jobs]
    for state, value in zip(states, (-0.5, 0.2, 0.1, -0.6), strict=True):
        state.report.primary_value = value
    a, b, c, d = states
    assert best_state([a, b, c, d]) is d, "of two equally frequent metrics, the one met first"
    assert best_state([b, a, c]) is c
    assert best_state([b]) is b
    b.report.primary_value = None
    assert best_state([b]) is None


def test_the_environment_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "the batch's own")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"mine": "1"}')
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    environment = local_engine.child_environment("sqlite:///x.db", 4, {"theirs": "2"})
    assert "the batch's own" not in environment.values()
    assert environment["MLFLOW_TRACKING_URI"] == "sqlite:///x.db"
    assert yaml.safe_load(environment["MLFLOW_RUN_CONTEXT"]) == {"mine": "1", "theirs": "2"}
    assert environment["OMP_NUM_THREADS"] == "4", "no more than its share"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local_engine.child_environment("x", 4, {})["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert local_engine.child_environment("x", 8, {})["OMP_NUM_THREADS"] == "1", "as a run outside a batch"


def test_the_table() -> None:
    done = report("a", "finished", run_id="f" * 32, best_epoch=3, primary_value=0.12345, val_loss=0.2, seconds=61.25)
    head, first, second = summary_lines([done, report("a long name", "skipped")])
    assert first.split() == ["a", "finished", "f" * 32, "3", "val_loss", "0.1235", "0.2000", "61.2"]
    assert second.split() == ["a", "long", "name", "skipped", "-", "-", "-", "-", "-"]
    assert head.index("run id") == first.index("ffff") == second.index("-")
    assert failure_line([done, report("x", "skipped"), report("y", "failed", note="why")]).startswith(
        "2 of 3 jobs did not finish: x (skipped), y (failed); expected all to; y: why;"
    )


def test_lines_tell_changes_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from topotrain.batches import display as batch_display

    one = report("a", "waiting")
    with BatchDisplay() as display:
        display.show([one])
        assert caplog.messages == []
        one.status = "running"
        display.show([one])
        one.epochs = 1
        display.show([one])
        assert caplog.messages == ["a: running"], "progress is told now and then"
        monkeypatch.setattr(batch_display, "LINE_SECONDS", 0.0)
        one.best_val_loss = 0.25
        display.show([one])
        display.show([one])
        one.status, one.note = "failed", "why"
        display.show([one])
    assert caplog.messages[1:] == [
        "a: running, 1/10 epochs, best val_loss 0.2500",
        "a: failed, 1/10 epochs, best val_loss 0.2500, why",
    ]


def test_a_terminal_shows_all_jobs() -> None:
    """In a pseudo-terminal, since nothing else is one."""
    script = (
        "from topotrain.batches.display import *\n"
        "with BatchDisplay() as d:\n"
        " d.headline = 'best [y] so far'\n"
        " d.show([JobReport('first [x]', 10, 'val_loss', 'n', 'running', epochs=3, "
        "best_val_loss=0.5), JobReport('second', 10, 'val_loss', 'n')])"
    )
    shown: list[bytes] = []
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvp(sys.executable, [sys.executable, "-c", script])
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:
            break
        if not part:
            break
        shown.append(part)
    os.waitpid(pid, 0)
    text = b"".join(shown).decode()
    assert "first [x]" in text
    assert "3/10" in text
    assert "0.5000" in text
    assert "waiting" in text
    assert "best [y] so far" in text


def test_resources_bound_how_many_jobs_run_at_once(
    graph_set: Any,
    store_uri: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quick_python: str,
) -> None:
    """Two jobs that each take more than half of the memory run one after the other, whatever ``jobs`` is."""
    there = psutil.virtual_memory().total
    resources = {"cpus": 1, "memory": f"{there * 0.6 / 1e6:.0f}MB"}
    path = write_manifest(graph_set.root.parent, [{"name": name, "resources": resources} for name in "ab"])
    begun: list[int] = []
    submit = local_engine.LocalEngine.submit

    def counting(self: Any, work: Work) -> Any:
        begun.append(len(self._under_way))
        return submit(self, work)

    monkeypatch.setattr(local_engine.LocalEngine, "submit", counting)
    monkeypatch.setattr(local_engine.sys, "executable", quick_python)
    overrides = (*graph_set.overrides, "trainer.num_epochs=1")
    assert not batch(path, overrides=overrides, jobs=2, tracking_uri=store_uri, progress=False).unfinished
    assert begun == [0, 0]

    greedy = write_manifest(graph_set.root.parent, [{"name": "a", "resources": {"cpus": 4096}}], "greedy.yaml")
    assert exit_status("batch", "--manifest", greedy, "--tracking-uri", store_uri) == 2
    assert "job 'a' asks for more than this machine has (cpus 4096 of " in capfd.readouterr().err
    assert len(parents(store_uri)) == 1, "nothing has run"
