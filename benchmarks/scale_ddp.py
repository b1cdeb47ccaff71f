"""Part ``ddp`` of scale.py: an epoch of one process beside one of several that train together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from made_graphs import DEMO, LARGE, Shape, write_set
from measuring import Spread, ratios

SETTINGS = (("demo size", DEMO, 16), ("large", LARGE, 16), ("large", LARGE, 64))


def measure(workdir: Path, *, graphs: int, rounds: int, processes: int) -> list[dict[str, Any]]:
    """Rows of the table.

    Args:
        workdir: for graphs and stores.
        graphs: of a set.
        rounds: of each setting; one process and several in turns.
        processes: that train together.
    """
    return [
        _row(workdir, name, shape, batch, graphs=graphs, rounds=rounds, processes=processes)
        for name, shape, batch in SETTINGS
    ]


def _row(
    workdir: Path, name: str, shape: Shape, batch: int, *, graphs: int, rounds: int, processes: int
) -> dict[str, Any]:
    made = write_set(workdir / f"{name.replace(' ', '-')}-{graphs}", shape, graphs)
    found: dict[int, list[Epoch]] = {1: [], processes: []}
    for _ in range(rounds):
        for devices in found:
            overrides = [
                f"paths.graph={made.graphs}",
                f"paths.train_labels={made.train_labels}",
                f"paths.val_labels={made.val_labels}",
                f"dataloader.batch_size={batch}",
                f"trainer.devices={devices}",
                "mlflow.register=none",
            ]
            found[devices].append(_epoch(workdir, overrides))
    alone, together = found[1], found[processes]
    return {
        "graphs": f"{graphs} of {name} ({shape.nodes} nodes, {shape.edges} edges), batches of {batch}",
        "one process, s": Spread.of([one.wall for one in alone]),
        f"{processes} processes, s": Spread.of([one.wall for one in together]),
        "times as fast": ratios([one.wall for one in alone], [one.wall for one in together]),
        "on cores of their own at most": ratios(
            [one.processor for one in alone], [one.processor / processes for one in together]
        ),
    }


@dataclass(frozen=True)
class Epoch:
    """What an epoch took, in seconds.

    Attributes:
        wall: by the clock, the fastest after the first.
        processor: of all processes together, the mean of those after the first.
    """

    wall: float
    processor: float


def _epoch(workdir: Path, overrides: list[str], epochs: int = 5) -> Epoch:
    uri = f"sqlite:///{workdir / 'mlflow.db'}"
    settings = [part for one in (*overrides, f"trainer.num_epochs={epochs}") for part in ("--override", one)]
    command = [sys.executable, "-m", "topotrain", "run", "--tracking-uri", uri, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    wall, processor = [], []
    for line in process.stderr:
        if line.startswith("epoch ") and " train_mse " in line and " step " not in line:
            wall.append(time.perf_counter())
            processor.append(_processor_seconds(process.pid))
    assert process.wait() == 0 and len(wall) == epochs
    fastest = min(later - earlier for earlier, later in pairwise(wall[:-1]))  # the last line comes after the end
    return Epoch(fastest, (processor[-2] - processor[0]) / (epochs - 2))


def _processor_seconds(pid: int) -> float:
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(one.cpu_times().user + one.cpu_times().system for one in tree)
