"""Processes that train one network together: which of them this one is, and how they talk.

Rank 0 records the run, and tells the others all that they need through a store; gradients and predictions then go
through a process group of torch's.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore

from topotrain.data.sharing import Seat
from topotrain.errors import ConfigError, TopotrainError, TrainingError, UserInputError
from topotrain.invocation import (
    launched_rank,
    shares_torchruns_store,
    steps_tasks,
    talking_within,
    torchruns_attempt,
)
from topotrain.reading.json_file import parse_json
from topotrain.text import one_line

LOOPBACK = "127.0.0.1"
BRIEF, CHECKPOINT, READY, FAILED = "brief", "checkpoint", "ready", "failed"  # keys of the store
NOTHING = "nothing"  # a brief
FIND_SECONDS = 600  # to find rank 0, which may be waiting for its machine
STUCK_SECONDS = 600  # without an answer of a rank that is still there: it hangs
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Place:
    """This process among those that train together.

    Attributes:
        rank: from 0, among all.
        size: how many there are.
        local_rank: among those of this machine.
        node_rank: of this machine.
        address: of rank 0's machine.
        port: of the store there.
        by: who started the processes; empty where rank 0 did, on its own machine.
    """

    rank: int
    size: int
    local_rank: int = 0
    node_rank: int = 0
    address: str = LOOPBACK
    port: int = 0
    by: str = ""

    @property
    def seat(self) -> Seat:
        """What decides over its share of a batch."""
        return Seat(self.rank, self.size)

    def as_text(self) -> str:
        """For the environment of a process."""
        return json.dumps(asdict(self))


def launched_place() -> Place:
    """That of a process that rank 0 started."""
    return Place(**parse_json(launched_rank()))


def outer_place() -> Place | None:
    """That of a process that ``torchrun`` or Slurm's ``srun`` started beside others; ``None`` where it is alone.

    Raises:
        ConfigError: Slurm's settings are not those of data parallel training.
    """
    by, environment = "", cast(ClusterEnvironment | None, None)
    if TorchElasticEnvironment.detect():
        by, environment = "torchrun", TorchElasticEnvironment()
    elif steps_tasks() > 1:
        by = "srun"
        try:
            environment = SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise ConfigError(f"srun started {steps_tasks()} processes: {one_line(error)}") from None
    if environment is None or environment.world_size() == 1:
        return None
    return Place(
        rank=environment.global_rank(),
        size=environment.world_size(),
        local_rank=environment.local_rank(),
        node_rank=environment.node_rank(),
        address=environment.main_address,
        port=environment.main_port,
        by=by,
    )


class PlaceEnvironment(ClusterEnvironment):
    """A place, as Lightning asks for it.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        """Where rank 0 is."""
        return self.place.address

    @property
    def main_port(self) -> int:
        """Of the store."""
        return self.place.port

    @staticmethod
    def detect() -> bool:
        """It is always given."""
        return False

    def world_size(self) -> int:
        """Of all machines."""
        return self.place.size

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Among all."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """On this machine."""
        return self.place.local_rank

    def node_rank(self) -> int:
        """Of this machine."""
        return self.place.node_rank


class SharedStrategy(DDPStrategy):
    """Lightning's strategy for processes that are there already, with one sum over all gradients a step.

    Torch's own wrapper sums them bucket by bucket while others are still computed, in buckets that it arranges anew
    after the first step: a run that was cut off would end with other bits. These networks are small, and there is next
    to nothing to gain from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._adds_up = True  # else gradients of another batch are still to come

    def _configure_launcher(self) -> None:
        self._launcher = None

    def configure_ddp(self) -> None:
        """The network stays as it is: all processes begin with the same weights."""

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Where gradients of several batches are accumulated, those of the last step alone are summed."""
        self._adds_up = False
        try:
            yield
        finally:
            self._adds_up = True

    def post_backward(self, closure_loss: torch.Tensor) -> None:
        """Add up the gradients of all processes, as their losses add up."""
        assert self.lightning_module is not None  # noqa: S101 (for the type checker)
        if not self._adds_up:
            return
        parameters = [one for one in self.lightning_module.parameters() if one.requires_grad]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(flat)
        for parameter, own in zip(parameters, torch.split(flat, [one.numel() for one in parameters]), strict=True):
            parameter.grad = own.view_as(parameter)


class Meeting:
    """The store by which processes find each other, and the process group that they form.

    Args:
        place: of this process; of rank 0 that starts the others, a port of 0 means any.
    """

    def __init__(self, place: Place) -> None:
        keeps = place.rank == 0 and not (place.by and shares_torchruns_store())
        listener = None
        settings: dict[str, Any] = {}
        if keeps and not place.by:  # nobody elsewhere has to find it
            listener = socket.create_server((LOOPBACK, 0))
            settings = {"master_listen_fd": listener.fileno()}
        port = listener.getsockname()[1] if listener else place.port
        patience = timedelta(seconds=FIND_SECONDS)
        try:
            store = TCPStore(*(place.address, port, place.size, keeps, patience), wait_for_workers=False, **settings)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"rank {place.rank} can't reach rank 0 at {place.address}:{port} ({one_line(error)})",
                "a port of that machine that others reach",
            ) from None
        if listener is not None:
            listener.detach()  # the store's own from now on
        self.place = Place(**{**asdict(place), "port": port})
        self._store = PrefixStore(f"topotrain/{torchruns_attempt()}", store)

    def put(self, key: str, content: bytes | str) -> None:
        """Say something to all.

        Args:
            key: its name.
            content: not empty.
        """
        self._store.set(key, content)  # type: ignore[arg-type]  # it takes bytes too

    def there(self, key: str) -> bool:
        """Whether something was said.

        Raises:
            RuntimeError: rank 0 is gone.
        """
        return bool(self._store.check([key]))

    def take(self, key: str) -> bytes:
        """What was said; waits for it.

        Raises:
            RuntimeError: rank 0 is gone.
        """
        while not self.there(key):
            time.sleep(LOOK_SECONDS)
        return bytes(self._store.get(key))

    def failed(self, error: Exception) -> None:
        """Say why this rank fails."""
        said = [error.what, error.expected, error.do] if isinstance(error, UserInputError) else []
        what = said or [f"{type(error).__name__}: {one_line(error)}", "", ""]
        with suppress(RuntimeError):
            self.put(f"{FAILED}/{self.place.rank}", json.dumps([isinstance(error, TopotrainError), *what]))

    def failure(self) -> TrainingError | None:
        """What a rank said of its end; one that another's end did not bring about goes first."""
        found = []
        with suppress(RuntimeError):
            for rank in range(1, self.place.size):
                if self.there(f"{FAILED}/{rank}"):
                    told, what, expected, do = parse_json(self._store.get(f"{FAILED}/{rank}"))
                    found.append((not told, rank, TrainingError(f"rank {rank}: {what}", expected, do)))
        return min(found, key=lambda one: one[:2])[2] if found else None

    def form(self, check: Callable[[], None]) -> None:
        """Form the process group once all are ready.

        Args:
            check: called while this waits; raises where a rank is lost.
        """
        self.wait_for_all(check)
        with talking_within(machine=not self.place.by):
            dist.init_process_group(
                _backend(),
                store=PrefixStore("group", self._store),
                rank=self.place.rank,
                world_size=self.place.size,
                timeout=timedelta(seconds=STUCK_SECONDS),
            )

    def wait_for_all(self, check: Callable[[], None]) -> None:
        """Say that this rank is ready, and wait for the others.

        Args:
            check: as of ``form``.
        """
        if self.place.rank:
            self.put(f"{READY}/{self.place.rank}", "1")
        for rank in range(1, self.place.size):
            while not self.there(f"{READY}/{rank}"):
                check()
                time.sleep(LOOK_SECONDS)

    @staticmethod
    def leave() -> None:
        """Leave the process group, where there is one."""
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


def _backend() -> str:
    """Tensors of a GPU by NCCL, others by gloo."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
