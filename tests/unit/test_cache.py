"""What is kept in the cache is listed, and removed when that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kit.commands import exit_status
from topotrain.data.cache import clear_cache, list_cache
from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError


@pytest.fixture
def cache(graph_set: Any, tmp_path: Path) -> Path:
    """Graphs packed from two directories, and others' folders beside them."""
    root = tmp_path / "cache"
    inspect_directory(graph_set.graphs, cache=root)
    other = shutil.copytree(graph_set.graphs, tmp_path / "other")
    inspect_directory(other, cache=root)
    for name in ("graphs/built-abc", "demo-2", "mlflow-3.1", "somebody-else-s"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_bytes(b"x" * 100)
    return root


def test_everything_of_ours_is_listed(cache, graph_set, tmp_path):
    entries = {entry.path.name: entry for entry in list_cache(cache)}
    kinds = sorted((entry.kind, entry.num_graphs) for entry in entries.values() if entry.num_graphs is None)
    assert kinds == [("MLflow's tables", None), ("built graphs", None), ("demo data", None)]
    packed = {entry.graphs: entry for entry in entries.values() if entry.kind == "packed graphs"}
    assert set(packed) == {str(graph_set.graphs), str(tmp_path / "other")}
    one = packed[str(graph_set.graphs)]
    assert one.num_graphs == len(list(graph_set.graphs.rglob("*.pt")))
    assert one.num_bytes == sum(path.stat().st_size for path in one.path.rglob("*") if path.is_file())
    assert not one.gone


def test_only_what_is_gone(cache, tmp_path):
    shutil.rmtree(tmp_path / "other")
    removed, busy = clear_cache(only_gone=True, cache=cache)
    assert [entry.graphs for entry in removed] == [str(tmp_path / "other")]
    assert busy == []
    assert len(list_cache(cache)) == 4


def test_one_by_its_name_and_everything(cache):
    removed, _ = clear_cache(["demo-2"], cache=cache)
    assert [entry.path.name for entry in removed] == ["demo-2"]
    with pytest.raises(DataError, match="'demo-2'"):
        clear_cache(["demo-2"], cache=cache)
    clear_cache(cache=cache)
    assert list_cache(cache) == []
    assert [path.name for path in cache.iterdir() if path.is_dir() and path.name != "graphs"] == ["somebody-else-s"]
    assert clear_cache(cache=cache / "nowhere") == ([], [])


def test_what_another_process_writes_stays(cache, graph_set):
    (one,) = (entry for entry in list_cache(cache) if entry.graphs == str(graph_set.graphs))
    with FileLock(one.path.with_name(f"{one.path.name}.lock")):
        removed, busy = clear_cache([one.path.name], cache=cache)
    assert (removed, [entry.path for entry in busy]) == ([], [one.path])
    assert one.path.is_dir()


def test_the_commands(cache, capsys):
    assert exit_status("cache", "list", "--cache", cache, "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["kind"] for entry in listed} > {"packed graphs", "demo data"}
    assert exit_status("cache", "list", "--cache", cache) == 0
    assert "packed from" in capsys.readouterr().out
    assert exit_status("cache", "clear", "nothing", "--cache", cache) == 2
    assert "error: nothing of the name 'nothing' is kept" in capsys.readouterr().err
    assert exit_status("cache", "clear", "--cache", cache) == 0
    printed = capsys.readouterr()
    assert (printed.out, "removed 5 of the cache's folders" in printed.err) == ("", True)
