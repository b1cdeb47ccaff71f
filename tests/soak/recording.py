"""What recording takes of an epoch: of the training step itself, and by its thread beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kit.graphs import GraphSet
from soak.ground import Ground, Process, median, pace
from soak.outages import RECIPE, WARM, epochs_of_a_fifth

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def recording(ground: Ground, rounds: int) -> dict[str, Any]:
    """Shares in percent: the calls that an epoch makes, and epochs with delivery beside those without; on SQLite.

    With ``--offline`` the journal is written all the same, and nothing is delivered: the difference is the thread's.
    Both kinds of run take turns.
    """
    graphs = epochs_of_a_fifth(ground)
    calls = [_calls(ground, graphs) for _ in range(rounds)]
    delivered, kept = [], []
    for _ in range(rounds):
        delivered.append(_epoch(ground, graphs))
        kept.append(_epoch(ground, graphs, "--offline"))
    beside = [100 * (one / other - 1) for one, other in zip(delivered, kept, strict=True)]
    return {
        "epoch_seconds": median(delivered),
        "calls_percent": median([one["recording"] for one in calls]),
        "checkpoints_percent": median([one["checkpoints"] for one in calls]),
        "thread_percent": median(beside),
        "thread_percent_of_rounds": beside,
    }


def _calls(ground: Ground, graphs: GraphSet) -> dict[str, float]:
    """What benchmarks/shares.py says."""
    place = ground.place("shares")
    overrides = [*graphs.overrides, *RECIPE]
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import shares; "
    code += f"shares.main({ground.sqlite()!r}, {overrides!r})"
    process = Process([sys.executable, "-c", code], place)
    assert process.wait() == 0, process.err
    lines = [line.split() for _, line in process.lines]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0] in ("recording", "checkpoints")}


def _epoch(ground: Ground, graphs: GraphSet, *more: str) -> float:
    """Median seconds of an epoch, seen from outside."""
    place = ground.place("paced")
    process = Process(ground.training(ground.sqlite(), *more, recipe=RECIPE, graphs=graphs), place)
    assert process.wait() in (0, 4), process.err
    return median(pace(process, 0, float("inf"))[WARM:])
