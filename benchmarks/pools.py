"""How the processes of `build-graphs --jobs` compare with those of pebble, in time and when one of them dies.

`python benchmarks/pools.py STRUCTURES`, after `pip install pebble==5.2.3` and `topotrain demo-structures`. It prints
the seconds of 2,000 trivial tasks and of building graphs, with two processes, round by round; and how many of 60 tasks
have a result, and after how long, when the process of the eighth dies at work, while it pickles its result, and while
it sends it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from topotrain.features import build_graphs, builder
from topotrain.features.builder import find_structures
from topotrain.processes import run_tasks

JOBS = 2
FATAL = 7  # the task whose process dies
LARGE = 400_000_000  # bytes; takes longer to send than SENDING_SECONDS
SENDING_SECONDS = 0.1


def run_with_pebble(
    work: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, died: Callable[[Any], Any]
) -> Iterator[Any]:
    """The same as ``run_tasks``, on pebble."""
    pool = ProcessPool(min(jobs, len(tasks)), context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.schedule(work, args=(task,)): task for task in tasks}
        for future in as_completed(futures):
            task = futures.pop(future)
            try:
                yield future.result()
            except ProcessExpired:
                yield died(task)
    finally:
        pool.stop()
        pool.join()


def trivial(number: int) -> int:
    """Nothing to do."""
    return number


def at_work(number: int) -> int:
    """The process dies at work."""
    return _die() if number == FATAL else number


def pickling(number: int) -> Any:
    """The process dies while it pickles its result, as where memory ends."""
    return _Fatal() if number == FATAL else number


def sending(number: int) -> Any:
    """The process dies while its result is on the way."""
    if number != FATAL:
        return number
    threading.Timer(SENDING_SECONDS, _die).start()
    return bytes(LARGE)


def lost(number: int) -> int:
    """The result of a task that took its process down."""
    return -number


class _Fatal:
    def __reduce__(self) -> Any:
        return _die()


def _die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def choose(structures: Path, number: int, folder: Path) -> None:
    """Copy some structures of all kinds to a folder."""
    found = find_structures(structures)
    for key in list(found)[:: max(len(found) // number, 1)][:number]:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found[key], folder / f"{key}{found[key].suffix}")


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def build(pool: Callable[..., Iterator[Any]], structures: Path, out: Path) -> None:
    """Build graphs with a pool in place of the builder's."""
    builder.run_tasks = pool
    build_graphs(structures, out, jobs=JOBS, strict=True)
    shutil.rmtree(out)


def main() -> None:
    """Print the seconds and the deaths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("--number", type=int, default=60, help="Structures to build (%(default)s).")
    parser.add_argument("--rounds", type=int, default=5, help="Of each pool (%(default)s).")
    given = parser.parse_args()
    pools = {"topotrain": run_tasks, "pebble": run_with_pebble}
    with tempfile.TemporaryDirectory() as folder:
        choose(given.structures, given.number, Path(folder, "structures"))
        build(run_tasks, Path(folder, "structures"), Path(folder, "graphs"))  # imports and disk caches, for both
        print("round pool trivial_s build_s")
        for number in range(given.rounds):
            for name, pool in pools.items():
                tasks = seconds(lambda pool=pool: list(pool(trivial, range(2000), JOBS, lost)))
                graphs = seconds(lambda pool=pool: build(pool, Path(folder, "structures"), Path(folder, "graphs")))
                print(f"{number + 1} {name} {tasks:.2f} {graphs:.2f}", flush=True)
    for work in (at_work, pickling, sending):
        for name, pool in pools.items():
            results: list[int] = []
            started, end = time.perf_counter(), ""
            try:
                results += pool(work, range(60), JOBS, lost)
            except BrokenProcessPool as error:
                end = f", then {type(error).__name__}: {error}"
            took = time.perf_counter() - started
            print(f"dies {work.__name__}: {name} has {len(results)} of 60 results in {took:.1f} s{end}", flush=True)


if __name__ == "__main__":
    main()
