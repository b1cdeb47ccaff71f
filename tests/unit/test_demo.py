"""The demo data set: the same values everywhere, whole or not there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from topotrain.data import demo
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.prepare import inspect_directory
from topotrain.data.split import leaked_targets, read_split
from topotrain.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoPaths:
    """One demo data set for the tests that only read it."""
    return demo.demo_paths(tmp_path_factory.mktemp("cache"))


def fingerprint(paths: demo.DemoPaths) -> list[str]:
    directory = GraphDirectory(paths.graphs)
    digests = [read_split("x", directory, path).digest for path in (paths.train_labels, paths.val_labels)]
    files = (paths.graphs / "graph_metadata.json", paths.train_labels, paths.val_labels)
    return digests + [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def test_labels_and_graphs_fit_and_no_target_leaks(made: demo.DemoPaths) -> None:
    directory = GraphDirectory(made.graphs)
    train, val = (read_split("x", directory, path) for path in (made.train_labels, made.val_labels))
    assert (len(train.targets), len(val.targets)) == (12, 3)
    assert len(train.samples) + len(val.samples) == len(directory.keys) == 300
    assert leaked_targets(train, val) == []
    assert {sample.dockq for sample in train.samples} >= {1.0}


def test_its_schema_resolves_with_every_name(made: demo.DemoPaths) -> None:
    schema = inspect_directory(made.graphs)
    assert (schema.node_dim, schema.edge_dim) == (len(demo.NODE_COLUMNS), len(demo.EDGE_COLUMNS))
    assert list(schema.node_columns or ()) == demo.NODE_COLUMNS
    assert list(schema.edge_columns or ()) == demo.EDGE_COLUMNS
    assert schema.edge_module == demo.EDGE_MODULE
    assert schema.edge_alias == "synthetic lattice"
    assert schema.edge_source == str(made.graphs / "graph_metadata.json")
    assert schema.notes == ()


def test_two_processes_at_once_make_one_whole_data_set(made: demo.DemoPaths, tmp_path: Path) -> None:
    code = "import sys, pathlib; from topotrain.data.demo import demo_paths; demo_paths(pathlib.Path(sys.argv[1]))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert [path.name for path in tmp_path.iterdir()] == [f"demo-{demo.VERSION}"]
    assert fingerprint(demo.demo_paths(tmp_path)) == fingerprint(made)


def test_one_that_is_there_is_not_made_again(made: demo.DemoPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make_demo", lambda root: pytest.fail("made again"))
    assert demo.demo_paths(made.graphs.parent.parent) == made


def test_a_broken_attempt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> None:
        (root / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(demo, "make_demo", fail)
    with pytest.raises(DataError, match="disk full") as caught:
        demo.demo_paths(tmp_path / "cache")
    assert str(tmp_path / "cache") in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be written") as caught:
        demo.demo_paths(tmp_path / "file")
    assert "set XDG_CACHE_HOME" in str(caught.value)
