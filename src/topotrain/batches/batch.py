"""Many jobs as the children of one run."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import yaml

from topotrain.batches.display import BatchDisplay, JobReport, batch_note
from topotrain.batches.engine import Engine
from topotrain.batches.engines import check_store, open_engine
from topotrain.batches.ensembling import make_ensemble
from topotrain.batches.manifest import Job, Manifest, load_manifest
from topotrain.batches.parent_run import Parent, ParentResult, closing, held, open_parent, point_candidates
from topotrain.batches.scheduler import JobState, Scheduler, answered
from topotrain.cluster.workers import EngineName, check_engine
from topotrain.credentials import mask_credentials
from topotrain.errors import TopotrainError, TrackingError, UndeliveredError
from topotrain.fields import (
    BATCH_SUMMARY_ARTIFACT,
    TAG_BATCH_JOB,
    TAG_BATCH_JOB_DIGEST,
    TAG_BATCH_MANIFEST,
    TAG_BATCH_NAME,
    TAG_BEST_CHILD,
)
from topotrain.messages import lines_shown
from topotrain.scratch import scratch
from topotrain.signals import interruptible
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.batches import COMMAND
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import CONNECT_SECONDS, Store
from topotrain.tracking.versions import CANDIDATE

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class BatchResult(ParentResult):
    """What a batch left, beside what any run with children leaves.

    Attributes:
        jobs: one report for each job, in the manifest's order.
        best: name of the best job, if any finished.
        ensemble: version that its jobs' best ones were made one of, where the manifest asks for it.
        no_ensemble: why there is none, though all its jobs finished.
    """

    jobs: list[JobReport]
    best: str | None = None
    ensemble: str | None = None
    no_ensemble: TopotrainError | None = None

    @property
    def unfinished(self) -> list[JobReport]:
        """Jobs that failed or were skipped."""
        return [report for report in self.jobs if report.status != "finished"]

    @property
    def child_statuses(self) -> list[int]:
        """Exit statuses of the jobs."""
        return [report.exit_status for report in self.jobs if report.exit_status is not None]

    @property
    def exit_status(self) -> int:
        """0 if all jobs finished, else a failed job's: a fault of ours (1) before the user's input (2)."""
        failed = [report.exit_status for report in self.jobs if report.status in ("failed", "killed")]
        if not self.unfinished:
            return self.no_ensemble.exit_code if self.no_ensemble else 0
        return min((status if status is not None and status > 0 else 1 for status in failed), default=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "run_id": self.run_id,
            "run_name": self.run_name,
            "status": "interrupted" if self.interrupted else "failed" if self.unfinished else "finished",
            "best": self.best,
            "candidates": dict(self.candidates),
            **({"ensemble": self.ensemble} if self.ensemble else {}),
            "jobs": [report.to_dict() for report in self.jobs],
        }


def batch(
    manifest: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    resume: bool = False,
    run_name: str | None = None,
    take_candidate: bool = False,
    tracking_uri: str | None = None,
    progress: bool = True,
) -> BatchResult:
    """Run the jobs of a manifest, each in a process of its own.

    Args:
        manifest: YAML file.
        overrides: ``dotted.key=value`` for every job.
        jobs: processes at once.
        engine: ``local`` for processes of this machine, ``ray`` for those of a cluster's nodes.
        address: of the Ray cluster; by default Ray is started on this machine, and ended afterwards.
        resume: run only what an earlier batch of the same manifest did not finish.
        run_name: of the batch's own run; by default the manifest's file name without its ending.
        take_candidate: whether the best job's version becomes the candidate even where it is not known to be better.
        tracking_uri: wins over the configurations'.
        progress: whether to show lines, or on a terminal a table, on standard error, as in ``fit``.

    Raises:
        ConfigError: the manifest, or a configuration that it names, is wrong, or the cluster can't run it; nothing
            has run then.
        TrackingError: the store can't be used, or an earlier batch is still running.
        InterruptedRunError: SIGINT or SIGTERM; jobs under way were stopped, and the batch is closed as KILLED.
    """
    check_engine(engine, address)
    plan = load_manifest(manifest, overrides, elsewhere=engine != "local")
    with lines_shown(progress), interruptible():
        for notice in plan.notices:
            log.info(notice)
        uri = resolve_tracking_uri(tracking_uri, plan.tracking_uri, log.info)
        check_store(uri, address)
        store = Store.open(uri, patience=CONNECT_SECONDS)
        earlier = _earlier(plan, store) if resume else None
        states = {job.name: JobState(job, _report(job)) for job in plan.jobs}
        tags = {TAG_BATCH_MANIFEST: plan.digest, TAG_BATCH_NAME: plan.path.stem}
        parent = Parent(plan.experiment, COMMAND, run_name, plan.path.stem, tags)
        with scratch("batch") as folder, open_engine(engine, address, uri, folder, jobs) as runner:
            _check(plan, runner)
            with held(store, earlier) as lease:
                if earlier is not None:
                    _take_earlier(states, earlier, store)
                recorder = open_parent(store, parent, earlier, lease)
            one = _Batch(plan, recorder, states, runner, take_candidate=take_candidate, progress=progress)
            return one.run()


class _Batch:
    """One batch whose run is open."""

    def __init__(
        self,
        plan: Manifest,
        recorder: Recorder,
        states: Mapping[str, JobState],
        engine: Engine,
        *,
        take_candidate: bool,
        progress: bool,
    ) -> None:
        self.take_candidate, self.progress = take_candidate, progress
        self.plan, self.recorder, self.states = plan, recorder, states
        self.engine = engine

    def run(self) -> BatchResult:
        recorder = self.recorder
        with closing(recorder, lambda: self._record(replace(self._result(), interrupted=True))):
            log.info("batch %s (%s): %d jobs", recorder.run_name, recorder.run_id, len(self.states))
            recorder.text(self.plan.text, f"batch/{self.plan.path.name}")
            recorder.text(yaml.safe_dump(self.plan.to_dict(), sort_keys=False), "batch/resolved.yaml")
            with BatchDisplay(table=self.progress) as display:
                Scheduler(self.plan, self.states, recorder, self.engine, display).run()
            result = self._finish()
            lost = [f"{report.name} ({report.status})" for report in result.unfinished]
            note = f"{len(lost)} of {len(result.jobs)} jobs did not finish: {', '.join(lost)}" if lost else ""
            if result.no_ensemble is not None and not isinstance(result.no_ensemble, UndeliveredError):
                note = note or f"no ensemble: {result.no_ensemble}"
            recorder.end("FAILED" if note else "FINISHED", note)
            recorder.close()
            return replace(result, journal=recorder.journal)

    def _result(self) -> BatchResult:
        recorder = self.recorder
        reports = [state.report for state in self.states.values()]
        return BatchResult(reports, run_id=recorder.run_id, run_name=recorder.run_name, tracking_uri=recorder.uri)

    def _finish(self) -> BatchResult:
        best = best_state([state for state in self.states.values() if state.report.status == "finished"])
        candidates = self._point_at_best()
        result = replace(self._result(), best=best.job.name if best else None, candidates=candidates)
        result = self._with_ensemble(result)
        if best is not None and best.report.run_id:
            self.recorder.tags({TAG_BEST_CHILD: best.report.run_id})
        self._record(result)
        return result

    def _with_ensemble(self, result: BatchResult) -> BatchResult:
        plan, versions = self.plan.ensemble, self.recorder.store.versions
        reports = [self.states[name].report for name in plan.jobs] if plan else []
        if plan is None or any(report.status != "finished" for report in reports):
            return result
        if result.undelivered:  # the server lacks a member
            log.warning("no ensemble before all is delivered: topotrain sync, then topotrain batch --resume")
            return result
        runs = [str(report.run_id) for report in reports]
        try:
            uri = answered(partial(make_ensemble, plan, runs, self.recorder, take_candidate=self.take_candidate))
        except TopotrainError as error:
            return replace(result, no_ensemble=error)
        holder = answered(partial(versions.with_alias, plan.name, CANDIDATE))
        candidates = {**result.candidates, **({plan.name: holder.number} if holder else {})}
        return replace(result, ensemble=uri, candidates=candidates)

    def _record(self, result: BatchResult) -> None:
        self.recorder.summary(batch_note(result.jobs, result.best))
        self.recorder.json(result.to_dict(), BATCH_SUMMARY_ARTIFACT)
        for path in self.engine.logs():
            self.recorder.text(
                mask_credentials(path.read_text(encoding="utf-8", errors="replace")), f"logs/{path.name}"
            )

    def _point_at_best(self) -> dict[str, str]:
        """The alias ``candidate`` of each registered model at the best version of its best job."""
        by_model: dict[str, list[tuple[JobState, str]]] = {}
        for state in self.states.values():
            name = state.job.config.mlflow.model_name
            if state.report.status == "finished" and state.report.run_id:
                version = answered(partial(self.recorder.store.versions.best_of_run, state.report.run_id, name))
                if version is not None:
                    by_model.setdefault(name, []).append((state, version.number))
        numbers: dict[str, str] = {}
        for name, made in by_model.items():
            best = best_state([state for state, _ in made])
            if best is not None:
                numbers[name] = next(version for state, version in made if state is best)
        return point_candidates(self.recorder, numbers, take=self.take_candidate)


def best_state(states: Sequence[JobState]) -> JobState | None:
    """The best job by primary metric; where not all are on one scale, among the jobs of the most frequent one."""
    measured = [state for state in states if state.report.primary_value is not None]
    if not measured:
        return None
    counts = Counter(state.scale for state in measured)
    scale = counts.most_common(1)[0][0]  # of equals, the one met first
    alike = [state for state in measured if state.scale == scale]
    if len(counts) > 1:
        names = ", ".join(state.job.name for state in alike)
        log.info("jobs have different primary metrics or validation data; the best is looked for among %s", names)
    return min(alike, key=lambda state: float(state.report.primary_value or 0.0))


def _check(plan: Manifest, engine: Engine) -> None:
    """See that the engine can run every job, before any is begun."""
    engine.check(
        {job.name: job.takes for job in plan.jobs},
        {job.name: job.reads for job in plan.jobs},
        [job.build.out.parent for job in plan.jobs if job.build],
    )


def _report(job: Job) -> JobReport:
    return JobReport(
        name=job.name,
        num_epochs=job.config.trainer.num_epochs,
        primary_metric=job.primary_metric,
        run_name=job.run_name,
    )


def _earlier(plan: Manifest, store: Store) -> RunRecord | None:
    digests = {job.name: job.digest for job in plan.jobs}
    found = store.batches.find(plan.path.stem, plan.digest, digests)
    if found is None:
        log.info("no earlier batch of %s on this store: everything is run", plan.path)
    return found


def _take_earlier(states: Mapping[str, JobState], earlier: RunRecord, store: Store) -> None:
    """Mark jobs that are finished, and those that were cut off and go on."""
    looked_at: set[str] = set()
    for run in store.batches.earlier_children(earlier):  # the newest first
        state = states.get(run.tags[TAG_BATCH_JOB])
        if state is None:
            continue
        state.before.add(run.run_id)
        if run.tags.get(TAG_BATCH_JOB_DIGEST) != state.job.digest or state.report.status == "finished":
            continue
        if is_alive(run):
            raise TrackingError(
                f"job {state.job.name!r} is still being trained (run {run.run_id})",
                "one that ended or was cut off",
                "wait for it or stop it",
            )
        if run.status == "FINISHED":
            state.take(run, store)
            state.report.status, state.report.earlier, state.go_on_with = "finished", True, None
        elif state.job.name not in looked_at and store.batches.can_be_resumed(run):
            state.go_on_with = run.run_id
        looked_at.add(state.job.name)
    counts = Counter("done" if s.report.earlier else "on" if s.go_on_with else "new" for s in states.values())
    log.info(
        "batch %s: %d jobs are finished, %d go on, %d are run",
        *(earlier.run_id, counts["done"], counts["on"], counts["new"]),
    )
