"""A disk that is full or read-only costs no run: one line names it, and the run goes on to the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import topotrain
from kit.commands import exit_status
from kit.disks import SmallDisk, driven
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client
from kit.run_contents import assert_alike
from kit.servers import Server
from kit.waiting import PATIENCE, wait_for

RECIPE = ["trainer.num_epochs=4", "checkpoints.keep=2", "selection.primary_metric=val_loss", "mlflow.flush_timeout=1"]
ROOM = "expected a folder that can be written, with space left"


@dataclass(frozen=True)
class Place:
    """A store, and the folders of a process, all of one test's own."""

    root: Path
    graph_set: GraphSet
    python: str

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'store' / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.root / "store" / "mlartifacts"

    def folder(self, name: str) -> Path:
        """Of the disk that is to fail."""
        return self.artifacts if name == "artifacts" else self.root / name

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes, whose folders are made."""
        folders = {"XDG_STATE_HOME": "journal", "XDG_CACHE_HOME": "cache", "TMPDIR": "temporary"}
        for name in (*folders.values(), "here"):
            (self.root / name).mkdir(exist_ok=True)
        return {**os.environ, **{key: str(self.root / name) for key, name in folders.items()}}

    @property
    def training(self) -> list[str]:
        overrides = [part for one in [*self.graph_set.overrides, *RECIPE] for part in ("-o", one)]
        return ["run", "--tracking-uri", self.uri, *overrides]

    def call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, cwd=self.root / "here", timeout=PATIENCE
        )

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call([self.python, "-m", "topotrain", *arguments])

    def runs(self) -> list[tuple[str, str]]:
        """Ids and statuses."""
        client = mlflow_client(self.uri)
        homes = [one.experiment_id for one in client.search_experiments()]
        return [(run.info.run_id, run.info.status) for run in client.search_runs(homes)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphSet:
    root = tmp_path_factory.mktemp("full disks") / "set"
    write_graph_set(root)
    return GraphSet(root)


@pytest.fixture(scope="module")
def undisturbed(graphs: GraphSet, _empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Store and id of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    return uri, topotrain.fit(overrides=[*graphs.overrides, *RECIPE], tracking_uri=uri).run_id


@pytest.fixture
def place(tmp_path: Path, graphs: GraphSet, quick_python: str) -> Place:
    return Place(tmp_path, graphs, quick_python)


def small_disk(stack: ExitStack, place: Place, name: str, store: Path) -> SmallDisk:
    """The disk that is to fail, with a store; the artifacts are on the store's disk only where they are meant."""
    folder = place.root / "store"
    folder.mkdir()
    disk = SmallDisk(place.folder(name))
    if name != "store":
        shutil.copyfile(store, folder / "mlflow.db")
    stack.enter_context(disk)
    if name == "store":
        shutil.copyfile(store, folder / "mlflow.db")
        stack.enter_context(SmallDisk(place.artifacts))
    return disk


def said(err: str) -> list[str]:
    """The lines that are no report of progress."""
    assert "Traceback" not in err, err
    told = ("error: ", "complete, but", "not ", "failed", "the tracking server", "/")
    return [line for line in err.splitlines() if line.startswith(told)]


# Where the journal and the work go to end a run; all else waits in the journal.
ENDING = {"journal": "set XDG_STATE_HOME to another", "temporary": "set TMPDIR to another"}


