"""Which graphs there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from topotrain.data.graph_dir import GraphDirectory
from topotrain.errors import DataError


def make(root: Path, *names: str) -> GraphDirectory:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return GraphDirectory(root)


def test_every_graph_is_found_sorted_and_nothing_else(tmp_path: Path) -> None:
    directory = make(tmp_path, "b.pt", "T/a.pt", "T/U/c.pt", "x.txt", "y.PT", ".hidden.pt", ".cache/z.pt", "T/v1.2.pt")
    assert directory.keys == ["T/U/c", "T/a", "T/v1.2", "b"]
    assert directory.path("T/v1.2") == tmp_path / "T" / "v1.2.pt"


def test_a_hidden_parent_hides_nothing(tmp_path: Path) -> None:
    assert make(tmp_path / ".hidden", "a.pt").keys == ["a"]


@pytest.mark.parametrize("name", ["nowhere", "file", "a\0b"])
def test_no_directory_is_said_with_the_absolute_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no such directory") as caught:
        GraphDirectory(Path(name))
    assert str(tmp_path / name) in str(caught.value)


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "g", "a.pt")
    directory = GraphDirectory(Path("g"))
    monkeypatch.chdir("/")
    assert directory.keys == ["a"]
    assert directory.path("a").exists()
