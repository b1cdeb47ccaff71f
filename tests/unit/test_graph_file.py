"""Reading one graph: today's files, and files that mean harm."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData

from topotrain.data.graph_file import make_graph, read_graph
from topotrain.errors import DataError


def fields(
    num_nodes: int = 4, num_edges: int = 6, node_dim: int = 5, edge_dim: int = 3, **other: Any
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    made = {
        "x": torch.randn(num_nodes, node_dim, generator=generator),
        "edge_index": torch.randint(0, num_nodes, (2, num_edges), generator=generator),
        "edge_attr": torch.randn(num_edges, edge_dim, generator=generator),
    }
    return {name: value for name, value in {**made, **other}.items() if value is not None}


def save(path: Path, **other: Any) -> Path:
    torch.save(Data(**fields(**other)), path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_graph(path)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 2000
    assert "weights_only" not in message  # torch's advice to trust the file is none of ours
    return message


# Good files


def test_a_graph_of_todays_pyg(tmp_path: Path) -> None:
    metadata = {"edge_module": "m", "edge_params": {"a": (1, 2.0, None, True)}, "t": torch.tensor([1, 2])}
    graph = read_graph(save(tmp_path / "g.pt", metadata=metadata), "T/g")
    expected = fields()
    assert graph.key == "T/g"
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(getattr(graph, name), expected[name])
    assert graph.metadata == {"edge_module": "m", "edge_params": {"a": [1, 2.0, None, True]}, "t": [1, 2]}
    assert (graph.facts.node_dim, graph.facts.edge_dim, graph.facts.num_nodes, graph.facts.num_edges) == (5, 3, 4, 6)
    assert read_graph(tmp_path / "g.pt").key == "g"


@pytest.mark.parametrize(
    "other",
    [
        {"node_dim": 1, "edge_dim": 1},
        {"node_dim": 55, "edge_dim": 24},
        {"node_dim": 1252, "edge_dim": 2081},
        {"num_nodes": 1, "num_edges": 1},
        {"y": torch.tensor(0.5), "name": "1ABC", "pos": torch.zeros(4, 3), "extra": {"a": [1]}},
        {"x": torch.ones(4, 5, dtype=torch.float64)},
        {"x": torch.ones(4, 5, dtype=torch.float16)},
        {"x": torch.ones(4, 5, dtype=torch.bfloat16)},
        {"x": torch.ones(5, 4).t()},
        {"x": torch.ones(4, 9)[:, :5]},
        {"x": torch.ones(4, 5, requires_grad=True)},
        {"x": torch.nn.Parameter(torch.ones(4, 5))},
        {"edge_index": torch.zeros(2, 6, dtype=torch.int32)},
        {"metadata": None},
        {"metadata": {}},
    ],
)
def test_what_is_read_is_plain_float32_and_int64(other: dict[str, Any], tmp_path: Path) -> None:
    graph = read_graph(save(tmp_path / "g.pt", **other))
    for tensor, dtype in ((graph.x, torch.float32), (graph.edge_index, torch.int64), (graph.edge_attr, torch.float32)):
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        assert tensor.numpy().shape == tuple(tensor.shape)
    assert graph.x.shape[1] == other.get("node_dim", 5)


@pytest.mark.parametrize(
    ("edge_attr", "width"), [(torch.zeros(0, 3), 3), (torch.zeros(0), None), (torch.zeros(0, 0), None)]
)
def test_a_graph_without_edges_keeps_the_width_it_states(edge_attr: Any, width: int | None, tmp_path: Path) -> None:
    path = save(tmp_path / "g.pt", edge_index=torch.zeros(2, 0, dtype=torch.int64), edge_attr=edge_attr)
    graph = read_graph(path)
    assert graph.facts.edge_dim == width
    assert graph.edge_attr.shape == (0, width or 0)
    assert graph.edge_index.shape == (2, 0)


@pytest.mark.parametrize("options", [{"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_older_containers_are_read_or_refused_never_worse(options: dict[str, Any], tmp_path: Path) -> None:
    torch.save(Data(**fields()), tmp_path / "g.pt", **options)
    try:
        assert read_graph(tmp_path / "g.pt").x.shape == (4, 5)
    except DataError as error:
        assert str(tmp_path / "g.pt") in str(error)


def test_real_graphs_are_read(shared_data: Path) -> None:
    path = next((shared_data / "real_docking" / "graphs" / "1ACB").glob("*.pt"))
    facts = read_graph(path).facts
    assert (facts.node_dim, facts.edge_dim) == (172, 11)


# Hostile files


class Command:
    """Runs a shell command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _torch(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    marker, path = tmp_path / "pwned", tmp_path / "g.pt"
    bomb = Command(marker)
    for index, value in enumerate(
        [bomb, Data(**fields(), metadata={"a": bomb}), {"x": bomb}, [bomb], Data(x=bomb), {**fields(), "y": bomb}]
    ):
        torch.save(value, path)
        assert "refused, it names posix.system" in refused(path), index
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(bomb, protocol=protocol))
        refused(path)
    torch.save(bomb, path, _use_new_zipfile_serialization=False)
    refused(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(bomb))  # the bomb is live
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"PK\x03\x04",
        b"PK\x05\x06" + b"\0" * 18,
        os.urandom(4096),
        b"\x80\x02",
        b"\x80\x02]q\x00.",
        b"text",
    ],
    ids=["empty", "zeros", "zip head", "empty zip", "random", "pickle head", "pickled list", "text"],
)
def test_bytes_that_are_no_graph(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    path.write_bytes(content)
    refused(path)


def test_a_file_cut_anywhere_or_with_a_byte_flipped_never_raises_anything_else(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "g.pt"
    for length in range(0, len(whole) - 1, len(whole) // 25):
        path.write_bytes(whole[:length])
        refused(path)
    for position in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_graph(path)
        except DataError as error:
            assert str(path) in str(error)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        archive.writestr("a.txt", "words")
    refused(tmp_path / "g.pt")


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    whole = zipfile.ZipFile(save(tmp_path / "whole.pt", x=torch.zeros(10_000, 50)))
    with zipfile.ZipFile(tmp_path / "g.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    assert (tmp_path / "g.pt").stat().st_size < 50_000
    assert "more than it holds; expected a file written by torch.save" in refused(tmp_path / "g.pt")


def test_places_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "d.pt").mkdir()
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "broken.pt").symlink_to(tmp_path / "nowhere")
    assert "no regular file" in refused(tmp_path / "d.pt")
    assert "no regular file" in refused(tmp_path / "fifo.pt")
    assert "no such file" in refused(tmp_path / "broken.pt")
    assert "no such file" in refused(tmp_path / "no.pt")


def _doubled(times: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(times):
        value = [value, value]
    return value


def _deep(times: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(times):
        value = [value]
    return value


def _endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


NO_EDGES = {"edge_index": torch.zeros(2, 0, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"x": None}, "no tensor 'x' (found: edge_attr, edge_index)"),
        ({"edge_index": None}, "no tensor 'edge_index'"),
        ({"edge_attr": None}, "no tensor 'edge_attr'"),
        ({"edge_attr": None, **NO_EDGES}, "no tensor 'edge_attr'"),
        ({"x": [[1.0]]}, "no tensor 'x'"),
        ({"x": torch.ones(4)}, "x has shape (4,)"),
        ({"x": torch.ones(4, 5, 1)}, "x has shape (4, 5, 1)"),
        ({"x": torch.tensor(1.0)}, "x has shape ()"),
        ({"x": torch.ones(0, 5), **NO_EDGES, "edge_attr": torch.zeros(0, 3)}, "at least one node"),
        ({"x": torch.ones(4, 0)}, "at least one node and one column"),
        ({"x": torch.ones(4, 5, dtype=torch.int64)}, "x is torch.int64; expected floating point"),
        ({"x": torch.ones(4, 5, dtype=torch.bool)}, "x is torch.bool"),
        ({"x": torch.ones(4, 5, dtype=torch.complex64)}, "dense tensor"),
        ({"x": torch.full((4, 5), float("nan"))}, "x has 20 values that are not finite, the first in row 0, column 0"),
        ({"x": torch.full((4, 5), 1e300, dtype=torch.float64)}, "x has 20 values that are not finite"),
        ({"edge_attr": torch.tensor([[0.0, 0, 0]] * 5 + [[0, 0, float("inf")]])}, "the first in row 5, column 2"),
        ({"edge_attr": torch.ones(5, 3)}, "edge_attr has 5 rows; expected one for each of 6 edges"),
        ({"edge_attr": torch.ones(6)}, "edge_attr has shape (6,)"),
        ({"edge_attr": torch.ones(6, 0)}, "edge_attr has no columns"),
        ({"edge_attr": torch.ones(6, 3, dtype=torch.int32)}, "edge_attr is torch.int32"),
        ({"edge_attr": torch.ones(6, 3), **NO_EDGES}, "edge_attr has 6 rows"),
        ({"edge_index": torch.tensor([[0, 1, 2, 3, 0, 4], [0] * 6])}, "edge_index spans 0 to 4; expected nodes 0 to 3"),
        ({"edge_index": torch.tensor([[0, 1, 2, 3, 0, -1], [0] * 6])}, "edge_index spans -1 to 3"),
        ({"edge_index": torch.zeros(6, 2, dtype=torch.int64)}, "expected int64 of shape (2, num_edges)"),
        ({"edge_index": torch.zeros(2, 6)}, "edge_index is torch.float32"),
        ({"edge_index": torch.zeros(2, 6, dtype=torch.bool)}, "edge_index is torch.bool"),
        ({"edge_index": torch.zeros(2, 6, dtype=torch.uint8)}, "edge_index is torch.uint8"),
        ({"x": torch.ones(4, 5).to_sparse()}, "dense tensor"),
        ({"x": torch.ones(4, 5).to_sparse_csr()}, "dense tensor"),
        ({"edge_index": torch.ones(2, 6, dtype=torch.int64).to_sparse()}, "dense tensor"),
        ({"x": torch.empty(4, 5, device="meta")}, ""),
        ({"x": torch.ones(1).expand(2**40, 2**10)}, "over fewer stored values"),
        ({"x": torch.ones(1, 5).expand(4, 5)}, "over fewer stored values"),
        ({"edge_index": torch.zeros(1, dtype=torch.int64).expand(2, 2**50)}, "over fewer stored values"),
        ({"edge_attr": torch.ones(1).expand(6, 2**50)}, "over fewer stored values"),
        ({"metadata": [1]}, "metadata is a list; expected a mapping"),
        ({"metadata": "text"}, "metadata is a str"),
        ({"metadata": {"a": _doubled(40)}}, "larger than 100000 values or deeper than 20"),
        ({"metadata": {"a": _doubled(17)}}, "larger than 100000 values"),
        ({"metadata": {"a": list(range(100_001))}}, "larger than 100000 values"),
        ({"metadata": {"a": ["x" * 10**6] * 200}}, "larger than 100000 values"),
        ({"metadata": {"a": _deep(200)}}, "deeper than 20"),
        ({"metadata": _endless()}, "deeper than 20"),
        ({"metadata": {"a": torch.zeros(1).expand(2**50)}}, f"metadata holds a tensor of {2**50} values"),
        ({"metadata": {"a": torch.eye(3).to_sparse()}}, ""),
        ({"metadata": {"edge_params": {"a": 10**5000}}}, ""),
        ({"metadata": {"edge_params": {"a": 2**100}}}, "metadata holds an integer of 101 bits"),
    ],
)
def test_a_graph_that_cannot_be_trained_on_is_refused(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    message = refused(save(tmp_path / "g.pt", **other))
    assert words in message
    assert "expected" in message


@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        "text",
        [],
        [Data(**fields())],
        torch.ones(3),
        {},
        {"state_dict": {}},
        {1: 2},
        Data(),
        {f"k{i}": 0 for i in range(5000)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_content_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "g.pt")
    refused(tmp_path / "g.pt")


def test_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(HeteroData(), tmp_path / "g.pt")
    assert "it names torch_geometric.data." in refused(tmp_path / "g.pt")
    torch.save(Batch.from_data_list([Data(**fields())]), tmp_path / "g.pt")
    refused(tmp_path / "g.pt")


def test_make_graph_says_what_without_a_path() -> None:
    assert make_graph(fields(), "k").x.shape == (4, 5)
    with pytest.raises(DataError, match="^no tensor 'x'"):
        make_graph({}, "k")
