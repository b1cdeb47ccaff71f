"""The demo data set as two compact files: graphs, and the structures they were built from.

Both are safetensors, compressed with xz. Values are kept as small integers, in an order in which neighbours are
alike: a residue looks much the same in all decoys of its target.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from topotrain.errors import DataError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

INDEX = "index"
# Values in [-1, 1] are kept to 0.0001, others to 0.0005 of themselves or of 1, whichever is more.
UNIT, OCTAVE = "unit", "octave"
UNIT_STEPS = 10_000
OCTAVE_STEPS = 1000
TOLERANCE = 5e-4  # of max(1, |value|)
DISTANCE_STEPS = 5000  # an edge's first column is kept to 0.0001, and never rounded up to a cutoff; others are counts
MAX_DISTANCE = 2**16 / DISTANCE_STEPS
COORDINATE_STEPS = 1000  # PDB files hold thousandths of an Angstrom


@dataclass(frozen=True, eq=False)
class DemoGraph:
    """One graph.

    Attributes:
        key: ``TARGET/MODEL``.
        x: (num_nodes, node_dim) float32.
        edge_index: (2, num_edges) int64; edges 2k and 2k + 1 are contact k both ways.
        edge_attr: (num_edges, edge_dim) float32; the same both ways.
        node_ids: (num_nodes,) ``A:12``.
    """

    key: str
    x: npt.NDArray[np.float32]
    edge_index: IntArray
    edge_attr: npt.NDArray[np.float32]
    node_ids: list[str]


@dataclass(frozen=True, eq=False)
class DemoTarget:
    """One complex and the poses of its partner B.

    Attributes:
        name: the target.
        coords: (num_atoms, 3) int64, thousandths of an Angstrom, native; partner A first.
        num_first: how many atoms partner A has.
        atoms: (num_atoms,) atom name and element, such as ``CA C``.
        residues: per residue: chain, name, number, insertion code.
        residue_starts: (num_residues + 1,) first atom of each residue.
        models: names of the decoys.
        rotations: (num_models, 3, 3) of partner B about the origin.
        shifts: (num_models, 3) thousandths of an Angstrom.
    """

    name: str
    coords: IntArray
    num_first: int
    atoms: list[str]
    residues: list[tuple[str, str, int, str]]
    residue_starts: IntArray
    models: list[str]
    rotations: FloatArray
    shifts: FloatArray

    def placed(self, model: int) -> IntArray:
        """(num_second, 3) partner B's coordinates in a decoy, thousandths of an Angstrom; the same on every machine."""
        rotation, shift = self.rotations[model], self.shifts[model]
        x, y, z = self.coords[self.num_first :].T.astype(np.float64)
        # Written out, since a matrix product's last bits depend on the library.
        moved = [rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * z + shift[i] for i in range(3)]
        placed: npt.NDArray[np.int64] = np.rint(np.column_stack(moved)).astype(np.int64)
        return placed


