"""The order in which the runs of a tuning's trials are made, watched, and given up."""

from __future__ import annotations

import json
import logging
import time

from topotrain.batches.display import BatchDisplay, JobReport
from topotrain.batches.engine import Engine
from topotrain.batches.manifest import Job
from topotrain.batches.resources import taken_by
from topotrain.batches.scheduler import JobState, Scheduler
from topotrain.batches.study import Pruning, Study
from topotrain.batches.trials import Trial, new_trial
from topotrain.batches.tune_plan import WINNER, Plan
from topotrain.fields import TAG_PRUNED, TAG_TUNE_TRIAL
from topotrain.text import duration
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.sync import deliver_first

log = logging.getLogger("topotrain")

HOPELESS = 3  # trials that failed, where none has finished
SHOWN_ENDED = 5
WATCHED = ("running", "finished", "pruned")  # jobs that have curves
TUNE_VALUE, TUNE_BEST = "tune_value", "tune_best"  # metrics of the tuning's run, step = number of the trial


class TuneScheduler(Scheduler):
    """Asks for trials, runs their jobs, and tells the study how they ended.

    Args:
        plan: what is to be done.
        trials: of earlier, by number.
        recorder: of the tuning's own run.
        engine: runs the commands.
        display: shows where they stand.
        jobs: runs at once, to say how long it will take.
    """

    def __init__(
        self, plan: Plan, trials: dict[int, Trial], recorder: Recorder, engine: Engine, display: BatchDisplay, jobs: int
    ) -> None:
        self._states: dict[str, JobState] = {}
        super().__init__(plan.as_manifest(), self._states, recorder, engine, display)
        self.plan, self.jobs = plan, jobs
        self.study: Study = plan.study()
        self.pruning = Pruning(plan.pruner, plan.num_epochs, maximise=plan.maximise)
        self.trials: dict[int, Trial] = {}
        self._taken = taken_by(plan.recipe)
        self._started = time.monotonic()
        self._stopping = False
        self._here = 0  # trials that ended in this process
        self._rebuild(trials)
        self._tell_standing()

    @property
    def reports(self) -> list[JobReport]:
        """Of what is under way, and of the last that have ended."""
        reports = super().reports
        ended = [one for one in reports if one.status not in ("waiting", "running")]
        dropped = {id(one) for one in ended[:-SHOWN_ENDED]}
        return [one for one in reports if id(one) not in dropped]

    @property
    def best(self) -> Trial | None:
        """The best of the trials that have finished; of equals the first."""
        finished = [trial for trial in self.trials.values() if trial.value is not None]
        sign = -1.0 if self.plan.maximise else 1.0
        return min(finished, key=lambda trial: sign * float(trial.value or 0.0), default=None)

    def make_winner(self, state: JobState) -> None:
        """Run the job that makes the winner's model, after the trials."""
        self._states[WINNER] = state
        self.run()

    def _rebuild(self, earlier: dict[int, Trial]) -> None:
        """Take in trials in the order of their numbers; one that was never begun is suggested anew."""
        for number in range(max(earlier, default=-1) + 1):
            if number not in earlier:
                self._add(new_trial(self.plan, number, self.study.suggest(number)))
                continue
            trial = earlier[number]
            self.study.take(number, trial.values)
            self._add(trial)
            self._follow(trial, again=True)

    def _add(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        self._states.update({state.job.name: state for state in trial.states.values()})
        if trial.status == "failed":
            self._end(trial, None)

    def _goes_on(self) -> bool:
        unsettled = any(trial.status == "running" for trial in self.trials.values())
        return super()._goes_on() or unsettled or self._wants_more()

    def _wants_more(self) -> bool:
        """Whether another trial is to begin, now or later."""
        statuses = [trial.status for trial in self.trials.values()]
        hopeless = statuses.count("failed") >= HOPELESS and "finished" not in statuses
        late = self.plan.timeout is not None and time.monotonic() - self._started >= self.plan.timeout
        return len(self.trials) < self.plan.trials and not hopeless and not late and WINNER not in self._states

    def _start_ready(self) -> None:
        super()._start_ready()
        # A suggestion is made when a run of it can begin at once, and after the study knows of all that has ended.
        while (
            self._wants_more()
            and not any(state.report.status == "waiting" for state in self._states.values())
            and not any(trial.status == "running" and not trial.at_work for trial in self.trials.values())
            and self.engine.has_room(sum(state.under_way for state in self._states.values()), self._taken)
        ):
            number = len(self.trials)
            trial = new_trial(self.plan, number, self.study.suggest(number))
            log.info("trial %d: %s", number, described(trial))
            self._add(trial)
            super()._start_ready()

    def _ask(self) -> None:
        super()._ask()
        for trial in self.trials.values():
            if trial.status == "running" and not self._stopping:
                self._follow(trial)

    def _stop(self) -> None:
        self._stopping = True  # a trial that is stopped now is under way for who goes on
        super()._stop()

    def _follow(self, trial: Trial, *, again: bool = False) -> None:
        """Look at a trial's curves: whether it is to be pruned, or has ended.

        Args:
            trial: which.
            again: whether what there is was looked at before, by an earlier process.

        Raises:
            OutageError: the store does not answer; nothing is lost by asking again.
        """
        for part, state in trial.states.items():
            report = state.report
            looked_at = part in trial.figures or report.run_id is None or report.status not in WATCHED
            if looked_at or (report.status == "running" and self.pruning.pruner == "none"):
                continue
            curve = self.store.runs.values(str(report.run_id), self.plan.metric)
            epoch = self.pruning.follow(part, trial.number, curve)
            trial.curves[part] = curve
            if report.status == "finished" and (report.best_epoch is None or report.best_epoch not in curve):
                report.status, report.note = "failed", f"it recorded no {self.plan.metric} of its best epoch"
            elif report.status == "finished" and report.best_epoch is not None:
                trial.figures[part] = curve[report.best_epoch]
                self.pruning.end(part, trial.number, trial.figures[part])
            elif report.status == "running" and epoch is not None and not trial.why_pruned:
                where = f" of {part}" if len(trial.states) > 1 else ""
                trial.why_pruned = f"after epoch {epoch}{where}: {self.plan.metric} {curve[epoch]:.4g}"
        if trial.why_pruned:
            if not trial.closed:
                self._prune(trial)
            self._end_pruned(trial, again=again)
        elif len(trial.figures) == len(trial.states):
            trial.status = "finished"
            self._end(trial, trial.value, again=again)
        else:
            self._see_failure(trial)

    def _see_failure(self, trial: Trial) -> None:
        lost = [state.report for state in trial.states.values() if state.report.status in ("failed", "killed")]
        if not lost:
            return
        for state in trial.states.values():
            if state.report.status == "waiting":
                state.report.status, state.report.note = "skipped", f"{lost[0].name} did not finish"
        if not trial.at_work:
            trial.status, trial.note = "failed", lost[0].note
            self._end(trial, None)

    def _prune(self, trial: Trial) -> None:
        """Stop a trial's runs and end them; each step may be done twice.

        Raises:
            OutageError: the store does not answer.
        """
        for state in trial.states.values():
            if state.report.run_id:  # first, so that who goes on after a kill knows it
                self.store.runs.set_tag(state.report.run_id, TAG_PRUNED, trial.why_pruned)
            if state.report.status == "waiting":
                state.report.status = "skipped"
        running = [state for state in trial.states.values() if state.process is not None]
        self.engine.stop(state.process for state in running if state.process is not None)
        for state in running:
            if state.process is not None:
                state.report.seconds = round(state.seconds + state.process.seconds, 1)
            state.process = state.ended = None
            state.report.status = "pruned"
        known = [self.store.runs.get(state.report.run_id) for state in trial.states.values() if state.report.run_id]
        for run in (*known, *self.store.batches.children(self.recorder.run_id)):
            if run in known or run.tags.get(TAG_TUNE_TRIAL) == str(trial.number):
                if run.status in ("RUNNING", "KILLED"):
                    deliver_first(self.store, run.run_id)
                if run.status != "FAILED":
                    self.store.batches.close_pruned(run.run_id, trial.why_pruned)
        trial.closed = True

    def _end_pruned(self, trial: Trial, *, again: bool) -> None:
        trial.status = "pruned"
        for part, state in trial.states.items():
            if state.report.run_id:
                state.report.status, state.report.note = "pruned", trial.why_pruned
            if part in trial.curves and part not in trial.figures:
                self.pruning.end(part, trial.number, None)
        best = max if self.plan.maximise else min
        reached = [best(curve.values()) for curve in trial.curves.values() if curve]
        self._end(trial, sum(reached) / len(reached) if reached else None, again=again)

    def _end(self, trial: Trial, value: float | None, *, again: bool = False) -> None:
        """Tell the study, and whoever watches, how a trial ended."""
        self.study.tell(trial.number, value, pruned_at=trial.epochs if trial.status == "pruned" else None)
        if again:
            return
        self._here += 1
        if trial.value is not None and self.best is not None and self.best.value is not None:
            self.recorder.metrics({TUNE_VALUE: trial.value, TUNE_BEST: self.best.value}, step=trial.number)
        said = f"{self.plan.metric} {trial.value:.4f}" if trial.value is not None else trial.why_pruned or trial.note
        log.info("trial %d: %s, %s", trial.number, trial.status, said)
        self._tell_standing()

    def _tell_standing(self) -> None:
        self.display.headline = self.standing()

    def standing(self) -> str:
        """How many trials have ended, the best so far, and how long it may take."""
        ended = [trial for trial in self.trials.values() if trial.status != "running"]
        parts = [f"{len(ended)}/{self.plan.trials} trials"]
        if self.best is not None:
            parts.append(f"best {self.plan.metric} {self.best.value:.4f} of trial {self.best.number}")
        left = self.plan.trials - len(ended)
        if self._here and left > 0:
            each = sum(trial.seconds for trial in ended) / len(ended)
            parts.append(f"about {duration(left * each / self.jobs)} left")
        return ", ".join(parts)

    def _resume_arguments(self, state: JobState) -> list[str]:
        arguments = super()._resume_arguments(state)
        if state.job.name == WINNER:
            arguments += ["-o", f"mlflow.register={state.job.config.mlflow.register_}"]
        return arguments

    def _heading(self, job: Job) -> str:
        return f"# {job.name} of the tuning by {self.plan.space.path.name}\n"


def described(trial: Trial) -> str:
    """What a trial tries."""
    return ", ".join(f"{key} {shown_value(value)}" for key, value in trial.values.items())


def shown_value(value: object) -> str:
    """A value for people: four digits of a number with a point."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
