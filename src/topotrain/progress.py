"""A progress bar for work that takes long, on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from topotrain.invocation import progress_file

T = TypeVar("T")
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]  # wraps items, given their number and what is done
OnItemDone = Callable[[int, int, str], None]  # takes how many are done, how many there are, and the last of them


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, drawing a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=what)


@contextmanager
def counter(what: str) -> Iterator[OnItemDone]:
    """Give a function that takes (done, total, item), and draw a bar on standard error where that is a terminal.

    A process that works for another counts in a file instead, where it was given one.
    """
    if not sys.stderr.isatty():
        file = progress_file()
        yield (lambda done, total, item: None) if file is None else partial(_count, file)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, item: bar.update(task, completed=done, total=total, description=f"{what}: {item}")


def _count(file: Path, done: int, total: int, item: str) -> None:
    """Say how far the work is, in one short write; that it can't be said must not end the work."""
    with suppress(OSError):
        file.write_text(f"{done} {total}", encoding="utf-8")
