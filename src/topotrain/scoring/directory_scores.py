"""Every graph of a directory scored, in this process or in several, on this machine or on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from topotrain.cluster.workers import RunTasks, Workers
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.packing import KnownGraph
from topotrain.data.store import GraphStore
from topotrain.errors import DataError, UserInputError
from topotrain.progress import OnItemDone
from topotrain.schema.feature_schema import GraphFacts
from topotrain.scoring.scorer import SCORING_BATCH, Prediction, Scorer

HERE = Workers()


@dataclass(frozen=True)
class Result:
    """What became of one graph.

    Attributes:
        key: of the graph.
        facts: what it says of itself, where it could be read.
        prediction: of its quality, or why there is none.
    """

    key: str
    facts: GraphFacts | None
    prediction: Prediction | UserInputError


@dataclass(frozen=True)
class Batch:
    """Graphs to be scored together.

    Attributes:
        start: place of the first among all.
        keys: of the graphs.
        paths: of their files.
    """

    start: int
    keys: tuple[str, ...]
    paths: tuple[Path, ...]

    def singles(self) -> list[Batch]:
        """Each graph alone."""
        pairs = enumerate(zip(self.keys, self.paths, strict=True))
        return [Batch(self.start + place, (key,), (path,)) for place, (key, path) in pairs]


@dataclass(frozen=True)
class BatchScorer:
    """Scores batches in whatever process; a graph that can't be read or scored costs no other anything."""

    scorer: Scorer

    def __call__(self, batch: Batch) -> tuple[Batch, list[Result]]:
        """Read and score a batch."""
        read: list[KnownGraph | Result] = []
        for key, path in zip(batch.keys, batch.paths, strict=True):
            try:
                read.append(KnownGraph.of(read_graph(path, key)))
            except DataError as error:
                read.append(Result(key, None, error))
        graphs = [one for one in read if isinstance(one, KnownGraph)]
        predicted = iter(self.scorer.predict_each(graphs))
        return batch, [
            one if isinstance(one, Result) else Result(one.facts.key, one.facts, next(predicted)) for one in read
        ]


def score_directory(
    scorer: Scorer,
    directory: GraphDirectory,
    *,
    batch_size: int = SCORING_BATCH,
    hold: Callable[[GraphFacts], object] | None = None,
    failures: dict[str, str] | None = None,
    workers: Workers = HERE,
    progress: OnItemDone | None = None,
) -> Iterator[tuple[str, Prediction]]:
    """Score every graph below a directory, a batch in a process's memory at a time.

    In this process alone, graphs that are packed for training come from there; the others are read, and not packed for
    the one time.

    Args:
        scorer: the model.
        directory: of the graphs.
        batch_size: graphs in a batch; the scores do not depend on it.
        hold: takes what each graph says of itself before it is scored, and raises where it does not fit.
        failures: takes one line for each graph that can't be read or scored; without it, the first one is raised.
        workers: what scores; the scores do not depend on it.
        progress: takes (done, total, key).

    Yields:
        Key and prediction, in the order of the keys.

    Raises:
        SchemaError: a graph has other features than the model was trained on.
        ConfigError: a cluster that can't do it.
        DataError: a graph can't be read or scored, and ``failures`` was not given.
    """
    if workers == HERE:
        yield from _scored_here(scorer, directory, batch_size, hold, failures, progress)
        return
    keys = directory.keys
    with workers.ready(directory.root) as run_tasks:
        for result in _in_order(BatchScorer(scorer), _batches(directory, batch_size), run_tasks, progress, len(keys)):
            with _noted(result.key, failures):
                if hold is not None and result.facts is not None:
                    hold(result.facts)
                if isinstance(result.prediction, UserInputError):
                    raise result.prediction
                yield result.key, result.prediction


def _batches(directory: GraphDirectory, size: int) -> list[Batch]:
    parts = ((start, tuple(directory.keys[start : start + size])) for start in range(0, len(directory.keys), size))
    return [Batch(start, keys, tuple(directory.path(key) for key in keys)) for start, keys in parts]


def _in_order(
    work: BatchScorer, batches: Sequence[Batch], run_tasks: RunTasks, progress: OnItemDone | None, total: int
) -> Iterator[Result]:
    """Results in the order of the graphs, from batches that come in any; a lost one is done again, graph by graph."""
    early: dict[int, list[Result]] = {}
    following = done = 0
    for batch, found in run_tasks(work, batches, _lost):
        results = found
        if results is None:
            singles = sorted(run_tasks(work, batch.singles(), _lost), key=lambda one: one[0].start)
            results = [result for one, each in singles for result in each or [_died(one)]]
        early[batch.start], done = results, done + len(results)
        if progress is not None:
            progress(done, total, batch.keys[-1])
        while following in early:
            ready = early.pop(following)
            following += len(ready)
            yield from ready


def _lost(batch: Batch) -> tuple[Batch, None]:
    return batch, None


def _died(batch: Batch) -> Result:
    reason = f"graph {batch.keys[0]}: the process that scored it died (out of memory, or a crash in a library)"
    return Result(batch.keys[0], None, DataError(reason, "a graph like those of training"))


def _scored_here(
    scorer: Scorer,
    directory: GraphDirectory,
    batch_size: int,
    hold: Callable[[GraphFacts], object] | None,
    failures: dict[str, str] | None,
    progress: OnItemDone | None,
) -> Iterator[tuple[str, Prediction]]:
    keys = directory.keys
    packed = GraphStore.as_it_is(directory)
    for start in range(0, len(keys), batch_size):
        part = keys[start : start + batch_size]
        graphs: list[KnownGraph] = []
        for key in part:
            with _noted(key, failures):
                graph = _known(key, directory, packed)
                if hold is not None:
                    hold(graph.facts)
                graphs.append(graph)
        for graph, result in zip(graphs, scorer.predict_each(graphs), strict=True):
            if isinstance(result, Prediction):
                yield graph.facts.key, result
            else:
                with _noted(graph.facts.key, failures):
                    raise result
        if progress is not None:
            progress(start + len(part), len(keys), part[-1])


def _known(key: str, directory: GraphDirectory, packed: GraphStore) -> KnownGraph:
    if key in packed:
        return packed.known(packed.index.position[key])
    return KnownGraph.of(read_graph(directory.path(key), key))


@contextmanager
def _noted(key: str, failures: dict[str, str] | None) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if failures is None:
            raise
        failures[key] = str(error)
