"""What each node and each contact of a graph adds to its score: integrated gradients.

Source: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017, PMLR 70:3319.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topotrain.data.packing import ROW, SOURCE, TARGET, KnownGraph, PackedGraph, batch_of
from topotrain.model.network import TopoQANetwork
from topotrain.scoring.scorer import SCORING_BATCH, Scorer

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# Parts of the way from the reference to the graph. Gradients jump where a ReLU opens or an input leaves its limits, so
# that more parts smooth them out slowly.
STEPS = 64
LEAST = 1e-300  # no division by zero where nothing adds anything


@dataclass(frozen=True, eq=False)
class Importance:
    """Contributions to the score of one graph, in units of the score.

    The reference is the same graph with every feature at its mean over the training graphs, which the network keeps.
    ``nodes.sum() + contacts.sum()`` is ``score - reference``.

    Attributes:
        score: of the graph; of an ensemble, the mean over its members.
        reference: of the reference.
        nodes: (num_nodes,) what each node's own features add.
        contacts: (num_contacts,) what the features of each pair of nodes with an edge add, both directions together.
        ends: (num_contacts, 2) the two nodes of each contact, the lower first.
    """

    score: float
    reference: float
    nodes: FloatArray
    contacts: FloatArray
    ends: IntArray

    @property
    def residues(self) -> FloatArray:
        """(num_nodes,) of each node with half of each of its contacts; its sum is that of all contributions."""
        halves = np.bincount(self.ends.ravel(), np.repeat(self.contacts / 2, 2), len(self.nodes))
        both: FloatArray = self.nodes + halves
        return both


def importance(scorer: Scorer, graph: KnownGraph) -> Importance:
    """Integrate gradients along the straight line from the reference to the graph.

    Args:
        scorer: the model; of an ensemble, the mean of its members is explained.
        graph: a graph that fits it.

    Raises:
        SchemaError: the graph has other features.
        DataError: a value is too large to compute with.
    """
    scorer.check(graph)
    packed, edge_dim = graph.packed, scorer.schema.edge_dim
    each = [_integrated(network, packed, edge_dim) for network in scorer.networks]
    score, reference, nodes, rows = (sum(part) / len(each) for part in zip(*each, strict=True))
    ends, pair = _pairs(packed)
    contacts = np.bincount(pair, rows, len(ends)).astype(np.float64)  # of integers where there are none
    return Importance(float(score), float(reference), nodes, contacts, ends)


def _integrated(
    network: TopoQANetwork, packed: PackedGraph, edge_dim: int
) -> tuple[float, float, FloatArray, FloatArray]:
    """Score, score of the reference, and contributions of nodes (num_nodes,) and rows of edge features (num_rows,).

    On each part of the way these are gradients at its middle; what their sum misses of the part's own difference of
    scores, where a gradient jumps, goes to them in proportion to their size.
    """
    starts = network.node_scaling.mean, network.edge_scaling.mean
    ways = packed.x.double() - starts[0], packed.edge_attr.reshape(-1, edge_dim).double() - starts[1]
    num_nodes, sums = ways[0].shape[0], torch.zeros(sum(way.shape[0] for way in ways)).double()
    borders = _along(network, packed, edge_dim, starts, ways)
    for first in range(0, STEPS, SCORING_BATCH):
        share = (torch.arange(first, min(first + SCORING_BATCH, STEPS)).double() + 0.5) / STEPS
        points = [_points(start, way, share).requires_grad_() for start, way in zip(starts, ways, strict=True)]
        scores = _scores(network, packed, edge_dim, points)
        parts = [
            (slopes.view(len(share), *way.shape) * way).sum(dim=2) / STEPS
            for slopes, way in zip(torch.autograd.grad(scores.sum(), points), ways, strict=True)
        ]
        added = torch.cat(parts, dim=1)  # (len(share), num_nodes + num_rows)
        missed = borders[first : first + len(share) + 1].diff() - added.sum(dim=1)
        sizes = added.abs()
        sums += (added + sizes * (missed / sizes.sum(dim=1).clamp(min=LEAST)).unsqueeze(1)).sum(dim=0)
    return float(borders[-1]), float(borders[0]), sums[:num_nodes].numpy(), sums[num_nodes:].numpy()


def _along(
    network: TopoQANetwork, packed: PackedGraph, edge_dim: int, starts: Sequence[Tensor], ways: Sequence[Tensor]
) -> Tensor:
    """(STEPS + 1,) scores on the way, the reference's first."""
    scores = []
    with torch.inference_mode():
        for first in range(0, STEPS + 1, SCORING_BATCH):
            share = torch.arange(first, min(first + SCORING_BATCH, STEPS + 1)).double() / STEPS
            points = [_points(start, way, share) for start, way in zip(starts, ways, strict=True)]
            scores.append(_scores(network, packed, edge_dim, points))
    return torch.cat(scores)


def _points(start: Tensor, way: Tensor, share: Tensor) -> Tensor:
    """(len(share) * num_rows, width) the rows at each share of their way, one point after another."""
    return (start + share[:, None, None] * way).flatten(0, 1)


def _scores(network: TopoQANetwork, packed: PackedGraph, edge_dim: int, points: Sequence[Tensor]) -> Tensor:
    """(num_points,) scores of the graph with other features."""
    num_points = points[0].shape[0] // packed.x.shape[0]
    unknown = torch.full((num_points,), float("nan"))
    batch = batch_of([packed] * num_points, edge_dim, unknown, torch.arange(num_points))
    scores: Tensor = network(*(points[0], batch.edge_index, points[1], batch.batch, num_points), layout=batch.layout)
    return scores


def _pairs(packed: PackedGraph) -> tuple[IntArray, IntArray]:
    """(num_contacts, 2) pairs of nodes with an edge, and (num_rows,) the pair of each row of edge features."""
    edges = packed.edges.numpy().astype(np.int64)
    of_row = np.zeros((packed.edge_attr.shape[0], 2), dtype=np.int64)
    of_row[edges[:, ROW]] = np.sort(edges[:, [SOURCE, TARGET]], axis=1)
    ends, pair = np.unique(of_row, axis=0, return_inverse=True)
    return ends, pair.reshape(-1)
