"""``explain``: what each interface residue and each contact of one complex adds to its score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from topotrain.data.graph_cache import GraphCache
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph, read_graph
from topotrain.data.packing import KnownGraph
from topotrain.errors import DataError
from topotrain.features import build_recorded_graphs
from topotrain.features.structure import Structure, is_structure_file, read_structure
from topotrain.fields import DOCKQ_COLUMN, GRAPH_SUFFIX, NODE_IDS, SIDECAR_NAME
from topotrain.schema.check import SchemaCheck
from topotrain.scoring.importance import importance
from topotrain.scoring.load import scorer_of
from topotrain.scoring.score_table import DECIMALS
from topotrain.scoring.scorer import Scorer
from topotrain.scratch import scratch
from topotrain.text import as_csv

SIDECAR_LEVELS = 4  # folders above a graph in which its directory's sidecar is looked for
RESIDUE_COLUMNS = ("CHAIN", "NUMBER", "NAME", "IMPORTANCE")
CONTACT_COLUMNS = ("CHAIN_1", "NUMBER_1", "NAME_1", "CHAIN_2", "NUMBER_2", "NAME_2", "IMPORTANCE")


@dataclass(frozen=True, slots=True)
class Residue:
    """One residue of an interface.

    Attributes:
        chain: author chain; "" where the graph does not say its residues.
        number: author number with the insertion code, such as ``12B``; else the node, from 0.
        name: three letters; "" where only a graph is given, which holds no names.
    """

    chain: str
    number: str
    name: str = ""


@dataclass(frozen=True)
class Explanation:
    """What made the score of one complex; importances are in units of the score.

    Attributes:
        score: predicted DockQ, or the quality that the model predicts.
        reference: the score where every feature is at its mean over the training graphs.
        residues: each with its importance, the greatest first: its own features' and half of each of its contacts'.
            They sum to ``score - reference``.
        contacts: pairs of residues, each with its importance, the greatest first.
        quality: the column of what was predicted.
    """

    score: float
    reference: float
    residues: tuple[tuple[Residue, float], ...]
    contacts: tuple[tuple[Residue, Residue, float], ...]
    quality: str = DOCKQ_COLUMN

    @property
    def total(self) -> float:
        """Of all importances."""
        return sum(value for _, value in self.residues)


def explain(
    source: Path | str,
    model: str | None = None,
    *,
    chains: str | None = None,
    allow_unverified: bool = False,
    tracking_uri: str | None = None,
) -> Explanation:
    """Explain the score that a model gives to one complex, by integrated gradients.

    Args:
        source: a structure file, whose graph is built as ``score`` builds it; or a graph (``.pt``).
        model: URI of a version, a local folder or ``starter``; by default the champion, else the candidate, else that.
        chains: of a structure: which are the partners, as for ``score``.
        allow_unverified: whether a graph whose columns have no names may be explained.
        tracking_uri: of the model's store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        SchemaError: the graph has other features than the model was trained on.
        UserInputError: chains that name no partners.
        DataError: no such file, or a structure that gives no graph.
        TrackingError: no such model.
    """
    source = Path(source)
    if not source.is_file() or not (source.name.endswith(GRAPH_SUFFIX) or is_structure_file(source)):
        what = "is no structure and no graph" if source.exists() else "does not exist"
        raise DataError(f"{source.absolute()} {what}", "one .pdb or .cif file, or one .pt file", "check the path")
    scorer, _ = scorer_of(model, tracking_uri)
    if source.name.endswith(GRAPH_SUFFIX):
        root = _graph_root(source)
        held = SchemaCheck.of_directory(scorer.schema, root, allow_unverified=allow_unverified)
        graph = read_graph(source, source.absolute().relative_to(root).as_posix().removesuffix(GRAPH_SUFFIX))
        held(graph.facts)
        return explained(scorer, graph)
    return explained(scorer, _built(scorer, source, chains), read_structure(source))


def explained(scorer: Scorer, graph: Graph, structure: Structure | None = None) -> Explanation:
    """Explain the score of a graph that fits.

    Args:
        scorer: the model.
        graph: the graph.
        structure: that it was built of, for the names of residues.
    """
    found = importance(scorer, KnownGraph.of(graph))
    residues = residues_of(graph, structure)
    pairs = zip(found.ends.tolist(), found.contacts.tolist(), strict=True)
    contacts = [(residues[one], residues[other], value) for (one, other), value in pairs]
    return Explanation(
        found.score,
        found.reference,
        tuple(sorted(zip(residues, found.residues.tolist(), strict=True), key=lambda row: -row[1])),
        tuple(sorted(contacts, key=lambda row: -row[2])),
        scorer.schema.label_column,
    )


def residues_of(graph: Graph, structure: Structure | None = None) -> list[Residue]:
    """The residue of each node, as the graph and the structure that it was built of know them."""
    ids = graph.metadata.get(NODE_IDS)
    if not isinstance(ids, list) or len(ids) != graph.x.shape[0]:
        return [Residue("", str(node)) for node in range(graph.x.shape[0])]
    names = {} if structure is None else dict(zip(structure.residue_ids, structure.residue_names, strict=True))
    return [Residue(*str(one).rpartition(":")[::2], str(names.get(one, ""))) for one in ids]


def _graph_root(path: Path) -> Path:
    """The graph directory of a graph: the nearest folder above it that has a sidecar, else its own."""
    above = path.absolute().parents
    return next((folder for folder in above[:SIDECAR_LEVELS] if (folder / SIDECAR_NAME).is_file()), above[0])


def _built(scorer: Scorer, structure: Path, chains: str | None) -> Graph:
    with scratch("explain") as folder:
        registry = scorer.schema.module_registry
        report = build_recorded_graphs(structure, folder, registry, chains=chains, cache=GraphCache())
        if not report.num_graphs:
            raise DataError(next(iter(report.failures.values())), "a structure with an interface")
        directory = GraphDirectory(Path(folder))
        return read_graph(directory.path(directory.keys[0]), directory.keys[0])


def residues_csv(explanation: Explanation) -> str:
    """Residues with their importance as the text of a CSV."""
    return as_csv([RESIDUE_COLUMNS, *((*astuple(one), _text(value)) for one, value in explanation.residues)])


def contacts_csv(explanation: Explanation) -> str:
    """Contacts with their importance as the text of a CSV."""
    rows: Iterable[Sequence[str]] = (
        (*astuple(one), *astuple(other), _text(value)) for one, other, value in explanation.contacts
    )
    return as_csv([CONTACT_COLUMNS, *rows])


def _text(value: float) -> str:
    return f"{value:.{DECIMALS}f}"
