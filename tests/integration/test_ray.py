"""A real Ray of two nodes on this machine: batches, graphs and scores on it, and what is lost with a node."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

import topotrain
from kit.ray_nodes import PYTHONPATH, RayNodes
from kit.recorded import mlflow_client
from kit.run_contents import contents, leases, weights
from kit.structures import write_models
from kit.waiting import PATIENCE, wait_for
from topotrain.fields import TAG_BATCH_JOB

pytestmark = [pytest.mark.server, pytest.mark.long]
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)
EPOCHS = 10


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """Two nodes of one core each."""
    cluster = RayNodes()
    try:
        cluster.start("head")
        cluster.start("second")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def on_ray(nodes: RayNodes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a command that is to run on the nodes; Ray itself is imported in processes of its own alone."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    for name, value in nodes.variables.items():
        monkeypatch.setenv(name, value)
    return ["--engine", "ray", "--address", nodes.address]


@pytest.fixture
def held_on_ray(nodes: RayNodes) -> Iterator[Path]:
    """As ``held``, for trainings on the nodes."""
    nodes.held.touch()
    yield nodes.held
    nodes.held.unlink(missing_ok=True)


def run(python: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """A program that runs to its end."""
    command = [python, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def write_manifest(graph_set: Any, *jobs: dict[str, Any], name: str = "many.yaml") -> Path:
    epochs = {"trainer.num_epochs": EPOCHS, "early_stopping.patience": EPOCHS, "checkpoints.keep": 1}
    overrides = [*graph_set.overrides, *(f"{key}={value}" for key, value in epochs.items())]
    path = graph_set.root.parent / name
    content = {"shared": {"overrides": overrides}, "jobs": list(jobs), "continue_on_error": True}
    path.write_text(yaml.safe_dump(content))
    return path


def children(uri: str) -> dict[str, Any]:
    client = mlflow_client(uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {run.data.tags[TAG_BATCH_JOB]: run for run in runs if TAG_BATCH_JOB in run.data.tags}


def test_the_trials_of_a_tuning_run_on_the_nodes(
    on_ray: list[str], graph_set: Any, server: str, quick_python: str
) -> None:
    """Folds, which lie in the cache directory that all see, and the winner's model."""
    space = graph_set.root.parent / "space.yaml"
    space.write_text("optimizer.learning_rate: {log: [1e-4, 1e-2]}\n")
    overrides = [word for one in (*graph_set.overrides, "trainer.num_epochs=1") for word in ("-o", one)]
    given = ["--space", space, "--trials", 1, "--folds", 2, *overrides, "--jobs", 2, "--tracking-uri", server]
    done = run(quick_python, "-m", "topotrain", "tune", *given, *on_ray)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-2:] for line in done.stdout.splitlines()[1:]] == [["2", "runs"]]
    runs = children(server)
    assert set(runs) == {"trial_000_seed_222_fold_1", "trial_000_seed_222_fold_2", "winner"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert mlflow_client(server).get_model_version_by_alias("topoqa", "candidate").run_id == runs["winner"].info.run_id


def epochs_of(uri: str, name: str) -> int:
    run = children(uri).get(name)
    return len(mlflow_client(uri).get_metric_history(run.info.run_id, "val_loss")) if run else 0


def trainings(nodes: RayNodes, node: str) -> list[psutil.Process]:
    found = []
    for process in nodes.processes(node):
        try:
            if {"topotrain", "--run-id"} <= {*process.cmdline()} or "run" in process.cmdline()[3:4]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_batch_outlives_its_driver_and_a_node(
    graph_set: Any, server: str, nodes: RayNodes, on_ray: list[str], held_on_ray: Path, quick_python: str
) -> None:
    """Jobs stop with the driver; resumed, they go on, also after a node is lost; to the same bits as undisturbed."""
    manifest = write_manifest(graph_set, {"name": "one", "overrides": {"seed": 1}}, {"name": "two"})
    command = [quick_python, "-m", "topotrain", "batch", "--manifest", str(manifest), "--tracking-uri", server]
    command += ["--jobs", "2", *on_ray]

    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: min(epochs_of(server, "one"), epochs_of(server, "two")) >= 2)
    under_way = trainings(nodes, "head") + trainings(nodes, "second")
    assert len(under_way) == 2
    first.kill()
    first.communicate()
    assert not psutil.wait_procs(under_way, PATIENCE)[1], "an orphan"
    assert [run.info.status for run in children(server).values()] == ["KILLED", "KILLED"], "they closed themselves"

    reached = {name: epochs_of(server, name) for name in ("one", "two")}
    second = subprocess.Popen([*command, "--resume"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: all(epochs_of(server, name) > reached[name] for name in reached))
    assert len(trainings(nodes, "second")) == 1
    nodes.kill("second")
    held_on_ray.unlink()
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    assert err.count("its node was lost; another goes on with run") == 1, err
    assert "Traceback" not in err
    assert all(line.startswith(("name ", "one ", "two ")) for line in out.splitlines()), out
    runs = children(server)
    lost = "one" if "one: its node was lost" in err else "two"
    run_id = runs[lost].info.run_id
    assert len(mlflow_client(server).search_runs([runs[lost].info.experiment_id])) == 3, "a batch and its two jobs"

    overrides = yaml.safe_load(manifest.read_text())["shared"]["overrides"]
    if lost == "one":
        overrides.append("seed=1")
    alone = topotrain.fit(overrides=overrides, tracking_uri=server, progress=False)
    there, undisturbed = contents(server, run_id), contents(server, alone.run_id)
    for part in ("status", "params", "points", "inputs"):
        assert there[part] == undisturbed[part], part
    for file, state in weights(server, alone.run_id).items():
        other = weights(server, run_id)[file]
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items()), file
    assert not leases(server, run_id)


