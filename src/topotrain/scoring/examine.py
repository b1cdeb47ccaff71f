"""What is shown beside scores: contacts and confidence of every structure, and the explained score of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.features.confidence import Confidence, confidence
from topotrain.features.graph import GraphTask
from topotrain.features.structure import FloatArray, Structure, is_mmcif, unpacked
from topotrain.progress import OnItemDone
from topotrain.scoring.annotate import Annotated, Annotations
from topotrain.scoring.explain import Explanation, Residue, explained
from topotrain.scoring.score_table import Scored
from topotrain.scoring.scorer import Scorer

BEST = 10  # structures that are shown one by one
CHAIN_BREAK = 8.0  # Angstrom between neighbours of a trace, above which the line is broken
TRACE_ATOMS = ("CA", "C1'", "P")


@dataclass(frozen=True)
class Trace:
    """One chain as a line.

    Attributes:
        chain: its name.
        points: (n, 3) Angstrom; rows of NaN where the chain is broken.
    """

    chain: str
    points: FloatArray


@dataclass(frozen=True)
class View:
    """One structure as it is shown in space.

    Attributes:
        traces: of its chains.
        residues: of the interface, each with its importance and its place, the most important first.
        score: as in the explanation.
        reference: as in the explanation.
    """

    traces: tuple[Trace, ...]
    residues: tuple[tuple[Residue, float, tuple[float, float, float]], ...]
    score: float
    reference: float


@dataclass(frozen=True)
class Examined:
    """A scored structure with what stands beside its score.

    Attributes:
        row: its score.
        residues: how many residues its graph has.
        confidence: its contacts, and what its B-factors say.
        view: of one of the best; else None.
    """

    row: Scored
    residues: int
    confidence: Confidence
    view: View | None = None


def best_first(rows: Sequence[Scored]) -> list[Scored]:
    """Scored rows, the first choices of all targets before the second ones, and so on."""
    return sorted((row for row in rows if not row.error), key=lambda row: (row.rank, -row.pred_dockq, row.model))


def examine(
    scorer: Scorer,
    tasks: Mapping[str, GraphTask],
    graphs: GraphDirectory,
    rows: Sequence[Scored],
    annotations: Annotations | None = None,
    progress: OnItemDone | None = None,
) -> list[Examined]:
    """Look at every scored structure, explain the best, and annotate all where that was asked for.

    Args:
        scorer: the model.
        tasks: {key: where the structure of a graph is}.
        graphs: the graphs, built of them.
        rows: scores.
        annotations: where structures with importances are written.
        progress: takes (done, total, key).

    Raises:
        DataError: an annotated structure can't be written, or a file is no longer what was scored.
    """
    ordered, found, shown = best_first(rows), list[Examined](), list[Annotated]()
    for place, row in enumerate(ordered):
        task = tasks[row.model]
        content = task.content()
        structure, graph = task.structure(content), read_graph(graphs.path(row.model), row.model)
        among_best = place < BEST
        why = explained(scorer, graph, structure) if annotations or among_best else None
        if annotations and why:
            path = Path(task.source)
            mmcif = is_mmcif(path, unpacked(path, content))
            written = annotations.write(row.model, structure, why, mmcif=mmcif)
            shown += [written] if among_best else []
        view = _view(structure, why) if why and among_best else None
        found.append(Examined(row, graph.x.shape[0], confidence(structure, content, task.model), view))
        if progress is not None:
            progress(place + 1, len(ordered), row.model)
    if annotations:
        annotations.finish(shown)
    return found


def _view(structure: Structure, explanation: Explanation) -> View:
    places = _places(structure)
    rows = {one: row for row, one in enumerate(structure.residue_ids)}
    residues = []
    for one, value in sorted(explanation.residues, key=lambda pair: -abs(pair[1])):
        x, y, z = places[rows[f"{one.chain}:{one.number}"]].tolist()
        residues.append((one, value, (x, y, z)))
    chains = dict.fromkeys(structure.chain_ids.tolist())
    traces = tuple(Trace(chain, _trace(places[structure.chain_ids == chain])) for chain in chains)
    return View(traces, tuple(residues), explanation.score, explanation.reference)


def _places(structure: Structure) -> FloatArray:
    """(num_residues, 3) where each residue is: its C-alpha, or an atom that stands for it, else its first."""
    places = np.full((structure.num_residues, 3), np.nan)
    for name in TRACE_ATOMS:
        places = np.where(np.isnan(places), structure.atom_positions(name), places)
    return np.where(np.isnan(places), structure.coords[structure.residue_starts[:-1]], places)


def _trace(points: FloatArray) -> FloatArray:
    """With a row of NaN at each break."""
    breaks = np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) > CHAIN_BREAK) + 1
    broken: FloatArray = np.insert(points, breaks, np.nan, axis=0)
    return broken
