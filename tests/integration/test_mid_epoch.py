"""Runs that a signal stops in the middle of an epoch: ended after the step, and gone on with to the same bits."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import topotrain
from kit.dying import die
from kit.graphs import PUBLISHED, RANKING, GraphSet, write_graph_set
from kit.holding import pausing
from kit.recorded import artifact_names, fetch_artifact, mlflow_client
from kit.run_contents import assert_alike, contents, weights
from kit.waiting import PATIENCE
from topotrain.config import TrainConfig
from topotrain.errors import ConfigError, InterruptedRunError, TrackingError
from topotrain.fields import LAST_CHECKPOINT, MID_EPOCH_CHECKPOINT, TAG_STATUS_NOTE
from topotrain.model.checkpoint import read_checkpoint
from topotrain.model.lightning import ScoringModule
from topotrain.tracking.journal import journal_folders
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.sync import deliver
from topotrain.training.continuation import why_from_its_beginning
from topotrain.training.ranks import Place
from topotrain.training.resume import resume
from topotrain.training.training_run import TrainingRun

EPOCHS = 3
RECIPE = [
    f"trainer.num_epochs={EPOCHS}",
    "dataloader.batches=random",
    "dataloader.batch_size=3",
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "checkpoints.keep=2",
    "mlflow.register=none",
]
FIRST, LAST, VALIDATION = 0, 3, -1  # batches of an epoch, and what follows them


class Killed(BaseException):
    """Stands for SIGKILL."""


@dataclass(frozen=True)
class Ground:
    """A store and graphs."""

    uri: str
    graph_set: GraphSet

    def train(self, *recipe: str, **options: Any) -> str:
        """The id of a run that nothing disturbed."""
        overrides = [*self.graph_set.overrides, *RECIPE, *recipe]
        return topotrain.fit(overrides=overrides, tracking_uri=self.uri, progress=False, **options).run_id

    def names(self, run_id: str) -> set[str]:
        """Of a run's checkpoints."""
        return artifact_names(mlflow_client(self.uri), run_id, "checkpoints")


