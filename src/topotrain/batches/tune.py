"""Looking for better settings: trials that Optuna suggests, as the children of one run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from topotrain.batches.display import BatchDisplay
from topotrain.batches.engine import Engine
from topotrain.batches.engines import check_store, open_engine
from topotrain.batches.parent_run import Parent, closing, held, open_parent, point_candidates
from topotrain.batches.resources import taken_by
from topotrain.batches.scheduler import JobState, answered
from topotrain.batches.study import PrunerName, SamplerName
from topotrain.batches.trials import Trial, earlier_trials, state_of
from topotrain.batches.tune_figures import record_pictures
from topotrain.batches.tune_plan import Plan, as_recipe, plan_tuning
from topotrain.batches.tune_report import TrialReport, TuneResult, tune_note
from topotrain.batches.tune_scheduler import TuneScheduler, described
from topotrain.cluster.workers import EngineName, check_engine
from topotrain.credentials import mask_credentials
from topotrain.disk import EXPECTED, unwritable
from topotrain.errors import DataError
from topotrain.fields import (
    TAG_BEST_CHILD,
    TAG_TUNE_STUDY,
    TUNE_SUMMARY_ARTIFACT,
    TUNE_WINNER_ARTIFACT,
)
from topotrain.files import write_text
from topotrain.messages import lines_shown
from topotrain.scratch import scratch
from topotrain.signals import interruptible
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.batches import TUNE_COMMAND
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.store import CONNECT_SECONDS, Store

log = logging.getLogger("topotrain")


def tune(
    space: str | os.PathLike[str],
    *,
    trials: int,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    timeout: float | None = None,
    sampler: SamplerName = "tpe",
    pruner: PrunerName = "median",
    metric: str | None = None,
    seeds: int = 1,
    folds: int | None = None,
    resume: bool = False,
    out: str | os.PathLike[str] | None = None,
    run_name: str | None = None,
    take_candidate: bool = False,
    tracking_uri: str | None = None,
    progress: bool = True,
) -> TuneResult:
    """Try settings within a search space, and make a model with the best of them.

    Args:
        space: YAML file: keys of the configuration, each with a range or with choices.
        trials: how many sets of values are tried, those of an earlier tuning that goes on included.
        config: YAML file of the recipe that is varied; by default the defaults.
        overrides: ``dotted.key=value``, on top of it.
        jobs: runs at once.
        engine: what runs them, as in ``batch``.
        address: of a Ray cluster, as in ``batch``.
        timeout: seconds after which no further trial begins; those under way end.
        sampler: how trials are suggested.
        pruner: how trials that are not worth going on with are found.
        metric: what is compared, at each run's best epoch; by default the primary metric.
        seeds: runs of each trial, with the recipe's seed and those after it; their mean is compared.
        folds: so many of the training labels, cut between targets; the validation labels are for the winner alone.
        resume: go on with an earlier tuning of the same space, recipe, metric, sampler, pruner, seeds and folds.
        out: where the winning configuration is written; by default ``SPACE_winner.yaml`` in the current directory.
        run_name: of the tuning's own run; by default the space's file name without its ending.
        take_candidate: whether the winner's version becomes the candidate even where it is not known to be better.
        tracking_uri: wins over the configuration's.
        progress: whether to show lines, or on a terminal a table, on standard error, as in ``fit``.

    Raises:
        UserInputError: space, recipe, labels, an option or the cluster is wrong; nothing has run then.
        TrackingError: the store can't be used, or the earlier tuning is still running.
        InterruptedRunError: SIGINT or SIGTERM; all is stopped and closed as KILLED.
    """
    wanted = {"trials": trials, "config": config, "overrides": overrides, "timeout": timeout}
    chosen = {"sampler": sampler, "pruner": pruner, "metric": metric, "seeds": seeds, "folds": folds}
    with lines_shown(progress), interruptible():
        plan = plan_tuning(space, **wanted, **chosen, elsewhere=engine != "local")  # type: ignore[arg-type]
        winner_file = _checked(Path(out) if out is not None else Path(f"{plan.space.path.stem}_winner.yaml"))
        store = _store(plan, tracking_uri, engine, address)
        with scratch("tune") as folder, _engine(plan, engine, address, store, folder, jobs) as runner:
            known, recorder = _open(plan, store, resume, run_name)
            return _Tuning(plan, known, recorder, runner, folder, jobs, winner_file, take_candidate, progress).run()


def _store(plan: Plan, tracking_uri: str | None, engine: EngineName, address: str | None) -> Store:
    check_engine(engine, address)
    for notice in plan.space.notices:
        log.info(notice)
    uri = resolve_tracking_uri(tracking_uri, plan.recipe.mlflow.tracking_uri, log.info)
    check_store(uri, address)
    return Store.open(uri, patience=CONNECT_SECONDS)


@contextmanager
def _engine(
    plan: Plan, engine: EngineName, address: str | None, store: Store, folder: Path, jobs: int
) -> Iterator[Engine]:
    """An engine that can run every trial."""
    with open_engine(engine, address, store.uri, folder, jobs) as runner:
        runner.check({"trials": taken_by(plan.recipe)}, {"trials": plan.reads}, [])
        yield runner


def _open(plan: Plan, store: Store, resume: bool, run_name: str | None) -> tuple[dict[int, Trial], Recorder]:
    """The tuning's own run, and what the server knows of its trials."""
    settings, name = plan.recipe.mlflow, plan.space.path.stem
    earlier = store.batches.find_tuning(plan.digest) if resume else None
    if resume and earlier is None:
        log.info("no earlier tuning of this space, recipe and options on this store: everything is run")
    parent = Parent(settings.experiment, TUNE_COMMAND, run_name, name, {TAG_TUNE_STUDY: plan.digest})
    with held(store, earlier) as lease:
        known = earlier_trials(plan, earlier, store) if earlier is not None else {}
        return known, open_parent(store, parent, earlier, lease)


