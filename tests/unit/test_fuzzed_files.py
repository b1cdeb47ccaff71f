"""Real files with anything changed in them: read, or refused in one line, never anything else."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from kit.structures import cif_text, helix_pair, pdb_text
from topotrain.data.graph_file import read_graph
from topotrain.errors import UserInputError
from topotrain.features.structure import read_structure
from topotrain.model.checkpoint import load_plain
from topotrain.schema.metadata_files import read_sidecar, read_summary
from topotrain.scoring.wire_format import decode_graph

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def graph_bytes(**options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = {"edge_module": "m", "edge_params": {"a": 1}, "edge_info": {"edge_count": 2}}
    data = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.ones(2, 1))
    torch.save(Data(**data.to_dict(), metadata=metadata), buffer, **options)
    return buffer.getvalue()


def row_bytes() -> bytes:
    buffer = io.BytesIO()
    arrays = {"x": np.ones((3, 2)), "edge_index": np.array([[0, 1], [1, 2]]), "edge_attr": np.ones((2, 1))}
    np.savez(buffer, **arrays, metadata=np.array(json.dumps({"edge_module": "m"})))  # type: ignore[arg-type]
    return buffer.getvalue()


SIDECAR = {
    "_builder": {"id": "b"},
    "_edge_schema": {"dim": 1, "columns": ["e"], "bands": ["near"]},
    "_module_registry": {"edge": {"id": "m", "params": {"a": 1}}},
    "T/m": {
        "edge_module": "m",
        "edge_params": {"a": [1, 2.5, None]},
        "edge_metadata": {"edge_count": 2, "feature_dim": 1, "bands": ["near"]},
        "node_feature_columns": ["n0", "n1"],
        "edge_feature_columns": ["e"],
    },
}
SUMMARY = {"modules": {"edge": {"id": "m", "jobs": 2}}, "edge": {"output_dir": "..", "edge_feature_dim": 1}}
GRAPH, OLD_GRAPH, ROW = graph_bytes(), graph_bytes(_use_new_zipfile_serialization=False), row_bytes()
PDB, CIF = pdb_text(helix_pair(3)).encode(), cif_text(helix_pair(3)).encode()

Edit = tuple[str, float, bytes]
WORDS = rb"-1 xx 1_0 nan 1e999 99999999999999999999 ' ? [[ { null true _ ; loop_ data_ ENDMDL MODEL cos".split()
BITES = st.sampled_from([*WORDS, b"", b"\0", b"\xff", b"\xb2", b"\n", b"\r", b"\t", b'""', b"c\n\n"]) | st.binary(
    max_size=6
)
KINDS = st.sampled_from(["put", "over", "cut", "flip", "twice"])
EDITS = st.lists(st.tuples(KINDS, st.floats(0, 1), BITES), max_size=4)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """Bytes put in, written over, cut off, flipped or doubled, each somewhere."""
    for kind, where, bite in edits:
        at = int(where * len(content))
        before, after = content[:at], content[at:]
        content = {
            "put": before + bite + after,
            "over": before + bite + after[len(bite) :],
            "cut": before if bite else after,
            "flip": before + bytes(byte ^ 1 << len(bite) % 8 for byte in after[:1]) + after[1:],
            "twice": before + after[:80] + after,
        }[kind]
    return content


def edited_inside(archive: bytes, edits: list[Edit], member: int) -> bytes:
    """The same in one member of a zip, whose sums then are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as whole, zipfile.ZipFile(buffer, "w") as changed:
        for number, name in enumerate(whole.namelist()):
            content = whole.read(name)
            changed.writestr(name, edited(content, edits) if number == member % len(whole.namelist()) else content)
    return buffer.getvalue()


def read_or_refused(read: Callable[[], Any]) -> None:
    try:
        read()
    except UserInputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2500


