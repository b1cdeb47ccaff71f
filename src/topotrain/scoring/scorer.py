"""The scoring core: weights and a schema, graphs in, predicted DockQ out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from topotrain.data.graph_file import Graph
from topotrain.data.packing import KnownGraph, batch_of
from topotrain.errors import DataError, SchemaError, UserInputError
from topotrain.fields import SCHEMA_ARTIFACT
from topotrain.model.network import NetworkSpec, TopoQANetwork, network_of_weights
from topotrain.reading.json_file import parse_json, read_json
from topotrain.schema.check import GraphJudge, check_fits
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.text import one_line

SCORING_BATCH = 8  # graphs; their edge tensors then stay in the cache, and more at a time are slower
LARGEST_FEATURE = 1e30  # in any unit; beyond it sums and squares overflow in training


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one graph.

    Attributes:
        score: predicted DockQ, or the quality that the model predicts; of an ensemble, the mean over its members.
        spread: standard deviation over the members of an ensemble (n - 1 in the denominator); ``None`` for a single
            network, which gives none.
    """

    score: float
    spread: float | None = None


class Scorer:
    """A network, or several that make an ensemble, with the schema they were trained on.

    It computes in float64: which graphs share a batch then changes a score by less than 1e-12, so that what is
    written, six decimals, depends on model and graph alone.

    Args:
        network: the network; a copy is kept.
        schema: what every graph is held to.
        others: the other members of an ensemble; their order changes nothing.
    """

    def __init__(self, network: TopoQANetwork, schema: FeatureSchema, *others: TopoQANetwork) -> None:
        self.networks, self.schema = tuple(copy.deepcopy(one).double().eval() for one in (network, *others)), schema
        self._judge = GraphJudge(schema)

    @property
    def gives_spread(self) -> bool:
        """Whether it is an ensemble, whose members may differ."""
        return len(self.networks) > 1

    @property
    def network(self) -> TopoQANetwork:
        """The network of a single model.

        Raises:
            DataError: it is an ensemble.
        """
        if self.gives_spread:
            raise DataError(f"the model is an ensemble of {len(self.networks)} networks", "one", "take a member of it")
        return self.networks[0]

    @classmethod
    def load(cls, weights: Path, schema: Path, *others: Path) -> Scorer:
        """Read safetensors weights and ``feature_metadata.json``; nothing is unpickled.

        Args:
            weights: of the network.
            schema: of all networks.
            others: weights of the other members of an ensemble.

        Raises:
            DataError: the weights are malformed.
            SchemaError: the schema is malformed, or not that of the weights.
        """
        content = read_json(Path(schema), SCHEMA_ARTIFACT, SchemaError)
        resolved = FeatureSchema.from_dict(content, str(schema))
        network, *more = (cls._network(path, resolved, str(schema)) for path in (weights, *others))
        return cls(network, resolved, *more)

    @staticmethod
    def _network(weights: Path, resolved: FeatureSchema, named: str) -> TopoQANetwork:
        try:
            with safe_open(str(weights), "pt") as file:
                spec = NetworkSpec(**parse_json((file.metadata() or {})["spec"]))
                state = {name: file.get_tensor(name) for name in file.keys()}
            network = network_of_weights(spec, state)
            taken = FeatureSchema(node_dim=spec.node_dim, edge_dim=spec.edge_dim)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, OSError) as error:
            raise DataError(
                f"{weights}: not a model's weights ({one_line(error)})", "weights written by topotrain"
            ) from None
        check_fits(*(taken, resolved, named), of="weights", beside="schema", wanted="weights and schema of one model")
        return network

    def check(self, graph: KnownGraph) -> None:
        """Hold one graph against the schema: its widths, and what it says of itself.

        Raises:
            SchemaError: they differ; both sides are shown.
            DataError: what it says of itself is malformed, or a value is too large to compute with.
        """
        self._judge(graph.facts)
        parts = (graph.packed.x, graph.packed.edge_attr)
        largest = max((float(part.abs().max()) for part in parts if part.numel()), default=0.0)
        if largest > LARGEST_FEATURE:
            raise DataError(
                f"graph {graph.facts.key} has a feature of {largest:.3g}, too large to compute with", "less"
            )

    def score(self, graphs: Sequence[Graph]) -> list[float]:
        """Predicted DockQ of each graph, in order; each is held to the schema first.

        Raises:
            SchemaError: a graph has other features than the model was trained on.
            DataError: a graph's score is not finite.
        """
        return list(self.scores(map(KnownGraph.of, graphs)))

    def scores(self, graphs: Iterable[KnownGraph]) -> Iterator[float]:
        """As ``score``, for any number of packed graphs, a batch of them in memory at a time."""
        return (one.score for one in self.predictions(graphs))

    def predictions(self, graphs: Iterable[KnownGraph]) -> Iterator[Prediction]:
        """As ``scores``, with the spread of an ensemble's members."""
        waiting = iter(graphs)
        while part := list(islice(waiting, SCORING_BATCH)):
            yield from self._predicted(part)

    def score_each(self, graphs: Sequence[Graph | KnownGraph]) -> list[float | UserInputError]:
        """As ``score``, but a graph that can't be scored has its error in its place and costs no other anything."""
        return [one.score if isinstance(one, Prediction) else one for one in self.predict_each(graphs)]

    def predict_each(self, graphs: Sequence[Graph | KnownGraph]) -> list[Prediction | UserInputError]:
        """As ``score_each``, with the spread of an ensemble's members."""
        if not graphs:
            return []
        try:
            return [*self.predictions(KnownGraph.of(graph) if isinstance(graph, Graph) else graph for graph in graphs)]
        except Exception as error:  # noqa: BLE001 (such as too little memory)
            if len(graphs) > 1:
                return [result for graph in graphs for result in self.predict_each([graph])]
            if isinstance(error, UserInputError):
                return [error]
            key = graphs[0].key if isinstance(graphs[0], Graph) else graphs[0].facts.key
            return [DataError(f"graph {key} can't be scored ({one_line(error)})", "a graph like those of training")]

    @torch.inference_mode()
    def _predicted(self, graphs: Sequence[KnownGraph]) -> list[Prediction]:
        for graph in graphs:
            self.check(graph)
        unknown = torch.full((len(graphs),), float("nan"))
        batch = batch_of([graph.packed for graph in graphs], self.schema.edge_dim, unknown, torch.arange(len(graphs)))
        inputs = (batch.x.double(), batch.edge_index, batch.edge_attr.double(), batch.batch, batch.num_graphs)
        members = torch.stack([network(*inputs, layout=batch.layout) for network in self.networks])
        members = members.sort(dim=0).values  # sums then do not depend on the order of the members
        means: list[float] = members.mean(dim=0).tolist()
        for graph, value in zip(graphs, means, strict=True):
            if not math.isfinite(value):
                raise DataError(f"graph {graph.facts.key} has features too large to compute with", "those of training")
        spreads = members.std(dim=0).tolist() if self.gives_spread else [None] * len(means)
        return list(map(Prediction, means, spreads))


def save_weights(network: TopoQANetwork, path: Path) -> None:
    """Write a network as safetensors, its spec in the header."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, str(path), metadata={"spec": json.dumps(network.spec.to_dict())})
