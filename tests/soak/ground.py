"""What the attacks stand on: a small recipe, places of their own on this machine, processes to be killed, stores."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Run

import topotrain
from kit.graphs import GraphSet, write_graph_set
from kit.quick_python import QuickPython
from kit.recorded import make_database, mlflow_client
from kit.run_contents import assert_alike, leases
from kit.servers import Server
from topotrain.tracking.checked_lines import DamagedLineError, LineReader

PATIENCE = 240.0  # seconds; only a process that hangs takes so long
LOOK_SECONDS = 0.002  # between two looks at a process that is to be killed
RECIPE = ("trainer.num_epochs=5", "checkpoints.keep=2", "selection.primary_metric=val_loss", "mlflow.flush_timeout=20")
# Nobody waits minutes for a server that is away: the attacks are many.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # of what is compared


@dataclass(frozen=True)
class Place:
    """What one user on one machine has: a state directory, a folder for temporary files."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @cached_property
    def environment(self) -> dict[str, str]:
        """Of every process of the place."""
        for folder in (self.state, self.temporary, self.root / "here"):
            folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        own = {"XDG_STATE_HOME": str(self.state), "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        own["PYTHONPATH"] = str(Path(topotrain.__file__).resolve().parents[1])  # the checkout under attack
        return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", **IMPATIENT, **own}

    def journals(self) -> set[Path]:
        """Folders of journals, whatever is in them."""
        return set((self.state / "topotrain" / "journals").glob("*"))

    def left(self) -> list[str]:
        """What is there that no process of the place needs any more."""
        # PyTorch Geometric leaves two small files of its own for every interpreter.
        own = [path for path in self.temporary.iterdir() if not path.name.startswith("torch_geometric.")]
        folders = [*self.journals(), *own]
        return sorted(str(path.relative_to(self.root)) for path in folders)


class Process:
    """A process whose lines are noted with the time at which they came.

    Args:
        command: its command line.
        place: where it runs.
    """

    def __init__(self, command: Sequence[str], place: Place) -> None:
        self.begun = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=place.environment,
            cwd=place.root / "here",
        )
        self.pid = self._process.pid
        self.out = ""
        self._readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._take)]
        for each in self._readers:
            each.start()

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return "".join(line for _, line in self.lines)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.begun

    def ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    def said(self, text: str) -> bool:
        """Whether a line of standard error holds a text."""
        return any(text in line for _, line in list(self.lines))

    def until(self, happens: Callable[[], bool]) -> bool:
        """Wait for something, or for the end of the process; whether it happened."""
        while not happens():
            if self.ended():
                return False
            assert self.seconds < PATIENCE, self.err
            time.sleep(LOOK_SECONDS)
        return True

    def send(self, signum: int) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit status, once it and whoever writes for it are gone."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            raise AssertionError(f"still there after {patience:g} s\n{self.err}") from None
        for each in self._readers:  # a process that another stands for ends when its streams do
            each.join(PATIENCE)
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append((time.monotonic(), line))

    def _take(self) -> None:
        assert self._process.stdout is not None
        self.out = self._process.stdout.read()


@dataclass
class Target:
    """A store that runs are recorded on.

    Attributes:
        kind: how it is called in figures.
        uri: of it.
        undisturbed: a run that nothing disturbed.
        seconds: that its commands take when nothing disturbs them.
    """

    kind: str
    uri: str
    undisturbed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def runs(self, name: str, uri: str | None = None) -> list[Run]:
        """Runs of a name, the oldest first."""
        client = mlflow_client(uri or self.uri)
        homes = [one.experiment_id for one in client.search_experiments()]
        return client.search_runs(homes, f"attributes.run_name = '{name}'", order_by=["attributes.start_time"])

    def check(self, run_id: str, uri: str | None = None) -> None:
        """A run, of this store or another, holds what the undisturbed one holds, and nobody holds it."""
        assert_alike(self.uri, self.undisturbed, run_id, uri)
        assert leases(uri or self.uri, run_id) == [], "a lease is left"


