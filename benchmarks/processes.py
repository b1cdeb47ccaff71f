"""Commands of topotrain and of the reference as processes, with the time of each epoch and the memory they hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from made_graphs import Made
from measuring import MEGA, memory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REFERENCE = str(HERE / "reference.py")
PUBLISHED = str(ROOT / "configs" / "published.yaml")  # the recipe that the reference is a plain program of
OURS, THEIRS = "ours", "reference"
EPOCH_LINE = re.compile(r"\bepoch (\d+)/\d+\s+train_mse ")
LOOK_EVERY = 0.1  # seconds between two looks at memory
# What a training run imports, before it does anything.
IMPORTS = {
    OURS: "import mlflow, topotrain; topotrain.fit; topotrain.predict",
    THEIRS: "import mlflow, reference; from pytorch_lightning.loggers import MLFlowLogger; MLFlowLogger",
}


@dataclass
class Timeline:
    """What a process did when, in seconds since it was started.

    Attributes:
        epochs: when each epoch was done, everything of it included.
        end: when the process was gone.
        looks: (time, anonymous, of files, of its children) megabytes.
        peak: most resident megabytes of the process itself.
        output: what it printed.
    """

    epochs: list[float] = field(default_factory=list)
    end: float = 0.0
    looks: list[tuple[float, float, float, float]] = field(default_factory=list)
    peak: float = 0.0
    output: str = ""

    @property
    def first_epoch(self) -> float:
        """From the start of the process."""
        return self.epochs[0]

    @property
    def warm_epoch(self) -> float:
        """Mean of the second and all later ones."""
        if len(self.epochs) < 2:
            raise ValueError("a warm epoch needs a run of two at least")
        return (self.epochs[-1] - self.epochs[0]) / (len(self.epochs) - 1)

    @property
    def outside_epochs(self) -> float:
        """Start and closing together."""
        return self.end - self.warm_epoch * len(self.epochs)

    @property
    def closing(self) -> float:
        """After the last epoch."""
        return self.end - self.epochs[-1]

    def steady(self) -> tuple[float, float]:
        """Median anonymous and file megabytes between the first and the last epoch's end."""
        between = [look for look in self.looks if self.epochs[0] <= look[0] <= self.epochs[-1]] or self.looks
        return statistics.median(look[1] for look in between), statistics.median(look[2] for look in between)

    @property
    def peak_anonymous(self) -> float:
        """Most anonymous megabytes, of the process itself."""
        return max(look[1] for look in self.looks)

    @property
    def peak_of_children(self) -> float:
        """Most anonymous megabytes of all processes that it started, together."""
        return max(look[3] for look in self.looks)


def environment(cache: Path | None = None, threads: int = 1) -> dict[str, str]:
    """This checkout's package, one store, so many threads, and a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "TOPOTRAIN_"))}
    path = os.pathsep.join([str(ROOT / "src"), str(HERE), *filter(None, [kept.get("PYTHONPATH")])])
    one = {} if cache is None else {"XDG_CACHE_HOME": str(cache)}
    given = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**kept, **given, "TORCHELASTIC_LOG_LEVEL": "ERROR", **one}


def run_process(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Timeline:
    """Run a command to its end; what it says of its epochs is timed as it comes.

    Raises:
        SystemExit: it failed; with the end of what it printed.
    """
    found = Timeline()
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command), env=dict(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, found, started, done))
    watch.start()
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        if EPOCH_LINE.search(line):
            found.epochs.append(time.perf_counter() - started)
        lines.append(line)
    process.wait()
    found.end = time.perf_counter() - started
    done.set()
    watch.join()
    found.output = "".join(lines)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{found.output[-3000:]}")
    return found


def _watch(pid: int, found: Timeline, started: float, done: threading.Event) -> None:
    while not done.wait(LOOK_EVERY):
        try:
            now = memory(pid)
            children = sum(_anonymous(child) for child in psutil.Process(pid).children(recursive=True))
        except (OSError, KeyError, psutil.Error):  # it has just ended
            continue
        found.looks.append((time.perf_counter() - started, now["anon"], now["file"], children))
        found.peak = max(found.peak, now["peak"])


def _anonymous(process: psutil.Process) -> float:
    try:
        used = process.memory_info()
        return float(used.rss - used.shared) / MEGA
    except psutil.Error:
        return 0.0


@dataclass
class Commands:
    """Commands of both sides, in a folder of their own.

    Args:
        workdir: of caches, stores and everything that is written.
        threads: of each process.
    """

    workdir: Path
    threads: int = 1
    _number: int = 0
    _one: threading.Lock = field(default_factory=threading.Lock)

    def topotrain(self, *arguments: str, cache: Path | None = None, here: Path | None = None) -> Timeline:
        """A command of topotrain."""
        env = environment(cache or self.workdir / "cache", self.threads)
        return run_process([sys.executable, "-m", "topotrain", *arguments], env, here or self.workdir)

    def reference(self, *arguments: str) -> Timeline:
        """A command of the reference."""
        command = [sys.executable, REFERENCE, *arguments, "--threads", str(self.threads)]
        return run_process(command, environment(None, self.threads), self.workdir)

    def python(self, code: str) -> Timeline:
        """A line of Python."""
        env = environment(self.workdir / "cache", self.threads)
        return run_process([sys.executable, "-c", code], env, self.workdir)

    def imports(self, side: str) -> dict[str, float]:
        """Megabytes of a process that has imported what a run imports."""
        code = f"{IMPORTS[side]}; import json, measuring, sys; print(json.dumps(measuring.memory()), file=sys.stderr)"
        found: dict[str, float] = json.loads(self.python(code).output.splitlines()[-1])
        return found

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        with self._one:
            self._number += 1
            folder = self.workdir / "runs" / f"{name}-{self._number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def store(self, folder: Path) -> str:
        """The URI of an empty store; making its tables is not part of any run."""
        template = self.workdir / "template.db"
        with self._one:
            if not template.exists():
                self.python(f"import mlflow; mlflow.MlflowClient('sqlite:///{template}').search_experiments()")
        shutil.copyfile(template, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    def train(
        self,
        side: str,
        made: Made,
        epochs: int,
        *,
        cache: Path | None = None,
        limit: int | None = None,
    ) -> tuple[Timeline, Path]:
        """One training run of a side, in a process; its folder holds store and checkpoints.

        Args:
            side: ours or the reference.
            made: what it learns from.
            epochs: how many.
            cache: the user's cache directory; a fresh one by default.
            limit: batches of an epoch, and of its validation.
        """
        folder = self.fresh(side)
        uri = self.store(folder)
        if side == THEIRS:
            files = ["--graphs", made.graphs, "--train", made.train_labels, "--val", made.val_labels, "--out", folder]
            more = [] if limit is None else ["--limit-batches", str(limit)]
            found = self.reference("train", *map(str, files), "--epochs", str(epochs), "--tracking-uri", uri, *more)
            return found, folder
        settings = [*made.overrides, f"trainer.num_epochs={epochs}"]
        arguments = [word for setting in settings for word in ("--override", setting)]
        if limit is not None:
            arguments += ["--limit-train-batches", str(limit), "--limit-val-batches", str(limit)]
        return self.topotrain(
            *("run", "--config", PUBLISHED, "--tracking-uri", uri, *arguments),
            cache=cache or folder / "cache",
            here=folder,
        ), folder
