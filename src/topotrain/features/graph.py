"""One structure to one graph file, with stage times."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.errors import DataError, UserInputError
from topotrain.features.module_set import ModuleSet, recorded_modules
from topotrain.features.modules import GraphContext, both_ways, no_plddt
from topotrain.features.partners import Partners
from topotrain.features.sequences import protein_sequences
from topotrain.features.structure import (
    READER_VERSION,
    FloatArray,
    IntArray,
    Structure,
    read_content,
    read_structure,
)
from topotrain.features.structure_changes import Changes, describe_changes
from topotrain.fields import NODE_IDS
from topotrain.files import write_whole
from topotrain.text import name_fault, one_line

# Part of every digest: raise it when the builder itself makes other graphs from the same modules.
FORMAT_VERSION = 1
CHAINS = "chains"  # of graph metadata and summary: which were named as the partners
READER = "reader"  # of graph metadata and summary: its version, and what it left out or changed
STAGES = ("start", "read", "interface", "topology", "node", "edge", "write")


@dataclass(frozen=True)
class GraphArrays:
    """A graph before it becomes a file.

    Attributes:
        x: (num_nodes, node_dim) float64.
        edge_index: (2, num_edges) int64.
        edge_attr: (num_edges, edge_dim) float64.
        node_ids: (num_nodes,) ``A:12``, in node order.
    """

    x: FloatArray
    edge_index: IntArray
    edge_attr: FloatArray
    node_ids: list[str]


@dataclass(frozen=True)
class GraphTask:
    """What a worker needs to compute one graph; plain types, for it crosses processes.

    Attributes:
        key: path below the output folder without ``.pt``.
        source: the structure file, as errors name it.
        specification: JSON of :meth:`ModuleSet.specification`.
        file: where it lies, if elsewhere: an archive's files are unpacked.
        model: which MODEL of an ensemble, from 0; None for the first.
        chains: which chains are the partners, as :class:`Partners` writes them; "" for each chain one.
    """

    key: str
    source: str
    specification: str
    file: str = ""
    model: int | None = None
    chains: str = ""

    def content(self) -> bytes:
        """The file's bytes, still compressed where it is.

        Raises:
            DataError: it cannot be read.
        """
        return read_content(Path(self.file or self.source))

    def structure(self, content: bytes) -> Structure:
        """The structure in the file's bytes.

        Raises:
            DataError: it cannot be read.
        """
        partners = Partners.read(self.chains) if self.chains else None
        return read_structure(self.source, content, model=self.model, partners=partners)

    def digest(self, content: bytes) -> str:
        """SHA-256 of what decides the graph: builder format, modules, parameters, input bytes, MODEL, partners."""
        model = "" if self.model is None else f"\nMODEL {self.model}"
        chains = f"\nCHAINS {self.chains}" if self.chains else ""
        parts = f"{FORMAT_VERSION}\n{self.specification}\n{hashlib.sha256(content).hexdigest()}{model}{chains}"
        return hashlib.sha256(parts.encode()).hexdigest()


@dataclass
class GraphOutcome:
    """What became of one structure.

    Attributes:
        key: as in the task.
        source: as in the task.
        status: built, kept (unchanged since an earlier build) or failed.
        stage: where it failed, or "".
        error: one line, or "".
        seconds: {stage: seconds}.
        metadata: the graph's metadata.
        changes: what reading the structure left out or changed.
        chains: as in the task.
        sequences: of the protein chains of a structure that was read.
    """

    key: str
    source: str
    status: str = "failed"
    stage: str = ""
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)
    chains: str = ""
    sequences: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage, and remember it as the one under way."""
        self.stage, started = stage, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class GraphResult:
    """A computed graph, or why there is none.

    Attributes:
        outcome: stage times, and the error where there is one.
        arrays: the graph; None where it failed.
        digest: of the input bytes and the modules.
    """

    outcome: GraphOutcome
    arrays: GraphArrays | None = None
    digest: str = ""


