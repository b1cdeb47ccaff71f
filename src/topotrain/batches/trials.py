"""The trials of a tuning: what each tries, how its runs stand, and what the server knows of those of earlier."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from topotrain.batches.display import JobReport
from topotrain.batches.manifest import Job
from topotrain.batches.scheduler import JobState
from topotrain.batches.tune_plan import Part, Plan
from topotrain.errors import ConfigError, TrackingError
from topotrain.fields import TAG_PRUNED, TAG_TUNE_FOLD, TAG_TUNE_SEED, TAG_TUNE_STUDY, TAG_TUNE_TRIAL, TAG_TUNE_VALUES
from topotrain.reading.json_file import parse_json
from topotrain.reading.numbers import whole
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")

TrialStatus = Literal["running", "finished", "pruned", "failed"]


@dataclass
class Trial:
    """One set of values.

    Attributes:
        number: from 0.
        values: by dotted key, as the space's file writes them.
        states: its runs, by the name of the part.
        curves: the metric of each epoch, of each part that was looked at.
        figures: the metric at the best epoch, of each part that has finished.
        status: where it stands; ``running`` until all its runs have ended and are looked into.
        why_pruned: empty where it was not.
        closed: whether the runs of one that was pruned say so.
        note: why it failed.
    """

    number: int
    values: Mapping[str, Any]
    states: dict[str, JobState] = field(default_factory=dict)
    curves: dict[str, Mapping[int, float]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    status: TrialStatus = "running"
    why_pruned: str = ""
    closed: bool = False
    note: str = ""

    @property
    def value(self) -> float | None:
        """What it is compared by, once all its runs have finished."""
        if self.status != "finished":
            return None
        return sum(self.figures.values()) / len(self.figures)

    @property
    def epochs(self) -> int:
        """How many were trained, in all its runs."""
        return sum(len(curve) for curve in self.curves.values())

    @property
    def seconds(self) -> float:
        """How long its processes took."""
        return sum(state.report.seconds or 0.0 for state in self.states.values())

    @property
    def at_work(self) -> bool:
        """Whether any of its runs is under way, or waits."""
        return any(state.under_way or state.report.status == "waiting" for state in self.states.values())

    def best_part(self, *, maximise: bool) -> str:
        """The part whose figure is best."""
        return (max if maximise else min)(self.figures, key=self.figures.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "number": self.number,
            "status": self.status,
            "values": dict(self.values),
            "value": self.value,
            "figures": dict(self.figures),
            "epochs": self.epochs,
            "seconds": round(self.seconds, 1),
            "note": self.why_pruned or self.note,
            "runs": {part: state.report.run_id for part, state in self.states.items()},
        }


def state_of(job: Job) -> JobState:
    """A job that has not begun."""
    report = JobReport(job.name, job.config.trainer.num_epochs, job.primary_metric, job.run_name)
    return JobState(job, report)


def new_trial(plan: Plan, number: int, values: Mapping[str, Any]) -> Trial:
    """A trial whose runs have not begun; one whose values can't go together has failed."""
    trial = Trial(number, values)
    try:
        trial.states = {part.name: state_of(plan.job(number, values, part)) for part in plan.parts}
    except ConfigError as error:
        trial.status, trial.note = "failed", str(error)
    return trial


def earlier_trials(plan: Plan, earlier: RunRecord, store: Store) -> dict[int, Trial]:
    """What a tuning that was cut off has come to, by number: all of it is read off its runs.

    Raises:
        TrackingError: a run of it is still being trained.
    """
    runs: dict[int, list[RunRecord]] = defaultdict(list)
    for run in store.batches.earlier_children(earlier):  # the newest first
        number = whole(run.tags.get(TAG_TUNE_TRIAL))
        if number is not None and run.tags.get(TAG_TUNE_STUDY) == plan.digest:
            runs[number].append(run)
    trials: dict[int, Trial] = {}
    for number, of_trial in sorted(runs.items()):
        values = _values(of_trial[0])
        trial = new_trial(plan, number, values)
        for part in plan.parts:
            if part.name in trial.states:
                _take(trial.states[part.name], [run for run in of_trial if _is_of(run, part)], store)
        trial.why_pruned = next((run.tags[TAG_PRUNED] for run in of_trial if TAG_PRUNED in run.tags), "")
        if trial.why_pruned:
            trial.closed = all(run.status in ("FINISHED", "FAILED") for run in of_trial)
            for state in trial.states.values():
                known = state.report.run_id is not None or state.go_on_with is not None
                state.report.status, state.go_on_with = ("pruned" if known else "skipped"), None
        trials[number] = trial
    counts = Counter(_standing(trial) for trial in trials.values())
    log.info(
        "tuning %s: %d trials have ended, %d go on",
        *(earlier.run_id, counts["ended"], counts["on"]),
    )
    return trials


def _standing(trial: Trial) -> str:
    return "on" if trial.at_work else "ended"


def _values(run: RunRecord) -> dict[str, Any]:
    try:
        values = parse_json(run.tags[TAG_TUNE_VALUES])
    except (KeyError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise TrackingError(
            f"run {run.run_id} ({run.name}) does not say what its trial tries (tag {TAG_TUNE_VALUES})",
            "the tags that topotrain tune set",
            "begin anew, without --resume",
        )
    return values


def _is_of(run: RunRecord, part: Part) -> bool:
    fold = str(part.fold.number) if part.fold else None
    return (run.tags.get(TAG_TUNE_SEED), run.tags.get(TAG_TUNE_FOLD)) == (str(part.seed), fold)


def _take(state: JobState, newest_first: list[RunRecord], store: Store) -> None:
    """What was made of one run of a trial: it has finished, goes on, or is run again."""
    state.before = {run.run_id for run in newest_first}
    for run in newest_first:
        if is_alive(run):
            raise TrackingError(
                f"{state.job.name} is still being trained (run {run.run_id})",
                "one that ended or was cut off",
                "wait for it or stop it",
            )
    finished = next((run for run in newest_first if run.status == "FINISHED" or TAG_PRUNED in run.tags), None)
    if finished is not None:
        state.take(finished, store)
        state.report.status, state.report.earlier = "finished", True
    elif newest_first and store.batches.can_be_resumed(newest_first[0]):
        state.go_on_with = newest_first[0].run_id
    elif newest_first:
        store.batches.close_dead(newest_first[0].run_id, "its process was killed before it had a checkpoint")
