"""Where tasks run: in this process, in several of this machine, or on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from topotrain.errors import ConfigError, UserInputError
from topotrain.processes import run_tasks

EngineName = Literal["local", "ray"]
# Takes a function of a module, its tasks, and what makes the result of a task that took its process down; gives
# results in any order.
RunTasks = Callable[[Callable[[Any], Any], Sequence[Any], Callable[[Any], Any]], Iterator[Any]]


@dataclass(frozen=True)
class Workers:
    """Processes for tasks; results do not depend on which.

    Attributes:
        jobs: at once.
        engine: ``local`` or ``ray``.
        address: of a Ray cluster; by default Ray is started on this machine, and ended afterwards.
    """

    jobs: int = 1
    engine: EngineName = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        """See that there is such an engine.

        Raises:
            UserInputError: there is not, or no process.
        """
        if self.jobs < 1:
            raise UserInputError(f"jobs is {self.jobs}", "1 or more processes", "")
        check_engine(self.engine, self.address)

    @contextmanager
    def ready(self, *reads: Path) -> Iterator[RunTasks]:
        """Have them for the length of a block.

        Args:
            *reads: what the tasks read.

        Raises:
            ConfigError: Ray can't be had, or a node of its can't do what this machine does.
        """
        if self.engine == "local":
            yield partial(_here, self.jobs)
            return
        from topotrain.cluster.ray_cluster import open_cluster

        with open_cluster(self.address) as cluster:
            cluster.check([str(path.absolute()) for path in reads])
            yield partial(cluster.run_tasks, self.jobs)


def check_engine(name: str, address: str | None) -> None:
    """See that there is such an engine, and that an address is for one that has one.

    Raises:
        ConfigError: there is not, or it is not.
    """
    if name not in ("local", "ray"):
        raise ConfigError(f"engine {name!r} is none", "local or ray")
    if address is not None and name != "ray":
        raise ConfigError(f"address {address} is for no {name} engine", "an address with the engine ray alone")


def _here(jobs: int, work: Callable[[Any], Any], tasks: Sequence[Any], died: Callable[[Any], Any]) -> Iterator[Any]:
    return run_tasks(work, tasks, jobs, died)
