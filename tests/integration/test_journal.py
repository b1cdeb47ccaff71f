"""What is recorded goes to the journal first, and from there to exactly what an undisturbed run leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import topotrain
from kit.dying import as_dead, die
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client
from kit.run_contents import assert_alike, contents, leases
from kit.servers import Server
from kit.unreliable import Mode, Unreliable
from kit.waiting import PATIENCE, wait_for
from topotrain.errors import TrackingError
from topotrain.scoring.load import load_scorer
from topotrain.tracking import shipping
from topotrain.tracking.journal import journal_folders
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.store import Store
from topotrain.tracking.sync import deliver, journals
from topotrain.training.resume import resume
from topotrain.training.training_run import TrainingRun

RECIPE = ["trainer.num_epochs=5", "checkpoints.keep=2", "selection.primary_metric=val_loss"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GraphSet, Server]]:
    """A graph set and a server, whose tests make runs of their own."""
    root = tmp_path_factory.mktemp("journal")
    write_graph_set(root / "set")
    one = Server(f"sqlite:///{root / 'mlflow.db'}", root / "kept", root / "server.log")
    try:
        one.start()
        yield GraphSet(root / "set"), one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def undisturbed(place: tuple[GraphSet, Server]) -> str:
    """A run that nothing disturbed."""
    graph_set, server = place
    result = topotrain.fit(overrides=[*graph_set.overrides, *RECIPE], tracking_uri=server.address)
    assert result.journal is None, "delivered"
    return result.run_id


@pytest.fixture
def proxy(place: tuple[GraphSet, Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    """The server, behind what can fail; nobody waits long."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(shipping, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(shipping, "SECONDS_APART", 0.05)
    one = Unreliable(place[1].address)
    yield one
    one.stop()


def arguments(graph_set: GraphSet, uri: str, *more: str) -> list[str]:
    """The command line of a training."""
    overrides = [part for one in [*graph_set.overrides, *RECIPE] for part in ("-o", one)]
    return [sys.executable, "-m", "topotrain", "run", "--tracking-uri", uri, *overrides, *more]


@pytest.mark.server
@pytest.mark.parametrize(
    ("moment", "mode"),
    [
        *(("training", mode) for mode in ("refuse", "silent", "busy")),
        *(("registering", mode) for mode in ("broken", "deaf")),
        ("all the time", "deaf"),
    ],
)
def test_outages_of_every_kind_lose_nothing(
    place: Any,
    undisturbed: str,
    proxy: Unreliable,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    moment: str,
    caplog: Any,
) -> None:
    """The server fails at one moment for a while, or one request in seven does."""
    graph_set, server = place
    epoch, version = Recorder.epoch, Recorder.version

    def at_epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        if moment == "training":
            proxy.mode = mode if step in (1, 2) else "pass"
        epoch(self, values, step, **more)
        if moment == "training" and step in (1, 2):
            assert self._shipper is not None
            self._shipper.flush(0.3)

    def at_version(self: Recorder, *given: Any, **more: Any) -> Any:
        proxy.mode = mode if moment == "registering" else proxy.mode
        try:
            return version(self, *given, **more)
        finally:
            if moment == "registering":
                assert self._shipper is not None
                self._shipper.flush(0.3)
                proxy.mode = "pass"

    if moment == "all the time":
        _flicker(proxy, mode, monkeypatch)
    monkeypatch.setattr(Recorder, "epoch", at_epoch)
    monkeypatch.setattr(Recorder, "version", at_version)
    result = topotrain.fit(overrides=[*graph_set.overrides, *RECIPE], tracking_uri=proxy.address)
    proxy.mode = "pass"
    assert result.journal is None
    assert_alike(server.address, undisturbed, result.run_id)
    assert leases(server.address, result.run_id) == []
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("does not take" in line for line in lines) == sum("answers again" in line for line in lines)


