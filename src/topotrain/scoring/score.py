"""Structure files to ranked scores, by a model of the registry; and a directory of graphs to scores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph, read_graph
from topotrain.data.labels import target_of_key
from topotrain.errors import DataError
from topotrain.features import build_recorded_graphs
from topotrain.fields import MODEL_FILES, SCHEMA_ARTIFACT, WEIGHTS_ARTIFACT
from topotrain.scoring.predict import SCORING_BATCH, Scorer
from topotrain.scoring.table import Scored, rank_by_target
from topotrain.tracking.registry import download_model, model_client


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
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID`` or a local folder.

    Raises:
        TrackingError: no such model.
        DataError: it is no model of topotrain.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = download_model(model, Path(folder))
        weights, schema = (files / MODEL_FILES / name for name in (WEIGHTS_ARTIFACT, SCHEMA_ARTIFACT))
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
    tracking_uri: str | None = None,
) -> ScoreReport:
    """Build graphs with exactly the modules that the model's schema records, score and rank them.

    Args:
        structures: a folder of structure files, flat or by target, or one file.
        model: of the registry, or a local folder.
        jobs: processes that build graphs.
        progress: takes (done, total, structure).
        tracking_uri: of the model's store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        SchemaError: a recorded module is not installed, or in another version.
        DataError: no structures, or none that gives a graph.
        TrackingError: no such model.
    """
    model_client(model, tracking_uri)
    scorer = load_scorer(model)
    with tempfile.TemporaryDirectory(prefix="topotrain-score-") as folder:
        report = build_recorded_graphs(
            structures, Path(folder), scorer.schema.module_registry, jobs=jobs, progress=progress
        )
        if not report.num_graphs:
            first = next(iter(report.failures.values()), "no structures")
            raise DataError(f"{structures}: no structure gives a graph; the first: {first}", "at least one")
        scores = score_directory(scorer, GraphDirectory(Path(folder)))
        rows = rank_by_target(Scored.of(key, target_of_key(key), score) for key, score in scores)
    return ScoreReport(tuple(rows), report.failures)


def score_directory(
    scorer: Scorer,
    directory: GraphDirectory,
    *,
    batch_size: int = SCORING_BATCH,
    hold: Callable[[Graph], None] | None = None,
    failures: dict[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[tuple[str, float]]:
    """Score every graph below a directory, a batch in memory at a time.

    Args:
        scorer: the model.
        directory: of the graphs.
        batch_size: graphs in a batch; the scores do not depend on it.
        hold: takes each graph before it is scored, and raises where it does not fit.
        failures: takes one line for each graph that can't be read or scored; without it, the first one is raised.
        progress: takes (done, total, key).

    Yields:
        Key and predicted DockQ, in the order of the keys.

    Raises:
        SchemaError: a graph has other features than the model was trained on.
        DataError: a graph can't be read or scored, and ``failures`` was not given.
    """
    keys = directory.keys
    for start in range(0, len(keys), batch_size):
        part = keys[start : start + batch_size]
        graphs: list[Graph] = []
        for key in part:
            with _noted(key, failures):
                graph = read_graph(directory.path(key), key)
                if hold is not None:
                    hold(graph)
                graphs.append(graph)
        for graph, result in zip(graphs, scorer.score_each(graphs), strict=True):
            if isinstance(result, float):
                yield graph.key, result
            else:
                with _noted(graph.key, failures):
                    raise result
        if progress is not None:
            progress(start + len(part), len(keys), part[-1])


@contextmanager
def _noted(key: str, failures: dict[str, str] | None) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if failures is None:
            raise
        failures[key] = str(error)
