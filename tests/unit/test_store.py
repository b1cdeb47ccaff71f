"""The packed store: made once, kept up with the files, and never believed when it is damaged."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch_geometric.data import Data

from topotrain.data import store_build, store_index, store_upkeep
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.split import read_split
from topotrain.data.store import GraphStore
from topotrain.data.store_upkeep import DAMAGED_MARK, store_folder
from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError

OLD = 1_600_000_000  # s, long before a test


def save(root: Path, key: str, seed: int, num_edges: int = 6, edge_dim: int = 3, **other: Any) -> None:
    """A graph that was written long ago, so that its time says that it has not changed."""
    generator = torch.Generator().manual_seed(seed)
    path = root / f"{key}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "x": torch.randn(5, 4, generator=generator),
        "edge_index": torch.randint(0, 5, (2, num_edges), generator=generator),
        "edge_attr": torch.randn(num_edges, edge_dim, generator=generator),
    }
    torch.save(Data(**{**parts, **other}), path)
    os.utime(path, (OLD + seed, OLD + seed))


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    root = tmp_path / "graphs"
    for number in range(9):
        save(root, f"T{number % 3}/m{number}", number, num_edges=number)
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which graph files are read."""
    keys: list[str] = []

    def counted(path: Path, key: str | None = None) -> Any:
        keys.append(str(key))
        return read_graph(path, key)

    monkeypatch.setattr(store_build, "read_graph", counted)
    return keys


def open_store(root: Path, cache: Path, keys: list[str] | None = None, **options: Any) -> GraphStore:
    directory = GraphDirectory(root)
    return GraphStore.open(directory, directory.keys if keys is None else keys, cache=cache, **options)


def check_same(store: GraphStore, root: Path, keys: list[str] | None = None) -> None:
    """Every graph of the store is what its file holds."""
    for key in keys or GraphDirectory(root).keys:
        ours, theirs = store.graph(store.index.position[key]), read_graph(root / f"{key}.pt", key)
        for name in ("x", "edge_index", "edge_attr"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), (key, name)
        facts = store.facts(store.index.position[key])
        assert (facts.key, facts.node_dim, facts.edge_dim, facts.num_nodes, facts.num_edges) == (
            *(theirs.facts.key, theirs.facts.node_dim, theirs.facts.edge_dim),
            *(theirs.facts.num_nodes, theirs.facts.num_edges),
        )


def parts(root: Path, cache: Path) -> list[Path]:
    return sorted(store_folder(root, cache).glob("part-*/*.npy"))


def test_it_is_made_once(graphs, tmp_path, read):
    first = open_store(graphs, tmp_path / "cache")
    assert sorted(read) == GraphDirectory(graphs).keys
    check_same(first, graphs)
    read.clear()
    check_same(open_store(graphs, tmp_path / "cache"), graphs)
    assert read == []


def test_only_what_is_asked_for_is_packed(graphs, tmp_path, read):
    open_store(graphs, tmp_path / "cache", ["T0/m0", "T1/m1"])
    assert sorted(read) == ["T0/m0", "T1/m1"]
    read.clear()
    store = open_store(graphs, tmp_path / "cache", ["T1/m1", "T2/m2"])
    assert read == ["T2/m2"]
    check_same(store, graphs, ["T0/m0", "T1/m1", "T2/m2"])


def test_added_changed_and_removed_graphs(graphs, tmp_path, read):
    cache = tmp_path / "cache"
    open_store(graphs, cache)
    before = parts(graphs, cache)
    save(graphs, "T9/new", 20)
    save(graphs, "T0/m0", 21)
    (graphs / "T1" / "m1.pt").unlink()
    read.clear()
    store = open_store(graphs, cache)
    assert sorted(read) == ["T0/m0", "T9/new"]
    check_same(store, graphs)
    assert "T1/m1" not in store.index.position
    assert set(before) < set(parts(graphs, cache))


def test_the_same_size_at_another_time_is_a_change(graphs, tmp_path):
    open_store(graphs, tmp_path / "cache")
    path = graphs / "T0" / "m3.pt"
    size = path.stat().st_size
    save(graphs, "T0/m3", 33, num_edges=3)
    assert path.stat().st_size == size
    check_same(open_store(graphs, tmp_path / "cache"), graphs)