def files_of(folder: Path) -> dict[str, bytes]:
    names = [*folder.rglob("*.pt"), folder / "graph_metadata.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def test_graphs_and_scores_are_the_same_bytes_as_locally(
    on_ray: list[str], finished: Any, tmp_path: Path, quick_python: str
) -> None:
    """Also where one structure, or one graph, can't be read."""
    write_models(tmp_path / "structures", [0.0, 1.0, 2.0, 3.0, 4.0])
    (tmp_path / "structures" / "T1" / "bad.pdb").write_text("no structure\n")
    for out, more in (("here", []), ("there", [*on_ray, "--jobs", "2"])):
        given = ("build-graphs", tmp_path / "structures", "--out", tmp_path / out)
        done = run(quick_python, "-m", "topotrain", *given, *more)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "5 graphs built, 0 kept" in done.stderr
        assert "UserWarning" not in done.stderr
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")

    rows = [f"T1/m{number},0.{number + 1}" for number in range(5)]
    (tmp_path / "labels.csv").write_text("\n".join(["MODEL,dockq", *rows]) + "\n")
    paths = [f"paths.{name}_labels={tmp_path / 'labels.csv'}" for name in ("train", "val")]
    overrides = [f"paths.graph={tmp_path / 'here'}", *paths, "trainer.num_epochs=1", "checkpoints.keep=1"]
    topotrain.fit(None, overrides=overrides, tracking_uri=f"sqlite:///{tmp_path / 'm.db'}", progress=False)
    scored = []
    for more in ([], [*on_ray, "--jobs", "2"]):
        given = ("score", "--no-cache", tmp_path / "structures", "--tracking-uri", f"sqlite:///{tmp_path / 'm.db'}")
        done = run(quick_python, "-m", "topotrain", *given, *more)
        assert done.returncode == 0, done.stderr
        assert "bad.pdb" in done.stderr
        scored.append(done.stdout)
    assert scored[0] == scored[1]
    assert len(scored[0].splitlines()) == 7
    assert "bad.pdb: no ATOM records" in scored[0].splitlines()[-1]

    shutil.copytree(finished.graph_set.graphs, tmp_path / "copied")
    spoilt = next((tmp_path / "copied").rglob("*.pt"))
    spoilt.write_bytes(b"no graph")
    tables = []
    for name, more in (("here.csv", []), ("two.csv", ["--jobs", "2"]), ("there.csv", [*on_ray, "--jobs", "2"])):
        given = ("--graphs", tmp_path / "copied", "--out", tmp_path / name, "--tracking-uri", finished.uri)
        model = ("--model", "models:/topoqa@candidate", "--batch-size", "4")
        done = run(quick_python, "-m", "topotrain", "predict", *model, *given, *more)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert str(spoilt) in done.stderr
        tables.append((tmp_path / name).read_bytes())
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0].splitlines()) > 10


