"""What the attacks of tests/soak found, each as a test of its own."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model

import topotrain
from kit.dying import DEAD, as_dead, die
from kit.graphs import GraphSet
from kit.recorded import mlflow_client
from kit.run_contents import assert_alike, leases
from topotrain import scratch
from topotrain.errors import TrackingError
from topotrain.fields import TAG_OFFLINE_ID
from topotrain.tracking import sync
from topotrain.tracking.backlog import Backlog
from topotrain.tracking.entries import File, Params, Point, Points, Tags, what
from topotrain.tracking.journal import HOLLOW_SECONDS, Journal, journal_folders, journals_dir, origin_of
from topotrain.tracking.lease import Lease
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.sync import deliver
from topotrain.training.continuation import Continuation
from topotrain.training.resume import resume
from topotrain.training.training_run import TrainingRun

RECIPE = ["trainer.num_epochs=3", "checkpoints.keep=2", "selection.primary_metric=val_loss"]


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def settings(graph_set: GraphSet, store_uri: str) -> dict[str, Any]:
    """Of every training here."""
    return {"overrides": [*graph_set.overrides, *RECIPE], "tracking_uri": store_uri, "progress": False}


def killed(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], owner: Any, method: str, stub: Any) -> str:
    """A run that is killed where a method that is put in place of another says so; its id."""
    ids: list[str] = []

    def end(self: TrainingRun, *_: Any) -> None:
        ids.append(self.recorder.run_id)
        die(self.recorder, delivered=False)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, stub)
        patch.setattr(TrainingRun, "_end", end)
        with pytest.raises(Killed):
            topotrain.fit(**settings)
    return ids[0]


def test_the_recipe_is_there_before_the_first_checkpoint(tmp_path: Path) -> None:
    """Who goes on with a run elsewhere, without its journal, would not record its recipe again."""
    journal = Journal(tmp_path / "journal")
    journal._append({"kind": "origin"})
    (tmp_path / "last.ckpt").write_text("weights")
    early = [
        Params(values={"a": "1"}),
        Tags(values={"b": "2"}),
        File(kept=journal.keep_text("x"), artifact="config/config.yaml"),
    ]
    late = [
        Points(points=[Point(key="val_loss", value=0.1, time=1, step=0)]),
        Tags(values={"topotrain.best_epoch": "0"}),
    ]
    for entry in [*early, File(kept=journal.keep(tmp_path / "last.ckpt"), artifact="checkpoints/last.ckpt"), *late]:
        journal.append(entry)
    backlog, order = Backlog(journal), []
    backlog.take_in()
    while group := backlog.next():
        order += [what(one.entry) for one in group]
        backlog.done(group)
    assert order == [
        *("parameters", "tags", "artifact config/config.yaml"),
        *("artifact checkpoints/last.ckpt", "metrics", "tags"),
    ]


def test_a_model_that_was_never_registered_is_found_after_the_journal_was_delivered(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Killed with a logged model that no journal names; delivered; gone on with."""
    uri = settings["tracking_uri"]
    undisturbed = topotrain.fit(**settings).run_id

    def after_points(self: Recorder, *_: Any, **__: Any) -> None:
        assert self.flush()
        client = mlflow_client(uri)
        home = client.get_run(self.run_id).info.experiment_id
        client.create_logged_model(home, "topoqa-epoch-0", source_run_id=self.run_id, tags={"rank": "1"})
        raise Killed

    run_id = killed(monkeypatch, settings, Recorder, "version", after_points)
    (left,) = journal_folders()
    deliver(left)
    assert leases(uri, run_id) == []
    resume(run_id, tracking_uri=uri, progress=False)
    assert_alike(uri, undisturbed, run_id)


