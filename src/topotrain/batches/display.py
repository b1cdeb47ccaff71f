"""How a batch is shown: while it runs, and at its end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from topotrain.text import aligned, markdown_table

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

log = logging.getLogger("topotrain")

JobStatus = Literal["waiting", "building", "running", "finished", "failed", "killed", "skipped", "pruned"]
LINE_SECONDS = 10.0  # between two lines about the progress of one job, where there is no terminal
COLUMNS = ("name", "status", "run id", "best epoch", "primary metric", "val_loss", "seconds")


@dataclass
class JobReport:
    """What is known of one job.

    Attributes:
        name: of the job.
        num_epochs: at most; ``None`` where the data decide.
        primary_metric: what ranks its checkpoints.
        run_name: of its run.
        status: where it stands.
        run_id: of its run, once there is one.
        epochs: how many are done.
        best_val_loss: of any epoch.
        best_epoch: by the primary metric, counted from 0.
        primary_value: the primary metric of that epoch.
        val_loss: of that epoch.
        checkpoint: URI of that epoch's checkpoint.
        seconds: how long its processes took.
        exit_status: of its process.
        earlier: whether its run was there before this batch began.
        note: why it failed, was skipped, and the like.
        graphs: while they are built, how many are done and how many there will be; not recorded.
    """

    name: str
    num_epochs: int | None
    primary_metric: str
    run_name: str
    status: JobStatus = "waiting"
    run_id: str | None = None
    epochs: int = 0
    best_val_loss: float | None = None
    best_epoch: int | None = None
    primary_value: float | None = None
    val_loss: float | None = None
    checkpoint: str | None = None
    seconds: float | None = None
    exit_status: int | None = None
    earlier: bool = False
    note: str = ""
    graphs: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        values = asdict(self)
        del values["graphs"]
        return values

    @property
    def standing(self) -> str:
        """Its status, with a count while graphs are built."""
        return f"{self.status} {self.graphs[0]}/{self.graphs[1]}" if self.graphs else self.status


def summary_lines(reports: Sequence[JobReport]) -> list[str]:
    """The table at the end of a batch."""
    return aligned(_table(reports))


def batch_note(reports: Sequence[JobReport], best: str | None) -> str:
    """What the page of a batch's run says of it, Markdown.

    Args:
        reports: of its jobs.
        best: name of the best of them.
    """
    found = next((report for report in reports if report.name == best), None)
    if found is None or found.primary_value is None:
        line = "No job is the best yet."
    else:
        line = (
            f"Best job: **{found.name}**, {found.primary_metric} {found.primary_value:.4f} in epoch {found.best_epoch} "
            f"(run `{found.run_id}`)."
        )
    return f"{line}\n\n{markdown_table(_table(reports))}"


def _table(reports: Sequence[JobReport]) -> list[tuple[str, ...]]:
    return [COLUMNS, *(_cells(report) for report in reports)]


def failure_line(reports: Sequence[JobReport]) -> str:
    """Which jobs did not finish, and why the first of them did not."""
    lost = [report for report in reports if report.status != "finished"]
    first = next((report for report in lost if report.status != "skipped"), lost[0])
    names = ", ".join(f"{report.name} ({report.status})" for report in lost)
    return (
        f"{len(lost)} of {len(reports)} jobs did not finish: {names}; expected all to; "
        f"{first.name}: {first.note}; when that is mended, run the rest with --resume"
    )


def _cells(report: JobReport) -> tuple[str, ...]:
    return (
        report.name,
        f"{report.status} (earlier)" if report.earlier else report.status,
        report.run_id or "-",
        "-" if report.best_epoch is None else str(report.best_epoch),
        "-" if report.primary_value is None else f"{report.primary_metric} {report.primary_value:.4f}",
        "-" if report.val_loss is None else f"{report.val_loss:.4f}",
        "-" if report.seconds is None else f"{report.seconds:.1f}",
    )


class BatchDisplay:
    """Shows all jobs while they run: a table on a terminal, a line for each change elsewhere; on standard error.

    Args:
        table: whether the terminal may be taken.

    Attributes:
        headline: shown with the jobs.
    """

    def __init__(self, *, table: bool = True) -> None:
        self.headline, self._told = "", ""
        self._live: Live | None = None
        self._table = table
        self._shown: dict[str, tuple[JobStatus, int, float]] = {}

    def __enter__(self) -> BatchDisplay:
        """Take the terminal, if there is one."""
        if self._table and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def show(self, reports: Sequence[JobReport]) -> None:
        """Bring what is shown up to date."""
        if self._live is not None:
            self._live.update(_live_table(reports, self.headline), refresh=True)
            return
        for report in reports:
            status, reached, when = self._shown.get(report.name, ("waiting", 0, 0.0))
            now, done = time.monotonic(), report.epochs if report.graphs is None else report.graphs[0]
            if report.status != status or (done != reached and now - when >= LINE_SECONDS):
                self._shown[report.name] = (report.status, done, now)
                log.info(line(report))
        if self.headline != self._told:
            self._told = self.headline
            log.info(self.headline)


def line(report: JobReport) -> str:
    """Where one job stands."""
    parts = [f"{report.name}: {report.standing}"]
    if report.epochs:
        parts.append(f"{_epochs(report)} epochs")
    if report.best_val_loss is not None:
        parts.append(f"best val_loss {report.best_val_loss:.4f}")
    if report.note:
        parts.append(report.note)
    return ", ".join(parts)


def _epochs(report: JobReport) -> str:
    return f"{report.epochs}/{report.num_epochs}" if report.num_epochs else str(report.epochs)


def _live_table(reports: Sequence[JobReport], headline: str = "") -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("job", "status", "epochs", "best val_loss", "", box=None, pad_edge=False)
    for report in reports:
        epoch = _epochs(report) if report.epochs else ""
        loss = "" if report.best_val_loss is None else f"{report.best_val_loss:.4f}"
        table.add_row(*map(Text, (report.name, report.standing, epoch, loss, report.note)))
    if headline:
        table.caption, table.caption_justify = Text(headline), "left"
    return table