def pack_graphs(graphs: Sequence[DemoGraph], index: Mapping[str, Any]) -> bytes:
    """Graphs as the bytes of one file.

    Args:
        graphs: sorted by key, in one layout of columns.
        index: plain values to keep with them.

    Raises:
        DataError: values that this form can't hold.
    """
    x = np.concatenate([graph.x for graph in graphs]).astype(np.float64)
    rules = [UNIT if np.abs(column).max(initial=0.0) <= 1.0 else OCTAVE for column in x.T]
    codes = np.column_stack([_encode(column, rule) for column, rule in zip(x.T, rules, strict=True)])
    residues, places = _residue_places(graphs)
    order = _alike(graphs, places)
    edge_attr = np.concatenate([graph.edge_attr for graph in graphs]).astype(np.float64)
    edge_index = np.concatenate([graph.edge_index for graph in graphs], axis=1)
    contacts, attributes = edge_index[:, 0::2], edge_attr[0::2]
    counts = np.rint(attributes[:, 1:])
    mirrored = np.array_equal(edge_index[::-1, 1::2], contacts) and np.array_equal(edge_attr[1::2], attributes)
    whole = np.array_equal(counts, attributes[:, 1:]) and counts.max(initial=0.0) <= 255
    if not (mirrored and whole and 0.0 <= attributes[:, 0].min() <= attributes[:, 0].max() < MAX_DISTANCE):
        raise DataError("edges of another kind than edge/legacy_band/v11", "contacts both ways, a distance, counts")
    steps = np.diff(codes[order], axis=0, prepend=0).astype(np.uint16)  # modulo 65,536
    tensors: dict[str, Array] = {
        "num_nodes": np.array([len(graph.x) for graph in graphs], dtype=np.uint16),
        "num_contacts": np.array([graph.edge_index.shape[1] // 2 for graph in graphs], dtype=np.uint16),
        "residue": places.astype(np.uint16),
        "x_low": np.ascontiguousarray((steps & 0xFF).T.astype(np.uint8)),
        "x_high": np.ascontiguousarray((steps >> 8).T.astype(np.uint8)),
        "contacts": contacts.astype(np.uint16),
        "distance": np.floor(attributes[:, 0] * DISTANCE_STEPS).astype(np.uint16),
        "counts": np.ascontiguousarray(counts.T.astype(np.uint8)),
    }
    head = {"keys": [graph.key for graph in graphs], "rules": rules, "residues": residues, **index}
    return _pack(tensors, head)


def unpack_graphs(content: bytes) -> tuple[list[DemoGraph], dict[str, Any]]:
    """The graphs of :func:`pack_graphs`, and what was kept with them."""
    tensors, index = _unpack(content)
    keys, rules, residues = (index.pop(name) for name in ("keys", "rules", "residues"))
    node_ends, contact_ends = (np.cumsum(tensors[name].astype(np.int64)) for name in ("num_nodes", "num_contacts"))
    places = tensors["residue"].astype(np.int64)
    owners = np.repeat(np.arange(len(keys)), tensors["num_nodes"])
    order = _order(np.array([key.partition("/")[0] for key in keys])[owners], places, owners)
    steps = tensors["x_low"].astype(np.uint16) | (tensors["x_high"].astype(np.uint16) << 8)
    codes = np.empty((len(places), len(rules)), dtype=np.uint16)
    codes[order] = np.cumsum(steps, axis=1, dtype=np.uint16).T
    x = np.column_stack([_decode(column, rule) for column, rule in zip(codes.T, rules, strict=True)])
    attributes = np.column_stack([(tensors["distance"] + 0.5) / DISTANCE_STEPS, tensors["counts"].T]).astype(np.float32)
    contacts = tensors["contacts"].astype(np.int64)
    graphs = []
    for number, key in enumerate(keys):
        nodes = slice(node_ends[number] - tensors["num_nodes"][number], node_ends[number])
        edges = slice(contact_ends[number] - tensors["num_contacts"][number], contact_ends[number])
        source, target = contacts[:, edges]
        edge_index = np.stack([np.column_stack([source, target]).ravel(), np.column_stack([target, source]).ravel()])
        ids = residues[key.partition("/")[0]]
        graphs.append(
            DemoGraph(
                key,
                np.ascontiguousarray(x[nodes].astype(np.float32)),
                edge_index,
                np.repeat(attributes[edges], 2, axis=0),
                [ids[place] for place in places[nodes]],
            )
        )
    return graphs, index


def pack_structures(targets: Sequence[DemoTarget]) -> bytes:
    """Complexes and poses as the bytes of one file."""
    tensors: dict[str, Array] = {}
    for target in targets:
        steps = np.diff(target.coords, axis=0, prepend=0)
        tensors[f"{target.name}.coords"] = np.ascontiguousarray(steps.T.astype(np.int32))
        tensors[f"{target.name}.residue_starts"] = target.residue_starts.astype(np.uint32)
        tensors[f"{target.name}.rotations"] = target.rotations
        tensors[f"{target.name}.shifts"] = target.shifts
    head = [
        {"name": t.name, "num_first": t.num_first, "atoms": t.atoms, "residues": t.residues, "models": t.models}
        for t in targets
    ]
    return _pack(tensors, {"targets": head})


def unpack_structures(content: bytes) -> Iterator[DemoTarget]:
    """The complexes of :func:`pack_structures`."""
    tensors, index = _unpack(content)
    for head in index["targets"]:
        name = head["name"]
        yield DemoTarget(
            name,
            coords=np.cumsum(tensors[f"{name}.coords"].T.astype(np.int64), axis=0),
            num_first=head["num_first"],
            atoms=head["atoms"],
            residues=[tuple(residue) for residue in head["residues"]],
            residue_starts=tensors[f"{name}.residue_starts"].astype(np.int64),
            models=head["models"],
            rotations=tensors[f"{name}.rotations"],
            shifts=tensors[f"{name}.shifts"],
        )


def pdb_texts(target: DemoTarget) -> Iterator[tuple[str, str]]:
    """The complex as PDB files: first ("", native), then every (model, decoy)."""
    lines = _pdb_lines(target)
    first = "\n".join(lines[: target.num_first]) % _angstroms(target.coords[: target.num_first])
    second = "\n".join(lines[target.num_first :])
    yield "", f"{first}\nTER\n{second % _angstroms(target.coords[target.num_first :])}\nTER\nEND\n"
    for number, model in enumerate(target.models):
        yield model, f"{first}\nTER\n{second % _angstroms(target.placed(number))}\nTER\nEND\n"


def _angstroms(coords: IntArray) -> tuple[float, ...]:
    return tuple((coords / COORDINATE_STEPS).ravel().tolist())


def _pdb_lines(target: DemoTarget) -> list[str]:
    """One ATOM record per atom, with places for the coordinates."""
    owners = np.repeat(np.arange(len(target.residues)), np.diff(target.residue_starts)).tolist()
    lines = []
    for serial, (owner, atom) in enumerate(zip(owners, target.atoms, strict=True), start=1):
        chain, residue, number, code = target.residues[owner]
        name, _, element = atom.partition(" ")
        label = name if len(name) == 4 else f" {name}"
        start = f"ATOM  {serial:5d} {label:<4s} {residue:3s} {chain}{number:4d}{code:1s}   "
        lines.append(f"{start}%8.3f%8.3f%8.3f  1.00  0.00          {element:>2s}")
    return lines


def _encode(values: FloatArray, rule: str) -> npt.NDArray[np.uint16]:
    if rule == UNIT:
        return np.rint((values + 1.0) * UNIT_STEPS).astype(np.uint16)
    if values.min(initial=0.0) < 0.0 or values.max(initial=0.0) >= 2.0**64:
        raise DataError("node columns with values beyond [-1, 1] and some negative", "values of 0 or more")
    exponent = np.floor(np.log2(np.maximum(values, 1.0)))
    fraction = np.where(values < 1.0, values, values / 2.0**exponent - 1.0)
    start = np.where(values < 1.0, 0.0, exponent + 1.0)
    return np.asarray(start * OCTAVE_STEPS + np.rint(fraction * OCTAVE_STEPS)).astype(np.uint16)


def _decode(codes: npt.NDArray[np.uint16], rule: str) -> FloatArray:
    if rule == UNIT:
        return np.asarray(codes / UNIT_STEPS - 1.0)
    octave, step = np.divmod(codes.astype(np.int64), OCTAVE_STEPS)
    fraction = step / OCTAVE_STEPS
    return np.where(octave == 0, fraction, 2.0 ** (octave - 1.0) * (1.0 + fraction))


def _residue_places(graphs: Sequence[DemoGraph]) -> tuple[dict[str, list[str]], IntArray]:
    """All residues that are nodes, by target, in order of first appearance; and every node's place among them."""
    places: dict[str, dict[str, int]] = {}
    rows = []
    for graph in graphs:
        known = places.setdefault(graph.key.partition("/")[0], {})
        rows += [known.setdefault(name, len(known)) for name in graph.node_ids]
    return {target: list(known) for target, known in places.items()}, np.array(rows)


def _alike(graphs: Sequence[DemoGraph], places: IntArray) -> IntArray:
    owners = np.repeat(np.arange(len(graphs)), [len(graph.x) for graph in graphs])
    return _order(np.array([graph.key.partition("/")[0] for graph in graphs])[owners], places, owners)


def _order(targets: npt.NDArray[np.str_], places: IntArray, owners: IntArray) -> IntArray:
    """Nodes by target, then residue, then graph."""
    return np.lexsort((owners, places, targets))


def _pack(tensors: Mapping[str, Array], index: Mapping[str, Any]) -> bytes:
    text = json.dumps(index, separators=(",", ":"), sort_keys=True).encode()
    content = safetensors.numpy.save({**tensors, INDEX: np.frombuffer(text, dtype=np.uint8)})
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
    return lzma.compress(content, format=lzma.FORMAT_XZ, filters=filters)


def _unpack(content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors = safetensors.numpy.load(lzma.decompress(content))
    index: dict[str, Any] = json.loads(tensors.pop(INDEX).tobytes())
    return tensors, index
