"""Ray, which no other file names: a cluster of nodes that run processes and tasks, and what its errors mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from topotrain.cluster.nodes import Seen, look_around, server_of, unusable
from topotrain.cluster.starting import (
    CHILDREN_LIVE,
    QUIET,
    apart_from_ray,
    check_address,
    own_token,
    signals_kept,
)
from topotrain.errors import ConfigError
from topotrain.invocation import variables
from topotrain.processes import THREAD_VARIABLES
from topotrain.scratch import scratch

Task = TypeVar("Task")
Result = TypeVar("Result")

NODE_SECONDS = 60.0  # that a node has to say what it has
TRIES = 2  # of a chunk whose node was lost, or whose process died
MOST_IN_CHUNK = 32
CHUNKS_EACH = 4  # at least so many for each process, so that they end at about the same time
LOW_ON_MEMORY = "low on memory"  # in what Ray says of an actor whose process it ended
STORE_BYTES = 256 * 2**20
LONGEST_FOLDER = 60  # characters: Ray keeps sockets below it, whose paths have 107 at most


class LostError(Exception):
    """What ran on a node is gone.

    Args:
        reason: one line.
        memory: whether Ray ended it because memory ran out.
        perhaps: whether it may only be out of reach for a while.
    """

    def __init__(self, reason: str, *, memory: bool = False, perhaps: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.memory, self.perhaps = reason, memory, perhaps


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        key: Ray's id of it.
        name: host, address and port, for messages.
        cpus: cores that Ray may give.
        gpus: devices that Ray may give.
        memory: bytes that Ray may give.
    """

    key: str
    name: str
    cpus: int
    gpus: int
    memory: int


class Asked:
    """A question that a process on a node was asked."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def ready(self) -> bool:
        """Whether the answer, or the news that there is none, is here."""
        return bool(_ray().wait([self._reference], timeout=0)[0])

    def answer(self) -> Any:
        """It; waits.

        Raises:
            LostError: the process, or its node, is gone.
        """
        ray = _ray()
        try:
            return ray.get(self._reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayError as error:
            raise _lost(error) from None


class _Guest:
    """An object of ours in a process of a node."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._object = make()

    def call(self, name: str, *given: Any) -> Any:
        return getattr(self._object, name)(*given)

    def node(self) -> str:
        return str(_ray().get_runtime_context().get_node_id())


