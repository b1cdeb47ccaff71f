"""The end of a batch: the best versions of its jobs as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.batches.manifest_file import EnsemblePart
from topotrain.errors import ConfigError
from topotrain.text import did_you_mean
from topotrain.tracking.recorder import Recorder

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class EnsemblePlan:
    """What a manifest's ``ensemble`` asks for.

    Attributes:
        name: of the registered model.
        jobs: whose best versions are its members.
    """

    name: str
    jobs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {"name": self.name, "jobs": list(self.jobs)}


def plan_ensemble(source: Path, part: EnsemblePart, models: Mapping[str, str | None]) -> EnsemblePlan:
    """What it asks for, checked.

    Args:
        source: the manifest.
        part: as it is written.
        models: the registered model of each job's versions; ``None`` for a job that registers none.

    Raises:
        ConfigError: a job that is not there or registers nothing, fewer than two, or no name where theirs differ.
    """
    where, jobs = f"{source}: ensemble", part.jobs if part.jobs is not None else list(models)
    for job in jobs:
        if job not in models:
            raise ConfigError(
                f"{where}: there is no job {job!r}", f"one of {', '.join(models)}", did_you_mean(job, models)
            )
        if models[job] is None:
            what = f"{where}: job {job!r} registers no model"
            raise ConfigError(what, "mlflow.register all or best, and all of its data", "leave it out of ensemble.jobs")
    if len(set(jobs)) < max(2, len(jobs)):
        raise ConfigError(f"{where}: its jobs are {', '.join(jobs)}", "two or more, each once")
    names = {str(models[job]) for job in jobs}
    if part.name is None and len(names) > 1:
        raise ConfigError(f"{where}: its jobs register {' and '.join(sorted(names))}", "ensemble.name")
    return EnsemblePlan(part.name or names.pop(), tuple(jobs))


def make_ensemble(plan: EnsemblePlan, run_ids: Sequence[str], recorder: Recorder, *, take_candidate: bool) -> str:
    """Register it, as a child of the batch; one that is there already stays the only one.

    Args:
        plan: of it.
        run_ids: of its jobs.
        recorder: of the batch.
        take_candidate: as there.

    Returns:
        URI of the version.

    Raises:
        TopotrainError: as :func:`topotrain.scoring.ensemble.ensemble`.
    """
    from topotrain.scoring.ensemble import ensemble

    done = ensemble(
        run_ids,
        name=plan.name,
        run_name=f"{recorder.run_name}_ensemble",
        take_candidate=take_candidate,
        parent_run_id=recorder.run_id,
        tracking_uri=recorder.store.uri,
    )
    log.info("ensemble of %d jobs: %s", len(plan.jobs), done.version)
    return done.version