def test_a_file_changed_while_it_was_packed_is_not_trusted(graphs, tmp_path, read):
    """Its time may not differ from that of the next change."""
    now = time.time()
    os.utime(graphs / "T0" / "m0.pt", (now, now))
    open_store(graphs, tmp_path / "cache")
    read.clear()
    open_store(graphs, tmp_path / "cache")
    assert read == ["T0/m0"]


def test_graphs_that_are_gone_leave_no_room_behind(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(store_upkeep, "SLACK", 0)
    cache = tmp_path / "cache"
    open_store(graphs, cache)
    held = sum(path.stat().st_size for path in parts(graphs, cache))
    for number in range(8):
        (graphs / f"T{number % 3}" / f"m{number}.pt").unlink()
    save(graphs, "T2/m8", 40, num_edges=8)
    check_same(open_store(graphs, cache), graphs)
    assert sum(path.stat().st_size for path in parts(graphs, cache)) < held / 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _empty, Path.unlink], ids=["cut", "empty", "gone"])
def test_a_part_that_is_not_whole_is_packed_again(damage, graphs, tmp_path, caplog, read):
    open_store(graphs, tmp_path / "cache")
    damage(parts(graphs, tmp_path / "cache")[0])
    read.clear()
    check_same(open_store(graphs, tmp_path / "cache"), graphs)
    assert len(read) == 9
    assert len([line for line in caplog.messages if "damaged" in line and "again" in line]) == 1


@pytest.mark.parametrize("damage", [_cut, _flip, _empty], ids=["cut", "flipped", "empty"])
def test_an_index_that_is_not_whole_is_made_again(damage, graphs, tmp_path, caplog, read):
    open_store(graphs, tmp_path / "cache")
    damage(store_folder(graphs, tmp_path / "cache") / "index.npz")
    read.clear()
    check_same(open_store(graphs, tmp_path / "cache"), graphs)
    assert len(read) == 9
    assert len([line for line in caplog.messages if "again" in line]) == 1


def test_every_byte_of_the_index_is_guarded(graphs, tmp_path):
    open_store(graphs, tmp_path / "cache")
    path = store_folder(graphs, tmp_path / "cache") / "index.npz"
    whole = path.read_bytes()
    expected = store_index.StoreIndex.read(path.parent)
    for place in np.random.default_rng(0).integers(0, len(whole), 300):
        content = bytearray(whole)
        content[place] ^= 0x10
        path.write_bytes(bytes(content))
        try:
            found = store_index.StoreIndex.read(path.parent)
        except store_index.DamagedStoreError:
            continue
        assert (found.rows == expected.rows).all()
        assert (found.keys, found.metadata, found.parts) == (expected.keys, expected.metadata, expected.parts)


def test_another_version_is_packed_again(graphs, tmp_path, caplog, monkeypatch):
    open_store(graphs, tmp_path / "cache")
    monkeypatch.setattr("topotrain.data.store_index.FORMAT", 99)
    check_same(open_store(graphs, tmp_path / "cache"), graphs)
    assert [line for line in caplog.messages if "of another version" in line]


def test_a_wrong_byte_is_found_and_the_graph_comes_from_its_file(graphs, tmp_path, caplog, read):
    open_store(graphs, tmp_path / "cache")
    _flip(parts(graphs, tmp_path / "cache")[0])
    store = open_store(graphs, tmp_path / "cache")
    check_same(store, graphs)
    assert len([line for line in caplog.messages if "read from the files" in line]) == 1
    read.clear()
    check_same(open_store(graphs, tmp_path / "cache"), graphs)
    assert len(read) == 9  # everything, as what else is wrong there is not known
    assert not (store_folder(graphs, tmp_path / "cache") / DAMAGED_MARK).exists()


def test_a_file_cut_off_while_it_is_used_costs_nothing(graphs, tmp_path, caplog):
    store = open_store(graphs, tmp_path / "cache")
    for path in parts(graphs, tmp_path / "cache"):
        os.truncate(path, 200)
    check_same(store, graphs)
    assert len([line for line in caplog.messages if "read from the files" in line]) == 1


def test_a_wrong_byte_and_a_changed_file_end_the_run(graphs, tmp_path):
    open_store(graphs, tmp_path / "cache")
    _flip(parts(graphs, tmp_path / "cache")[0])
    store = open_store(graphs, tmp_path / "cache")
    save(graphs, "T2/m8", 50, num_edges=8)
    with pytest.raises(DataError, match="changed since it was packed"):
        check_same(store, graphs)