class Hosted:
    """An object of ours in a process of some node, once there is room for it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._node = Asked(actor.node.remote())
        self._key: str | None = None

    def ask(self, name: str, *given: Any) -> Asked:
        """Call one of its methods, after those that were called before."""
        return Asked(self._actor.call.remote(name, *given))

    def settled(self) -> bool:
        """Whether a node has taken it."""
        if self._key is None and self._node.ready():
            self._key = self._node.answer()
        return self._key is not None

    def node_is_gone(self) -> bool:
        """Whether the node that had it is no more."""
        alive = {str(node["NodeID"]) for node in _ray().nodes() if node["Alive"]}
        return self._key is not None and self._key not in alive

    def kill(self) -> None:
        """End its process, or the wait for one."""
        _ray().kill(self._actor)


class Cluster:
    """A Ray cluster that this process is connected to; open one with ``open_cluster``.

    Attributes:
        here: whether it was started for this process, on this machine alone.
    """

    def __init__(self, *, here: bool) -> None:
        self.here = here

    @property
    def nodes(self) -> list[Node]:
        """Those that live."""
        found = []
        for node in _ray().nodes():
            if node["Alive"]:
                has = node["Resources"]
                where = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}:{node['NodeManagerPort']})"
                sizes = (int(has.get(name, 0)) for name in ("CPU", "GPU", "memory"))
                found.append(Node(str(node["NodeID"]), where, *sizes))
        return found

    def check(self, paths: Iterable[str] = (), server: str | None = None) -> None:
        """See that every node has the same software, sees the paths, and reaches the tracking server.

        Args:
            paths: absolute.
            server: address of it, if there is one.

        Raises:
            ConfigError: one does not; it is named.
        """
        asked = tuple(dict.fromkeys(paths))
        for node, seen in self._ask_all(look_around, asked, server_of(server)):
            if not isinstance(seen, Seen):
                raise unusable(node.name, _first_line(seen))
            seen.check(node.name)

    def _ask_all(self, question: Callable[..., Any], *given: Any) -> Iterator[tuple[Node, Any]]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray, nodes = _ray(), self.nodes
        asked = [
            ray.remote(question)
            .options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.key, soft=False)
            )
            .remote(*given)
            for node in nodes
        ]
        ray.wait(asked, num_returns=len(asked), timeout=NODE_SECONDS)
        for node, reference in zip(nodes, asked, strict=True):
            try:
                yield node, ray.get(reference, timeout=0.1)
            except Exception as error:  # noqa: BLE001  whatever keeps a node from importing our code
                yield node, error

    def host(self, make: Callable[[], Any], *, cpus: int, gpus: int, memory: int | None) -> Hosted:
        """Make an object in a process of some node that has so much to give, once it has.

        Args:
            make: a class, or a function of a module.
            cpus: cores.
            gpus: devices.
            memory: bytes.
        """
        kind = _ray().remote(_Guest)
        settings = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "runtime_env": {"env_vars": CHILDREN_LIVE}}
        return Hosted(kind.options(**settings, **({"memory": memory} if memory else {})).remote(make))

    def run_tasks(
        self, jobs: int, work: Callable[[Task], Result], tasks: Sequence[Task], died: Callable[[Task], Result]
    ) -> Iterator[Result]:
        """As ``processes.run_tasks``, in chunks over the nodes.

        A chunk whose node is lost, or whose process dies, is tried again; where that is in vain too, its tasks are
        tried one by one, so that one that takes its process down costs itself alone.

        Args:
            jobs: chunks at once.
            work: a function of a module, or an object, that other processes can import.
            tasks: its arguments.
            died: the result of a task that took its process down.

        Yields:
            One result per task, in any order.

        Raises:
            Exception: what ``work`` raised; the other tasks are given up.
        """
        ray = _ray()
        single = {"env_vars": dict.fromkeys(THREAD_VARIABLES, "1")}
        remote = ray.remote(_do_chunk).options(num_cpus=1, max_retries=0, runtime_env=single)
        shared = ray.put(work)  # once, however many chunks there are
        size = max(1, min(MOST_IN_CHUNK, math.ceil(len(tasks) / (CHUNKS_EACH * jobs))))
        waiting = [(list(tasks[start : start + size]), TRIES) for start in range(0, len(tasks), size)][::-1]
        under_way: dict[Any, tuple[list[Task], int]] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < jobs:
                    chunk, tries = waiting.pop()
                    under_way[remote.remote(shared, chunk)] = chunk, tries
                (done,), _ = ray.wait(list(under_way), num_returns=1)
                chunk, tries = under_way.pop(done)
                try:
                    results = Asked(done).answer()
                except LostError:
                    if tries > 1:
                        waiting.append((chunk, tries - 1))
                    elif len(chunk) > 1:
                        waiting += [([task], TRIES) for task in reversed(chunk)]
                    else:
                        yield died(chunk[0])
                else:
                    yield from results
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)


@contextmanager
def open_cluster(address: str | None = None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine alone, for the length of a block.

    Args:
        address: HOST:PORT of its head, or ``auto`` for the one that this machine is a node of; by default one is
            started, and ended afterwards.

    Raises:
        ConfigError: Ray is not installed, or the address is none, does not answer in time, or refuses.
    """
    with variables(QUIET if address else {**QUIET, **CHILDREN_LIVE, **own_token()}), apart_from_ray():
        ray = _ray()
        if address is not None:
            check_address(address)
        with scratch("ray") as folder:
            quiet = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": False}
            own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
            if len(str(folder)) <= LONGEST_FOLDER:
                own["_temp_dir"] = str(folder)
            try:
                with signals_kept():
                    ray.init(address=address or "local", **quiet, **({} if address else own))
                yield Cluster(here=address is None)
            finally:
                with signals_kept():
                    ray.shutdown()


def _ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError(
            "Ray is not installed here", "the extra topotrain[ray]", "install it: pip install 'topotrain[ray]'"
        ) from None
    module: ModuleType = ray
    return module


def _lost(error: Exception) -> LostError:
    kinds = _ray().exceptions
    if isinstance(error, kinds.OutOfMemoryError) or LOW_ON_MEMORY in str(error):
        return LostError("out of memory: its node had too little, and Ray ended its process", memory=True)
    return LostError(_first_line(error), perhaps=isinstance(error, kinds.ActorUnavailableError))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# What runs on a node.


def _do_chunk(work: Callable[[Task], Result], chunk: Sequence[Task]) -> list[Result]:
    return [work(task) for task in chunk]
