"""New labels in a file that people keep."""

from __future__ import annotations

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