@FUZZ
@given(edits=EDITS, member=st.integers(0, 8), kind=st.sampled_from(["file", "inside", "old"]))
def test_graphs_and_checkpoints(tmp_path: Path, edits: list[Edit], member: int, kind: str) -> None:
    content = {
        "file": lambda: edited(GRAPH, edits),
        "inside": lambda: edited_inside(GRAPH, edits, member),
        "old": lambda: edited(OLD_GRAPH, edits),
    }[kind]()
    (tmp_path / "g.pt").write_bytes(content)
    read_or_refused(lambda: read_graph(tmp_path / "g.pt"))
    read_or_refused(lambda: load_plain(tmp_path / "g.pt", "a checkpoint"))


@FUZZ
@given(edits=EDITS, member=st.integers(0, 3), inside=st.booleans())
def test_served_rows(edits: list[Edit], member: int, inside: bool) -> None:
    content = edited_inside(ROW, edits, member) if inside else edited(ROW, edits)
    read_or_refused(lambda: decode_graph(base64.b64encode(content).decode(), "row 0"))


@FUZZ
@given(text=st.text(max_size=40))
def test_served_texts(text: str) -> None:
    read_or_refused(lambda: decode_graph(text, "row 0"))


@FUZZ
@given(edits=EDITS, suffix=st.sampled_from([".pdb", ".cif"]))
def test_structures(tmp_path: Path, edits: list[Edit], suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    read_or_refused(lambda: read_structure(path, edited(PDB if suffix == ".pdb" else CIF, edits)))


def _places(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_places, inner))


def _with(value: Any, place: list[int], new: Any) -> Any:
    """The document with one of its values, counted from the outermost, replaced."""
    place[0] -= 1
    if place[0] < 0:
        return new if place[0] == -1 else value
    if isinstance(value, dict):
        return {key: _with(inner, place, new) for key, inner in value.items()}
    return [_with(inner, place, new) for inner in value] if isinstance(value, list) else value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@FUZZ
@given(place=st.integers(0, 60), value=VALUES, edits=EDITS)
def test_sidecars_and_summaries(tmp_path: Path, place: int, value: Any, edits: list[Edit]) -> None:
    for document, read in ((SIDECAR, lambda path: read_sidecar(path, required=True)), (SUMMARY, read_summary)):
        path = tmp_path / "document.json"
        path.write_text(json.dumps(_with(document, [place % _places(document)], value)))
        read_or_refused(lambda read=read, path=path: read(path))
        path.write_bytes(edited(json.dumps(document).encode(), edits))
        read_or_refused(lambda read=read, path=path: read(path))


# What was found


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".cif", b" 101 ALA", b" 1_0 ALA"),
        (".cif", b" 101 ALA", b" +-1 ALA"),
        (".cif", b" 101 ALA", b" xx ALA"),
        (".cif", b" 101 ALA", b" 99999999999999999999 ALA"),
        (".pdb", b"B 101", b"B\xb2\xb2\xb2\xb2"),
        (".pdb", b"B 101 ", b"B  xx "),
    ],
)
def test_a_residue_number_that_is_none(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> None:
    content = PDB if suffix == ".pdb" else CIF
    assert old in content
    with pytest.raises(UserInputError, match="is no residue number"):
        read_structure(tmp_path / f"m{suffix}", content.replace(old, new))


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_a_coordinate_with_an_underscore(tmp_path: Path, suffix: str) -> None:
    content = PDB if suffix == ".pdb" else CIF
    at = content.index(b"8.", content.index(b" B "))
    number = content[at : at + 5]
    with pytest.raises(UserInputError, match="coordinates are not numbers"):
        read_structure(tmp_path / f"m{suffix}", content.replace(number, number[:3] + b"_" + number[4:], 1))


def test_a_column_of_another_table_among_the_atoms(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"m\.cif: cannot be read as a structure"):
        read_structure(tmp_path / "m.cif", CIF.replace(b"_atom_site.occupancy", b"_atom-1_site.occupancy"))
