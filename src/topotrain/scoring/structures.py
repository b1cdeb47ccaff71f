"""Structure files to ranked scores, by a model version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topotrain.cluster.workers import EngineName, Workers
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.targets import TargetRule, Targets, show_targets
from topotrain.errors import DataError
from topotrain.features import build_recorded_graphs
from topotrain.features.builder import Models
from topotrain.fields import DOCKQ_COLUMN
from topotrain.progress import OnItemDone
from topotrain.schema.check import GraphJudge
from topotrain.schema.resolve import DirectoryMetadata
from topotrain.scoring.directory_scores import score_directory
from topotrain.scoring.load import scorer_of
from topotrain.scoring.score_table import Scored, rank_by_target
from topotrain.scratch import scratch


@dataclass(frozen=True)
class ScoreReport:
    """What scoring did.

    Attributes:
        rows: scored structures, by target and rank.
        failures: {MODEL: one line} of structures that gave no graph.
        changes_line: what reading left out or changed, on one line; "" for nothing.
        quality: the column of what was predicted.
    """

    rows: tuple[Scored, ...]
    failures: dict[str, str]
    changes_line: str = ""
    quality: str = DOCKQ_COLUMN


def score_structures(
    structures: Path,
    model: str | None,
    *,
    targets: TargetRule | None = None,
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    strict: bool = False,
    models: Models = "first",
    progress: OnItemDone | None = None,
    tracking_uri: str | None = None,
) -> ScoreReport:
    """Build graphs with exactly the modules that the model's schema records, score and rank them.

    Args:
        structures: a folder of structure files, flat or by target, an archive of one (zip, tar), or one file.
        model: URI of a version, or a local folder; by default the champion, else the candidate.
        targets: where targets are written; by default read off the layout, and a flat folder is one target.
        jobs: processes that build graphs.
        engine: ``local`` for processes of this machine, ``ray`` for those of a cluster's nodes.
        address: of the Ray cluster; by default Ray is started on this machine, and ended afterwards.
        strict: raise where any structure gives no graph, or was not read as it stands.
        models: ``first`` MODEL of an ensemble, or ``all``: each a decoy of its own.
        progress: takes (done, total, structure).
        tracking_uri: of the model's store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        SchemaError: a recorded module is not installed, or in another version.
        ConfigError: a cluster that can't do it.
        DataError: no structures, or none that gives a graph; with ``strict``, any failure or change.
        TrackingError: no such model.
    """
    workers = Workers(jobs, engine, address)
    scorer, _ = scorer_of(model, tracking_uri)
    with scratch("score") as folder:
        report = build_recorded_graphs(
            structures,
            folder,
            scorer.schema.module_registry,
            workers=workers,
            strict=strict,
            models=models,
            progress=progress,
        )
        if not report.num_graphs:
            first = next(iter(report.failures.values()), "no structures")
            raise DataError(f"{structures}: no structure gives a graph; the first: {first}", "at least one")
        metadata = DirectoryMetadata.read(Path(folder))
        directory = GraphDirectory(Path(folder))
        target = Targets(structures, directory.keys, targets).by_key
        show_targets(target)
        predicted = score_directory(scorer, directory, hold=GraphJudge(scorer.schema, metadata))
        rows = rank_by_target(Scored.of(key, target[key].name, one) for key, one in predicted)
    return ScoreReport(tuple(rows), report.failures, report.changes_line, scorer.schema.label_column)