def compute_task(task: GraphTask) -> GraphResult:
    """Read a structure and compute its graph; a bad structure becomes a failed outcome.

    Needs no torch, so that worker processes start fast and stay small.

    Args:
        task: what to compute.

    Raises:
        UserInputError: something that every structure would meet, such as a program that is not installed.
    """
    outcome = GraphOutcome(task.key, task.source, chains=task.chains)
    try:
        with outcome.timed("start"):
            modules = _modules(task.specification)
        with outcome.timed("read"):
            if wrong := name_fault(task.key):
                raise DataError(f"{task.source}: {wrong}", "a name in UTF-8, without line breaks", "rename the file")
            content = task.content()
            structure = task.structure(content)
        outcome.changes, outcome.sequences = structure.changes, protein_sequences(structure)
        plddt = partial(_plddt, structure, content, task.model)
        arrays = compute_graph(structure, modules, outcome, plddt)
        return GraphResult(outcome, arrays, task.digest(content))
    except DataError as error:
        outcome.error = str(error)
    except UserInputError:
        raise
    except Exception as error:  # noqa: BLE001  one bad file must not stop the others
        outcome.error = f"{type(error).__name__}: {one_line(error)}"
    return GraphResult(outcome)


def kept_outcome(task: GraphTask, target: Path) -> GraphOutcome | None:
    """The outcome of a graph that is there already, from the same input and modules; else None.

    A graph that another version of the reader made is kept only where reading changes nothing in its file.

    Args:
        task: what would be computed.
        target: the graph file.
    """
    if not target.is_file():
        return None
    from topotrain.data.graph_file import read_graph  # torch: workers, which import this module, need none

    outcome = GraphOutcome(task.key, task.source, chains=task.chains)
    with outcome.timed("read"):
        try:
            metadata = dict(read_graph(target).metadata)
            content, reader = task.content(), metadata.get(READER, {})
            if metadata["digest"] != task.digest(content):
                return None
            if reader.get("version") != READER_VERSION and task.structure(content).changes:
                return None
            outcome.changes = dict(reader.get("changes", {}))
        except Exception:  # noqa: BLE001  not a graph of ours, or an input gone bad: the build will say which
            return None
    outcome.metadata, outcome.status, outcome.stage = metadata, "kept", ""
    return outcome


def write_graph(result: GraphResult, target: Path, modules: ModuleSet) -> GraphOutcome:
    """Write a computed graph; a failed one removes what an earlier build left.

    Args:
        result: from :func:`compute_task`.
        target: the graph file.
        modules: the modules that computed it.

    Raises:
        DataError: the file cannot be written.
    """
    outcome, arrays = result.outcome, result.arrays
    try:
        if arrays is None:
            # An older graph of the same name describes another input; scoring it would be wrong.
            target.unlink(missing_ok=True)
            return outcome
        outcome.metadata = graph_metadata(outcome, arrays, modules, result.digest)
        with outcome.timed("start"):
            import torch_geometric.data  # noqa: F401
        with outcome.timed("write"):
            write_whole(target, graph_bytes(arrays, outcome.metadata))
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror})",
            "a writable folder with room",
            "make room, then repeat",
        ) from error
    outcome.status, outcome.stage = "built", ""
    return outcome


def _plddt(structure: Structure, content: bytes, model: int | None) -> FloatArray | None:
    from topotrain.features.confidence import residue_plddt  # with gemmi, which few modules need

    return residue_plddt(structure, content, model)


def compute_graph(
    structure: Structure,
    modules: ModuleSet,
    outcome: GraphOutcome | None = None,
    plddt: Callable[[], FloatArray | None] = no_plddt,
) -> GraphArrays:
    """Run the four modules on a structure.

    Args:
        structure: the structure.
        modules: the modules.
        outcome: takes the stage times.
        plddt: as in ``GraphContext``.

    Raises:
        DataError: the structure has no interface, or a module made something other than finite numbers in the
            columns it declares.
    """
    outcome = outcome or GraphOutcome("", structure.path)
    with outcome.timed("interface"):
        residues = modules.interface.find(structure)
        if not len(residues):
            raise _no_interface(structure, modules)
    with outcome.timed("topology"):
        topology = modules.topology.compute(structure, residues)
        _check_output(structure, modules.topology.module_id(), topology, len(residues), modules.topology_columns)
    context = GraphContext(structure, residues, topology, modules.topology_columns, plddt)
    with outcome.timed("node"):
        x = modules.node.compute(context)
        _check_output(structure, modules.node.module_id(), x, len(residues), modules.node_columns)
    with outcome.timed("edge"):
        source, target, distance = both_ways(*modules.edge.contacts(context))
        edge_attr = modules.edge.compute(context, source, target, distance)
        _check_output(structure, modules.edge.module_id(), edge_attr, len(source), modules.edge_columns)
    node_ids = [structure.residue_ids[residue] for residue in residues]
    return GraphArrays(x, np.stack([source, target]), edge_attr, node_ids)


