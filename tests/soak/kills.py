"""SIGKILL at any moment of run, resume and sync, until the run is done all the same; then it is as if nothing was."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.recorded import mlflow_client
from kit.servers import Server
from kit.unreliable import Mode, Unreliable
from soak.ground import Ground, Process, Target, phase_of, recorded

MOST_STEPS = 60  # processes of one run
# Lines after which a process is killed, at once or a moment later.
LINES = {
    "run": ("to resume", "training and", "epoch 0/", "epoch 2/", "epoch 4/", "registered", "complete, but"),
    "resume": ("to resume", "going on after", "epoch 4/", "registered"),
    "sync": ("delivered",),
}
A_MOMENT = 0.4
PLAIN_SECONDS = 8.0  # that an interpreter takes to import everything
LONG_AGO = 24 * 3600.0
OUTAGES: tuple[Mode, ...] = ("refuse", "silent", "busy", "broken", "deaf")
# Lines of a journal that a process writes: what it recorded, and what of that it delivered.
RECORDS, DELIVERED = "records.log", "delivered.log"
ABOUT = {"run": {RECORDS: 34, DELIVERED: 28}, "resume": {RECORDS: 16, DELIVERED: 16}, "sync": {DELIVERED: 28}}


@dataclass
class Life:
    """What became of one run.

    Attributes:
        name: of the run.
        run_id: of the run that was completed.
        kills: by command and phase.
        begun_anew: times that it was killed before it had a checkpoint, so that it was begun anew.
        outages: of the server meanwhile.
        hollow: what was killed at its very beginning left: journals without a record, folders without a name.
        fault: what is wrong with it in the end; empty where nothing is.
    """

    name: str
    run_id: str = ""
    kills: Counter[str] = field(default_factory=Counter)
    begun_anew: int = 0
    outages: int = 0
    hollow: int = 0
    fault: str = ""


class Attack:
    """One run that is attacked until it is done.

    Args:
        ground: graphs and an interpreter.
        target: a store with an undisturbed run.
        dice: where every chance comes from.
        name: of the run.
        kills: how many, at most.
        uri: of the store that it is recorded on; by default the target's.
        proxy: the server, behind what can fail; it does, now and then, where there is one.
        plain: whether each process is an interpreter of its own.
        certain: whether the first process is killed, and its server fails, whatever the dice say.
    """

    def __init__(
        self,
        ground: Ground,
        target: Target,
        dice: random.Random,
        name: str,
        kills: int,
        *,
        uri: str | None = None,
        proxy: Unreliable | None = None,
        plain: bool = False,
        certain: bool = False,
    ) -> None:
        self.ground, self.target, self.dice, self.kills, self.proxy = ground, target, dice, kills, proxy
        self.plain, self.store = plain, uri or target.uri
        self.uri = proxy.address if proxy else self.store
        self.place = ground.place(name)
        self.life = Life(name)
        self._certain = certain
        self._offline = dice.random() < 0.25 and not certain
        self._known = ""  # the run, once the store has it

    def go(self) -> Life:
        """Attack until it is done, and look at what is there then."""
        try:
            self._complete()
            self.life.run_id = self._known
            self._tidy()
            self.target.check(self._known, self.store)
            if self.store != self.target.uri:
                self._check_candidate()
            assert self.place.left() == [], f"left behind: {self.place.left()}"
        except Exception as error:  # noqa: BLE001 (all attacks are made, then told)
            self.life.fault = f"{type(error).__name__}: {error} (in {self.place.root})"
        return self.life

    def _complete(self) -> None:
        step, attempt = "run", 0
        for _ in range(MOST_STEPS):
            attempt += step == "run"
            name = f"{self.life.name}-{attempt}"
            process, killed = self._process(step, self._command(step, name))
            found = self.target.runs(name, self.store)
            assert len(found) < 2, f"{len(found)} runs of one name"
            self._known = str(found[0].info.run_id) if found else ""
            status = process.wait()
            if not killed and (anew := status == 2 and "has no checkpoint yet" in process.err):
                self.life.begun_anew += anew
                step = "run"
                continue
            # On a machine with much to do a server may take longer to answer than anybody waits here: again, then.
            again = status == 4 or (step == "resume" and status == 2 and "does not answer" in process.err)
            assert killed or again or status == 0, f"{step}: {status}\n{process.err}"
            if status == 0 and found and found[0].info.status == "FINISHED":
                return
            step = self._next()

    def _next(self) -> str:
        """What a user might do now."""
        waits = any(recorded(journal) for journal in self.place.journals())
        if not self._known and not waits:
            self.life.begun_anew += 1
            return "run"
        return "sync" if waits and (not self._known or self.dice.random() < 0.4) else "resume"

    def _command(self, step: str, name: str) -> list[str]:
        if step == "run":
            more = ["--run-name", name, *(["--offline"] if self._offline else [])]
            return self.ground.training(self.uri, *more, plain=self.plain)
        more = ["--run-id", self._known] if step == "resume" else []
        return self.ground.command(step, *more, "--tracking-uri", self.uri, plain=self.plain)

    def _process(self, step: str, command: list[str]) -> tuple[Process, bool]:
        """Start a process, and kill it at a moment that chance has chosen, if it lives so long."""
        before = self.place.journals()
        process = Process(command, self.place)
        timers = self._outage(process) if step != "sync" else []
        killed = sum(self.life.kills.values()) < self.kills and process.until(self._moment(step, process))
        if killed:
            process.send(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL and killed
        for timer in timers:
            timer.cancel()
        if self.proxy is not None:
            self.proxy.mode = "pass"
        if killed:
            phase = "" if step == "sync" else f", {phase_of(before, self.place, process)}"
            self.life.kills[f"{step}{phase}"] += 1
        return process, killed

    def _moment(self, step: str, process: Process) -> Callable[[], bool]:
        """When to kill: after some seconds, after a line, after so many records, after so many deliveries."""
        dice, lasts = self.dice, self.target.seconds
        if self._certain:
            self._certain, wanted = False, dice.randrange(1, 20)
            return lambda: _lines(self.place.journals(), RECORDS) >= wanted and process.said("epoch 0/")
        kind = dice.choice(("seconds", "line", *ABOUT[step], *ABOUT[step]))
        if kind == "seconds":
            after = dice.uniform(0, 1.1 * lasts.get(step, lasts["run"]) + (PLAIN_SECONDS if self.plain else 0))
            return lambda: process.seconds > after
        if kind == "line":
            text, later = dice.choice(LINES[step]), dice.choice((0.0, dice.uniform(0, A_MOMENT)))
            return lambda: any(text in line and time.monotonic() > at + later for at, line in list(process.lines))
        wanted = _lines(self.place.journals(), kind) + dice.randrange(1, ABOUT[step][kind])
        return lambda: _lines(self.place.journals(), kind) >= wanted

    def _outage(self, process: Process) -> list[threading.Timer]:
        """Let the server fail soon after the run has begun, for a while."""
        proxy = self.proxy
        if proxy is None or (self.dice.random() < 0.3 and not self._certain):
            return []
        mode, begins, lasts = self.dice.choice(OUTAGES), self.dice.uniform(0, 1.5), self.dice.uniform(0.2, 4)
        process.until(lambda: process.said("to resume"))
        self.life.outages += 1
        timers = [
            threading.Timer(begins, setattr, (proxy, "mode", mode)),
            threading.Timer(begins + lasts, setattr, (proxy, "mode", "pass")),
        ]
        for timer in timers:
            timer.start()
        return timers

    def _tidy(self) -> None:
        """What a user does in the end; what never got a record or a name is cleared once it is old."""
        self._succeeds("sync")
        hollow = [*self.place.journals(), *self.place.temporary.glob(".*")]
        if hollow:
            self.life.hollow = len(hollow)
            then = time.time() - LONG_AGO
            for path in [inner for one in hollow for inner in (*one.rglob("*"), one)]:
                os.utime(path, (then, then))
            self._succeeds("sync")
            self._succeeds("resume")

    def _succeeds(self, step: str) -> None:
        process = Process(self._command(step, self.life.name), self.place)
        assert process.wait() == 0, f"{step}: {process.err}"
        assert "Traceback" not in process.err, process.err

    def _check_candidate(self) -> None:
        """On a store of its own the candidate is the best version of the run."""
        client = mlflow_client(self.store)
        version = client.get_model_version_by_alias("topoqa", "candidate")
        assert (version.tags["rank"], version.run_id) == ("1", self._known), version


def _lines(journals: set[Path], name: str) -> int:
    total = 0
    for journal in journals:
        try:
            total += (journal / name).read_bytes().count(b"\n")
        except OSError:
            continue
    return total


def life(
    ground: Ground,
    target: Target,
    seed: int,
    name: str,
    kills: int,
    *,
    server: Server | None = None,
    own: bool = False,
    plain: bool = False,
    certain: bool = False,
) -> Life:
    """Attack one run.

    Args:
        ground: graphs and an interpreter.
        target: a store with an undisturbed run.
        seed: of every chance.
        name: of the run.
        kills: how many, at most.
        server: it fails now and then, if it is given.
        own: whether the run has a fresh SQLite store to itself.
        plain: whether each process is an interpreter of its own.
        certain: whether the first process is killed, and its server fails, whatever the dice say.
    """
    proxy = Unreliable(server.address) if server else None
    try:
        uri, dice = ground.sqlite() if own else None, random.Random(f"{seed} {name}")
        how = {"plain": plain, "certain": certain}
        return Attack(ground, target, dice, name, kills, uri=uri, proxy=proxy, **how).go()
    finally:
        if proxy:
            proxy.stop()
