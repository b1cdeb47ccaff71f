"""Batch manifests: many jobs in one YAML file, checked as a whole before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from topotrain.batches.builds import Build, plan_build
from topotrain.batches.ensembling import EnsemblePlan, plan_ensemble
from topotrain.batches.manifest_file import (
    BuildPart,
    EnsemblePart,
    JobPart,
    ManifestPart,
    ResourcesPart,
    SharedPart,
    flat_settings,
    read_part,
    undotted,
)
from topotrain.batches.resources import UNBOUND, Resources, size_in_bytes, taken_by
from topotrain.config import (
    EVERYWHERE,
    HARDWARE,
    Layer,
    TrainConfig,
    absolute_path,
    check_sizes,
    draft_config,
    layer_of,
    merge,
    read_yaml,
    separate,
    shown,
    validate,
)
from topotrain.credentials import mask_credentials, mask_settings
from topotrain.errors import ConfigError, UserInputError
from topotrain.fields import DOCKQ_COLUMN
from topotrain.text import did_you_mean

BEST_OF_JOBS = re.compile(r"best-of\s*\((.*)\)\s*", re.DOTALL)
LIMITS = ("fast_dev_run", "limit_train_batches", "limit_val_batches")


@dataclass(frozen=True)
class Job:
    """One job, resolved.

    Attributes:
        name: unique in the manifest.
        config: the whole recipe.
        config_file: absolute path of the file it came from, if any.
        run_name: of its run.
        notes: shown on the run's page.
        trial_label: kept as a tag.
        limits: options of ``run`` that cut it short.
        resume_from: checkpoint to start from: a path, ``runs:/...`` or ``models:/...``.
        best_of: jobs whose best checkpoint to start from, instead.
        build: graphs to make first.
        resources: what it says to take of a machine while it runs.
        tags: more tags of its run.
        digest: SHA-256 over what decides the result, the same wherever the project lies.
    """

    name: str
    config: TrainConfig
    config_file: str | None
    run_name: str
    notes: str | None = None
    trial_label: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    resume_from: str | None = None
    best_of: tuple[str, ...] = ()
    build: Build | None = None
    resources: Resources = UNBOUND
    tags: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def primary_metric(self) -> str:
        """What ranks its checkpoints."""
        return self.config.selection.primary_metric

    @property
    def model_name(self) -> str | None:
        """The registered model that its versions are of; ``None`` where it registers none."""
        return None if self.limits or self.config.mlflow.register_ == "none" else self.config.mlflow.model_name

    @property
    def takes(self) -> Resources:
        """What it takes of a machine while it runs."""
        return taken_by(self.config, self.resources)

    @property
    def reads(self) -> list[str]:
        """Absolute paths of what has to be there when it begins."""
        paths = self.config.paths.model_dump(exclude={"cache"}, exclude_none=True)
        built = {str(self.build.out)} if self.build else set()
        given = [*paths.values(), self.resume_from, self.build.structures if self.build else None]
        return [path for path in given if path and Path(path).is_absolute() and path not in built]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record; credentials are masked."""
        return {
            "name": self.name,
            "run_name": self.run_name,
            "notes": self.notes,
            "trial_label": self.trial_label,
            **self.limits,
            "resume_from": f"best-of({', '.join(self.best_of)})" if self.best_of else self.resume_from,
            "build": self.build.to_dict() if self.build else None,
            "resources": self.takes.to_dict(),
            "digest": self.digest,
            "config": self.config.to_dict(),
        }


