"""Commands as processes of this machine: how they are started and stopped, and what they leave."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from topotrain.batches.engine import Running, Work
from topotrain.batches.resources import UNBOUND, Resources, check_fits, this_machine, total
from topotrain.credentials import mask_credentials
from topotrain.invocation import (
    PROGRESS_VARIABLE,
    THREADS_VARIABLE,
    URI_VARIABLE,
    serving_environment,
)
from topotrain.processes import cores

KILLED = -9
OUT_OF_MEMORY = ", as the system ends a process when memory runs out"
PATIENCE_SECONDS = 60.0  # for a run to close itself after SIGTERM
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
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
        self._begun: list[JobProcess] = []

    @cached_property
    def _gpus(self) -> list[str]:
        """Names of the devices, as the processes are told them."""
        visible = serving_environment().get(GPUS_VARIABLE)
        if visible is not None:
            return [name for name in visible.split(",") if name.strip()]
        import torch  # it knows the machine's

        return [str(number) for number in range(torch.cuda.device_count())]

    def _machine(self, asked: Iterable[Resources]) -> Resources:
        return this_machine(len(self._gpus) if any(one.gpus for one in asked) else 0)

    @property
    def _under_way(self) -> list[JobProcess]:
        self._begun = [one for one in self._begun if one.poll() is None]
        return self._begun

    def check(self, jobs: Mapping[str, Resources], paths: Mapping[str, Sequence[str]], outs: Iterable[Path]) -> None:
        """See that each job can run when nothing else does; the paths are this machine's own."""
        check_fits(jobs, {"this machine": self._machine(jobs.values())})

    def cores_of(self, resources: Resources) -> int:
        """Cores that a command may use."""
        return resources.cpus or share_of_cores(self.jobs)

    def has_room(self, under_way: int, resources: Resources = UNBOUND) -> bool:
        """Whether one more command can be begun beside so many."""
        taken = [*(one.resources for one in self._under_way), resources]
        return under_way < self.jobs and total(taken).within(self._machine(taken))

    def submit(self, work: Work) -> JobProcess:
        """Begin it."""
        environment = child_environment(self.uri, self.cores_of(work.resources), work.tags)
        gpus: list[str] = []
        if work.resources.gpus is not None:
            taken = {name for one in self._under_way for name in one.gpus}
            gpus = [name for name in self._gpus if name not in taken] if work.resources.gpus else []
            gpus = gpus[: work.resources.gpus]
            environment[GPUS_VARIABLE] = ",".join(gpus)
        process = JobProcess(work, environment, self.folder)
        process.gpus = gpus
        self._begun.append(process)
        return process

    def stop(self, running: Iterable[Running]) -> None:
        """Tell commands to stop, wait for them, and end those that do not."""
        stop_all(one.process for one in running if isinstance(one, JobProcess) and one.poll() is None)

    def logs(self) -> list[Path]:
        """What the commands wrote to standard error, a file for each name."""
        return sorted(self.folder.glob("*.log"))


class Output:
    """What the commands of one job leave in a folder.

    Args:
        folder: where it is.
        name: of the job; a second command of it goes on in the same log.
    """

    lost = False
    reason = ""  # why it ended, where it could not say so itself

    def __init__(self, folder: Path, name: str) -> None:
        self.log, self.out = folder / f"{name}.log", folder / f"{name}.out"
        self.count = folder / f"{name}.progress"

    def poll(self) -> int | None:
        """Exit status once it has ended; negative where a signal ended it."""
        raise NotImplementedError

    @property
    def run_id(self) -> str | None:
        """The last line of its standard output, where that is the id of a run."""
        lines = self.out.read_text(encoding="utf-8", errors="replace").split()
        return lines[-1] if lines and re.fullmatch(r"[0-9a-f]{32}", lines[-1]) else None

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many things it has done, and how many there are, where it counts any."""
        try:
            done, total = self.count.read_text(encoding="utf-8").split()
            return int(done), int(total)
        except (OSError, ValueError):
            return None

    @property
    def last_words(self) -> str:
        """The line that says why it failed."""
        status = self.poll()
        if self.reason or (status is not None and status < 0):
            return self.reason or f"ended by signal {-(status or 0)}{OUT_OF_MEMORY if status == KILLED else ''}"
        lines = [text for text in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip()]
        errors = [text for text in lines if text.startswith("error: ")]
        return (errors or lines or [""])[-1].removeprefix("error: ")


class JobProcess(Output):
    """One process of one job.

    Args:
        work: the command.
        environment: of the process.
        folder: where its configuration and output go.
        apart: whether what ends the processes of this one's group is not for it.
    """

    def __init__(self, work: Work, environment: Mapping[str, str], folder: Path, *, apart: bool = False) -> None:
        super().__init__(folder, work.name)
        self.resources = work.resources
        self.gpus: list[str] = []
        self._started = time.monotonic()
        arguments = work.arguments
        if work.config is not None:
            path = folder / f"{work.name}.yaml"
            path.write_text(work.config, encoding="utf-8")
            arguments = (arguments[0], f"--config={path}", *arguments[1:])
        command = [sys.executable, "-m", "topotrain", *arguments]
        with self.log.open("ab") as errors, self.out.open("wb") as output:
            errors.write(mask_credentials(f"$ topotrain {' '.join(arguments)}\n").encode())
            errors.flush()
            self.process = subprocess.Popen(  # noqa: S603 (our own program)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**environment, PROGRESS_VARIABLE: str(self.count)},
                start_new_session=apart,
            )

    def poll(self) -> int | None:
        """Exit status once it has ended; negative where a signal ended it."""
        return self.process.poll()

    @property
    def seconds(self) -> float:
        """How long ago it started."""
        return time.monotonic() - self._started


def stop_all(processes: Iterable[subprocess.Popen[bytes]], patience: float = PATIENCE_SECONDS) -> None:
    """Tell processes to stop, wait for them, and end those that do not."""
    running = list(processes)
    for process in running:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def child_environment(
    uri: str, share: int, tags: Mapping[str, str], base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a job's process.

    The tracking URI goes this way rather than as an option, since others can read a process's options.

    Args:
        uri: of the tracking store.
        share: cores that the process may use.
        tags: of the run that the process creates.
        base: that of a process which works for this one, here by default.
    """
    environment = {**(base or serving_environment())}
    context = {}
    with contextlib.suppress(ValueError):
        context = json.loads(environment.get(CONTEXT_VARIABLE, "{}"))
    # One thread, as a run outside a batch has, so that its result is the same to the last bit; no more than the
    # process's share of the cores where the user asks for more.
    threads = environment.get(THREADS_VARIABLE, "1")
    return {
        **environment,
        URI_VARIABLE: uri,
        THREADS_VARIABLE: str(min(int(threads), share) if threads.isdigit() else 1),
        CONTEXT_VARIABLE: json.dumps({**context, **tags}),
    }


def share_of_cores(jobs: int) -> int:
    """Cores for each of so many processes."""
    return max(1, cores() // jobs)
