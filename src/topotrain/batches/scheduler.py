"""The order in which a batch's jobs run, each in processes of its own."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import yaml

from topotrain.batches.display import BatchDisplay, JobReport
from topotrain.batches.engine import Engine, Running, Work
from topotrain.batches.manifest import Job, Manifest
from topotrain.errors import EXIT_AGAIN, EXIT_UNDELIVERED, OutageError, TrackingError, UserInputError
from topotrain.fields import TAG_BATCH_JOB, TAG_BATCH_JOB_DIGEST, VALIDATION_PARAMETER
from topotrain.signals import release
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import Store
from topotrain.tracking.sync import deliver_first

log = logging.getLogger("topotrain")

TICK_SECONDS = 0.2
WATCH_SECONDS = 2.0  # between two looks at the server, also while it does not answer
INTERRUPTED = (130, 143, EXIT_AGAIN)
MOST_LOSSES = 3  # machines that a job may lose, and go on
T = TypeVar("T")


def answered(ask: Callable[[], T]) -> T:
    """What the server answers once all jobs have ended; as long as it gives no answer, it is asked again.

    Args:
        ask: raises ``OutageError`` where there is none.
    """
    reported = False
    while True:
        try:
            return ask()
        except OutageError as error:
            if not reported:
                log.warning("%s; what is left to do waits for it, asking again", error)
            reported = True
        time.sleep(WATCH_SECONDS)


@dataclass
class JobState:
    """One job on its way.

    Attributes:
        job: as the manifest has it.
        report: what is known of it.
        go_on_with: run that was cut off and goes on, instead of a new one.
        before: runs of the job that are none of this attempt's.
        validation: digest of its validation decoys and their labels, once it is known.
        process: the command under way.
        seconds: of the commands before it.
        ended: exit status that is not looked into yet.
        lost: whether it ended because its machine is gone.
        losses: how many machines it has lost so far.
    """

    job: Job
    report: JobReport
    go_on_with: str | None = None
    before: set[str] = field(default_factory=set)
    validation: str | None = None
    process: Running | None = None
    seconds: float = 0.0
    ended: int | None = None
    lost: bool = False
    losses: int = 0

    @property
    def under_way(self) -> bool:
        """Whether a process of it runs, or has ended and is not looked into."""
        return self.process is not None or self.ended is not None

    @property
    def scale(self) -> tuple[str, str | None]:
        """What its primary metric is measured on, and on which data."""
        return self.job.config.selection.scale, self.validation

    def take(self, run: RunRecord, store: Store) -> None:
        """Take over what the server knows of its run."""
        achieved = store.batches.achieved(run, self.job.primary_metric)
        report, self.validation = self.report, run.params.get(VALIDATION_PARAMETER)
        report.run_id, report.run_name = run.run_id, run.name
        report.epochs, report.best_val_loss = achieved.epochs, achieved.best_val_loss
        report.best_epoch, report.primary_value = achieved.best_epoch, achieved.primary
        report.val_loss, report.checkpoint = achieved.val_loss, achieved.checkpoint
        if run.ended and report.seconds is None:
            report.seconds = round((run.ended - run.started).total_seconds(), 1)

    def begin_again(self) -> None:
        """Its machine is gone: wait for another, and go on with its run, if it has one."""
        self.losses += 1
        self.report.status, self.report.note, self.report.exit_status = "waiting", "", None
        self.process, self.ended, self.lost = None, None, False

    def fail(self, error: UserInputError) -> None:
        """It can't be started."""
        self.report.status, self.report.note, self.report.exit_status = "failed", str(error), error.exit_code