class _Tuning:
    """One tuning whose run is open."""

    def __init__(
        self,
        plan: Plan,
        known: dict[int, Trial],
        recorder: Recorder,
        engine: Engine,
        folder: Path,
        jobs: int,
        winner_file: Path,
        take_candidate: bool,
        progress: bool,
    ) -> None:
        self.take_candidate = take_candidate
        self.plan, self.known, self.recorder, self.jobs = plan, known, recorder, jobs
        self.winner_file, self.progress = winner_file, progress
        self.engine, self.folder = engine, folder
        self.scheduler: TuneScheduler | None = None

    def run(self) -> TuneResult:
        recorder = self.recorder
        with closing(recorder, lambda: self._record(replace(self._result(), interrupted=True))):
            log.info("tuning %s (%s): %d trials", recorder.run_name, recorder.run_id, self.plan.trials)
            self._record_plan()
            with BatchDisplay(table=self.progress) as display:
                self.scheduler = TuneScheduler(self.plan, self.known, recorder, self.engine, display, self.jobs)
                self.scheduler.run()
                result = self._finish(self.scheduler)
            recorder.end("FAILED" if result.exit_status else "FINISHED", self._note(result))
            recorder.close()
            return replace(result, journal=recorder.journal)

    def _record_plan(self) -> None:
        plan, recorder = self.plan, self.recorder
        chosen = {"metric": plan.metric, "sampler": plan.sampler, "pruner": plan.pruner}
        numbers = {"seeds": len({part.seed for part in plan.parts}), "folds": len(plan.folds)}
        recorder.params({f"tune.{key}": str(value) for key, value in {**chosen, **numbers}.items()}, see="tune/")
        recorder.text(plan.space.text, f"tune/{plan.space.path.name}")
        recorder.text(plan.recipe.to_yaml(), "tune/recipe.yaml")
        for fold in plan.folds:
            for path in (fold.train_labels, fold.val_labels):
                recorder.file(path, "tune/folds")

    def _finish(self, scheduler: TuneScheduler) -> TuneResult:
        """Make the winner's model, and record what came out."""
        best = scheduler.best
        if best is None:
            result = self._result()
            self._record(result)
            return result
        self._write_winner(best, scheduler.experiment)
        state = answered(lambda: self._winner_state(scheduler, best))
        if state is not None:
            scheduler.make_winner(state)
        record_pictures(scheduler.study.optuna, self.recorder, self.folder, self.plan)
        result = self._judged(scheduler, best, state)
        if result.winner_run:
            self.recorder.tags({TAG_BEST_CHILD: result.winner_run})
        self._record(result)
        return result

    def _write_winner(self, best: Trial, experiment: str) -> None:
        plan, recorder = self.plan, self.recorder
        heading = [
            f"trial {best.number} of the tuning {recorder.run_name} ({recorder.run_id})",
            f"{plan.metric} {best.value:.4f}: {described(best)}",
        ]
        text = as_recipe(plan.space.config(best.values), experiment, heading)
        recorder.text(text, TUNE_WINNER_ARTIFACT)
        write_text(text, self.winner_file)

    def _winner_state(self, scheduler: TuneScheduler, best: Trial) -> JobState | None:
        """The job that makes the winner's model; ``None`` where there is nothing to do.

        With folds it is trained on the recipe's own labels. Else it is there already, in the best of the trial's runs,
        which registered no versions, so that only the winner has some.
        """
        plan = self.plan
        job = plan.winner_job(best.number, best.values)
        state = state_of(job)
        if not plan.folds:
            if job.config.mlflow.register_ == "none":
                return None
            made = best.states[best.best_part(maximise=plan.maximise)]
            state.go_on_with = made.report.run_id
            return state
        store = scheduler.store
        for run in store.batches.winners(self.recorder.run_id, job.digest):
            state.before.add(run.run_id)
            if run.status == "FINISHED":
                state.take(run, store)
                state.report.status, state.report.earlier = "finished", True
            elif state.go_on_with is None and store.batches.can_be_resumed(run):
                state.go_on_with = run.run_id
        return state

    def _judged(self, scheduler: TuneScheduler, best: Trial, state: JobState | None) -> TuneResult:
        result = replace(self._result(), best=best.number, config=self.winner_file)
        if state is None:
            part = best.best_part(maximise=self.plan.maximise)
            return replace(result, winner_run=best.states[part].report.run_id)
        report = state.report
        if report.status != "finished" or report.run_id is None:
            return replace(result, winner_note=report.note or report.status)
        store = scheduler.store
        curve = answered(partial(store.runs.values, report.run_id, self.plan.metric))
        value = curve.get(report.best_epoch) if report.best_epoch is not None else None
        name = state.job.config.mlflow.model_name
        version = answered(partial(store.versions.best_of_run, report.run_id, name))
        numbers = {name: version.number} if version is not None else {}
        candidates = point_candidates(self.recorder, numbers, take=self.take_candidate)
        return replace(result, winner_run=report.run_id, winner_value=value, candidates=candidates)

    def _result(self) -> TuneResult:
        recorder = self.recorder
        trials = self.scheduler.trials if self.scheduler else self.known
        reports = [_report(trial) for _, trial in sorted(trials.items())]
        return TuneResult(
            *(self.plan.metric, reports),
            run_id=recorder.run_id,
            run_name=recorder.run_name,
            tracking_uri=recorder.uri,
        )

    def _record(self, result: TuneResult) -> None:
        self.recorder.summary(tune_note(result))
        self.recorder.json(result.to_dict(), TUNE_SUMMARY_ARTIFACT)
        for path in self.engine.logs():
            text = path.read_text(encoding="utf-8", errors="replace")
            self.recorder.text(mask_credentials(text), f"logs/{path.name}")

    @staticmethod
    def _note(result: TuneResult) -> str:
        return result.winner_note or ("" if result.best is not None else "no trial finished")


def _report(trial: Trial) -> TrialReport:
    states = [state.report for state in trial.states.values()]
    return TrialReport(
        trial.number,
        trial.status,
        trial.values,
        trial.value,
        trial.epochs,
        round(trial.seconds, 1),
        {part: state.report.run_id for part, state in trial.states.items()},
        trial.why_pruned or trial.note,
        tuple(report.exit_status for report in states if report.exit_status is not None),
    )


def _checked(path: Path) -> Path:
    """Where the winning configuration goes, seen to be writable before hours are spent."""
    fault = "it is a folder" if path.is_dir() else unwritable(path.absolute().parent)
    if fault:
        raise DataError(f"{path.absolute()}: can't be written ({fault})", EXPECTED, "choose another --out")
    return path
