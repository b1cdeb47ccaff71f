"""What a tuning leaves: the result, its table, and the line that says what did not finish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.batches.parent_run import ParentResult
from topotrain.batches.tune_scheduler import shown_value
from topotrain.text import MISSING, aligned, markdown_table


@dataclass(frozen=True)
class TrialReport:
    """One trial.

    Attributes:
        number: from 0.
        status: running, finished, pruned or failed.
        values: by dotted key, as the space's file writes them.
        value: of the metric, where it finished.
        epochs: how many were trained, in all its runs.
        seconds: how long its processes took.
        runs: ids of its runs, by seed and fold.
        note: why it was pruned, or failed.
        exit_statuses: of its processes.
    """

    number: int
    status: str
    values: Mapping[str, Any]
    value: float | None
    epochs: int
    seconds: float
    runs: Mapping[str, str | None]
    note: str = ""
    exit_statuses: tuple[int, ...] = ()


@dataclass(frozen=True)
class TuneResult(ParentResult):
    """What a tuning left, beside what any run with children leaves.

    Attributes:
        metric: what trials are compared by.
        trials: in the order of their numbers.
        best: number of the best trial, if any finished.
        config: the winning configuration's file, which ``topotrain run --config`` takes.
        winner_run: the run that made the winner's model.
        winner_value: the metric of that run's best epoch, on the recipe's own validation labels.
        winner_note: why the winner's model could not be made.
    """

    metric: str
    trials: list[TrialReport]
    best: int | None = None
    config: Path | None = None
    winner_run: str | None = None
    winner_value: float | None = None
    winner_note: str = ""

    @property
    def winner(self) -> TrialReport | None:
        """The best trial."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    @property
    def winner_words(self) -> str:
        """What the winner achieved."""
        words = f"{self.metric} {self.winner.value:.4f}" if self.winner and self.winner.value is not None else ""
        if self.winner_value is not None and self.winner and self.winner_value != self.winner.value:
            words += f"; its model: {self.metric} {self.winner_value:.4f}"
        return words

    @property
    def child_statuses(self) -> list[int]:
        """Exit statuses of the trials' processes."""
        return [status for trial in self.trials for status in trial.exit_statuses]

    @property
    def exit_status(self) -> int:
        """0 where there is a winner and its model; else that of a trial that failed."""
        if self.best is not None and not self.winner_note:
            return 0
        return min((status for status in self.child_statuses if status > 0), default=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "run_id": self.run_id,
            "run_name": self.run_name,
            "status": "interrupted" if self.interrupted else "failed" if self.exit_status else "finished",
            "metric": self.metric,
            "best": self.best,
            "winner_run": self.winner_run,
            "winner_value": self.winner_value,
            "candidates": dict(self.candidates),
            "trials": [_row(trial) for trial in self.trials],
        }


def _row(trial: TrialReport) -> dict[str, Any]:
    return {**vars(trial), "values": dict(trial.values), "runs": dict(trial.runs), "exit_statuses": None}


def table_lines(result: TuneResult) -> list[str]:
    """The table at the end of a tuning; a star marks the best trial."""
    return aligned(_table(result))


def tune_note(result: TuneResult) -> str:
    """What the page of a tuning's run says of it, Markdown."""
    if result.winner is None:
        line = "No trial is the best yet."
    else:
        run = f" (its model: run `{result.winner_run}`)" if result.winner_run else ""
        line = f"Best trial: **{result.best}**, {result.winner_words}{run}."
    return f"{line}\n\n{markdown_table(_table(result))}"


def _table(result: TuneResult) -> list[tuple[str, ...]]:
    keys = list(result.trials[0].values) if result.trials else []
    rows: list[tuple[str, ...]] = [("trial", "status", result.metric, *keys, "epochs", "seconds", "run id")]
    for trial in result.trials:
        runs = list(trial.runs.values())
        rows.append(
            (
                f"{trial.number}{' *' if trial.number == result.best else ''}",
                trial.status,
                MISSING if trial.value is None else f"{trial.value:.4f}",
                *(shown_value(trial.values.get(key)) for key in keys),
                str(trial.epochs),
                f"{trial.seconds:.1f}",
                (runs[0] or MISSING) if len(runs) == 1 else f"{len(runs)} runs",
            )
        )
    return rows


def failure_line(result: TuneResult) -> str:
    """Why there is no winner, or not its model."""
    if result.winner_note:
        what = f"the winner's model could not be made: {result.winner_note}"
    else:
        failed = [trial for trial in result.trials if trial.status == "failed"]
        why = f"; trial {failed[0].number}: {failed[0].note}" if failed else ""
        what = f"none of {len(result.trials)} trials finished{why}"
    return f"{what}; expected one that did; when that is mended, go on with --resume"