def test_copies_of_a_journal_make_one_run(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A second process looks for the run when the first has not made it, and makes its own afterwards."""
    uri = settings["tracking_uri"]
    undisturbed = topotrain.fit(**settings).run_id
    topotrain.fit(**settings, offline=True)
    (left,) = journal_folders()
    copy = shutil.copytree(left, tmp_path / "copy")
    real = sync._made_for
    seen: list[int] = []

    def late(*given: Any) -> Any:
        """The first look is before the other process made its run."""
        seen.append(1)
        if len(seen) == 1:
            with monkeypatch.context() as inner:
                inner.setattr(sync, "_made_for", real)
                inner.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
                assert not deliver(copy).superseded
            return []
        return real(*given)

    monkeypatch.setattr(sync, "_made_for", late)
    assert deliver(left).superseded
    client = mlflow_client(uri)
    origin = [r for r in client.search_runs(["1"]) if TAG_OFFLINE_ID in r.data.tags]
    assert len(origin) == 1
    assert_alike(uri, undisturbed, origin[0].info.run_id)
    assert journal_folders() == []


def test_a_run_that_another_process_made_for_a_copy_may_be_taken_back_meanwhile(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """As when a third one saw the other's run before it did."""
    uri = settings["tracking_uri"]
    undisturbed = topotrain.fit(**settings).run_id
    topotrain.fit(**settings, offline=True)
    (left,) = journal_folders()
    origin, client, real = origin_of(left), mlflow_client(uri), sync._lease_of
    asked = {**Lease.tags("another", held=False, writes=False), **Lease.tags_of_one_gone(origin.writer)}
    client.create_run("1", tags={**origin.tags, TAG_OFFLINE_ID: origin.run_id, **asked})

    def late(store: Any, origin: Any, run: Any, **more: Any) -> Any:
        monkeypatch.setattr(sync, "_lease_of", real)
        client.delete_run(run.run_id)
        return real(store, origin, run, **more)

    monkeypatch.setattr(sync, "_lease_of", late)
    done = deliver(left)
    assert not done.superseded
    assert sync._lease_of is real, "it was taken back"
    (made,) = [run.info.run_id for run in client.search_runs(["1"]) if TAG_OFFLINE_ID in run.data.tags]
    assert made == done.run_id
    assert_alike(uri, undisturbed, made)
    assert (leases(uri, made), journal_folders()) == ([], [])


def test_a_copy_is_refused_while_another_is_delivered(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], tmp_path: Path
) -> None:
    topotrain.fit(**settings, offline=True)
    (left,) = journal_folders()
    copy = shutil.copytree(left, tmp_path / "copy")
    real = sync._deliver

    def delivering(*given: Any) -> Any:
        with monkeypatch.context() as inner:
            inner.setattr(sync, "_deliver", real)
            inner.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
            with pytest.raises(TrackingError, match="still being"):
                deliver(copy)
        return real(*given)

    monkeypatch.setattr(sync, "_deliver", delivering)
    assert not deliver(left).superseded


def test_who_was_killed_while_it_asked_leaves_no_claim(settings: dict[str, Any]) -> None:
    uri = settings["tracking_uri"]
    run_id = topotrain.fit(**settings).run_id
    client = mlflow_client(uri)
    asking = Lease.take(client, run_id)
    asking.leave()
    as_dead_asker = {**DEAD, "held": True, "writes": False}
    client.set_tag(run_id, f"topotrain.lease.{asking.writer}", json.dumps(as_dead_asker))
    Lease.take(client, run_id).release()
    assert leases(uri, run_id) == []


