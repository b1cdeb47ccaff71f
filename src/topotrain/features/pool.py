"""Tasks over processes: in order, one thread each, surviving a worker that dies."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    died: Callable[[Task], Result],
) -> Iterator[Result]:
    """Do tasks in this process (``jobs`` 1) or in several, yielding results as they come.

    Args:
        work: a function of a module, so that other processes can import it.
        tasks: its arguments.
        jobs: processes.
        died: the result of a task that took its process down.

    Yields:
        One result per task, in any order.
    """
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield work(task)
        return
    left = list(tasks)
    with _single_threaded():
        while left:
            done: set[int] = set()
            for position, result in _run_until_broken(work, left, min(jobs, len(left))):
                done.add(position)
                yield result
            left = [task for position, task in enumerate(left) if position not in done]
            # A broken pool does not say whose fault it was: ask the tasks one at a time, until one breaks
            # it again.
            while left:
                alone = list(_run_until_broken(work, left[:1], 1))
                task = left.pop(0)
                if not alone:
                    yield died(task)
                    break
                yield alone[0][1]


def _run_until_broken(work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Result]]:
    """Positions and results, until all are done or a process dies."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)
    finished = False
    try:
        positions: dict[Future[Result], int] = {executor.submit(work, task): n for n, task in enumerate(tasks)}
        for future in as_completed(positions):
            try:
                result = future.result()
            except BrokenProcessPool:
                continue
            # Results are large; what is delivered must not be held.
            yield positions.pop(future), result
        finished = True
    except BrokenProcessPool:
        # A process died while tasks were still being handed in.
        finished = True
    finally:
        if not finished:
            # Interrupted: results of tasks under way are wanted by nobody.
            for process in list((executor._processes or {}).values()):
                process.terminate()
        executor.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Make this worker end when its parent was killed; the pool would leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started within inherit one thread each for numerical libraries."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
