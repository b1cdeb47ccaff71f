"""``predict``: every graph of a directory held to a model's schema, scored, written as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.cluster.workers import EngineName, Workers
from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import Label, read_labels
from topotrain.data.matching import match_labels
from topotrain.data.split import target_of
from topotrain.data.targets import COLUMN, Target, TargetRule, Targets, show_targets
from topotrain.errors import DataError
from topotrain.fields import DEMO
from topotrain.progress import OnItemDone
from topotrain.schema.check import SchemaCheck
from topotrain.schema.values import SHOWN_GRAPHS
from topotrain.scoring.directory_scores import score_directory
from topotrain.scoring.load import scorer_of
from topotrain.scoring.score_table import Columns, Scored, check_table_path, rank_by_target, write_table
from topotrain.scoring.scorer import SCORING_BATCH

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class DirectoryReport:
    """What scoring a directory did.

    Attributes:
        model: URI of the version that scored, or a local folder.
        out: the table.
        num_scored: its rows.
        failures: {MODEL: one line} of graphs that can't be read or scored.
    """

    model: str
    out: Path
    num_scored: int
    failures: dict[str, str]


def predict_directory(
    model: str | None,
    graph_dir: Path,
    out: Path,
    *,
    labels: Path | None = None,
    targets: TargetRule | None = None,
    rank: bool = False,
    allow_unverified: bool = False,
    batch_size: int = SCORING_BATCH,
    strict: bool = False,
    jobs: int = 1,
    engine: EngineName = "local",
    address: str | None = None,
    progress: OnItemDone | None = None,
    tracking_uri: str | None = None,
) -> DirectoryReport:
    """Score every graph below a directory with a model, and write a table.

    Args:
        model: URI of a version, a local folder or ``starter``; by default the champion, else the candidate, else that.
        graph_dir: the graphs, with ``graph_metadata.json`` where there is one; ``demo`` for the demo data set.
        out: a ``.csv`` or ``.parquet`` file.
        labels: label file, for a column of the true quality that the model predicts, and for targets.
        targets: where targets are written, for graphs without a label that says one.
        rank: whether to rank the graphs of each target; rows are then ordered by target and rank.
        allow_unverified: whether graphs whose columns have no names may be scored by width alone.
        batch_size: graphs in a batch; the table does not depend on it.
        strict: whether one graph that can't be scored is an error.
        jobs: processes; the table does not depend on it.
        engine: ``local`` or ``ray``; see :class:`topotrain.cluster.workers.Workers`.
        address: of a Ray cluster.
        progress: takes (done, total, key).
        tracking_uri: of the model's store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        SchemaError: a graph has other features than the model was trained on, or features without names.
        DataError: no graphs, none (``strict``: not all) that can be scored, bad labels, or a table nobody can write.
        TrackingError: no such model.
    """
    check_table_path(out)
    directory = _directory(graph_dir)
    scorer, uri = scorer_of(model, tracking_uri)
    column = scorer.schema.label_column
    known, target = _told(directory, targets, labels, column, ranked=rank)
    held = SchemaCheck.of_directory(scorer.schema, directory.root, allow_unverified=allow_unverified)
    failures: dict[str, str] = {}
    workers = Workers(jobs, engine, address)
    how: dict[str, Any] = {"batch_size": batch_size, "hold": held, "workers": workers, "progress": progress}

    def rows() -> Iterator[Scored]:
        for key, predicted in score_directory(scorer, directory, failures=failures, **how):
            yield Scored.of(key, target[key].name, predicted, known[key].dockq if key in known else None)
        _judge(failures, len(directory.keys), strict)  # before the table takes its place

    # Ranks need all scores of a target at once, and a label file may spread a target over the whole directory.
    table = rank_by_target(rows()) if rank else rows()
    num_scored = write_table(out, table, Columns(column, scorer.gives_spread, labels is not None, rank))
    held.report()
    return DirectoryReport(uri, out, num_scored, failures)


def _told(
    directory: GraphDirectory, rule: TargetRule | None, labels: Path | None, column: str, *, ranked: bool
) -> tuple[Mapping[str, Label], Mapping[str, Target]]:
    """Labels and targets of the graphs, by key."""
    read_off = Targets(directory.root, directory.keys, rule, labelled=labels is not None)
    known = _labels_by_key(directory, read_off, labels, column) if labels else {}
    target = {key: target_of(known.get(key), key, read_off) for key in directory.keys}
    show_targets(target, ranked=ranked)
    _say_what_is_kept_apart(target, read_off)
    return known, target


def _directory(graph_dir: Path) -> GraphDirectory:
    directory = GraphDirectory(demo_paths().graphs if str(graph_dir) == DEMO else graph_dir)
    if not directory.keys:
        raise DataError(f"{directory.root}: no graphs", "at least one .pt file")
    return directory


def _say_what_is_kept_apart(targets: Mapping[str, Target], read_off: Targets) -> None:
    """Some decoys of a folder have a target by their label, and the others another one by the folder."""
    by_path = {target.name for target in targets.values() if target.source != COLUMN}
    for key, target in targets.items():
        folder = read_off.by_key[key].name
        if target.source == COLUMN and target.name != folder and folder in by_path:
            log.warning(
                "%s is of target %s by its label, but decoys beside it without a label are of target %s by their "
                "paths: they are kept apart",
                *(key, target.name, folder),
            )
            return


def _judge(failures: Mapping[str, str], total: int, strict: bool) -> None:
    if failures and (strict or len(failures) == total):
        raise DataError(
            f"{len(failures)} of {total} graphs can't be scored; the first: {next(iter(failures.values()))}",
            "graphs that can be read",
            "remove them, or leave out --strict" if strict else "",
        )


def _labels_by_key(directory: GraphDirectory, targets: Targets, path: Path, column: str) -> Mapping[str, Label]:
    matched = match_labels(directory, targets, read_labels(path, column), path)
    if matched.missing:
        shown = ", ".join(matched.missing[:SHOWN_GRAPHS])
        log.warning("%s: %d of %d decoys have no graph: %s", path, len(matched.missing), matched.total, shown)
    for warning in matched.warnings:
        log.warning(warning)
    return matched.found
