"""The one judge of what fits what: graphs, weights and metadata beside the schema that a model was trained on."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.errors import SchemaError
from topotrain.fields import SIDECAR_NAME
from topotrain.schema.feature_schema import FeatureSchema, GraphFacts
from topotrain.schema.resolve import DirectoryMetadata
from topotrain.schema.values import canonical, decisive, difference, short

log = logging.getLogger("topotrain")
ALONE = DirectoryMetadata()  # of a graph that came without a directory


def differences(expected: FeatureSchema, found: FeatureSchema) -> list[str]:
    """One line for each property in which what was found differs from what is expected, both sides shown.

    Compared are what decides compatibility, widths first, and the feature modules with their parameters. A property
    that one side does not know is no difference; widths are always known.
    """
    mine, theirs = expected.deciding, found.deciding
    differing = [
        name
        for name in sorted(mine, key=lambda name: not name.endswith(" dim"))
        if mine[name] is not None and theirs[name] is not None and canonical(mine[name]) != canonical(theirs[name])
    ]
    lines = [difference(name, mine[name], theirs[name]) for name in differing]
    for side in ("edge", "node"):  # names can be counted even where the other side has none
        width, names = theirs[f"{side} dim"], theirs[f"{side} columns"]
        if mine[f"{side} columns"] is None and mine[f"{side} dim"] == width and len(names or range(width)) != width:
            lines.append(f"{side} columns: {len(names)} names for {width} columns")
    return lines + _other_modules(expected, found)


def _other_modules(expected: FeatureSchema, found: FeatureSchema) -> list[str]:
    """The feature modules in which two schemas differ, where both know them; the edge module is among the columns."""
    lines = []
    for kind, module in expected.feature_modules.items():
        other = found.feature_modules.get(kind)
        if kind == "edge" or other is None:
            continue
        known = [key for key in ("id", "params") if module[key] is not None and other[key] is not None]
        mine, theirs = ({key: decisive(one[key]) for key in known} for one in (module, other))
        if canonical(mine) != canonical(theirs):
            lines.append(difference(f"{kind} module", mine, theirs))
    return lines


def check_fits(
    expected: FeatureSchema, found: FeatureSchema, subject: str, *, of: str, beside: str, wanted: str, do: str = ""
) -> None:
    """Refuse what has other features than expected.

    Args:
        expected: the features of a model, a checkpoint or weights.
        found: those of a graph, a directory of graphs or metadata.
        subject: what was found, by name.
        of: whose features are expected.
        beside: what they are held against.
        wanted: what would have been right.
        do: the next step.

    Raises:
        SchemaError: they differ; every difference is shown with both sides.
    """
    lines = differences(expected, found)
    if lines:
        raise SchemaError(
            f"{subject} does not have the features of the {of} ({of} against {beside}: {'; '.join(lines)})", wanted, do
        )


def check_same_schema(
    expected: FeatureSchema, found: FeatureSchema, subject: str, *, of: str, beside: str, wanted: str, do: str = ""
) -> None:
    """As ``check_fits``, and what one side knows of its columns the other must know too.

    Raises:
        SchemaError: they differ, or one side says less than the other.
    """
    check_fits(expected, found, subject, of=of, beside=beside, wanted=wanted, do=do)
    mine, theirs = expected.deciding, found.deciding
    unknown = [name for name in mine if (mine[name] is None) != (theirs[name] is None)]
    if unknown:
        raise SchemaError(
            f"{subject} may not have the features of the {of}: one side does not state {', '.join(unknown)} "
            f"(schema {expected.digest[:12]} of the {of}, {found.digest[:12]} of the {beside})",
            wanted,
            do,
        )


def check_graph(expected: FeatureSchema, graph: GraphFacts, metadata: DirectoryMetadata = ALONE) -> FeatureSchema:
    """Refuse a graph that has other features than a model, by its tensors and all that is said of it.

    Args:
        expected: the model's schema.
        graph: what the graph says of itself.
        metadata: of the graph's directory, if it has one.

    Returns:
        The graph's own schema.

    Raises:
        SchemaError: it has other features, or disagrees with its metadata.
        DataError: its own metadata are malformed.
    """
    found = metadata.schema_of(graph, expected.edge_dim)
    check_fits(
        *(expected, found, f"graph {graph.key}"),
        of="model",
        beside="graph",
        wanted="graphs with the model's features",
        do="build those; topotrain describe shows them",
    )
    return found


class GraphJudge:
    """``check_graph`` for many graphs: what was found to fit is not worked out again for another that says the same.

    Args:
        expected: the model's schema.
        metadata: of the graphs' directory, if they have one.
    """

    def __init__(self, expected: FeatureSchema, metadata: DirectoryMetadata = ALONE) -> None:
        self.expected, self.metadata = expected, metadata
        self._fitting: dict[Hashable, FeatureSchema] = {}

    def __call__(self, graph: GraphFacts) -> FeatureSchema:
        """The graph's own schema.

        Raises:
            SchemaError: it has other features, or disagrees with its metadata.
            DataError: its own metadata are malformed.
        """
        said = graph.node_dim, graph.edge_dim, self.metadata.said_of(graph)
        if said not in self._fitting:
            self._fitting[said] = check_graph(self.expected, graph, self.metadata)
        return self._fitting[said]


@dataclass
class SchemaCheck:
    """Holds the graphs of a directory, with what it says of them, against the schema of a model.

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
        self._judge = GraphJudge(self.expected, self.metadata)
        if not any(
            names is not None
            for names in (self.expected.edge_columns, self.expected.edge_module, self.expected.node_columns)
        ):
            log.warning(
                "the model's schema names no columns: graphs are checked by width alone (%d node, %d edge columns)",
                self.expected.node_dim,
                self.expected.edge_dim,
            )

    def __call__(self, graph: GraphFacts) -> None:
        """Check one graph.

        Raises:
            SchemaError: it has other features, or columns without names.
            DataError: its own metadata are malformed.
        """
        missing = unverified(self.expected, self._judge(graph))
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
            log.warning("%d graphs with unnamed columns were checked by width alone", self.unverified)


def unverified(expected: FeatureSchema, found: FeatureSchema) -> list[str]:
    """The sides of a graph, edge and node, that the model has names for and the graph has none of."""
    pairs = [
        ("edge", expected.edge_columns, found.edge_columns),
        ("edge", expected.edge_module, found.edge_module),
        ("node", expected.node_columns, found.node_columns),
    ]
    named = {side for side, mine, _ in pairs if mine is not None}
    return sorted(named - {side for side, mine, theirs in pairs if mine is not None and theirs is not None})


def expect(schema: FeatureSchema, expectations: Mapping[str, Any]) -> None:
    """Hold what the configuration says of the edges against what was resolved.

    Args:
        schema: the resolved schema.
        expectations: keys of ``edge_schema`` (``dim``, ``module``, ...) with the values expected.

    Raises:
        SchemaError: one of them contradicts the graphs, or the graphs do not say.
    """
    resolved = schema.to_dict()["edge_schema"]
    for key, value in expectations.items():
        found = resolved[key]
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            value, found = decisive(value), decisive(found)
        if canonical(value) != canonical(found):
            raise SchemaError(
                f"edge_schema.{key} is {short(value)} in the configuration and {short(found)} in the graphs",
                "no contradiction",
                f"remove edge_schema.{key}: it is computed from the graphs",
            )
