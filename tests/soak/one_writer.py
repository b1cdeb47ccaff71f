"""One writer: many processes want one run at the same moment, and one of them gets it."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.graphs import GraphSet
from kit.recorded import mlflow_client
from kit.run_contents import assert_alike, leases
from soak.ground import RECIPE, Ground, Place, Process, Target

# Everything is imported, and then they wait for a file.
CONTENDER = """
import pathlib, sys, time
import topotrain.training.resume, topotrain.batches.batch, topotrain.tracking.sync
from topotrain.cli import main
ready, go = map(pathlib.Path, sys.argv[1:3])
sys.argv[1:] = sys.argv[3:]
ready.touch()
while not go.exists():
    time.sleep(0.0005)
main()
"""
CLEAR = ("is still being trained", "is still being recorded", "is still running")


@dataclass(frozen=True)
class Round:
    """How one round went.

    Attributes:
        what: of which command.
        contenders: how many processes.
        won: how many did the work.
        late: how many came when it was done already, and did nothing.
        fault: what is wrong; empty where nothing is.
    """

    what: str
    contenders: int
    won: int
    late: int
    fault: str = ""


class Contest:
    """Processes that are released at once.

    Args:
        ground: an interpreter that starts fast.
        apart: whether each is a user of its own, so that no lock of this machine helps.
    """

    def __init__(self, ground: Ground, name: str, *, apart: bool) -> None:
        self.ground, self.apart = ground, apart
        self.shared = ground.place(name)
        self.places: list[Place] = []

    def place(self, number: int) -> Place:
        """Where one of them runs."""
        return Place(self.shared.root / f"user {number}") if self.apart else self.shared

    def run(self, commands: Sequence[Sequence[str]]) -> list[Process]:
        """Start them, release them, wait for them."""
        go, started = self.shared.root / "go", []
        self.shared.root.mkdir(parents=True, exist_ok=True)
        for number, command in enumerate(commands):
            place = self.place(number)
            assert place.environment
            ready = self.shared.root / f"ready {number}"
            started.append(Process([self.ground.quick, "-c", CONTENDER, str(ready), str(go), *command], place))
            self.places.append(place)
        for number, one in enumerate(started):
            assert one.until((self.shared.root / f"ready {number}").exists), one.err
        go.touch()
        for one in started:
            one.wait()
        return started

    def left(self) -> list[str]:
        """What is left behind in any of the places."""
        return sorted({name for place in self.places for name in place.left()})


def resumes(ground: Ground, target: Target, dice: random.Random, number: int, contenders: int, *, apart: bool) -> Round:
    """One cut-off run, and many that go on with it."""
    cut_at = dice.choice(("epoch 0/", "epoch 1/", "epoch 2/", "epoch 4/"))
    contest = Contest(ground, f"resumes-{number}", apart=apart)
    victim = ground.place(f"victim-{number}") if apart else contest.shared
    run_id = _cut_off(ground, target, victim, cut_at)
    command = ["resume", "--run-id", run_id, "--tracking-uri", target.uri]
    ended = contest.run([command] * contenders)
    return _round("resume", ended, "going on after", lambda: _as_undisturbed(target, run_id, contest))


def batches(ground: Ground, target: Target, number: int, contenders: int, *, apart: bool) -> Round:
    """One batch that was cut off, and several that go on with it."""
    contest = Contest(ground, f"batches-{number}", apart=apart)
    manifest = _manifest(ground, number)
    command = ["batch", "--manifest", str(manifest), "--tracking-uri", target.uri]
    first = Process(ground.command(*command), contest.shared if not apart else ground.place(f"first-{number}"))
    first.until(lambda: first.said("first: finished"))
    first.send(signal.SIGTERM)
    first.wait()
    ended = contest.run([[*command, "--resume"]] * contenders)

    def check() -> None:
        (batch,) = target.runs(manifest.stem)
        client = mlflow_client(target.uri)
        children = [run for job in ("first", "second") for run in target.runs(f"{job}-{number}")]
        assert batch.info.status == "FINISHED", batch.info.status
        assert len(children) == 2, [run.info.run_name for run in children]
        for child in children:
            points = [point.step for point in client.get_metric_history(child.info.run_id, "val_loss")]
            assert sorted(points) == [0, 1, 2, 3, 4], points
            assert child.info.status == "FINISHED"
            assert len(client.search_model_versions(f"run_id = '{child.info.run_id}'")) == 2
        assert leases(target.uri, batch.info.run_id) == []
        assert contest.left() == [], contest.left()

    return _round("batch --resume", ended, "are run", check)


def syncs(ground: Ground, target: Target, number: int, contenders: int, *, apart: bool) -> Round:
    """Copies of one journal, each with a process that delivers it."""
    contest = Contest(ground, f"syncs-{number}", apart=apart)
    name, maker = f"offline-{number}", ground.place(f"offline-{number}")
    made = Process(ground.training(target.uri, "--offline", "--run-name", name), maker)
    assert made.wait() == 4, made.err
    (journal,) = maker.journals()
    copies = [shutil.copytree(journal, contest.shared.root / f"copy {one}") for one in range(contenders)]
    ended = contest.run([["sync", str(copy), "--tracking-uri", target.uri] for copy in copies])

    def check() -> None:
        (run,) = target.runs(name)
        assert_alike(target.uri, target.undisturbed, run.info.run_id)
        assert leases(target.uri, run.info.run_id) == []

    return _round("sync", ended, " records of run", check)


def _cut_off(ground: Ground, target: Target, place: Place, text: str) -> str:
    """A run that was killed after its first epoch, at some line."""
    process = Process(ground.training(target.uri), place)
    process.until(lambda: process.said("epoch 0/"))
    run_id = process.err.partition("(")[2].partition(")")[0]
    client = mlflow_client(target.uri)
    # It must have a checkpoint, or there is nothing to go on with.
    process.until(lambda: any("last" in entry.path for entry in client.list_artifacts(run_id, "checkpoints")))
    process.until(lambda: process.said(text))
    process.send(signal.SIGKILL)
    process.wait()
    return run_id


def _as_undisturbed(target: Target, run_id: str, contest: Contest) -> None:
    target.check(run_id)
    assert contest.left() == [], contest.left()


def _manifest(ground: Ground, number: int) -> Path:
    settings = dict(one.partition("=")[::2] for one in [*GraphSet(ground.root / "set").overrides, *RECIPE])
    shared = "\n".join(f"    {key}: {value}" for key, value in settings.items())
    jobs = "\n".join(f"  - {{name: {job}, run_name: {job}-{number}}}" for job in ("first", "second"))
    path = ground.root / f"batch-{number}.yaml"
    path.write_text(f"shared:\n  overrides:\n{shared}\njobs:\n{jobs}\n")
    return path


def _round(what: str, ended: Sequence[Process], works: str, check: Callable[[], None]) -> Round:
    """Who did the work, who gave way with one line, and what is there then."""
    won = [one for one in ended if one.said(works)]
    refused = [one for one in ended if one.wait() == 2]
    late = [one for one in ended if one not in won and one not in refused]
    fault = ""
    try:
        assert len(won) == 1, f"{len(won)} did the work"
        assert won[0].wait() == 0, won[0].err
        for one in refused:
            *before, last = one.err.splitlines()
            assert any(text in last for text in CLEAR), one.err
            assert all(line.startswith("delivered") for line in before), one.err
        assert all(one.wait() == 0 for one in late), [one.err for one in late]
        check()
    except Exception as error:  # noqa: BLE001 (all rounds are played, then told)
        told = "\n".join(f"{one.wait()}: {one.err}" for one in ended)
        fault = f"{type(error).__name__}: {error}\n{told}"
    return Round(what, len(ended), len(won), len(late), fault)