@dataclass(frozen=True)
class Manifest:
    """A manifest, resolved and checked.

    Attributes:
        path: of the file.
        text: as it was given, credentials masked.
        jobs: in the order of the file.
        continue_on_error: whether jobs start after another has failed.
        ensemble: what its jobs' best versions become, where it says so.
        tracking_uri: as the jobs' configurations give it, if they do.
        experiment: likewise.
        notices: one line for each thing that was read in another sense than written.
    """

    path: Path
    text: str
    jobs: tuple[Job, ...]
    continue_on_error: bool
    tracking_uri: str | None
    experiment: str
    ensemble: EnsemblePlan | None = None
    notices: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the jobs."""
        return digest_of({job.name: job.digest for job in self.jobs})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {
            "digest": self.digest,
            "continue_on_error": self.continue_on_error,
            **({"ensemble": self.ensemble.to_dict()} if self.ensemble else {}),
            "jobs": [job.to_dict() for job in self.jobs],
        }


def load_manifest(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, elsewhere: bool = False) -> Manifest:
    """Read a manifest and everything it names, and check it as a whole.

    Args:
        path: YAML file.
        overrides: of the command line; they win over ``shared``, and a job's own win over them.
        elsewhere: whether its jobs run on other machines, so that this one need not have the hardware.

    Raises:
        ConfigError: a key, a job, a configuration or a checkpoint that can't be, or hardware that this machine does
            not have; nothing has run then.
    """
    source = Path(path).absolute()
    text, raw = read_yaml(source, "a YAML manifest", "keys jobs, shared, continue_on_error", "--manifest")
    reader = _Reader(source, overrides, elsewhere=elsewhere)
    whole = read_part(ManifestPart, raw, str(source), reader.notices)
    shared = read_part(SharedPart, whole.shared, f"{source}: shared", reader.notices)
    parts = []
    for number, entry in enumerate(whole.jobs, start=1):
        named = {"name": f"job_{number}", **entry}
        where = f"{source}: job {number} ({shown(named['name'])})"
        parts.append(read_part(JobPart, named, where, reader.notices))
    _refuse_doubles(source, [part.name for part in parts])
    jobs = [reader.job(part, shared) for part in parts]
    ensemble = None
    if whole.ensemble is not None:
        ensemble_part = read_part(EnsemblePart, whole.ensemble, f"{source}: ensemble", reader.notices)
        ensemble = plan_ensemble(source, ensemble_part, {job.name: job.model_name for job in jobs})
    return Manifest(
        path=source,
        text=mask_settings(text),
        jobs=_linked(source, jobs),
        continue_on_error=whole.continue_on_error,
        tracking_uri=_the_same(source, "mlflow.tracking_uri", {j.name: j.config.mlflow.tracking_uri for j in jobs}),
        experiment=str(_the_same(source, "mlflow.experiment", {j.name: j.config.mlflow.experiment for j in jobs})),
        ensemble=ensemble,
        notices=tuple(dict.fromkeys(reader.notices)),
    )


class _Reader:
    """Turns the parts of one file into jobs."""

    def __init__(self, source: Path, overrides: Sequence[str], *, elsewhere: bool) -> None:
        self.source, self.base, self.elsewhere = source, source.parent, elsewhere
        self.command_line = [layer_of(text) for text in overrides]
        self.notices: list[str] = []
        self.hardware = [EVERYWHERE]

    def job(self, own: JobPart, shared: SharedPart) -> Job:
        """Resolve one job: file, overrides, checkpoint, build."""
        where = f"{self.source}: job {own.name!r}"

        def either(key: str) -> Any:
            return getattr(own if key in own.model_fields_set else shared, key)

        config_file = self._config_file(either("config"), where)
        best_of, checkpoint = self._resume_from(either("resume_from"), where)
        try:
            shared_layers = self._layers(shared.overrides, " of shared")
            draft = draft_config(config_file, [*shared_layers, *self.command_line, *self._layers(own.overrides)])
            build = self._build(shared.build, own.build)
            resources = self._resources({**(shared.resources or {}), **(own.resources or {})})
            paths = build.paths(draft.raw.get("paths") or {}) if build else {}
            config = validate(merge(draft.raw, {"paths": paths} if paths else {}), draft.where)
            if not self.elsewhere:
                self._check_hardware(config)
        except UserInputError as error:
            raise ConfigError(f"{where}: {error.what}", error.expected, error.do) from None
        self.notices += draft.notices
        return Job(
            name=own.name,
            config=config,
            config_file=config_file,
            run_name=own.run_name or own.name,
            notes=either("notes"),
            trial_label=either("trial_label"),
            limits={key: either(key) for key in LIMITS if either(key)},
            resume_from=checkpoint,
            best_of=best_of,
            build=build,
            resources=resources,
        )

    def _check_hardware(self, config: TrainConfig) -> None:
        """See once that this machine has what jobs ask for; what every machine has needs no torch to be seen."""
        check_sizes(config)
        asked = config.trainer.model_dump(include=HARDWARE)
        if asked not in self.hardware:
            from topotrain.training.hardware import check_hardware

            check_hardware(config)
            self.hardware.append(asked)

    def _config_file(self, given: str | None, where: str) -> str | None:
        if given is None:
            return None
        path = absolute_path(given, self.base)
        if not os.path.isfile(path):
            hint = "paths in a manifest are relative to it"
            here = absolute_path(given, Path.cwd())
            if os.path.isfile(here):
                hint += f": write {os.path.relpath(here, self.base)}"
            raise ConfigError(f"{where}: config {path}: no such file", "a YAML configuration", hint)
        return path

    def _layers(self, overrides: Mapping[str, Any] | Sequence[str] | None, place: str = "") -> Iterator[Layer]:
        if isinstance(overrides, Mapping):
            yield Layer(undotted(overrides), f"override{place}", self.base)
        else:
            yield from (layer_of(one, self.base, place) for text in overrides or () for one in separate(text))

    def _resume_from(self, given: str | None, where: str) -> tuple[tuple[str, ...], str | None]:
        """Jobs of ``best-of(...)``, or a checkpoint."""
        if given is None or given.startswith(("runs:/", "models:/")):
            return (), given
        if given.startswith("best-of"):
            match = BEST_OF_JOBS.fullmatch(given)
            names = [name.strip() for name in match.group(1).split(",")] if match else []
            if not names or not all(names):
                raise ConfigError(f"{where}: resume_from {given!r} is malformed", "best-of(JOB, ...)")
            return tuple(dict.fromkeys(names)), None
        path = absolute_path(given, self.base)
        if not os.path.isfile(path):
            raise ConfigError(
                f"{where}: resume_from {path}: no such file",
                "a checkpoint, runs:/ID/..., models:/NAME@alias or best-of(JOB, ...)",
            )
        return (), path

    def _build(self, shared: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> Build | None:
        if shared is None and own is None:
            return None
        whole: dict[str, Any] = {}
        for part in (shared or {}, own or {}):
            whole = merge(whole, {**part, "set": flat_settings(part.get("set"), "build")})
        build = read_part(BuildPart, whole, "build", self.notices)
        return plan_build(
            build.structures, {str(kind): name for kind, name in build.modules.items()}, build.settings, self.base
        )

    def _resources(self, given: Mapping[str, Any]) -> Resources:
        part = read_part(ResourcesPart, given, "resources", self.notices)
        return Resources(part.cpus, part.gpus, size_in_bytes(part.memory) if part.memory else None)


def _linked(source: Path, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The jobs with their digests, after what they wait for was checked."""
    by_name = {job.name: job for job in jobs}
    for job in jobs:
        where = f"{source}: job {job.name!r}: resume_from"
        for name in job.best_of:
            if name not in by_name:
                hint = did_you_mean(name, by_name)
                raise ConfigError(f"{where}: there is no job {name!r}", f"one of {', '.join(by_name)}", hint)
        metrics = {by_name[name].primary_metric for name in job.best_of}
        if len(metrics) > 1:
            raise ConfigError(
                f"{where}: {', '.join(job.best_of)} have the primary metrics {', '.join(sorted(metrics))}",
                "one scale to compare them on",
                "give all of them the same selection.primary_metric",
            )
    try:
        order = list(TopologicalSorter({job.name: job.best_of for job in jobs}).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1][::-1])
        raise ConfigError(f"{source}: jobs wait for each other: {circle}", "an order in which they can run") from None
    digests: dict[str, str] = {}
    for name in order:
        digests[name] = _job_digest(by_name[name], source.parent, digests)
    return tuple(replace(job, digest=digests[job.name]) for job in jobs)


