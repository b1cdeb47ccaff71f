"""Structure files to ranked scores, by a model of the registry."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.labels import target_of_key
from topotrain.errors import DataError
from topotrain.features import build_recorded_graphs
from topotrain.fields import SCHEMA_ARTIFACT
from topotrain.scoring.predict import SCORING_BATCH, Scorer
from topotrain.tracking.registry import download_model

COLUMNS = ("MODEL", "TARGET", "PRED_DOCKQ", "RANK")


@dataclass(frozen=True)
class Scored:
    """One scored structure; ``rank`` is its place within its target, from 1."""

    model: str
    target: str
    pred_dockq: float
    rank: int


@dataclass(frozen=True)
class ScoreReport:
    """What scoring did.

    Attributes:
        rows: scored structures, by target and rank.
        failures: {MODEL: one line} of structures that gave no graph.
    """

    rows: tuple[Scored, ...]
    failures: dict[str, str]


def load_scorer(model: str) -> Scorer:
    """Load a model version's network and schema; nothing is unpickled.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION`` or a local folder.

    Raises:
        TrackingError: no such model.
        DataError: it is no model of topotrain.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = download_model(model, Path(folder))
        weights, schema = (files / "artifacts" / name for name in ("weights.safetensors", SCHEMA_ARTIFACT))
        for path in (weights, schema):
            if not path.is_file():
                raise DataError(f"model {model!r} has no {path.name}", "a model version made by topotrain")
        return Scorer.load(weights, schema)


def score_structures(
    structures: Path,
    model: str,
    *,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> ScoreReport:
    """Build graphs with exactly the modules that the model's schema records, score and rank them.

    Args:
        structures: a folder of structure files, flat or by target, or one file.
        model: of the registry, or a local folder.
        jobs: processes that build graphs.
        progress: takes (done, total, structure).

    Raises:
        SchemaError: a recorded module is not installed, or in another version.
        DataError: no structures, or none that gives a graph.
        TrackingError: no such model.
    """
    scorer = load_scorer(model)
    with tempfile.TemporaryDirectory(prefix="topotrain-score-") as folder:
        report = build_recorded_graphs(
            structures, Path(folder), scorer.schema.module_registry, jobs=jobs, progress=progress
        )
        if not report.num_graphs:
            first = next(iter(report.failures.values()), "no structures")
            raise DataError(f"{structures}: no structure gives a graph; the first: {first}", "at least one")
        scores = dict(score_directory(scorer, GraphDirectory(Path(folder))))
    return ScoreReport(tuple(rank_by_target(scores)), report.failures)


def score_directory(scorer: Scorer, directory: GraphDirectory) -> Iterable[tuple[str, float]]:
    """Score every graph below a directory, a batch in memory at a time.

    Yields:
        Key and predicted DockQ, in the order of the keys.
    """
    keys = directory.keys
    for start in range(0, len(keys), SCORING_BATCH):
        part = keys[start : start + SCORING_BATCH]
        yield from zip(part, scorer.score([read_graph(directory.path(key), key) for key in part]), strict=True)


def rank_by_target(scores: dict[str, float]) -> list[Scored]:
    """Rank scores within each target, the best first; equal scores are ordered by name."""
    ordered = sorted(scores.items(), key=lambda item: (target_of_key(item[0]), -item[1], item[0]))
    rows: list[Scored] = []
    for key, score in ordered:
        target = target_of_key(key)
        rank = rows[-1].rank + 1 if rows and rows[-1].target == target else 1
        rows.append(Scored(key, target, score, rank))
    return rows


def scores_csv(rows: Iterable[Scored]) -> str:
    """Scores as a CSV, six decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((row.model, row.target, f"{row.pred_dockq:.6f}", row.rank) for row in rows)
    return text.getvalue()
