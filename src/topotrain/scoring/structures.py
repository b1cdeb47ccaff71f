"""Structure files to ranked scores, by a model version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.cluster.workers import EngineName, Workers
from topotrain.data.column_ranges import Beyond, graph_beyond, read_ranges
from topotrain.data.graph_cache import GraphCache
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.targets import TargetRule, Targets, show_targets
from topotrain.errors import DataError
from topotrain.features import build_recorded_graphs
from topotrain.features.archives import archive_stem, is_archive
from topotrain.features.builder import BuildReport, Models, graph_tasks
from topotrain.features.inputs import structure_files
from topotrain.features.partners import Partners
from topotrain.fields import DOCKQ_COLUMN
from topotrain.progress import OnItemDone
from topotrain.schema.check import GraphJudge
from topotrain.schema.resolve import DirectoryMetadata
from topotrain.scoring.annotate import Annotations
from topotrain.scoring.directory_scores import score_directory
from topotrain.scoring.examine import examine
from topotrain.scoring.load import LoadedModel, load_model
from topotrain.scoring.recipe import recorded
from topotrain.scoring.score_page import write_score_page
from topotrain.scoring.score_table import Scored, rank_by_target
from topotrain.scoring.scorer import Scorer
from topotrain.scoring.trust import Trust
from topotrain.scratch import scratch


@dataclass(frozen=True)
class ScoreReport:
    """What scoring did.

    Attributes:
        rows: the structures, by target and rank; those without a score come last in their target.
        failures: {MODEL: one line} of structures that gave no graph, or no score.
        changes_line: what reading left out or changed, on one line; "" for nothing.
        quality: the column of what was predicted.
        sentences: which model it was, how far its scores tell structures apart, and a warning where there is cause.
    """

    rows: tuple[Scored, ...]
    failures: dict[str, str]
    changes_line: str = ""
    quality: str = DOCKQ_COLUMN
    sentences: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[Scored, ...]:
        """Rows with a score."""
        return tuple(row for row in self.rows if not row.error)


def score_structures(
    structures: Path | str | Sequence[Path | str],
    model: str | None = None,
    *,
    targets: TargetRule | None = None,
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    strict: bool = False,
    models: Models = "first",
    chains: str | None = None,
    keep_graphs: bool = True,
    report: Path | str | None = None,
    annotate: Path | str | None = None,
    progress: OnItemDone | None = None,
    tracking_uri: str | None = None,
) -> ScoreReport:
    """Build graphs with exactly the modules that the model's schema records, score and rank them.

    Args:
        structures: a folder of structure files, flat or by target, an archive of one (zip, tar), or files; several
            are as the folder around them. Files that are named one by one are models of one complex.
        model: URI of a version, a local folder or ``starter``; by default the champion, else the candidate, else that.
        targets: where targets are written; by default read off the layout, and a flat folder is one target.
        jobs: processes that build graphs.
        engine: ``local`` for processes of this machine, ``ray`` for those of a cluster's nodes.
        address: of the Ray cluster; by default Ray is started on this machine, and ended afterwards.
        strict: raise where any structure gives no graph, or was not read as it stands.
        models: ``first`` MODEL of an ensemble, or ``all``: each a decoy of its own.
        chains: which chains are the partners: ``A,B:C`` is A and B together, and C; others are left out. By default
            each chain is one.
        keep_graphs: whether graphs are kept for another call, and taken from an earlier one.
        report: a page to write: the ranking, what stands beside it, and the best in space.
        annotate: a folder for structures whose B-factors are importances, and scripts of PyMOL and ChimeraX.
        progress: takes (done, total, structure).
        tracking_uri: of the model's store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        SchemaError: a recorded module is not installed, or in another version.
        UserInputError: chains that name no partners, or a cluster that can't do it.
        DataError: no structures, or none that gives a graph; with ``strict``, any failure or change; no room for files.
        TrackingError: no such model.
    """
    given = [structures] if isinstance(structures, Path | str) else structures
    workers = Workers(jobs, engine, address)
    loaded = load_model(model, tracking_uri)
    how: dict[str, Any] = {"models": models, "chains": chains, "progress": progress}
    paths, registry = [Path(path) for path in given], loaded.scorer.schema.module_registry
    with scratch("score") as folder:
        cache = GraphCache() if keep_graphs else None
        built = build_recorded_graphs(paths, folder, registry, workers=workers, strict=strict, cache=cache, **how)
        if not built.num_graphs:
            raise _none(built, "graph", next(iter(built.failures.values()), ""))
        done = _scored(loaded, built, Path(folder), targets)
        if report or annotate:
            _show(done, loaded.scorer, built, paths, report=report, annotate=annotate, **how)
        return done


def _show(
    done: ScoreReport,
    scorer: Scorer,
    built: BuildReport,
    paths: Sequence[Path],
    *,
    report: Path | str | None,
    annotate: Path | str | None,
    models: Models,
    chains: str | None,
    progress: OnItemDone | None,
) -> None:
    """Write the page and the annotated structures."""
    annotations = Annotations(Path(annotate)) if annotate else None
    with structure_files(paths) as files:
        partners = Partners.read(chains) if chains else None
        tasks = {task.key: task for task in graph_tasks(files, built.modules, models, partners)}
        examined = examine(scorer, tasks, GraphDirectory(built.out), done.rows, annotations, progress)
    if report:
        failed = [row for row in done.rows if row.error]
        write_score_page(Path(report), examined, failed, done.quality, done.sentences)


def _none(built: BuildReport, what: str, first: str) -> DataError:
    return DataError(f"{built.root}: no structure gives a {what}; the first: {first}")


def _scored(loaded: LoadedModel, built: BuildReport, folder: Path, rule: TargetRule | None) -> ScoreReport:
    """Score the graphs that were built."""
    scorer, quality = loaded.scorer, loaded.scorer.schema.label_column
    directory, failures = GraphDirectory(folder), dict(built.failures)
    root = built.root.with_name(archive_stem(built.root)) if is_archive(built.root) else built.root
    target = Targets(root, [*directory.keys, *failures], rule, flat=built.flat).by_key
    show_targets({key: target[key] for key in directory.keys})
    judge = GraphJudge(scorer.schema, DirectoryMetadata.read(folder))
    scores = dict(score_directory(scorer, directory, hold=judge, failures=failures))
    if not scores:
        raise _none(built, "score", next(iter(failures.values())))
    failed = [Scored.failed(key, target[key].name, error) for key, error in failures.items()]
    rows = rank_by_target([*(Scored.of(key, target[key].name, score) for key, score in scores.items()), *failed])
    trust = Trust(
        *(loaded.name, loaded.recipe, rows, quality),
        beyond=_beyond(loaded, directory, list(scores)),
        num_networks=len(scorer.networks),
    )
    return ScoreReport(tuple(rows), failures, built.changes_line, quality, trust.sentences)


def _beyond(loaded: LoadedModel, directory: GraphDirectory, keys: Sequence[str]) -> dict[str, list[Beyond]]:
    """{MODEL: columns in which it lies beyond what the model learned from}; of versions that recorded that."""
    schema = loaded.scorer.schema
    sides = {"node": (schema.node_columns, schema.node_dim), "edge": (schema.edge_columns, schema.edge_dim)}
    names = {side: known or [f"{side} {place}" for place in range(dim)] for side, (known, dim) in sides.items()}
    places = (("data", "train", "column_ranges"), ("data", "column_ranges"))  # the latter of an ensemble of folds
    ranges = next(filter(None, (read_ranges(recorded(loaded.recipe, *place)) for place in places)), {})
    if any(len(known.low) != sides[side][1] for side, known in ranges.items()):
        return {}
    found = {key: graph_beyond(ranges, read_graph(directory.path(key), key), names) for key in keys}
    return {key: beyond for key, beyond in found.items() if beyond}
