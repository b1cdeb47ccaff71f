"""What a job asks of the machine that runs it, and what a machine has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import psutil

from topotrain.config import TrainConfig, processes_here
from topotrain.errors import ConfigError
from topotrain.processes import cores

SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([KMGT])(i?)B", re.IGNORECASE)
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
GB = 1000**3


@dataclass(frozen=True)
class Resources:
    """What a command takes while it runs; what is not given is not counted.

    Attributes:
        cpus: cores.
        gpus: devices.
        memory: bytes.
    """

    cpus: int | None = None
    gpus: int | None = None
    memory: int | None = None

    def within(self, there: Resources) -> bool:
        """Whether each of what is given is there."""
        return not self.lacking(there)

    def lacking(self, there: Resources) -> list[str]:
        """What is given and more than there is, in words."""
        return [
            f"{name} {_shown(name, asked)} of {_shown(name, has)}"
            for name in ("cpus", "gpus", "memory")
            if (asked := getattr(self, name) or 0) > (has := getattr(there, name) or 0)
        ]

    def to_dict(self) -> dict[str, int]:
        """Those that are given."""
        return {name: value for name, value in vars(self).items() if value is not None}


UNBOUND = Resources()


def taken_by(config: TrainConfig, given: Resources = UNBOUND) -> Resources:
    """What a run takes: what is given and, where that says nothing of cores, one for each of several processes."""
    processes = processes_here(config)
    return replace(given, cpus=processes) if given.cpus is None and processes > 1 else given


def total(several: Iterable[Resources]) -> Resources:
    """The sum of what is given."""
    each = list(several)
    return Resources(*(sum(getattr(one, name) or 0 for one in each) for name in ("cpus", "gpus", "memory")))


def this_machine(gpus: int) -> Resources:
    """What this process may use of its machine, beside so many GPUs."""
    return Resources(cores(), gpus, psutil.virtual_memory().total)


def size_in_bytes(text: str) -> int:
    """``2GB`` is 2,000,000,000; ``2GiB`` is 2 times 2 to the 30th.

    Raises:
        ValueError: it is no size.
    """
    match = SIZE.fullmatch(text.strip())
    found = round(float(match[1]) * (1024 if match[3] else 1000) ** POWERS[match[2].upper()]) if match else 0
    if found <= 0:
        raise ValueError("a size such as 500MB or 2GB")
    return found


def check_fits(jobs: Mapping[str, Resources], machines: Mapping[str, Resources]) -> None:
    """See that each job can run on some machine when nothing else does.

    Args:
        jobs: what they ask for, by name.
        machines: what they have, by name.

    Raises:
        ConfigError: one never can.
    """
    for name, asked in jobs.items():
        if not any(asked.within(there) for there in machines.values()):
            lacks = min((asked.lacking(there) for there in machines.values()), key=len, default=["no machine"])
            where = next(iter(machines)) if len(machines) == 1 else f"any of {len(machines)} nodes"
            raise ConfigError(
                f"job {name!r} asks for more than {where} has ({', '.join(lacks)})",
                "resources that are there",
                "lower the job's resources, or trainer.devices where they follow from it",
            )


def _shown(name: str, value: int) -> str:
    return f"{value / GB:.4g} GB" if name == "memory" else str(value)