def _no_interface(structure: Structure, modules: ModuleSet) -> DataError:
    chains = list(dict.fromkeys(structure.chain_ids.tolist()))
    if len(chains) == 1:
        left_out = describe_changes(structure.changes)
        return DataError(
            f"{structure.path}: one chain alone ({chains[0] or 'blank'})" + (f"; {left_out}" if left_out else ""),
            "a complex of two or more chains",
            "give every protein a chain of its own (column 22, or segment ids in columns 73-76), or remove the file",
        )
    kind = "partners" if structure.partners else "chains"
    return DataError(
        f"{structure.path}: no interface residues among {kind} {structure.partners or ', '.join(chains)}",
        f"two {kind} in contact ({modules.interface.module_id()}, {modules.interface.params})",
        "remove the structure, or widen interface.cutoff",
    )


def graph_metadata(outcome: GraphOutcome, arrays: GraphArrays, modules: ModuleSet, digest: str) -> dict[str, Any]:
    """The ``metadata`` of a graph file, in plain types."""
    info: dict[str, Any] = {
        "edge_count": len(arrays.edge_attr),
        "feature_dim": arrays.edge_attr.shape[1],
        "edge_feature_variant": modules.edge.variant,
        "model_key": outcome.key,
        "scaling": modules.edge.scaling,
        "orientation_dependent": modules.edge.orientation_dependent,
    }
    if modules.edge.bands:
        info["bands"] = modules.edge.bands
    return {
        "edge_module": modules.edge.module_id(),
        "edge_params": modules.edge.params,
        "edge_info": info,
        NODE_IDS: arrays.node_ids,
        "modules": modules.specification(),
        "digest": digest,
        READER: {"version": READER_VERSION, "changes": outcome.changes},
        **({CHAINS: outcome.chains} if outcome.chains else {}),
    }


def graph_bytes(arrays: GraphArrays, metadata: Mapping[str, Any]) -> bytes:
    """A graph as the bytes of a ``.pt`` file; the same bytes for the same graph."""
    import torch
    from torch_geometric.data import Data

    # Pickle writes an object met twice as a reference, so equal metadata made in another process could
    # differ in bytes; a round through JSON leaves no shared objects but those JSON always shares.
    plain = json.loads(json.dumps(metadata, sort_keys=True))
    data = Data(
        x=torch.from_numpy(arrays.x.astype(np.float32)),
        edge_index=torch.from_numpy(
            np.array(arrays.edge_index, dtype=np.int64, order="C")
        ),  # from elsewhere: read-only
        edge_attr=torch.from_numpy(arrays.edge_attr.astype(np.float32)),
        metadata=plain,
    )
    # To a buffer, not to a file: torch writes the file's name into the archive.
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


@lru_cache(maxsize=4)
def _modules(specification: str) -> ModuleSet:
    """The modules, ready to work, once per process: heavy imports are counted as the stage ``start``."""
    import gemmi  # noqa: F401

    modules = recorded_modules(json.loads(specification))
    for module in modules.by_kind().values():
        module.prepare()
    return modules


def _check_output(
    structure: Structure, module_id: str, values: FloatArray, rows: int, columns: tuple[str, ...]
) -> None:
    if values.shape != (rows, len(columns)):
        raise DataError(
            f"{structure.path}: {module_id} made an array of shape {values.shape}",
            f"({rows}, {len(columns)}), as its columns say",
            "report it to the module's author",
        )
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{structure.path}: {module_id} made {values[tuple(bad[0])]} in column {columns[bad[0][1]]}",
            "finite numbers",
            "remove the structure, or report it to the module's author",
        )