def test_bad_graphs_are_named_all_at_once(graphs, tmp_path):
    for number in range(13):
        (graphs / f"bad{number:02d}.pt").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"13 graphs can't be read: .*bad00.*bad09.* and 3 more") as caught:
        inspect_directory(graphs, cache=tmp_path / "cache")
    assert "bad10" not in str(caught.value)
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/m0,0.5\nbad00,0.5\nbad01,0.1\n")
    with pytest.raises(DataError, match=r"2 graphs can't be read: .*bad00.*bad01"):
        read_split("train", GraphDirectory(graphs), labels, cache=tmp_path / "cache")


def test_graphs_without_labels_are_not_looked_at(graphs, tmp_path, read):
    (graphs / "bad.pt").write_bytes(b"nothing")
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/m0,0.5\n")
    read_split("train", GraphDirectory(graphs), labels, cache=tmp_path / "cache")
    assert read == ["T0/m0"]


def test_a_folder_that_can_t_be_written_costs_memory_alone(graphs, tmp_path, caplog):
    cache = tmp_path / "cache"
    cache.write_text("a file")
    store = open_store(graphs, cache)
    check_same(store, graphs)
    assert len([line for line in caplog.messages if "stay in memory" in line]) == 1
    assert store.read([0, 1])[0].x.shape == (5, 4)


def test_what_does_not_fit_into_memory_either_is_refused(graphs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.write_text("a file")
    free = type("Memory", (), {"available": 1000})()
    monkeypatch.setattr(store_upkeep.psutil, "virtual_memory", lambda: free)
    with pytest.raises(DataError, match="9 graphs .* do not fit into memory .*paths.cache"):
        open_store(graphs, cache)


def test_a_full_disk_leaves_what_was_packed_and_takes_the_rest_into_memory(graphs, tmp_path, monkeypatch, caplog):
    cache = tmp_path / "cache"
    open_store(graphs, cache, ["T0/m0", "T0/m3"])

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_build.PartWriter, "append", full)
    store = open_store(graphs, cache)
    check_same(store, graphs)
    assert [line for line in caplog.messages if "No space left" in line]
    monkeypatch.undo()
    assert len(list(store_folder(graphs, cache).glob("part-*"))) == 1  # half a part is no part
    check_same(open_store(graphs, cache), graphs)


def _open_elsewhere(root: Path, cache: Path, ready: Any, done: Any) -> None:
    logging.getLogger("topotrain").addHandler(handler := _Lines())
    logging.getLogger("topotrain").setLevel(logging.INFO)
    ready.set()
    store = open_store(root, cache)
    check_same(store, root)
    done.put([line for line in handler.lines if "waiting" in line])


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_a_second_process_waits_and_says_so(graphs, tmp_path):
    cache = tmp_path / "cache"
    folder = store_folder(graphs, cache)
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Queue()
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        other = context.Process(target=_open_elsewhere, args=(graphs, cache, ready, done))
        other.start()
        assert ready.wait(60)
        other.join(0.3)
        assert other.is_alive()
    assert len(done.get(timeout=60)) == 1
    other.join(60)
    assert other.exitcode == 0


def test_a_store_in_use_outlives_a_new_one(graphs, tmp_path):
    used = open_store(graphs, tmp_path / "cache")
    kept = {key: read_graph(graphs / f"{key}.pt", key) for key in GraphDirectory(graphs).keys}
    for number, key in enumerate(kept):
        save(graphs, key, 100 + number)
    open_store(graphs, tmp_path / "cache")
    for key, graph in kept.items():
        assert torch.equal(used.graph(used.index.position[key]).x, graph.x)


def test_left_overs_of_a_build_that_was_cut_off_are_removed(graphs, tmp_path):
    folder = store_folder(graphs, tmp_path / "cache")
    open_store(graphs, tmp_path / "cache")
    (folder / "part-left").mkdir()
    (folder / "part-left" / "x.npy").write_bytes(b"half")
    save(graphs, "T9/new", 20)
    open_store(graphs, tmp_path / "cache")
    assert not (folder / "part-left").exists()