@pytest.mark.parametrize(
    ("name", "how", "moment"),
    [
        ("store", "full", "training"),
        ("store", "full", "end"),
        ("artifacts", "full", "registering"),
        ("artifacts", "read-only", "training"),
        ("journal", "full", "training"),
        ("journal", "full", "registering"),
        ("temporary", "full", "training"),
        ("temporary", "read-only", "registering"),
    ],
)
def test_a_disk_fails_in_the_middle(
    place: Place, undisturbed: tuple[str, str], _empty_store: Path, name: str, how: str, moment: str
) -> None:
    with ExitStack() as stack:
        disk = small_disk(stack, place, name, _empty_store)
        done = place.call(driven(place.python, disk.folder, how, moment, place.training))
        lines = said(done.stderr)
        ((run_id, status),) = place.runs()
        disk.make_room()
        if name in ENDING:
            (line,) = lines
            assert done.returncode == 2, done.stderr
            assert status == "FAILED"
            assert ENDING[name] in line
            after = place.program("resume", "--run-id", run_id, "--tracking-uri", place.uri)
        else:
            line, last = lines
            assert done.returncode == 4, done.stderr
            assert "does not take" in line
            assert last.startswith("complete, but not yet delivered")
            after = place.program("sync")
        assert str(disk.folder) in line
        assert ROOM in line
        assert after.returncode == 0, after.stderr
        assert place.runs() == [(run_id, "FINISHED")]
        assert_alike(undisturbed[0], undisturbed[1], run_id, place.uri)
        assert list((place.root / "journal").glob("topotrain/journals/*")) == []
        assert list((place.root / "temporary").glob("topotrain-*")) == []


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("name", ["store", "artifacts", "journal", "temporary"])
def test_a_disk_that_fails_from_the_start_begins_no_run(place: Place, _empty_store: Path, name: str, how: str) -> None:
    with ExitStack() as stack:
        disk = small_disk(stack, place, name, _empty_store)
        if name == "temporary":  # of one that takes nothing at all, Python knows others
            subprocess.run(["mount", "-o", "remount,size=64k", str(disk.folder)], check=True)
            done = place.program(*place.training)
        else:
            done = place.call(driven(place.python, disk.folder, how, "before", place.training))
        (line,) = said(done.stderr)
        assert done.returncode == 2, done.stderr
        assert str(disk.folder) in line
        assert ROOM in line
        disk.make_room()
        assert place.runs() == []


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_without_a_cache_graphs_stay_in_memory(
    place: Place, undisturbed: tuple[str, str], _empty_store: Path, how: str
) -> None:
    with ExitStack() as stack:
        disk = small_disk(stack, place, "cache", _empty_store)
        done = place.call(driven(place.python, disk.folder, how, "before", place.training))
        assert done.returncode == 0, done.stderr
        (line,) = said(done.stderr)
        assert line.startswith(str(disk.folder))
        assert "set paths.cache" in line
        assert_alike(undisturbed[0], undisturbed[1], done.stdout.strip(), place.uri)


def test_what_is_not_delivered_waits_until_there_is_room(
    place: Place, undisturbed: tuple[str, str], _empty_store: Path
) -> None:
    """Going on and delivering, while the disk is still full, change nothing and say so in one line."""
    with ExitStack() as stack:
        disk = small_disk(stack, place, "artifacts", _empty_store)
        done = place.call(driven(place.python, disk.folder, "full", "training", place.training))
        assert done.returncode == 4, done.stderr
        ((run_id, _),) = place.runs()
        resume = ["resume", "--run-id", run_id, "--tracking-uri", place.uri]
        for command, status in ((["sync"], 4), (resume, 2)):
            again = place.program(*command)
            assert again.returncode == status, again.stderr
            assert f"{disk.folder}" in said(again.stderr)[0]
        disk.make_room()
        after = place.program(*resume)
        assert after.returncode == 0, after.stderr
        assert_alike(undisturbed[0], undisturbed[1], run_id, place.uri)


def test_a_database_that_goes_in_the_middle(place: Place, undisturbed: tuple[str, str], _empty_store: Path) -> None:
    database = place.root / "store" / "mlflow.db"
    database.parent.mkdir()
    shutil.copyfile(_empty_store, database)
    done = place.call(driven(place.python, database, "gone", "training", place.training))
    line, last = said(done.stderr)
    assert done.returncode == 4, done.stderr
    assert f"{database} is gone" in line
    assert last.startswith("complete, but not yet delivered")
    gone = place.program("sync")
    assert gone.returncode == 2, gone.stderr
    assert f"{database}: no such tracking store" in said(gone.stderr)[0]
    for end in ("-wal", "-shm", ""):
        Path(f"{database}{end}").unlink(missing_ok=True)
        if (away := Path(f"{database}.away{end}")).exists():
            away.rename(f"{database}{end}")
    after = place.program("sync")
    assert after.returncode == 0, after.stderr
    ((run_id, status),) = place.runs()
    assert status == "FINISHED"
    assert_alike(undisturbed[0], undisturbed[1], run_id, place.uri)


