"""Folders of structures to folders of graphs, with their sidecar and summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from topotrain.cluster.workers import EngineName, RunTasks, Workers
from topotrain.data.graph_cache import GraphCache
from topotrain.errors import DataError
from topotrain.features.graph import (
    GraphOutcome,
    GraphResult,
    GraphTask,
    compute_task,
    kept_outcome,
    write_graph,
)
from topotrain.features.inputs import StructureFiles, structure_files
from topotrain.features.kept_graphs import KeptGraphs
from topotrain.features.module_set import ModuleSet, recorded_modules, select_modules
from topotrain.features.partners import Partners
from topotrain.features.records import claim, total_stage_seconds, write_sidecar, write_summary
from topotrain.features.sequences import write_sequences
from topotrain.features.structure_changes import Changes, describe_changes, summary_line
from topotrain.fields import SIDECAR_NAME
from topotrain.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from topotrain.progress import OnItemDone
from topotrain.text import one_line

Models = Literal["first", "all"]
ONE = Workers()


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        out: the graph folder.
        summary_path: the summary file.
        metadata_path: the sidecar.
        built: keys of graphs made now.
        kept: keys of graphs that were there, unchanged.
        failures: {key: one line}.
        modules: the modules used.
        seconds: wall-clock time.
        stage_seconds: {stage: seconds, added over structures and processes}.
        changes: {key: what reading its structure left out or changed}, of those where something was.
        num_files: how many structure files there were.
        root: of the structures, as :class:`StructureFiles` has it; likewise ``flat``.
        flat: whether files were named one by one.
    """

    out: Path
    summary_path: Path
    metadata_path: Path
    built: tuple[str, ...]
    kept: tuple[str, ...]
    failures: dict[str, str]
    modules: ModuleSet
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    changes: dict[str, Changes] = field(default_factory=dict)
    num_files: int = 0
    root: Path = field(default_factory=Path)
    flat: bool = False

    @property
    def changes_line(self) -> str:
        """What reading left out or changed, on one line; "" for nothing."""
        return summary_line(self.changes, self.num_files)

    @property
    def num_graphs(self) -> int:
        """Graphs that are there now, of the structures asked for."""
        return len(self.built) + len(self.kept)


def build_graphs(
    structures: Path | str,
    out: Path | str,
    *,
    edge_module: str | None = None,
    node_module: str | None = None,
    topology_module: str | None = None,
    interface_module: str | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    strict: bool = False,
    models: Models = "first",
    chains: str | None = None,
    replace_others: bool = False,
    progress: OnItemDone | None = None,
) -> BuildReport:
    """Build the graphs of a folder of structures.

    Graphs that are there already, from the same input, modules and parameters, are kept. Interrupted at any
    moment, the same call completes the folder.

    Args:
        structures: a folder, searched through, an archive of one (zip, tar), or one file. ``TARGET/DECOY.pdb`` becomes
            ``TARGET/DECOY.pt``.
        out: the graph folder.
        edge_module: id or alias; None for the default. Likewise the other modules.
        node_module: see ``edge_module``.
        topology_module: see ``edge_module``.
        interface_module: see ``edge_module``.
        settings: ``{"edge.distance_max": "12"}``: kind, dot, parameter.
        jobs: processes; results do not depend on it.
        engine: ``local`` or ``ray``; see :class:`topotrain.cluster.workers.Workers`.
        address: of a Ray cluster.
        strict: raise where any structure failed, or was not read as it stands, after all the others are built.
        models: ``first`` MODEL of an ensemble, or ``all``: each a decoy, ``DECOY_1``, ``DECOY_2``, ...
        chains: which chains are the partners: ``A,B:C`` is A and B together, and C; others are left out. By default
            each chain is one.
        replace_others: whether graphs of other modules in the folder give way, all of them.
        progress: called with structures done, structures in all, and the key of the last.

    Raises:
        UserInputError: an unknown module or parameter, chains that name no partners, or a cluster that can't do it.
        DataError: no structures found; two files for one graph; a folder with graphs of other modules; with ``strict``,
            any failure or change.
    """
    modules = select_modules(interface_module, topology_module, node_module, edge_module, settings)
    how: dict[str, Any] = {"strict": strict, "models": models, "chains": chains, "progress": progress}
    workers = Workers(jobs, engine, address)
    return build_with_modules(Path(structures), out, modules, workers=workers, replace_others=replace_others, **how)


def build_recorded_graphs(
    structures: Path | Sequence[Path],
    out: Path | str,
    module_registry: Mapping[str, Any],
    *,
    workers: Workers = ONE,
    strict: bool = False,
    models: Models = "first",
    chains: str | None = None,
    cache: GraphCache | None = None,
    progress: OnItemDone | None = None,
) -> BuildReport:
    """Build graphs with exactly the modules and parameters that a feature schema records.

    Args:
        structures: as in :func:`build_graphs`, or several of them.
        out: the graph folder.
        module_registry: the schema's ``module_registry``.
        workers: what builds them.
        strict: as in :func:`build_graphs`.
        models: as in :func:`build_graphs`.
        chains: as in :func:`build_graphs`.
        cache: where graphs are kept for another build.
        progress: as in :func:`build_graphs`.

    Raises:
        SchemaError: a recorded module is not installed, or only in another version; it is named.
        UserInputError: chains that name no partners.
        DataError: as in :func:`build_graphs`.
    """
    modules = recorded_modules(module_registry)
    how: dict[str, Any] = {"strict": strict, "models": models, "chains": chains, "progress": progress}
    return build_with_modules(structures, out, modules, workers=workers, cache=cache, **how)