def test_several_processes_pack_what_one_packs(graphs, tmp_path, monkeypatch):
    one = open_store(graphs, tmp_path / "one")
    monkeypatch.setattr(store_build, "GRAPHS_A_PROCESS", 4)
    monkeypatch.setattr(store_build, "GRAPHS_A_PART", (3, 3))
    monkeypatch.setattr(store_build, "cores", lambda: 2)
    many = open_store(graphs, tmp_path / "many")
    check_same(many, graphs)
    assert many.index.keys == one.index.keys
    assert (many.index.rows["digest"] == one.index.rows["digest"]).all()
    assert (many.index.rows["checksum"] == one.index.rows["checksum"]).all()
    assert len(many.index.parts) == 3
    with_bad = tmp_path / "bad"
    shutil.copytree(graphs, with_bad)
    (with_bad / "T0" / "bad.pt").write_bytes(b"nothing")
    assert set(open_store(with_bad, tmp_path / "many").failures) == {"T0/bad"}


def test_widths_may_differ_within_a_directory(graphs, tmp_path):
    save(graphs, "odd", 77, edge_dim=7)
    save(graphs, "none", 78, num_edges=0, edge_attr=torch.zeros(0, 0))
    check_same(open_store(graphs, tmp_path / "cache"), graphs)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: save(root, "T0/m0", 90),
        lambda root: (root / "graph_metadata.json").write_text('{"_edge_schema": {"module": "other"}}'),
        lambda root: save(root, "T7/m", 91),
    ],
    ids=["a graph", "the sidecar", "one more"],
)
def test_a_schema_is_resolved_once_and_again_when_something_changed(change: Callable[[Path], Any], graphs, tmp_path):
    (graphs / "graph_metadata.json").write_text('{"_edge_schema": {"module": "some", "columns": ["a", "b", "c"]}}')
    cache = tmp_path / "cache"
    first = inspect_directory(graphs, cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topotrain.data.stored_schema.resolve_schema", lambda *_, **__: 1 / 0)
        assert inspect_directory(graphs, cache=cache) == first
        change(graphs)
        with pytest.raises(ZeroDivisionError):
            inspect_directory(graphs, cache=cache)


def test_names_need_not_be_utf_8(tmp_path):
    root = tmp_path / os.fsdecode(b"graphs \xff")
    for number in range(2):
        save(root, os.fsdecode(b"T\xfe/m%d" % number), number + 1)
    cache = tmp_path / "cache"
    assert inspect_directory(root, cache=cache) == inspect_directory(root, cache=cache)
    check_same(open_store(root, cache), root)


def test_a_schema_is_resolved_again_by_other_code(graphs, tmp_path, monkeypatch):
    first = inspect_directory(graphs, cache=tmp_path / "cache")
    monkeypatch.setattr("topotrain.data.stored_schema._code_of_the_room", lambda: "other")
    with monkeypatch.context() as patch:
        patch.setattr("topotrain.data.stored_schema.resolve_schema", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            inspect_directory(graphs, cache=tmp_path / "cache")
    assert inspect_directory(graphs, cache=tmp_path / "cache") == first


def test_the_digest_of_a_data_set_is_computed_once(graphs, tmp_path, monkeypatch):
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/m0,0.5\nT1/m1,0.25\n")
    options = {"cache": tmp_path / "cache"}
    first = read_split("train", GraphDirectory(graphs), labels, **options).digest
    monkeypatch.setattr("topotrain.data.split.update_digest", lambda *_: 1 / 0)
    assert read_split("other", GraphDirectory(graphs), labels, **options).digest == first
    labels.write_text("MODEL,dockq\nT0/m0,0.5\nT1/m1,0.26\n")
    with pytest.raises(ZeroDivisionError):
        _ = read_split("train", GraphDirectory(graphs), labels, **options).digest


def test_what_was_remembered_wrongly_is_computed_again(graphs, tmp_path):
    store = open_store(graphs, tmp_path / "cache")
    assert store.remembered("thing", "ab", lambda: {"value": 1.5}) == {"value": 1.5}
    assert store.remembered("thing", "ab", lambda: 1 / 0) == {"value": 1.5}
    path = store_folder(graphs, tmp_path / "cache") / "kept" / "thing-ab.json"
    path.write_text(path.read_text().replace("1.5", "2.5"))
    assert store.remembered("thing", "ab", lambda: {"value": 3}) == {"value": 3}
