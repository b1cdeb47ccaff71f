"""The processes that help rank 0 to train, from its side: started, told what to train, watched, ended."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from topotrain.errors import ConfigError, TrainingError
from topotrain.invocation import rank_environment
from topotrain.signals import ignore_stopping
from topotrain.training.ranks import BRIEF, CHECKPOINT, LOOK_SECONDS, NOTHING, Meeting, Place, outer_place

log = logging.getLogger("topotrain")
START = "from topotrain.training.follower import main; main()"
PACKAGES = str(Path(__file__).resolve().parents[2])
END_SECONDS = 30.0  # for a process that has nothing more to do
LOST_SECONDS = 5.0  # after which it is clear why a call failed
LOST_SECONDS_ELSEWHERE = 0.5  # the same, where another machine would have to say so
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "gloo", "NCCL")
STAY = "every process to stay until training ends"
GO_ON = "go on from the last checkpoint with: topotrain resume"


def place_of(num_ranks: int, num_nodes: int) -> Place | None:
    """The place of the process that records a run; ``None`` where it trains alone.

    Args:
        num_ranks: processes that the configuration asks for.
        num_nodes: machines that they are on.

    Raises:
        ConfigError: others were started than the configuration asks for, or this one is not to record.
    """
    place = outer_place()
    asked = f"trainer.devices and trainer.num_nodes ask for {num_ranks}"
    if place is None:
        if num_nodes > 1:
            raise ConfigError(
                f"this process is alone, and trainer.num_nodes is {num_nodes}",
                "a process for each device of each machine",
                "start topotrain run there by torchrun or srun",
            )
        return Place(0, num_ranks) if num_ranks > 1 else None
    if place.size != num_ranks:
        raise ConfigError(f"{place.by} started {place.size} processes, and {asked}", "as many")
    if place.rank:
        raise ConfigError(
            f"this process is rank {place.rank} of those that {place.by} started",
            "rank 0, which records the run",
            "start the commands run or resume that way, or leave it to trainer.devices",
        )
    return place


def dismiss(place: Place | None) -> None:
    """Tell processes that were started beside this one, if any, that there is nothing to train."""
    if place is not None and place.by:
        meeting = Meeting(place)
        meeting.put(BRIEF, NOTHING)
        meeting.wait_for_all(lambda: None)


class Crew:
    """The other ranks.

    Args:
        place: of rank 0.
    """

    def __init__(self, place: Place) -> None:
        self._meeting = Meeting(place)
        self.place = self._meeting.place
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        if not place.by:
            for rank in range(1, place.size):
                self._processes[rank] = _start(replace(self.place, rank=rank, local_rank=rank))
        own = ", ".join(f"rank {rank} is process {one.pid}" for rank, one in self._processes.items())
        log.info("%d processes train together%s", place.size, f": {own}" if own else "")

    def brief(self, what: Mapping[str, Any], checkpoint: Path | None) -> None:
        """Tell them what to train, and form the group with them.

        Args:
            what: plain values and tensors.
            checkpoint: to go on from.

        Raises:
            TrainingError: one of them can't train it, or is gone.
        """
        if checkpoint is not None:
            self._meeting.put(CHECKPOINT, checkpoint.read_bytes())
        content = io.BytesIO()
        torch.save(dict(what), content)
        self._meeting.put(BRIEF, content.getvalue())
        self._meeting.form(self._check)

    def lost(self, error: BaseException) -> TrainingError | None:
        """Why a call to the others failed, once that is known; ``None`` where it is not for one that is gone.

        Args:
            error: of the call.
        """
        if self.place.by:
            ignore_stopping()  # whoever started them all ends those that are left, and this has to be recorded
        gone = any(sign in str(error) for sign in GONE)
        deadline = time.monotonic() + (LOST_SECONDS if self._processes else LOST_SECONDS_ELSEWHERE)
        while time.monotonic() < deadline:
            if why := self._failure():
                return why
            time.sleep(LOOK_SECONDS)
        return TrainingError("another rank is gone, or does not answer", STAY, GO_ON) if gone else None

    def end(self, *, patience: float = 0.0) -> None:
        """Leave the group, and see the processes end.

        Args:
            patience: seconds that they get to do so by themselves.
        """
        self._meeting.leave()
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            process.kill()
            process.wait()
        self._processes.clear()

    def _check(self) -> None:
        if why := self._failure():
            raise why

    def _failure(self) -> TrainingError | None:
        """What is known of a rank that is gone, or fails."""
        if told := self._meeting.failure():
            return told
        for rank, process in self._processes.items():
            status = process.poll()
            if status:
                how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
                return TrainingError(f"rank {rank} (process {process.pid}) {how}", STAY, GO_ON)
        return None


def _start(place: Place) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-c", START],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=rank_environment(place.as_text(), PACKAGES),
    )
