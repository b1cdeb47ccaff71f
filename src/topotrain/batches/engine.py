"""What runs the commands of a batch, a tuning, or any other work that is more than one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from topotrain.batches.resources import UNBOUND, Resources


@dataclass(frozen=True)
class Work:
    """One ``topotrain`` command that an engine is to run.

    Attributes:
        name: of the job; a second command of it goes on in the same log.
        arguments: of the command.
        config: YAML text of the recipe, which the command is given as ``--config``, wherever it runs.
        tags: of the runs that the command creates.
        resources: what it takes of a machine while it runs.
    """

    name: str
    arguments: tuple[str, ...]
    config: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = UNBOUND


class Running(Protocol):
    """A command under way, or ended."""

    def poll(self) -> int | None:
        """Exit status once it has ended; negative where a signal ended it."""

    @property
    def lost(self) -> bool:
        """Whether it ended because its machine is gone; it can go on elsewhere."""

    @property
    def seconds(self) -> float:
        """How long ago it was started."""

    @property
    def run_id(self) -> str | None:
        """The last line of its standard output, where that is the id of a run."""

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many things it has done, and how many there are, where it counts any."""

    @property
    def last_words(self) -> str:
        """The line that says why it failed."""


class Engine(Protocol):
    """Runs commands, some at once."""

    def check(self, jobs: Mapping[str, Resources], paths: Mapping[str, Sequence[str]], outs: Iterable[Path]) -> None:
        """See that each job can run when nothing else does, wherever it may be run.

        Args:
            jobs: what they ask for, by name.
            paths: absolute, that they read, by name.
            outs: folders that one writes to and others read.

        Raises:
            ConfigError: one never can.
        """

    def cores_of(self, resources: Resources) -> int:
        """Cores that a command may use."""

    def submit(self, work: Work) -> Running:
        """Begin it."""

    def has_room(self, under_way: int, resources: Resources = UNBOUND) -> bool:
        """Whether one more command can be begun beside so many."""

    def stop(self, running: Iterable[Running]) -> None:
        """Tell commands to stop, wait for them, and end those that do not."""

    def logs(self) -> list[Path]:
        """What the commands wrote to standard error, a file for each name."""