SECOND_TRIES = """
import sys
from kit.ray_nodes import BAD, double_unless_bad, no_answer, refuse, take_down_a_node
from kit.waiting import wait_for
from topotrain.cluster.ray_cluster import open_cluster
from topotrain.errors import DataError

address, mark, spared = sys.argv[1:]
with open_cluster(address) as cluster:
    wait_for(lambda: len(cluster.nodes) == 2)
    results = list(cluster.run_tasks(2, double_unless_bad, range(20), no_answer))
    assert sorted(map(str, results)) == sorted([*(str(2 * n) for n in range(20) if n != BAD), f"{BAD} died"]), results
    try:
        list(cluster.run_tasks(1, refuse, [3], no_answer))
    except DataError as error:
        assert str(error) == "3 is refused; expected another"
    assert list(cluster.run_tasks(2, take_down_a_node, [(mark, int(spared))] * 2, no_answer)) == ["done"] * 2
    wait_for(lambda: len(cluster.nodes) == 1)
    print("all of it")
"""


def test_a_lost_node_costs_its_chunk_a_second_try(
    nodes: RayNodes, on_ray: list[str], tmp_path: Path, quick_python: str
) -> None:
    """And a task that takes its process down costs itself alone, one that is refused ends the work."""
    if "second" not in nodes.names:
        nodes.start("second")
    done = run(quick_python, "-c", SECOND_TRIES, nodes.address, tmp_path / "mark", nodes.raylet("head"))
    nodes.kill("second")
    assert (done.returncode, done.stdout) == (0, "all of it\n"), done.stderr