class Ground:
    """Graphs, an interpreter that starts fast, and stores; all below one folder.

    Args:
        root: the folder.
        quick: what to start instead of an interpreter; by default one of its own.
    """

    def __init__(self, root: Path, quick: str | None = None) -> None:
        self.root = root
        self._own = None if quick else QuickPython()
        self._quick = quick
        self._servers: list[Server] = []
        self._count = 0
        self._guard = threading.Lock()

    def __enter__(self) -> Ground:
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "set").exists():
            write_graph_set(self.root / "set")
        if self._own is not None:
            self._quick = str(self._own.__enter__().path)
        return self

    def __exit__(self, *_: Any) -> None:
        for server in self._servers:
            server.stop()
        if self._own is not None:
            self._own.__exit__(None, None, None)

    @property
    def quick(self) -> str:
        """An interpreter that has everything imported."""
        assert self._quick is not None
        return self._quick

    def place(self, name: str) -> Place:
        """A new one."""
        with self._guard:
            self._count += 1
            return Place(self.root / "places" / f"{self._count}-{name}")

    def command(self, *arguments: str, plain: bool = False) -> list[str]:
        """The program as a command line; ``plain`` in an interpreter of its own."""
        return [sys.executable if plain else self.quick, "-m", "topotrain", *arguments]

    def training(
        self, uri: str, *more: str, recipe: Sequence[str] = RECIPE, graphs: GraphSet | None = None, plain: bool = False
    ) -> list[str]:
        """The command line of a training."""
        overrides = [*(graphs or GraphSet(self.root / "set")).overrides, *recipe]
        given = [part for one in overrides for part in ("-o", one)]
        return self.command("run", "--tracking-uri", uri, *given, *more, plain=plain)

    def server(self) -> Server:
        """A server that keeps artifacts itself, on SQLite."""
        with self._guard:
            number = len(self._servers)
            folder = self.root / f"server-{number}"
            folder.mkdir()
            make_database(folder / "mlflow.db")
            one = Server(f"sqlite:///{folder / 'mlflow.db'}", folder / "kept", folder / "server.log")
            self._servers.append(one)
        one.start()
        return one

    def sqlite(self) -> str:
        """A fresh database."""
        path, empty = self.place("sqlite").root / "mlflow.db", self.root / "empty.db"
        path.parent.mkdir(parents=True)
        with self._guard:
            if not empty.exists():
                make_database(empty)
        shutil.copyfile(empty, path)
        return f"sqlite:///{path}"

    def target(self, kind: str, uri: str, **training: Any) -> Target:
        """A store, with an undisturbed run on it."""
        one = Target(kind, uri)
        one.undisturbed, one.seconds["run"] = self.undisturbed(uri, **training)
        return one

    def undisturbed(self, uri: str, **training: Any) -> tuple[str, float]:
        """A run that nothing disturbs, and the seconds that it took."""
        place = self.place("undisturbed")
        process = Process(self.training(uri, **training), place)
        assert process.wait() == 0, process.err
        assert place.left() == [], place.left()
        return process.out.strip(), process.seconds


def recorded(journal: Path) -> list[str]:
    """Kinds of the records of a journal, in order, as far as they are whole."""
    with suppress(OSError, DamagedLineError):
        return [str(record.get("kind")) for record in LineReader(journal / "records.log").new()]
    return []


def phase_of(before: set[Path], place: Place, process: Process) -> str:
    """What a process that was killed was doing, by the journal that it left."""
    new = place.journals() - before
    kinds = [kind for journal in new for kind in recorded(journal)]
    if "end" in kinds or (not new and process.said("registered")):
        return "closing"
    if "version" in kinds:
        return "registering"
    return "training" if "points" in kinds else "start-up"


def pace(process: Process, since: float, until: float) -> list[float]:
    """Seconds from one epoch's line to the next, of the epochs that lie within a span of time."""
    marks = [at for at, line in list(process.lines) if line.lstrip().startswith("epoch ")]
    return [later - at for at, later in zip(marks, marks[1:], strict=False) if since <= at and later <= until]


def median(values: Sequence[float]) -> float:
    """Of at least one value."""
    assert values, "nothing was measured"
    return statistics.median(values)