def decisive(config: TrainConfig, base: Path) -> dict[str, Any]:
    """What of a recipe decides its result, with paths as seen from a folder: the same wherever the project lies."""
    content = config.to_dict()
    del content["logging"]
    if config.labels.column == DOCKQ_COLUMN:
        del content["labels"]  # digests made before there was a choice stay
    content["mlflow"] = {key: content["mlflow"][key] for key in ("model_name", "register")}
    content["paths"] = {key: _relative(value, base) for key, value in content["paths"].items()}
    return content


def _job_digest(job: Job, base: Path, digests: Mapping[str, str]) -> str:
    """Over what decides a job's result; names, notes and where it is tracked do not."""
    config = decisive(job.config, base)
    if job.build:
        paths = job.build.paths({})  # those of the cache, which lies elsewhere on another machine
        for key, value in job.config.paths.model_dump().items():
            config["paths"][key] = None if paths.get(key) == value else config["paths"][key]
        config["build"] = {**job.build.to_dict(), "structures": _relative(job.build.structures, base)}
    return digest_of(
        {
            "config": config,
            "limits": dict(job.limits),
            "resume_from": _relative(job.resume_from, base),
            "best_of": {name: digests[name] for name in job.best_of},
        }
    )


def _relative(value: str | None, base: Path) -> str | None:
    """A path as seen from the manifest, so that the same project elsewhere has the same digest."""
    return Path(os.path.relpath(value, base)).as_posix() if value and Path(value).is_absolute() else value


def digest_of(content: Any) -> str:
    """SHA-256 over plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _refuse_doubles(source: Path, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{source}: {names.count(name)} jobs are called {name!r}", "a name for each")


def _the_same(source: Path, key: str, values: Mapping[str, str | None]) -> str | None:
    """One value for all jobs: a batch is one run with its children beside it."""
    first, *others = values.items()
    for name, value in others:
        if value != first[1]:
            raise ConfigError(
                mask_credentials(f"{source}: {key} is {first[1]!r} in job {first[0]!r} and {value!r} in job {name!r}"),
                "one for the whole batch",
            )
    return first[1]