def test_who_may_have_left_a_journal_keeps_its_claim(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    uri = settings["tracking_uri"]

    def epoch(self: Recorder, *_: Any, **__: Any) -> None:
        assert self.flush()
        raise Killed

    run_id = killed(monkeypatch, settings, Recorder, "epoch", epoch)
    as_dead(uri, run_id)
    Lease.take(mlflow_client(uri), run_id).release()
    assert len(leases(uri, run_id)) == 1


def test_resume_asks_nothing_once_it_has_begun(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """The server is lost at that moment: the journal takes what is recorded."""
    uri = settings["tracking_uri"]
    real = Recorder.epoch

    def epoch(self: Recorder, values: Any, step: int, **more: Any) -> None:
        real(self, values, step, **more)
        if step == 1:
            assert self.flush()
            raise Killed

    run_id = killed(monkeypatch, settings, Recorder, "epoch", epoch)
    restore, asked = Continuation.restore, []

    def without_a_store(self: Continuation, recorder: Recorder, *given: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "store", property(lambda _: asked.append(1)))
            return restore(self, recorder, *given)

    monkeypatch.setattr(Continuation, "restore", without_a_store)
    resume(run_id, tracking_uri=uri, progress=False)
    assert asked == []


def test_what_was_killed_before_its_first_record_is_cleared_once_it_is_old() -> None:
    Journal.create().close()
    (hollow,) = journals_dir().iterdir()
    assert journal_folders() == []
    Journal.create().close()
    assert hollow.exists(), "it may be another process's, which is about to begin"
    then = time.time() - HOLLOW_SECONDS - 1
    os.utime(hollow, (then, then))
    sync.journals()
    assert not hollow.exists()


def test_a_work_folder_without_a_name_is_cleared_once_it_is_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    new, old = tmp_path / f".{scratch.PREFIX}new", tmp_path / f".{scratch.PREFIX}old"
    new.mkdir()
    old.mkdir()
    then = time.time() - scratch.NAMELESS_SECONDS - 1
    os.utime(old, (then, then))
    scratch._clear_left.cache_clear()
    with scratch.scratch("test"):
        assert new.exists()
        assert not old.exists()


def test_the_journal_stays_until_the_run_is_given_up(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """The server is lost between the last record and the end of the lease: a later process ends it."""
    uri, real = settings["tracking_uri"], Lease.withdraw
    monkeypatch.setattr(Lease, "withdraw", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    result = topotrain.fit(**settings)
    assert result.journal is None
    assert len(leases(uri, result.run_id)) == 1
    monkeypatch.setattr(Lease, "withdraw", real)
    (left,) = journal_folders()
    assert deliver(left).records == 0
    assert leases(uri, result.run_id) == []
    assert journal_folders() == []


def test_a_run_of_mlflow_run_keeps_its_claim(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """It was adopted: its lease was taken, and its journal is wanted as any other's."""
    uri = settings["tracking_uri"]
    client = mlflow_client(uri)
    given = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def epoch(self: Recorder, *_: Any, **__: Any) -> None:
        self._add(Points(points=[Point(key="val_loss", value=0.1, time=1, step=0)]))
        raise Killed

    claims: list[bool] = []

    def end(self: TrainingRun, *_: Any) -> None:
        tag = f"topotrain.lease.{self.recorder.origin.writer}"
        claims.append(json.loads(client.get_run(given).data.tags[tag])["writes"])
        die(self.recorder, delivered=False)

    monkeypatch.setattr(Recorder, "epoch", epoch)
    monkeypatch.setattr(TrainingRun, "_end", end)
    with pytest.raises(Killed):
        topotrain.fit(**settings)
    assert claims == [True]


def test_an_offline_run_that_is_half_delivered_goes_on_by_its_id(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """The journal knows it by another id than the server."""
    uri = settings["tracking_uri"]
    undisturbed = topotrain.fit(**settings).run_id
    topotrain.fit(**settings, offline=True)
    (left,) = journal_folders()
    real = sync.Delivery.deliver

    def cut(self: Any, group: Any) -> None:
        real(self, group)
        if any(isinstance(one.entry, File) and one.entry.artifact.endswith(".ckpt") for one in group):
            raise MlflowException("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(sync.Delivery, "deliver", cut)
        with pytest.raises(TrackingError, match="cut off"):
            deliver(left)
    client = mlflow_client(uri)
    (run,) = [r for r in client.search_runs(["1"]) if TAG_OFFLINE_ID in r.data.tags]
    resume(run.info.run_id, tracking_uri=uri, progress=False)
    assert_alike(uri, undisturbed, run.info.run_id)
    assert journal_folders() == []


def test_an_epoch_s_checkpoint_serves_where_the_last_one_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """A machine was lost between the delivery of the two, with its journal."""
    uri = settings["tracking_uri"]
    undisturbed = topotrain.fit(**settings).run_id

    def epoch(self: Recorder, *_: Any, **__: Any) -> None:
        assert self.flush()
        self.remove("checkpoints/last.ckpt")
        self.remove("checkpoints/kept.json")
        assert self.flush()
        raise Killed

    run_id = killed(monkeypatch, settings, Recorder, "epoch", epoch)
    for left in journal_folders():
        shutil.rmtree(left)
    resume(run_id, tracking_uri=uri, progress=False)
    assert_alike(uri, undisturbed, run_id)


def test_a_claim_that_came_late_is_gone_when_the_run_ends(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """A server may write what a process asked for after that process was killed, and its run taken over."""
    uri, real = settings["tracking_uri"], Recorder.epoch

    def epoch(self: Recorder, *given: Any, **more: Any) -> None:
        late = json.dumps({**DEAD, "held": True, "writes": True})
        mlflow_client(uri).set_tag(self.run_id, "topotrain.lease.0123456789ab", late)
        real(self, *given, **more)

    monkeypatch.setattr(Recorder, "epoch", epoch)
    assert leases(uri, topotrain.fit(**settings).run_id) == []


def test_a_kill_while_a_model_s_files_are_rewritten_leaves_them_whole(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """They are in the journal, and the next delivery reads them."""
    uri, real = settings["tracking_uri"], Model.save
    undisturbed = topotrain.fit(**settings).run_id
    topotrain.fit(**settings, offline=True)
    (left,) = journal_folders()

    def half(self: Model, path: str) -> None:
        Path(path).write_text("")
        raise MlflowException("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "save", half)
        with pytest.raises(TrackingError, match="cut off"):
            deliver(left)
    assert Model.save is real
    assert_alike(uri, undisturbed, deliver(left).run_id)