class Scheduler:
    """Runs jobs, some at once, each after those it waits for.

    Args:
        manifest: the jobs.
        states: one for each job, by name, in the manifest's order; those that are finished already say so.
        recorder: of the batch's own run.
        engine: runs their commands.
        display: shows where they stand.
    """

    def __init__(
        self,
        manifest: Manifest,
        states: Mapping[str, JobState],
        recorder: Recorder,
        engine: Engine,
        display: BatchDisplay,
    ) -> None:
        self.manifest, self.states, self.recorder = manifest, states, recorder
        self.engine, self.display = engine, display
        self.store = recorder.store
        self.experiment = self.store.runs.experiment_name(recorder.experiment_id)
        self._looked = 0.0
        self._outage_reported = False

    @property
    def reports(self) -> list[JobReport]:
        """All of them, in the manifest's order."""
        return [state.report for state in self.states.values()]

    def run(self) -> None:
        """Until every job is finished, failed or skipped. Interrupted, no process is left."""
        try:
            while self._goes_on():
                self._start_ready()
                self._collect()
                self._look()
                self.display.show(self.reports)
                time.sleep(TICK_SECONDS)
        except BaseException as stop:
            release(stop)
            self._stop()
            raise
        self.display.show(self.reports)

    def _goes_on(self) -> bool:
        return any(state.under_way or state.report.status == "waiting" for state in self.states.values())

    def _start_ready(self) -> None:
        stopping = not self.manifest.continue_on_error and any(
            report.status in ("failed", "killed") for report in self.reports
        )
        for state in self.states.values():
            if state.report.status != "waiting":
                continue
            awaited = [self.states[name].report for name in state.job.best_of]
            lost = [report.name for report in awaited if report.status in ("failed", "killed", "skipped")]
            if lost or stopping:
                state.report.status = "skipped"
                state.report.note = f"{', '.join(lost)} did not finish" if lost else "after a failure"
            elif all(report.status == "finished" for report in awaited):
                if self.engine.has_room(sum(o.under_way for o in self.states.values()), state.job.takes):
                    self._start(state)

    def _start(self, state: JobState) -> None:
        try:
            if state.job.build is not None:
                log.info("%s: building graphs in %s", state.job.name, state.job.build.out)
                state.report.status = "building"
                self._begin(state, state.job.build.arguments(self.engine.cores_of(state.job.takes)))
            else:
                self._train(state)
        except UserInputError as error:
            state.fail(error)

    def _train(self, state: JobState) -> None:
        if state.go_on_with:
            arguments, config = self._resume_arguments(state), None
        else:
            arguments, config = self._run_arguments(state.job), self._config(state.job)
        state.report.status = "running"
        self._begin(state, arguments, config)

    def _begin(self, state: JobState, arguments: list[str], config: str | None = None) -> None:
        tags = {TAG_BATCH_JOB: state.job.name, TAG_BATCH_JOB_DIGEST: state.job.digest, **state.job.tags}
        state.process = self.engine.submit(Work(state.job.name, tuple(arguments), config, tags, state.job.takes))

    def _run_arguments(self, job: Job) -> list[str]:
        checkpoint = self._best_of(job) if job.best_of else job.resume_from
        options = {
            "--run-name": job.run_name,
            "--notes": job.notes,
            "--trial-label": job.trial_label,
            "--resume-from": checkpoint,
            "--parent-run-id": self.recorder.run_id,
            **{f"--{key.replace('_', '-')}": str(value).lower() for key, value in job.limits.items()},
        }
        # With "=", so that a text that begins with a dash is no option.
        return ["run", *(f"{name}={value}" for name, value in options.items() if value)]

    def _resume_arguments(self, state: JobState) -> list[str]:
        """The run's own recipe holds; where the data lie may have changed, as on another machine."""
        paths = state.job.config.paths.model_dump(exclude_none=True)
        overrides = [part for key, value in paths.items() for part in ("-o", f"paths.{key}={json.dumps(value)}")]
        return ["resume", "--run-id", str(state.go_on_with), *overrides]

    def _best_of(self, job: Job) -> str:
        reports = [self.states[name].report for name in job.best_of]
        usable = [report for report in reports if report.primary_value is not None and report.checkpoint]
        if not usable:
            raise TrackingError(f"{', '.join(job.best_of)} left no checkpoint", "one to begin with")
        best = min(usable, key=lambda report: float(report.primary_value or 0.0))
        log.info("%s: begins with the best of %s: %s", job.name, ", ".join(job.best_of), best.checkpoint)
        return str(best.checkpoint)

    def _config(self, job: Job) -> str:
        """The job's recipe as it was when the batch began: whoever edits the file meanwhile changes the next batch."""
        values = job.config.model_dump(mode="json", by_alias=True, exclude_none=True)
        values["mlflow"] |= {"experiment": self.experiment, "tracking_uri": None}
        return self._heading(job) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def _heading(self, job: Job) -> str:
        source = f", from {os.path.relpath(job.config_file, self.manifest.path.parent)}" if job.config_file else ""
        return f"# job {job.name!r} of the batch manifest {self.manifest.path.name}{source}\n"

    def _collect(self, *, go_on: bool = True) -> None:
        """Take up processes that have ended; after a build the training begins, if the batch is to go on."""
        for state in self.states.values():
            status = state.process.poll() if state.process else None
            if state.process is None:
                continue
            state.report.graphs = state.process.progress if state.report.status == "building" else None
            if status is None:
                continue
            state.seconds += state.process.seconds
            building, state.report.graphs = state.report.status == "building", None
            if building and state.process.lost and go_on and state.losses < MOST_LOSSES:
                log.warning("%s: %s; its graphs are built on another", state.job.name, state.process.last_words)
                state.begin_again()
                continue
            if building and status == 0:
                if not go_on:
                    state.report.status, state.process = "killed", None
                    continue
                try:
                    self._train(state)
                except UserInputError as error:
                    state.process = None
                    state.fail(error)
                continue
            state.report.run_id = state.process.run_id or state.report.run_id
            if status not in (0, EXIT_UNDELIVERED):
                state.report.note = state.process.last_words
            state.report.exit_status, state.report.seconds = status, round(state.seconds, 1)
            state.lost = state.process.lost and go_on and state.losses < MOST_LOSSES
            state.ended, state.process = status, None
            self._looked = 0.0  # at once

    def _look(self) -> None:
        """Ask the server how the jobs stand; without an answer, ask again later."""
        if time.monotonic() - self._looked < WATCH_SECONDS:
            return
        try:
            self._ask()
        except OutageError as error:
            if not self._outage_reported:
                log.warning("%s; the jobs go on, asking again", error)
            self._outage_reported = True
        else:
            self._outage_reported = False
        self._looked = time.monotonic()

    def _ask(self) -> None:
        watched = [
            s for s in self.states.values() if s.under_way and (s.ended is not None or s.report.status == "running")
        ]
        if not watched:
            return
        newest: dict[str, list[RunRecord]] = {}
        for run in self.store.batches.children(self.recorder.run_id):
            newest.setdefault(run.tags[TAG_BATCH_JOB], []).append(run)
        for state in watched:
            try:
                if state.ended == EXIT_UNDELIVERED and state.report.run_id:
                    deliver_first(self.store, state.report.run_id)
                own = self._run_of(state, newest.get(state.job.name, []))
                if own is not None:
                    state.take(own, self.store)
                if state.lost:
                    self._go_on_elsewhere(state, own)
                    continue
                if state.ended not in (None, 0, EXIT_UNDELIVERED):
                    self._close_dead(state.report, state.ended)
            except OutageError:
                raise
            except TrackingError as error:  # the server refuses, and asking again would not help
                state.report.note = str(error)
            if state.ended is not None:
                self._settle(state, state.ended)

    def _go_on_elsewhere(self, state: JobState, run: RunRecord | None) -> None:
        """After its machine is gone, have another go on with its run from its last checkpoint, or begin anew.

        What can't be reached may still live: as long as it shows signs of life, the run is its own.
        """
        if run is not None and run.status == "FINISHED":
            state.ended, state.lost = 0, False
            state.report.exit_status, state.report.note = 0, ""
            self._settle(state, 0)
            return
        if run is not None and is_alive(run):
            state.report.note = "its node was lost; it goes on when that is known to be dead"
            return
        if run is not None and self.store.batches.can_be_resumed(run):
            state.go_on_with, how = run.run_id, "goes on with run " + run.run_id
        else:
            if run is not None:
                self.store.batches.close_dead(run.run_id, "its node was lost")
                state.before.add(run.run_id)
            state.go_on_with, state.report.run_id, how = None, None, "begins anew"
        log.warning("%s: its node was lost; another %s", state.job.name, how)
        state.begin_again()

    def _run_of(self, state: JobState, newest_first: list[RunRecord]) -> RunRecord | None:
        """The run that this attempt makes, if it has got that far."""
        known = state.report.run_id or state.go_on_with
        if known:
            return self.store.runs.get(known)
        return next((run for run in newest_first if run.run_id not in state.before), None)

    def _close_dead(self, report: JobReport, exit_status: int) -> None:
        if report.run_id:
            self.store.batches.close_dead(report.run_id, f"its process ended with status {exit_status}")

    @staticmethod
    def _settle(state: JobState, exit_status: int) -> None:
        """Say how a job ended, after the server has said what it achieved."""
        report = state.report
        if exit_status in (0, EXIT_UNDELIVERED):
            report.status = "finished"
        else:
            report.status = "killed" if exit_status < 0 or exit_status in INTERRUPTED else "failed"
        state.ended = None

    def _stop(self) -> None:
        """End all processes and take in what they left."""
        running = [state for state in self.states.values() if state.process is not None]
        if running:
            log.info("stopping %s", ", ".join(state.job.name for state in running))
        self.engine.stop(state.process for state in running if state.process is not None)
        self._collect(go_on=False)
        try:
            self._ask()
        except TrackingError as error:
            log.warning("%s", error)
        for state in self.states.values():
            if state.ended is not None:
                state.report.status, state.ended = "killed", None
