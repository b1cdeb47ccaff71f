"""Tasks over processes: one thread each, and one that dies costs the task it had."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from topotrain.invocation import variables

Task = TypeVar("Task")
Result = TypeVar("Result")

OWN_FOLDER = str(Path(__file__).resolve().parents[1])
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    Raises:
        Exception: what ``work`` raised; the other tasks are given up.
    """
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    waiting = list(reversed(tasks))
    workers: dict[Any, _Worker[Task, Result]] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                worker = _Worker(work, waiting.pop())
                workers[worker.connection] = worker
            for connection in wait(list(workers)):
                worker, task = workers[connection], workers[connection].task
                try:
                    result, error = worker.connection.recv()
                except (EOFError, OSError):  # also in the middle of a result
                    result, error = died(task), None
                    workers.pop(connection).end()
                if error is not None:
                    raise error
                # First the next task, then the result: whoever takes it may need a while.
                if connection in workers and waiting:
                    worker.take(waiting.pop())
                elif connection in workers:
                    workers.pop(connection).end()
                yield result
    finally:
        for worker in workers.values():
            worker.end()


class _Worker(Generic[Task, Result]):
    """A process, and the task it has.

    Each has a connection of its own: what a process that dies leaves behind, half a result or a lock, can then spoil
    no other's work, and whose task was lost is known.
    """

    def __init__(self, work: Callable[[Task], Result], task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        with _single_threaded(), _main_apart():
            self._process.start()
        # The process alone holds its end, so that its death is the end of the connection.
        theirs.close()
        self.take(task)

    def take(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it is dead, as the next look at the connection tells
            self.connection.send(task)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """The life of a worker: a task in, its result or error out, until the parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole terminal: the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: tuple[Any, Exception | None]
    with suppress(EOFError, ConnectionError):  # the parent was killed
        while True:
            task = connection.recv()
            try:
                answer = work(task), None
            except Exception as error:  # noqa: BLE001  raised again in the parent
                answer = None, error
            connection.send(answer)


def _end_with_parent() -> None:
    """End this worker when its parent was killed, in the middle of a task too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextmanager
def _main_apart() -> Iterator[None]:
    """A process started within runs this code, and not the program's own file: a user's script would begin anew.

    A model version that was loaded puts the code that it carries first on the path.
    """
    main, path = sys.modules["__main__"], list(sys.path)
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path.insert(0, OWN_FOLDER)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        sys.path[:] = path


@contextmanager
def _single_threaded() -> Iterator[None]:
    """A process started within has one thread for each numerical library."""
    with variables(dict.fromkeys(THREAD_VARIABLES, "1")):
        yield
