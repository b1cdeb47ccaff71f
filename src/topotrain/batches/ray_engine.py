"""Commands as processes of a cluster's nodes: how they get there, and how what they say comes back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from topotrain.batches.engine import Running, Work
from topotrain.batches.local_engine import PATIENCE_SECONDS, JobProcess, Output, child_environment, stop_all
from topotrain.batches.resources import UNBOUND, Resources, check_fits
from topotrain.cluster.ray_cluster import Asked, Cluster, Hosted, LostError
from topotrain.errors import EXIT_FAULT
from topotrain.invocation import same_code, serving_environment, travelling_environment
from topotrain.scratch import make_scratch, remove_scratch
from topotrain.text import one_line

LOOK_SECONDS = 0.5  # between two looks at a command
GONE_SECONDS = 10.0  # in which a cluster notices that a node is gone whose process it misses
TICK_SECONDS = 0.1
KILLED = -9


@dataclass(frozen=True)
class Order:
    """A command, and what it is told of where it comes from; secrets are in no message about it.

    Attributes:
        work: the command.
        uri: of the tracking store.
        share: cores that it may use.
        variables: of this process's environment that go with it.
    """

    work: Work
    uri: str = field(repr=False)
    share: int
    variables: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Heard:
    """How a command stands.

    Attributes:
        status: exit status once it has ended.
        seconds: how long ago it was started.
        log: what it has written to standard error beyond what is known.
        out: its standard output.
        count: how far it says it is.
    """

    status: int | None
    seconds: float
    log: bytes
    out: bytes
    count: bytes


class NodeProcess:
    """One command, in the process of the node that looks after it."""

    def __init__(self) -> None:
        self._folder = make_scratch("node")
        self._process: JobProcess | None = None
        self._last: Heard | None = None

    def begin(self, order: Order) -> None:
        """Start it, in this environment and with the variables that it brings."""
        base = {**serving_environment(), **order.variables, **same_code()}
        environment = child_environment(order.uri, order.share, order.work.tags, base)
        self._process = JobProcess(order.work, environment, self._folder, apart=True)

    def look(self, read: int) -> Heard:
        """How it stands.

        Args:
            read: how many bytes of its log are known; an answer may be lost on its way.
        """
        if self._last is None:
            process = self._started()
            status = process.poll()
            log, out, count = (
                path.read_bytes() if path.exists() else b"" for path in (process.log, process.out, process.count)
            )
            heard = Heard(status, process.seconds, log, out, count)
            if status is None:
                return replace(heard, log=log[read:])
            remove_scratch(self._folder)
            self._last = heard
        return replace(self._last, log=self._last.log[read:])

    def stop(self) -> None:
        """Tell it to stop."""
        process = self._started()
        if process.poll() is None:
            process.process.terminate()

    def end(self) -> None:
        """End it, if it has not ended."""
        stop_all([self._started().process], 0.0)

    def _started(self) -> JobProcess:
        assert self._process is not None, "begin comes first"  # noqa: S101
        return self._process


class RayJob(Output):
    """A command on a node, as seen from here.

    Args:
        hosted: its process there.
        order: what it is to do.
        folder: where what it says is kept.
    """

    def __init__(self, hosted: Hosted, order: Order, folder: Path) -> None:
        super().__init__(folder, order.work.name)
        self._hosted = hosted
        self._status: int | None = None
        self._missed: float | None = None  # since when its process is gone
        self._looked, self._seconds = time.monotonic(), 0.0
        self.lost = False
        self.out.write_bytes(b"")
        self.count.unlink(missing_ok=True)
        self._begun: Asked | None = hosted.ask("begin", order)
        self._read = 0
        self._look: Asked | None = hosted.ask("look", self._read)

    def poll(self) -> int | None:
        """Exit status once it has ended; negative where a signal ended it."""
        if self._status is None:
            try:
                self._hear()
            except LostError as error:
                self._miss(error)
            except Exception as error:  # noqa: BLE001  its node has no room for what it writes, or the like
                self.reason = one_line(error)
                self._end(EXIT_FAULT)
        return self._status

    def _hear(self) -> None:
        self._hosted.settled()
        if self._begun is not None and self._begun.ready():
            self._begun.answer()
            self._begun = None
        if self._look is None:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._look = self._hosted.ask("look", self._read)
            return
        if not self._look.ready():
            return
        heard: Heard = self._look.answer()
        self._look, self._looked, self._seconds = None, time.monotonic(), heard.seconds
        with self.log.open("ab") as file:
            file.write(heard.log)
        self._read += len(heard.log)
        self.out.write_bytes(heard.out)
        if heard.count:
            self.count.write_bytes(heard.count)
        if heard.status is not None:
            self._end(heard.status)

    def _miss(self, error: LostError) -> None:
        """Its process is gone: with its node, or alone."""
        if error.perhaps and not self._hosted.node_is_gone():
            self._look, self._looked = None, time.monotonic()
            return
        self._missed = self._missed or time.monotonic()
        self.lost = not error.memory and self._hosted.node_is_gone()
        if self.lost or error.memory or time.monotonic() - self._missed >= GONE_SECONDS:
            self.reason = "its node was lost" if self.lost else error.reason
            self._end(KILLED)

    def _end(self, status: int) -> None:
        self._status = status
        self._hosted.kill()

    def ask_to_stop(self) -> None:
        """Tell it to stop; one that no node has taken yet ends at once."""
        try:
            if not self._hosted.settled():
                self._end(KILLED)
            else:
                self._hosted.ask("stop")
        except LostError as error:
            self._miss(error)

    def end(self) -> None:
        """End it."""
        if self._status is None:
            ended, deadline = self._hosted.ask("end"), time.monotonic() + GONE_SECONDS
            while not ended.ready() and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
            self._end(KILLED)

    @property
    def seconds(self) -> float:
        """How long ago it was started, where a node has taken it."""
        return self._seconds


class RayEngine:
    """Processes of a cluster's nodes.

    Args:
        cluster: that this process is connected to.
        uri: of the tracking store that the commands use.
        folder: where logs are written.
        jobs: commands at once.
    """

    def __init__(self, cluster: Cluster, uri: str, folder: Path, jobs: int) -> None:
        self.cluster, self.uri, self.folder, self.jobs = cluster, uri, folder, jobs

    def check(self, jobs: Mapping[str, Resources], paths: Mapping[str, Sequence[str]], outs: Iterable[Path]) -> None:
        """See that each job can run when nothing else does, on every node that could be given it."""
        nodes = {node.name: Resources(node.cpus, node.gpus, node.memory) for node in self.cluster.nodes}
        check_fits(jobs, nodes)
        with _marks(outs) as marks:
            self.cluster.check(
                [*(path for several in paths.values() for path in several), *marks],
                None if self.cluster.here else self.uri,
            )

    def cores_of(self, resources: Resources) -> int:
        """Cores that a command may use."""
        return resources.cpus or 1

    def has_room(self, under_way: int, resources: Resources = UNBOUND) -> bool:
        """Whether one more command can be begun beside so many; Ray gives it a node when one has room."""
        return under_way < self.jobs

    def submit(self, work: Work) -> RayJob:
        """Begin it, as soon as a node has room."""
        asked, share = work.resources, self.cores_of(work.resources)
        hosted = self.cluster.host(NodeProcess, cpus=share, gpus=asked.gpus or 0, memory=asked.memory)
        return RayJob(hosted, Order(work, self.uri, share, travelling_environment()), self.folder)

    def stop(self, running: Iterable[Running]) -> None:
        """Tell commands to stop, wait for them, and end those that do not."""
        jobs = [one for one in running if isinstance(one, RayJob) and one.poll() is None]
        for job in jobs:
            job.ask_to_stop()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(job.poll() is None for job in jobs) and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        for job in jobs:
            job.end()

    def logs(self) -> list[Path]:
        """What the commands wrote to standard error, a file for each name."""
        return sorted(self.folder.glob("*.log"))


@contextmanager
def _marks(folders: Iterable[Path]) -> Iterator[list[str]]:
    """A file in each folder for a while: only where it is seen, the folder is the same one."""
    marks = [folder / f".seen-by-all-{uuid4().hex}" for folder in dict.fromkeys(folders)]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield [str(mark) for mark in marks]
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)
