"""New labels in a file that people keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from topotrain.data.labels import read_labels
from topotrain.errors import DataError
from topotrain.features.dockq import LabelRow
from topotrain.features.labels_file import merged_labels


def row(model: str, dockq: float, capri: int) -> LabelRow:
    return LabelRow(model, dockq, capri, target="", fnat=0.0, irmsd=0.0, lrmsd=0.0, interfaces=1, chain_map="AB:AB")


NEW = [row("T1/m1", 0.5, 2), row("T1/m2", 0.25, 1)]


@pytest.mark.parametrize("existing", [None, "missing.csv"])
def test_without_a_file(tmp_path: Path, existing: str | None) -> None:
    merged = merged_labels(NEW, existing and tmp_path / existing)
    assert (merged.added, merged.changed) == (2, ())
    assert merged.text == "MODEL,dockq,capri\nT1/m1,0.5000,2\nT1/m2,0.2500,1\n"


def test_other_columns_and_decoys_stay(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('note, Model ,DockQ\n"by hand, twice",T1/m2,0.9\n\nseen,T0/x,0.1\n,,\n', encoding="utf-8-sig")
    merged = merged_labels(NEW, path, replace=True)
    assert merged.changed == ("line 2: dockq of T1/m2 is 0.9, not 0.2500",)
    text = merged.text
    assert text == ('MODEL,dockq,capri,note\nT1/m2,0.2500,1,"by hand, twice"\nT0/x,0.1,,seen\nT1/m1,0.5000,2,\n')
    path.write_text(text)
    assert {label.model: label.dockq for label in read_labels(path)} == {"T1/m2": 0.25, "T0/x": 0.1, "T1/m1": 0.5}


def test_a_header_alone_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("MODEL,dockq,note\n")
    assert merged_labels(NEW[:1], path).text == "MODEL,dockq,capri,note\nT1/m1,0.5000,2,\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,dockq\nT1/m1,0.5\n", "no column MODEL"),
        (b"MODEL,dockq\nT1/m1,0.5\nT1/m2\n", "line 3 has 1 cells; expected 2"),
        (b"MODEL,dockq\nT1/m\xff,0.5\n", "can't be read"),
        (b"", "empty"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        merged_labels(NEW, path)


@pytest.mark.parametrize("value", ["0.5", "0.500", "0.5000", "0.49996", "0.5 ", ""])
def test_a_row_that_says_the_same_stays_as_it_is(tmp_path: Path, value: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"MODEL,dockq,capri\nT1/m1,{value},\n")
    merged = merged_labels(NEW[:1], path)
    assert (merged.added, merged.changed) == (0, ())
    assert merged.text == f"MODEL,dockq,capri\nT1/m1,{value if value else '0.5000'},2\n"


@pytest.mark.parametrize("cells", ["0.4,2", "0.51,2", "0.501,2", "0.4995,2", "n/a,2", "0.5000,1"])
def test_a_row_with_another_value_is_changed_on_request_alone(tmp_path: Path, cells: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"MODEL,dockq,capri\nT0/x,0.1,0\nT1/m1,{cells}\n")
    with pytest.raises(DataError, match=r"labels.csv: rows have other values: line 3: (dockq|capri) of T1/m1 is"):
        merged_labels(NEW, path)
    merged = merged_labels(NEW, path, replace=True)
    assert merged.text == "MODEL,dockq,capri\nT0/x,0.1,0\nT1/m1,0.5000,2\nT1/m2,0.2500,1\n"
    assert len(merged.changed) == 1


@pytest.mark.parametrize(
    ("content", "added"),
    [
        ("MODEL,dockq\nT1__m1,0.5\nT1/m2,0.25\n", 0),
        ("MODEL,dockq\n./T1/m1,0.5\nT1\\m2,0.25\n", 0),
        ("Target,Model,DockQ\nT1,m1,0.5\nT2,m1,0.9\nT1,m2,0.25\n", 0),
        ("target,MODEL,dockq\nT1,T1/m1,0.5\nT2,m2,0.9\n", 1),
        ("MODEL,dockq\nm1,0.9\nm2,0.9\n", 2),
    ],
)
def test_which_rows_are_of_the_same_decoy(tmp_path: Path, content: str, added: int) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    merged = merged_labels([replace(new, target="T1") for new in NEW], path)
    assert (merged.added, merged.changed) == (added, ())
    assert len(merged.text.splitlines()) == len(content.splitlines()) + added
    if "target" in content.lower():
        assert [line.split(",")[-1] for line in merged.text.splitlines()[1:]].count("T1") == 2
