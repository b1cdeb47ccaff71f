"""The scoring core: weights and a schema, graphs in, predicted DockQ out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Sequence
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


class Scorer:
    """A network with the schema it was trained on.

    It computes in float64: which graphs share a batch then changes a score by less than 1e-12, so that what is
    written, six decimals, depends on model and graph alone.

    Args:
        network: the network; a copy is kept.
        schema: what every graph is held to.
    """

    def __init__(self, network: TopoQANetwork, schema: FeatureSchema) -> None:
        self.network, self.schema = copy.deepcopy(network).double().eval(), schema
        self._judge = GraphJudge(schema)

    @classmethod
    def load(cls, weights: Path, schema: Path) -> Scorer:
        """Read safetensors weights and ``feature_metadata.json``; nothing is unpickled.

        Raises:
            DataError: the weights are malformed.
            SchemaError: the schema is malformed, or not that of the weights.
        """
        content = read_json(Path(schema), SCHEMA_ARTIFACT, SchemaError)
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
        resolved = FeatureSchema.from_dict(content, str(schema))
        check_fits(
            *(taken, resolved, str(schema)), of="weights", beside="schema", wanted="weights and schema of one model"
        )
        return cls(network, resolved)

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
        waiting = iter(graphs)
        while part := list(islice(waiting, SCORING_BATCH)):
            yield from self._scored(part)

    def score_each(self, graphs: Sequence[Graph | KnownGraph]) -> list[float | UserInputError]:
        """As ``score``, but a graph that can't be scored has its error in its place and costs no other anything."""
        if not graphs:
            return []
        try:
            return [*self.scores(KnownGraph.of(graph) if isinstance(graph, Graph) else graph for graph in graphs)]
        except Exception as error:  # noqa: BLE001 (such as too little memory)
            if len(graphs) > 1:
                return [result for graph in graphs for result in self.score_each([graph])]
            if isinstance(error, UserInputError):
                return [error]
            key = graphs[0].key if isinstance(graphs[0], Graph) else graphs[0].facts.key
            return [DataError(f"graph {key} can't be scored ({one_line(error)})", "a graph like those of training")]

    @torch.inference_mode()
    def _scored(self, graphs: Sequence[KnownGraph]) -> list[float]:
        for graph in graphs:
            self.check(graph)
        unknown = torch.full((len(graphs),), float("nan"))
        batch = batch_of([graph.packed for graph in graphs], self.schema.edge_dim, unknown, torch.arange(len(graphs)))
        predicted: list[float] = self.network(
            *(batch.x.double(), batch.edge_index, batch.edge_attr.double(), batch.batch, batch.num_graphs),
            layout=batch.layout,
        ).tolist()
        for graph, value in zip(graphs, predicted, strict=True):
            if not math.isfinite(value):
                raise DataError(f"graph {graph.facts.key} has features too large to compute with", "those of training")
        return predicted


def save_weights(network: TopoQANetwork, path: Path) -> None:
    """Write a network as safetensors, its spec in the header."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, str(path), metadata={"spec": json.dumps(network.spec.to_dict())})