@pytest.mark.server
def test_a_server_whose_disk_is_full(
    place: Place, undisturbed: tuple[str, str], mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of its artifacts: the program knows no more than that the server does not take them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # MLflow's client waits for seconds between two
    with SmallDisk(mlflow_server.artifacts) as disk:
        command = ["--tracking-uri", mlflow_server.address]
        training = [*command, *place.training[3:]]
        done = place.call(driven(place.python, disk.folder, "full", "training", ["run", *training]))
        line, last = said(done.stderr)
        assert done.returncode == 4, done.stderr
        assert "the tracking server does not take artifact" in line
        assert last.startswith("complete, but not yet delivered")
        disk.make_room()
        after = place.program("sync")
        assert after.returncode == 0, after.stderr
        assert_alike(mlflow_server.address, after.stdout.strip(), undisturbed[1], undisturbed[0])


def test_work_folders_of_killed_processes_are_cleared_by_the_next(place: Place, _empty_store: Path) -> None:
    """And never those of one that lives."""
    (place.root / "store").mkdir()
    shutil.copyfile(_empty_store, place.root / "store" / "mlflow.db")
    long = [*place.training, "-o", "trainer.num_epochs=5000", "-o", "early_stopping.patience=5000"]

    def trains() -> tuple[subprocess.Popen[str], Path]:
        before = folders()
        one = subprocess.Popen(
            [place.python, "-m", "topotrain", *long],
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True},
            **{"env": place.environment, "cwd": place.root / "here"},
        )
        assert one.stderr is not None
        assert next(line for line in one.stderr if line.startswith("epoch 1/"))
        threading.Thread(target=one.stderr.read, daemon=True).start()
        (folder,) = folders() - before
        return one, folder

    def folders() -> set[Path]:
        return set((place.root / "temporary").glob("topotrain-run-*"))

    killed, left = trains()
    living, kept = trains()
    try:
        killed.kill()
        killed.wait(PATIENCE)
        assert left.exists()
        wait_for(lambda: place.program(*place.training, "--fast-dev-run").returncode == 0 and not left.exists())
        assert folders() == {kept}
        assert list(kept.rglob("checkpoints/last.ckpt"))
    finally:
        living.kill()
        living.wait(PATIENCE)


def test_what_a_user_asked_for_can_t_be_written(finished: Any, tmp_path: Path, capsys: Any) -> None:
    graphs = finished.graph_set.graphs
    model = ["--model", f"models:/topoqa/{finished.result.model_versions[0]}", "--tracking-uri", finished.uri]
    with SmallDisk(tmp_path / "out", "64k") as disk:
        (disk.folder / "filler").write_bytes(bytes(2**16))
        for command in (
            ["predict", *model, "--graphs", graphs, "--out", disk.folder / "scores.csv"],
            ["demo-graphs", "--out", disk.folder / "demo"],
        ):
            assert exit_status(*command) == 2
            (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
            assert str(command[-1]) in line
            assert ROOM in line
            assert [path.name for path in disk.folder.iterdir()] == ["filler"]


def test_what_is_fetched_has_no_room(finished: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    model = ["--model", f"models:/topoqa/{finished.result.model_versions[0]}", "--tracking-uri", finished.uri]
    with SmallDisk(tmp_path / "small", "64k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
        graphs = finished.graph_set.graphs
        assert exit_status("predict", *model, "--graphs", graphs, "--out", tmp_path / "scores.csv") == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        assert f"temporary files {disk.folder} can't be written (No space left on device)" in line
        assert "set TMPDIR" in line
        assert list(disk.folder.iterdir()) == []