def build_with_modules(
    structures: Path | Sequence[Path],
    out: Path | str,
    modules: ModuleSet,
    *,
    workers: Workers = ONE,
    strict: bool = False,
    models: Models = "first",
    chains: str | None = None,
    cache: GraphCache | None = None,
    replace_others: bool = False,
    progress: OnItemDone | None = None,
) -> BuildReport:
    """Build graphs with modules made already; see :func:`build_graphs`."""
    out, partners = Path(out), Partners.read(chains) if chains else None
    started = time.perf_counter()
    with structure_files(structures) as files:
        _make_output(out)
        claim(out, modules, replace=replace_others)
        tasks = graph_tasks(files, modules, models, partners)
        outcomes: dict[str, GraphOutcome] = {}
        with workers.ready(*files.places) as run_tasks:
            for outcome in _build_all(tasks, out, modules, run_tasks, cache):
                outcomes[outcome.key] = outcome
                if progress is not None:
                    progress(len(outcomes), len(tasks), outcome.key)
    ordered = [outcomes[task.key] for task in tasks]
    seconds = time.perf_counter() - started
    try:
        graphs = write_sidecar(out, modules, ordered)
        write_sequences(out, {item.key: item.sequences for item in ordered if item.status == "built"}, graphs)
        summary_path = write_summary(out, files.root, modules, ordered, workers.jobs, seconds)
    except OSError as error:
        raise DataError(
            f"{out.absolute()}: can't be written ({one_line(error)})", "a folder that can be written"
        ) from None
    report = BuildReport(
        out,
        summary_path,
        out / SIDECAR_NAME,
        built=tuple(item.key for item in ordered if item.status == "built"),
        kept=tuple(item.key for item in ordered if item.status == "kept"),
        failures={item.key: item.error for item in ordered if item.status == "failed"},
        modules=modules,
        seconds=seconds,
        stage_seconds=total_stage_seconds(ordered),
        changes={item.key: item.changes for item in ordered if item.changes},
        num_files=len(files.found),
        root=files.root,
        flat=files.flat,
    )
    if strict:
        _refuse(report, ordered)
    return report


def _refuse(report: BuildReport, outcomes: list[GraphOutcome]) -> None:
    """Make an error of failures and of files that were not read as they stand."""
    see = f"see {report.summary_path.resolve()}"
    if report.failures:
        first = next(iter(report.failures.values()))
        raise DataError(
            f"{len(report.failures)} of {len(outcomes)} structures failed, the first: {first}",
            "none to fail (strict)",
            see,
        )
    changed = [item for item in outcomes if item.changes]
    if changed:
        raise DataError(
            f"{len(changed)} of {len(outcomes)} structures were not read as they stand, the first: "
            f"{changed[0].source}: {describe_changes(changed[0].changes)}",
            "nothing left out or changed (strict)",
            see,
        )


def graph_tasks(
    files: StructureFiles, modules: ModuleSet, models: Models, partners: Partners | None
) -> list[GraphTask]:
    """What is to be built, by key: one graph a file, or one for each MODEL."""
    specification = json.dumps(modules.specification(), sort_keys=True)
    chains = str(partners) if partners else ""
    tasks: dict[str, GraphTask] = {}
    for key, path in files.found.items():
        task = GraphTask(key, str(files.shown[key]), specification, str(path), chains=chains)
        number = _num_models(task) if models == "all" else 1
        several = [replace(task, key=f"{key}_{place + 1}", model=place) for place in range(number)]
        for one in several if number > 1 else [task]:
            if one.key in tasks or (number > 1 and one.key in files.found):
                other = tasks[one.key].source if one.key in tasks else files.shown[one.key]
                raise DataError(
                    f"{one.source} and {other} would both become {one.key}.pt", "one graph for each name", "rename one"
                )
            tasks[one.key] = one
    return list(tasks.values())


def _num_models(task: GraphTask) -> int:
    try:
        return task.structure(task.content()).num_models
    except Exception:  # noqa: BLE001  the build will say what is wrong with it
        return 1


def _make_output(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out.absolute()}: cannot be made a folder ({error.strerror})",
            "a writable place",
            "choose another output folder",
        ) from error
    # Left by a build that was killed in the middle of a write.
    for leftover in out.rglob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _build_all(
    tasks: list[GraphTask], out: Path, modules: ModuleSet, run_tasks: RunTasks, cache: GraphCache | None
) -> Iterator[GraphOutcome]:
    """Outcomes as they come: kept graphs first, then those computed; this process alone writes."""
    pending = []
    others = KeptGraphs(cache, modules) if cache else None
    for task in tasks:
        target = out / f"{task.key}.pt"
        kept = kept_outcome(task, target) or (others.fetch(task, target) if others else None)
        if kept is not None:
            yield kept
        else:
            pending.append(task)
    for result in run_tasks(compute_task, pending, _process_died):
        target = out / f"{result.outcome.key}.pt"
        outcome = write_graph(result, target, modules)
        if others and outcome.status == "built":
            others.keep(result.digest, target)
        yield outcome
    if cache:
        cache.trim()


def _process_died(task: GraphTask) -> GraphResult:
    error = f"{task.source}: the process that built it died (out of memory, or a crash in a library)"
    return GraphResult(GraphOutcome(task.key, task.source, stage="process", error=error))
