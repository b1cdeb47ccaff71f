"""Whether graphs are of the kind that a model was trained on, by all that is said of both."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import SchemaError
from topotrain.fields import SIDECAR_NAME
from topotrain.schema.feature_schema import FeatureSchema, GraphFacts
from topotrain.schema.resolve import DirectoryMetadata

log = logging.getLogger("topotrain")


@dataclass
class SchemaCheck:
    """Holds graphs, with what their directory says of them, against the schema of a model.

    Attributes:
        expected: the model's schema.
        metadata: of the graphs' directory.
        allow_unverified: whether names may be missing where the model has some.
        unverified: how many graphs were let through so.
    """

    expected: FeatureSchema
    metadata: DirectoryMetadata
    allow_unverified: bool = False
    unverified: int = 0

    @classmethod
    def of_directory(cls, expected: FeatureSchema, graph_dir: Path, *, allow_unverified: bool) -> SchemaCheck:
        """Read what the files of a directory say of its graphs.

        Raises:
            DataError: such a file is malformed.
        """
        return cls(expected, DirectoryMetadata.read(graph_dir), allow_unverified)

    def __post_init__(self) -> None:
        if not _named(self.expected):
            log.warning(
                "the model's schema names no columns: graphs are checked by width alone (%d node, %d edge columns)",
                self.expected.node_dim,
                self.expected.edge_dim,
            )

    def __call__(self, graph: GraphFacts) -> None:
        """Check one graph.

        Raises:
            SchemaError: it has other features, or features that nobody names.
        """
        found = self.metadata.schema_of(graph, self.expected.edge_dim)
        differences = self.expected.differences(found)
        if differences:
            raise SchemaError(
                f"graph {graph.key} has other features than the model was trained on "
                f"(model against graph: {'; '.join(differences)})",
                "graphs with the model's features",
                "build those; topotrain describe shows them",
            )
        missing = unverified(self.expected, found)
        if missing and not self.allow_unverified:
            raise SchemaError(
                f"{self.metadata.graph_dir}: nothing names the {' and '.join(missing)} columns of graph {graph.key}, "
                "so they can't be held against the model's",
                f"{SIDECAR_NAME} in the directory",
                "give the directory that holds it, or --allow-unverified to check widths alone",
            )
        self.unverified += bool(missing)

    def report(self) -> None:
        """Say how many graphs were scored unverified."""
        if self.unverified:
            log.warning("%d graphs, whose columns nobody names, were checked by width alone", self.unverified)


def unverified(expected: FeatureSchema, found: FeatureSchema) -> list[str]:
    """The sides of a graph, edge and node, that the model has names for and the graph has none of."""
    pairs = [
        ("edge", expected.edge_columns, found.edge_columns),
        ("edge", expected.edge_module, found.edge_module),
        ("node", expected.node_columns, found.node_columns),
    ]
    named = {side for side, mine, _ in pairs if mine is not None}
    return sorted(named - {side for side, mine, theirs in pairs if mine is not None and theirs is not None})


def _named(schema: FeatureSchema) -> bool:
    return any(names is not None for names in (schema.edge_columns, schema.edge_module, schema.node_columns))
