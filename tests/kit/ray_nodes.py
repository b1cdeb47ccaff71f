"""A Ray cluster of several nodes on this machine, each a tree of processes that can be killed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from kit.holding import FOLDER, VARIABLE
from kit.waiting import PATIENCE, wait_for
from topotrain.errors import DataError

BAD = 7

# How soon the head notices that a node is gone; Ray's own settings are for networks that falter.
SOON = {"RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "1000"}
SOON |= {"RAY_health_check_initial_delay_ms": "500"}
TESTS = Path(__file__).resolve().parents[1]
PYTHONPATH = os.pathsep.join((FOLDER, str(TESTS.parent / "src"), str(TESTS)))


class RayNodes:
    """A head and further nodes, all with one token.

    Attributes:
        address: of the head.
        held: while this file is there, trainings on the nodes go through two epochs and wait.
        variables: of the environment, for whoever uses the cluster.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie below it
        self.held = self.folder / "held"
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), VARIABLE: str(self.held)}
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def names(self) -> list[str]:
        """Of the nodes that were started and not killed."""
        return list(self._started)

    def start(self, name: str, **variables: str) -> None:
        """Start a node; the first is the head. Each keeps its state in a folder of its own, as machines do."""
        place = ["--address", self.address]
        if not self._started:
            place = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false"]
            place += ["--temp-dir", str(self.folder)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, "--block", "--num-cpus=1"]
        command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
        own = {
            "PYTHONPATH": PYTHONPATH,
            "XDG_STATE_HOME": str(self.folder / f"state-{name}"),
            "OMP_NUM_THREADS": "1",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self._started[name] = subprocess.Popen(
                command,
                env={**kept, **self.variables, **SOON, **own, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(lambda: "Ray runtime started" in log.read_text(), log.read_text, every=0.2)

    def processes(self, name: str) -> list[psutil.Process]:
        """All of a node, jobs among them."""
        try:
            first = psutil.Process(self._started[name].pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def raylet(self, name: str) -> int:
        """Process id of what a node is to Ray."""
        return next(process.pid for process in self.processes(name) if process.name() == "raylet")

    def kill(self, name: str) -> None:
        """What a machine that loses its power leaves of a node: nothing."""
        doomed = self.processes(name)
        for process in doomed:
            if process.is_running():
                process.send_signal(signal.SIGKILL)
        self._started.pop(name).wait(PATIENCE)
        psutil.wait_procs(doomed, PATIENCE)

    def stop(self) -> None:
        """End all nodes, the head last."""
        for name in reversed(list(self._started)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)


# What nodes are given to do in tests.


def take_down_a_node(task: tuple[str, int]) -> str:
    """Kill the node that does it, the first time; the node whose raylet is spared waits for that meanwhile.

    Args:
        task: a file that is there once a node was killed, and the process id of the raylet.
    """
    mark, spared = Path(task[0]), task[1]
    if not mark.exists():
        raylet = psutil.Process().parent()
        if raylet.pid != spared:
            mark.touch()
            raylet.send_signal(signal.SIGKILL)
            psutil.Process().send_signal(signal.SIGKILL)
        wait_for(mark.exists)
    return "done"


def double_unless_bad(number: int) -> int:
    """Twice a number; 7 takes its process down, whenever it is tried."""
    if number == BAD:
        psutil.Process().send_signal(signal.SIGKILL)
    return 2 * number


def refuse(number: int) -> int:
    """Raise what a user's mistake is."""
    raise DataError(f"{number} is refused", "another")


def no_answer(task: object) -> str:
    """The result of a task that took its process down."""
    return f"{task} died"