@pytest.fixture(scope="module")
def ground(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    write_graph_set(folder / "set")
    return Ground(f"sqlite:///{folder / 'mlflow.db'}", GraphSet(folder / "set"))


@pytest.fixture(scope="module")
def straight(ground: Ground) -> Callable[..., str]:
    """The id of a run of a recipe that nothing disturbed."""
    return lru_cache(ground.train)


@pytest.fixture
def stopped(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A run that was stopped at each of these steps, gone on with after each of them but the last; its id."""

    def stopped(stops: Sequence[tuple[int, int]], *recipe: str, **options: Any) -> str:
        ids: list[str] = []
        real = TrainingRun.execute
        for epoch, batch in stops:
            with monkeypatch.context() as patch:
                patch.setattr(
                    TrainingRun, "execute", lambda self, *g: ids.append(self.recorder.run_id) or real(self, *g)
                )
                signal_in(patch, epoch, batch)
                with pytest.raises(InterruptedRunError):
                    if ids:
                        resume(ids[-1], tracking_uri=ground.uri, progress=False)
                    else:
                        ground.train(*recipe, **options)
        return ids[-1]

    return stopped


def signal_in(patch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """This process is asked to stop in the middle of that step."""
    method = "validation_step" if batch == VALIDATION else "training_step"
    real = getattr(ScoringModule, method)

    def step(self: ScoringModule, graphs: Any, batch_idx: int) -> Any:
        if (self.current_epoch, batch_idx) == (epoch, max(batch, 0)):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, graphs, batch_idx)

    patch.setattr(ScoringModule, method, step)


def killed_in(patch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """This process is gone in the middle of that step, as after a SIGKILL."""
    real = ScoringModule.training_step

    def step(self: ScoringModule, graphs: Any, batch_idx: int) -> Any:
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise Killed
        return real(self, graphs, batch_idx)

    patch.setattr(ScoringModule, "training_step", step)
    patch.setattr(TrainingRun, "_end", lambda self, *_: die(self.recorder))


def assert_same_weights(ground: Ground, one: str, other: str) -> None:
    """Of two runs at their ends."""
    left, right = (weights(ground.uri, run_id)[LAST_CHECKPOINT] for run_id in (one, other))
    assert all(torch.equal(left[name], value) for name, value in right.items())


@pytest.mark.parametrize(
    ("stops", "noted"),
    [
        ([(0, FIRST)], "after 0 epochs and 1 batches"),
        ([(1, 2), (1, LAST), (1, VALIDATION), (2, FIRST)], "after 2 epochs and 1 batches"),
        ([(EPOCHS - 1, LAST)], f"after {EPOCHS - 1} epochs and 4 batches"),
    ],
)
@pytest.mark.long
def test_a_stopped_run_goes_on_within_its_epoch_to_the_same_bits(ground, straight, stopped, caplog, stops, noted):
    run_id = stopped(stops)
    assert mlflow_client(ground.uri).get_run(run_id).data.tags[TAG_STATUS_NOTE] == f"interrupted by signal 15 {noted}"
    epochs, batches = stops[-1][0], int(noted.split()[-2])
    assert MID_EPOCH_CHECKPOINT in ground.names(run_id)
    resume(run_id, tracking_uri=ground.uri, progress=False)
    assert f"going on in epoch {epochs}, after {batches} batches" in caplog.messages
    assert_alike(ground.uri, straight(), run_id)


@pytest.mark.parametrize("kind", [PUBLISHED, ("dataloader.batch_size=2", *RANKING)], ids=["published", "ranking"])
@pytest.mark.long
def test_gradients_of_several_batches_workers_and_early_stopping(ground, straight, stopped, kind):
    recipe = ["trainer.accumulate_grad_batches=2", "dataloader.num_workers=1", "early_stopping.patience=1"]
    recipe += ["trainer.num_epochs=9", *kind]
    run_id = stopped([(0, FIRST), (1, LAST), (1, VALIDATION)], *recipe)
    resume(run_id, tracking_uri=ground.uri, progress=False)
    assert_alike(ground.uri, straight(*recipe), run_id)


def test_gradients_of_several_batches_are_one_step(ground, stopped):
    run_id = stopped([(0, FIRST)], "trainer.accumulate_grad_batches=3")
    assert mlflow_client(ground.uri).get_run(run_id).data.tags[TAG_STATUS_NOTE].endswith("0 epochs and 3 batches")


def test_killed_after_it_went_on_it_goes_on_from_there_once_more(ground, straight, stopped, monkeypatch, caplog):
    run_id = stopped([(1, FIRST)])
    for epoch, batch, said in ((1, 2, "in epoch 1, after 1 batches"), (2, 1, "in epoch 1, after 1 batches")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_in(patch, epoch, batch)
            resume(run_id, tracking_uri=ground.uri, progress=False)
        assert f"going on {said}" in caplog.messages
        caplog.clear()
    assert MID_EPOCH_CHECKPOINT not in ground.names(run_id), "its epoch has ended"
    resume(run_id, tracking_uri=ground.uri, progress=False)
    assert "going on after epoch 1" in caplog.messages
    assert_alike(ground.uri, straight(), run_id)


def test_a_checkpoint_within_an_epoch_that_has_ended_since_is_not_gone_on_from(
    ground, straight, stopped, monkeypatch, caplog
):
    """A store may be unable to remove it."""
    run_id = stopped([(1, FIRST)])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Recorder, "remove", lambda *_: None)
        killed_in(patch, 2, FIRST)
        resume(run_id, tracking_uri=ground.uri, progress=False)
    assert MID_EPOCH_CHECKPOINT in ground.names(run_id)
    caplog.clear()
    resume(run_id, tracking_uri=ground.uri, progress=False)
    assert "going on after epoch 1" in caplog.messages
    assert_alike(ground.uri, straight(), run_id)


def test_without_a_server_the_journal_keeps_it(ground, straight, stopped):
    stopped([(1, FIRST)], offline=True)
    (left,) = journal_folders()
    run_id = deliver(left).run_id
    assert MID_EPOCH_CHECKPOINT in ground.names(run_id)
    resume(run_id, tracking_uri=ground.uri, progress=False)
    assert_alike(ground.uri, straight(), run_id)


def test_a_new_run_that_goes_on_for_it_keeps_it_until_its_epoch_ends(ground, straight, stopped, monkeypatch):
    """As under ``mlflow run``, which has made a run already."""
    first = stopped([(1, 1)])
    made = mlflow_client(ground.uri).create_run("1").info.run_id
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setenv("MLFLOW_RUN_ID", made)
        patch.setenv("MLFLOW_TRACKING_URI", ground.uri)
        killed_in(patch, 1, 3)
        resume(first, tracking_uri=ground.uri, progress=False)
    assert ground.names(made) == ground.names(first)
    resume(made, tracking_uri=ground.uri, progress=False)
    assert contents(ground.uri, made)["points"] == contents(ground.uri, straight())["points"]
    assert_same_weights(ground, made, straight())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("dataloader.batch_size=4", "dataloader.batch_size is 4 and was 3"),
        ("dataloader.batches=by_target", "dataloader.batches is by_target and was random"),
    ],
)
def test_other_batches_begin_the_epoch_anew(ground, stopped, caplog, changed, why):
    run_id = stopped([(1, 1)])
    resume(run_id, overrides=[changed], tracking_uri=ground.uri, progress=False)
    assert f"the epoch in which the run was stopped is trained from its beginning: {why}" in caplog.messages
    assert "going on after epoch 0" in caplog.messages
    assert MID_EPOCH_CHECKPOINT not in ground.names(run_id)


def test_where_there_is_no_other_checkpoint_other_batches_are_refused(ground, stopped, tmp_path):
    run_id, changed = stopped([(0, 1)]), ["dataloader.batch_size=4"]
    with pytest.raises(TrackingError, match="has no checkpoint yet; expected a run that completed an epoch"):
        resume(run_id, overrides=changed, tracking_uri=ground.uri, progress=False)
    with pytest.raises(ConfigError, match="made within an epoch, and dataloader.batch_size is 4 and was 3"):
        resume(run_id, checkpoint=MID_EPOCH_CHECKPOINT, overrides=changed, tracking_uri=ground.uri, progress=False)
    path = fetch_artifact(mlflow_client(ground.uri), run_id, f"checkpoints/{MID_EPOCH_CHECKPOINT}", tmp_path)
    content = read_checkpoint(path)
    recipe = TrainConfig.model_validate(content["config"])
    assert why_from_its_beginning(content, recipe, None, -1) == ""
    assert why_from_its_beginning(content, recipe, Place(0, 2), -1) == "several processes train it now"


def test_a_terminal_signals_the_processes_that_read_data_too(ground, straight, tmp_path):
    """Ctrl-C goes to the whole group of processes."""
    recipe = [*ground.graph_set.overrides, *RECIPE, "dataloader.num_workers=1", "logging.log_every_n_steps=1"]
    command = [sys.executable, "-m", "topotrain", "run", "--tracking-uri", ground.uri, "--run-name", "by hand"]
    process = subprocess.Popen(
        [*command, *(part for one in recipe for part in ("--override", one))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | pausing("epoch 1/.*step"),
        start_new_session=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.match("epoch 1/.*step", line):
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 130, lines
    assert "Traceback" not in "".join(lines)
    (run,) = mlflow_client(ground.uri).search_runs(["1"], "attributes.run_name = 'by hand'")
    assert re.fullmatch(r"interrupted by signal 2 after 1 epochs and \d batches", run.data.tags[TAG_STATUS_NOTE])
    resume(run.info.run_id, tracking_uri=ground.uri, progress=False)
    assert_same_weights(ground, run.info.run_id, straight())