def test_what_can_t_run_there_is_one_line_and_leaves_no_run(
    graph_set: Any, server: str, nodes: RayNodes, on_ray: list[str], tmp_path: Path, quick_python: str
) -> None:
    manifest = write_manifest(graph_set, {"name": "one"})
    too_much = write_manifest(graph_set, {"name": "one", "resources": {"cpus": 2}}, name="much.yaml")
    elsewhere = write_manifest(graph_set, {"name": "one", "overrides": {"paths.graph": "nowhere"}}, name="else.yaml")

    def refused(*arguments: Any, uri: str = server) -> str:
        command = ("-m", "topotrain", "batch", "--tracking-uri", uri, "--manifest")
        done = run(quick_python, *command, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    said = refused(manifest, *on_ray, uri=f"sqlite:///{tmp_path / 'own.db'}")
    assert f"the tracking store is the file {tmp_path / 'own.db'}; expected a server" in said
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        script = "import topotrain.cluster.starting as s; s.ANSWER_SECONDS = 3.0; s.check_address(%r)"
        done = run(quick_python, "-c", script % f"127.0.0.1:{port}")
        assert "does not answer within 3 s" in done.stderr.splitlines()[-1]
    assert f"127.0.0.1:{port} does not answer" in refused(manifest, "--engine", "ray", "--address", f"127.0.0.1:{port}")
    assert "'ray://x' is none of a Ray cluster" in refused(manifest, "--engine", "ray", "--address", "ray://x")
    assert "is for no local engine" in refused(manifest, "--address", nodes.address)
    assert re.search(r"'one' asks for more than .* has \(cpus 2 of 1\)", refused(too_much, *on_ray))
    assert f"{graph_set.root.parent / 'nowhere'} is not visible from node " in refused(elsewhere, *on_ray)
    assert not mlflow_client(server).search_experiments(filter_string="name = 'dynamic_topoqa'")


WAIT_FOR_NODES = """
import sys
from kit.waiting import wait_for
from topotrain.cluster.ray_cluster import open_cluster

with open_cluster(sys.argv[1]) as cluster:
    wait_for(lambda: len(cluster.nodes) == int(sys.argv[2]))
"""


def test_a_node_with_another_version_is_named(
    graph_set: Any, server: str, nodes: RayNodes, on_ray: list[str], tmp_path: Path, quick_python: str
) -> None:
    shutil.copytree(Path(topotrain.__file__).parent, tmp_path / "odd" / "topotrain")
    (tmp_path / "odd" / "topotrain" / "version.py").write_text('__version__ = "9.9.9"\n')
    nodes.start("odd", PYTHONPATH=str(tmp_path / "odd"))
    there = run(quick_python, "-c", WAIT_FOR_NODES, nodes.address, len(nodes.names))
    assert there.returncode == 0, there.stderr
    command = ("-m", "topotrain", "batch", "--tracking-uri", server, *on_ray, "--manifest")
    done = run(quick_python, *command, write_manifest(graph_set, {"name": "one"}))
    nodes.kill("odd")
    assert done.returncode == 2
    assert re.search(r"error: node \S+ \(\S+\) has topotrain 9\.9\.9, this machine ", done.stderr), done.stderr


def test_a_job_that_is_killed_and_a_batch_that_is_told_to_stop(graph_set: Any, store_uri: str, held: Path) -> None:
    """On a Ray that is started for the batch, on this machine alone; nothing of it is left."""
    manifest = write_manifest(graph_set, {"name": "one"}, {"name": "two"}, {"name": "three"})
    command = [sys.executable, "-m", "topotrain", "batch", "--manifest", str(manifest), "--tracking-uri", store_uri]
    command += ["--engine", "ray", "--jobs", "2"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: min(epochs_of(store_uri, "one"), epochs_of(store_uri, "two")) >= 1)
    everything = psutil.Process(driver.pid).children(recursive=True)
    hungry = next(one for one in everything if "--run-name=one" in one.cmdline())
    assert "RAY_AUTH_TOKEN" in hungry.environ()
    assert not [one.cmdline() for one in everything if hungry.environ()["RAY_AUTH_TOKEN"] in " ".join(one.cmdline())]
    hungry.kill()
    wait_for(lambda: epochs_of(store_uri, "three") >= 1)
    driver.send_signal(signal.SIGTERM)
    out, err = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, out) == (143, ""), err
    assert "one: killed, " in err
    assert "ended by signal 9, as the system ends a process when memory runs out" in err
    assert {name: one.info.status for name, one in children(store_uri).items()} == dict.fromkeys(
        ("one", "two", "three"), "KILLED"
    )
    assert "topotrain.status_note" in children(store_uri)["three"].data.tags
    assert not psutil.wait_procs(everything, PATIENCE)[1], "left behind"


WITHOUT_CHECKS = """
import sys
from topotrain.cluster.ray_cluster import Cluster
from topotrain.cli import main

Cluster.check = lambda *_, **__: None  # Ray would end what looks around, too
main(sys.argv[1:])
"""


def test_a_job_that_ray_s_guard_of_the_memory_ends_says_so(
    graph_set: Any, store_uri: str, held: Path, quick_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes any machine for too full where so little may be used."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "500")
    command = ("batch", "--engine", "ray", "--tracking-uri", store_uri, "--manifest")
    done = run(quick_python, "-c", WITHOUT_CHECKS, *command, write_manifest(graph_set, {"name": "one"}))
    assert done.returncode == 1, done.stderr
    assert "one: killed, out of memory: its node had too little, and Ray ended its process\n" in done.stderr