def _flicker(proxy: Unreliable, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seventh request fails, once the run is there."""

    class Flickering:
        def __get__(self, one: Unreliable, _: Any = None) -> str:
            return mode if one.requests > 12 and one.requests % 7 == 0 else "pass"

        def __set__(self, one: Unreliable, value: str) -> None:
            monkeypatch.delattr(Unreliable, "mode", raising=False)
            one.__dict__["mode"] = value

    monkeypatch.setattr(Unreliable, "mode", Flickering(), raising=False)


@pytest.mark.server
def test_offline_and_delivered_later_twice_from_another_machine(
    place: Any, undisturbed: str, tmp_path: Path, quick_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_set, server = place
    uri = server.address
    command = [quick_python, *arguments(graph_set, "http://127.0.0.1:9", "--offline", "--run-name", "alone")[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "Downloading" not in done.stderr, "MLflow shows no bars of its own"
    (left,) = journals()
    assert f"topotrain sync {left.folder}" in done.stderr.splitlines()[-1]
    assert (left.run_id, left.run_name, left.offline) == (done.stdout.strip(), "alone", True)
    copies = [shutil.copytree(left.folder, tmp_path / "elsewhere" / name) for name in ("once", "twice")]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    sync = [quick_python, "-m", "topotrain", "sync", str(copies[0]), "--tracking-uri", uri]
    shipped = subprocess.run(sync, capture_output=True, text=True, cwd=tmp_path)
    assert shipped.returncode == 0, shipped.stderr
    run_id = shipped.stdout.strip()
    assert_alike(uri, undisturbed, run_id)
    run = mlflow_client(uri).get_run(run_id)
    assert run.info.run_name == "alone"
    assert 0 < run.info.end_time - run.info.start_time < PATIENCE * 1000
    before = contents(uri, run_id)
    assert deliver(copies[1], uri).superseded
    assert contents(uri, run_id) == before
    assert leases(uri, run_id) == []
    newest = f"models:/topoqa/{_newest(uri)}"
    assert load_scorer(newest, Store.open(uri)).schema.node_dim == 5
    assert topotrain.verify(newest, uri).uri == newest
    tags = mlflow_client(uri).get_model_version("topoqa", str(_newest(uri))).tags
    assert len(json.loads(tags["topotrain.files"])) == topotrain.verify(newest, uri).files


def _newest(uri: str) -> int:
    return max(int(one.version) for one in mlflow_client(uri).search_model_versions("name = 'topoqa'"))


@pytest.mark.server
@pytest.mark.parametrize("after", [0, 12, 30])
def test_a_delivery_that_is_cut_off_anywhere_ends_the_same(
    place: Any, undisturbed: str, proxy: Unreliable, after: int
) -> None:
    """The server takes so many requests, does one more without saying so, and is gone; then again from the start."""
    graph_set, server = place
    topotrain.fit(overrides=[*graph_set.overrides, *RECIPE], tracking_uri=proxy.address, offline=True)
    (left,) = journals()
    real = Unreliable.mode if hasattr(Unreliable, "mode") else None
    assert real is None
    begun = proxy.requests

    class Ending:
        def __get__(self, one: Unreliable, _: Any = None) -> str:
            made = one.requests - begun
            return "pass" if made <= after + 3 else "deaf" if made == after + 4 else "refuse"

        def __set__(self, one: Unreliable, value: str) -> None:
            """Stays."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unreliable, "mode", Ending(), raising=False)
        with pytest.raises(TrackingError):
            deliver(left.folder, proxy.address)
    for made in mlflow_client(server.address).search_runs(["1"], f"tags.`topotrain.offline_id` = '{left.run_id}'"):
        as_dead(server.address, made.info.run_id)
    done = deliver(left.folder, proxy.address)
    assert not done.superseded
    assert_alike(server.address, undisturbed, done.run_id)
    assert journals() == []


@pytest.mark.server
def test_killed_runs_are_delivered_by_resume_and_by_sync(
    place: Any, undisturbed: str, proxy: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the server was away: the journal alone knows the last epochs."""
    graph_set, server = place
    real = Recorder.epoch

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        if step == 1:
            assert self.flush()
            proxy.mode = "refuse"
        real(self, values, step, **more)
        if step == 3:
            raise Killed

    ids = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "epoch", epoch)
            patch.setattr(
                TrainingRun,
                "_end",
                lambda self, *_, **__: (
                    ids.append(self.recorder.run_id),
                    setattr(proxy, "mode", "pass"),
                    die(self.recorder, delivered=False),
                ),
            )
            with pytest.raises(Killed):
                topotrain.fit(overrides=[*graph_set.overrides, *RECIPE], tracking_uri=proxy.address)
    client = mlflow_client(server.address)
    assert [len(client.get_metric_history(one, "val_loss")) for one in ids] == [1, 1]
    resume(ids[0], tracking_uri=proxy.address)
    assert_alike(server.address, undisturbed, ids[0])
    (left,) = journals()
    deliver(left.folder)
    assert len(client.get_metric_history(ids[1], "val_loss")) == 4
    assert client.get_run(ids[1]).info.status == "RUNNING", "it did not end"
    resume(ids[1], tracking_uri=proxy.address)
    assert_alike(server.address, undisturbed, ids[1])
    assert journals() == []


@pytest.mark.server
def test_a_server_that_is_gone_at_the_end(place: Any, undisturbed: str, proxy: Unreliable, tmp_path: Path) -> None:
    """Exit status 4, one line with the way out; and a run that is stopped meanwhile ends within two seconds."""
    graph_set, server = place
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    long = ["-o", "trainer.num_epochs=2000", "-o", "early_stopping.patience=2000"]
    command = arguments(graph_set, proxy.address)

    def away_soon(*more: str) -> subprocess.Popen[str]:
        proxy.mode = "pass"
        one = subprocess.Popen(
            [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path
        )
        assert one.stderr is not None
        assert next(line for line in one.stderr if "to resume" in line)
        proxy.mode = "refuse"
        return one

    ended = away_soon("-o", "mlflow.flush_timeout=3")
    out, err = ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 4, err
    assert "Traceback" not in err
    lines = err.splitlines()
    assert lines[-1].startswith("complete, but not yet delivered")
    assert "topotrain sync" in lines[-1]
    assert sum("does not take" in line for line in lines) == 1
    stopped = away_soon(*long)
    assert stopped.stderr is not None
    next(line for line in stopped.stderr if "does not take" in line)
    begun = time.monotonic()
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=PATIENCE)
    took = time.monotonic() - begun
    assert stopped.returncode == 143, err
    assert took < 2.0 * (1 + (os.cpu_count() or 1) // 8 + 1), took  # 2 s where the machine is idle
    assert "topotrain sync" in err
    proxy.mode = "pass"
    done = subprocess.run(
        [sys.executable, "-m", "topotrain", "sync", "--all"], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr
    assert_alike(server.address, undisturbed, out.strip())
    assert len(done.stdout.split()) == 2
    killed = next(one for one in done.stdout.split() if one != out.strip())
    assert mlflow_client(server.address).get_run(killed).info.status == "KILLED"
    assert journal_folders() == []


def test_a_journal_under_way_is_refused(graph_set: GraphSet, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = Recorder.epoch, []

    def epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        real(self, values, step, **more)
        with pytest.raises(TrackingError, match="still being recorded"):
            deliver(self._journal.folder)
        refused.append(step)
        assert [one.under_way for one in journals()] == [True]

    monkeypatch.setattr(Recorder, "epoch", epoch)
    topotrain.fit(overrides=[*graph_set.overrides, "trainer.num_epochs=1"], tracking_uri=store_uri)
    assert refused == [0]
    wait_for(lambda: journals() == [])


def test_an_offline_run_that_was_cut_off_is_resumed_by_the_id_it_named(
    graph_set: GraphSet, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is delivered first, and its last checkpoint is what the run goes on from."""
    recipe = [*graph_set.overrides, *RECIPE]
    reference = topotrain.fit(overrides=recipe, tracking_uri=store_uri)
    real, ids = Recorder.epoch, []

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        real(self, values, step, **more)
        if step == 2:
            ids.append(self.run_id)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "epoch", epoch)
        patch.setattr(TrainingRun, "_end", lambda self, *_, **__: self.recorder._journal.lock.release())
        with pytest.raises(Killed):
            topotrain.fit(overrides=recipe, tracking_uri=store_uri, offline=True)
    result = resume(ids[0], tracking_uri=store_uri)
    assert result.run_id != ids[0]
    assert_alike(store_uri, reference.run_id, result.run_id)
    assert journals() == []


def test_an_offline_run_begins_with_a_file_and_is_found_by_the_id_that_it_printed(
    graph_set: GraphSet, store_uri: str, tmp_path: Path
) -> None:
    """What is on no server can't be asked of one."""
    recipe = {"overrides": [*graph_set.overrides, "trainer.num_epochs=1"], "offline": True, "tracking_uri": store_uri}
    printed = topotrain.fit(**recipe).run_id
    (left,) = journals()
    made = deliver(left.folder).run_id
    runs = Store.open(store_uri).runs
    assert made != printed
    assert [runs.find(one).run_id for one in (printed, printed[:8], made)] == [made] * 3
    weights = mlflow_client(store_uri).download_artifacts(made, "checkpoints/last.ckpt", str(tmp_path))
    assert topotrain.fit(**recipe, resume_from=weights).epochs == 1
    with pytest.raises(TrackingError, match="no tracking store without a server"):
        topotrain.fit(**recipe, resume_from="models:/topoqa@candidate")


def test_no_server_at_the_start(tmp_path: Path, quick_python: str) -> None:
    """Nobody answers, or somebody who says nothing: one line that names both ways out."""
    silent = Unreliable("http://127.0.0.1:9", "silent")
    try:
        for uri in ("http://127.0.0.1:9", silent.address):
            command = [quick_python, "-m", "topotrain", "run", "--tracking-uri", uri, "-o", "mlflow.connect_timeout=2"]
            begun = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
            assert time.monotonic() - begun < 20
            assert done.returncode == 2, done.stderr
            (line,) = done.stderr.splitlines()
            assert "--tracking-uri" in line
            assert "--offline" in line
    finally:
        silent.stop()
