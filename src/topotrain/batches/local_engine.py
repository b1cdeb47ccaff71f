"""Commands as processes of this machine: how they are started and stopped, and what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from topotrain.batches.engine import Running, Work
from topotrain.credentials import mask_credentials
from topotrain.invocation import (
    PROGRESS_VARIABLE,
    THREADS_VARIABLE,
    URI_VARIABLE,
    serving_environment,
    threads_asked,
)

PATIENCE_SECONDS = 60.0  # for a run to close itself after SIGTERM
CONTEXT_VARIABLE = "MLFLOW_RUN_CONTEXT"  # MLflow's own: tags for runs that a process creates


class LocalEngine:
    """Processes of this machine.

    Args:
        uri: of the tracking store that the commands use.
        folder: where configurations and logs are written.
        jobs: processes at once.
    """

    def __init__(self, uri: str, folder: Path, jobs: int) -> None:
        self.uri, self.folder, self.jobs = uri, folder, jobs

    @property
    def cores_per_job(self) -> int:
        """Cores that a command may use."""
        return share_of_cores(self.jobs)

    def has_room(self, under_way: int) -> bool:
        """Whether one more command can be begun beside so many."""
        return under_way < self.jobs

    def submit(self, work: Work) -> JobProcess:
        """Begin it."""
        arguments = work.arguments
        if work.config is not None:
            path = self.folder / f"{work.name}.yaml"
            path.write_text(work.config, encoding="utf-8")
            arguments = (arguments[0], f"--config={path}", *arguments[1:])
        return JobProcess(arguments, child_environment(self.uri, self.jobs, work.tags), self.folder, work.name)

    def stop(self, running: Iterable[Running]) -> None:
        """Tell commands to stop, wait for them, and end those that do not."""
        stop_all(one.process for one in running if isinstance(one, JobProcess) and one.poll() is None)

    def logs(self) -> list[Path]:
        """What the commands wrote to standard error, a file for each name."""
        return sorted(self.folder.glob("*.log"))

    def close(self) -> None:
        """Nothing is held."""


class JobProcess:
    """One process of one job.

    Args:
        arguments: of the ``topotrain`` command.
        environment: of the process.
        folder: where its output goes.
        name: of the job; a second process of it goes on in the same log.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, name: str) -> None:
        self.log, self._out = folder / f"{name}.log", folder / f"{name}.out"
        self._progress = folder / f"{name}.progress"
        self._started = time.monotonic()
        command = [sys.executable, "-m", "topotrain", *arguments]
        with self.log.open("ab") as errors, self._out.open("wb") as output:
            errors.write(mask_credentials(f"$ topotrain {' '.join(arguments)}\n").encode())
            errors.flush()
            self.process = subprocess.Popen(  # noqa: S603 (our own program)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**environment, PROGRESS_VARIABLE: str(self._progress)},
            )

    def poll(self) -> int | None:
        """Exit status once it has ended; negative where a signal ended it."""
        return self.process.poll()

    @property
    def seconds(self) -> float:
        """How long ago it started."""
        return time.monotonic() - self._started

    @property
    def run_id(self) -> str | None:
        """The last line of its standard output, where that is the id of a run."""
        lines = self._out.read_text(encoding="utf-8", errors="replace").split()
        return lines[-1] if lines and re.fullmatch(r"[0-9a-f]{32}", lines[-1]) else None

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many things it has done, and how many there are, where it counts any."""
        try:
            done, total = self._progress.read_text(encoding="utf-8").split()
            return int(done), int(total)
        except (OSError, ValueError):
            return None

    @property
    def last_words(self) -> str:
        """The line that says why it failed."""
        lines = [text for text in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip()]
        errors = [text for text in lines if text.startswith("error: ")]
        return (errors or lines or [""])[-1].removeprefix("error: ")


def stop_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Tell processes to stop, wait for them, and end those that do not."""
    running = list(processes)
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def child_environment(uri: str, jobs: int, tags: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job's process.

    The tracking URI goes this way rather than as an option, since others can read a process's options.

    Args:
        uri: of the tracking store.
        jobs: processes at once, which the cores are divided among.
        tags: of the run that the process creates.
    """
    environment = serving_environment()
    context = {}
    with contextlib.suppress(ValueError):
        context = json.loads(environment.get(CONTEXT_VARIABLE, "{}"))
    # One thread, as a run outside a batch has, so that its result is the same to the last bit; no more than the
    # process's share of the cores where the user asks for more.
    threads = threads_asked() or "1"
    share = min(int(threads), share_of_cores(jobs)) if threads.isdigit() else 1
    return {
        **environment,
        URI_VARIABLE: uri,
        THREADS_VARIABLE: str(share),
        CONTEXT_VARIABLE: json.dumps({**context, **tags}),
    }


def share_of_cores(jobs: int) -> int:
    """Cores for each of so many processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)
