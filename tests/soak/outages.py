"""The server fails in every way, at every moment, for shorter and longer; it is killed, and frozen."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client
from kit.servers import Server
from kit.unreliable import Unreliable
from soak.ground import Ground, Process, Target, median, pace

KINDS = ("refuse", "silent", "busy", "broken", "deaf", "slow", "killed", "frozen")
MOMENTS = ("start-up", "training", "registering")
EPOCHS = 25
RECIPE = (
    f"trainer.num_epochs={EPOCHS}",
    "checkpoints.keep=2",
    "selection.primary_metric=val_loss",
    "mlflow.flush_timeout=60",
    "early_stopping.patience=1000",
)
SHORT = ("trainer.num_epochs=5", *RECIPE[1:])
WARM = 3  # epochs before the pace is taken


@dataclass(frozen=True)
class Outage:
    """One outage, and what it cost.

    Attributes:
        kind: how the server failed.
        moment: of the run.
        seconds: that it lasted.
        before: median seconds of an epoch without an outage, of the same run.
        during: the same, during it; 0 where it was not in training.
        lines: warnings, of the loss and of the return.
        fault: what is wrong in the end; empty where nothing is.
    """

    kind: str
    moment: str
    seconds: float
    before: float
    during: float
    lines: int
    fault: str = ""


def epochs_of_a_fifth(ground: Ground) -> GraphSet:
    """Graphs of which an epoch takes a fifth of a second or more."""
    folder = ground.root / "larger set"
    if not folder.exists():
        write_graph_set(folder, train_targets=28, val_targets=4, decoys=8)
    return GraphSet(folder)


class Failing:
    """A server that can be made to fail, in any of the ways."""

    def __init__(self, server: Server) -> None:
        self.server, self.proxy = server, Unreliable(server.address)

    def begin(self, kind: str) -> None:
        """Fail from now on."""
        if kind == "killed":
            self.server.stop(signal.SIGKILL)
        elif kind == "frozen":
            self.server.send(signal.SIGSTOP)
        else:
            self.proxy.mode = kind  # type: ignore[assignment]

    def end(self, kind: str) -> None:
        """Be there again."""
        if kind == "killed":
            self.server.start()
        elif kind == "frozen":
            self.server.send(signal.SIGCONT)
        self.proxy.mode = "pass"


def outage(
    ground: Ground,
    target: Target,
    failing: Failing,
    kind: str,
    moment: str,
    seconds: float,
    recipe: Sequence[str] = RECIPE,
) -> Outage:
    """One run, and one outage of its server."""
    place = ground.place(f"outage-{kind}-{moment}")
    graphs = epochs_of_a_fifth(ground) if recipe is RECIPE else None
    process = Process(ground.training(failing.proxy.address, recipe=recipe, graphs=graphs), place)
    fault, began, ended = "", 0.0, 0.0
    try:
        assert process.until(_when(process, moment)), process.err
        began = time.monotonic()
        failing.begin(kind)
        process.until(lambda: time.monotonic() - began > seconds)
        ended = time.monotonic()
        failing.end(kind)
        status = process.wait()
        assert status == 0, f"exit status {status}"
        target.check(process.out.strip())
        lost, back = (sum(text in line for _, line in process.lines) for text in ("does not take", "answers again"))
        assert lost == back <= 1, f"{lost} lines of the loss, {back} of the return"
        assert place.left() == [], place.left()
    except Exception as error:  # noqa: BLE001 (all outages are made, then told)
        fault = f"{type(error).__name__}: {error}\n{process.err}"
        with suppress(Exception):
            failing.end(kind)
        process.send(signal.SIGKILL)
    during = pace(process, began, ended)
    outside = [*pace(process, process.begun, began)[WARM:], *pace(process, ended, time.monotonic())]
    lines = sum("tracking server" in line for _, line in process.lines)
    middle = median(during) if moment == "training" and len(during) >= 3 else 0.0
    return Outage(kind, moment, seconds, median(outside) if outside else 0.0, middle, lines, fault)


def _when(process: Process, moment: str) -> Callable[[], bool]:
    if moment == "start-up":
        return lambda: process.said("to resume")
    if moment == "training":
        return lambda: process.said(f"epoch {WARM + 3}/")
    return lambda: process.said(f"epoch {EPOCHS - 1}/")


def stopped(ground: Ground, target: Target, failing: Failing, kind: str) -> tuple[float, str]:
    """SIGTERM in the middle of an outage: seconds until the process is gone, and what is wrong.

    The journal that it leaves is delivered afterwards, and the run gone on with.
    """
    place = ground.place(f"stopped-{kind}")
    graphs = epochs_of_a_fifth(ground)
    process = Process(ground.training(failing.proxy.address, recipe=RECIPE, graphs=graphs, plain=True), place)
    try:
        assert process.until(lambda: process.said("epoch 3/")), process.err
        failing.begin(kind)
        process.until(lambda: process.said("does not take") or process.said("epoch 15/"))
        asked = time.monotonic()
        process.send(signal.SIGTERM)
        status = process.wait()
        seconds = time.monotonic() - asked
        assert status == 143, f"exit status {status}\n{process.err}"
        assert process.said("topotrain sync"), process.err
        failing.end(kind)
        run_id = process.err.partition("(")[2].partition(")")[0]
        _ends(ground, place, "sync", "--tracking-uri", failing.proxy.address)
        assert mlflow_client(target.uri).get_run(run_id).info.status == "KILLED"
        _ends(ground, place, "resume", "--run-id", run_id, "--tracking-uri", failing.proxy.address)
        _points_once(target, run_id)
        assert place.left() == [], place.left()
    except Exception as error:  # noqa: BLE001 (all are stopped, then told)
        with suppress(Exception):
            failing.end(kind)
        process.send(signal.SIGKILL)
        return 0.0, f"{type(error).__name__}: {error}"
    return seconds, ""


def _ends(ground: Ground, place: object, *arguments: str) -> None:
    process = Process(ground.command(*arguments), place)  # type: ignore[arg-type]
    assert process.wait() == 0, process.err


def _points_once(target: Target, run_id: str) -> None:
    steps = sorted(point.step for point in mlflow_client(target.uri).get_metric_history(run_id, "val_loss"))
    assert steps == list(range(EPOCHS)), steps
