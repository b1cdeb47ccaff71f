"""Which graphs there are, and which of them a label means."""

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


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("T0/m0", "T0/m0"),
        ("T0/m0.pt", "T0/m0"),
        (" T0/m0 ", "T0/m0"),
        ("./T0/m0", "T0/m0"),
        ("T0\\m0", "T0/m0"),
        ("T0__m0", "T0/m0"),
        ("T0__m0.pt", "T0/m0"),
        ("only", "T1/only"),
        ("flat", "flat"),
        ("flat_1.5", "flat_1.5"),
        ("a__b", "T2/a__b"),
        ("T2__a__b", None),
        ("nothing", None),
        ("T9/m0", None),
        ("../T0/m0", None),
        ("", None),
        ("T0", None),
        ("T0/", None),
        ("m", None),
    ],
)
def test_a_label_means_one_file_or_none(model: str, expected: str | None, tmp_path: Path) -> None:
    directory = make(tmp_path, "T0/m0.pt", "T1/m0.pt", "T1/only.pt", "flat.pt", "flat_1.5.pt", "T2/a__b.pt")
    assert directory.resolve(model) == expected


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("m0", ["T0/m0.pt", "T1/m0.pt"]),
        ("m0.pt", ["T0/m0.pt", "T1/m0.pt"]),
        ("T3__m9", ["T3/m9.pt", "T3__m9.pt"]),
    ],
)
def test_a_name_that_fits_two_files_is_an_error_that_names_both(model: str, names: list[str], tmp_path: Path) -> None:
    directory = make(tmp_path, "T0/m0.pt", "T1/m0.pt", "T3/m9.pt", "T3__m9.pt")
    with pytest.raises(DataError) as caught:
        directory.resolve(model)
    message = str(caught.value)
    for name in names:
        assert str(tmp_path / name) in message
    assert "expected one file; write its path below the graph directory" in message


def test_a_path_beats_a_stem(tmp_path: Path) -> None:
    assert make(tmp_path, "m0.pt", "T0/m0.pt").resolve("m0") == "m0"


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
