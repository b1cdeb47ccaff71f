"""Label files: quirks that are read, and mistakes that are named with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from topotrain.data.labels import Label, read_labels
from topotrain.errors import DataError


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "MODEL,dockq\na,0.5\nb,1\n",
        "MODEL,dockq\na,0.5\nb,1",
        b"\xef\xbb\xbfMODEL,dockq\r\na,0.5\r\nb,1\r\n",
        "MODEL,dockq\ra,0.5\rb,1\r",
        "\n\nMODEL,dockq\n\na,0.5\n,\n  ,  \nb,1\n\n",
        '"MODEL","dockq"\n"a","0.5"\n"b","1"\n',
        "model , DockQ\n a , 0.5 \nb,1.0\n",
        'capri,dockq,MODEL,note\n1,5e-1,a,x\n3,1,b,"y, z"\n',
        "MODEL,dockq\na,0.5\nb,1\na,0.50\n",
        "MODEL;dockq\na;0.5\nb;1\n",
        "sep=;\nMODEL;dockq\na;0.5\nb;1\n",
        "MODEL\tdockq\tnote\na\t0.5\tone, two; three\nb\t1\t\n",
        "\ufeffMODEL;dockq\r\na;0.5\r\nb;1\r\n".encode("utf-16-le"),
        "\ufeffMODEL\tdockq\r\na\t0.5\r\nb\t1\r\n".encode("utf-16-be"),
        ",MODEL,dockq\n0,a,0.5\n1,b,1.0\n",
        "Unnamed: 0,MODEL,dockq\n0,a,0.5\n1,b,1.0\n",
        "# made by hand\n# from two sources; with, separators\nMODEL,dockq\na,0.5\nb,1\n",
        "MODEL,dockq,\na,0.5,\nb,1,\n",
        "Model, DockQ, CAPRI\na, 0.5, 2\nb, 1, 3\n",
        'MODEL, dockq\n"a", "0.5"\n"b", "1"\n',
        "model_name,dockq,dockq_wave\na,.5,0.1\nb,1.,0.2\n",
        'MODEL,dockq,note\na,0.5,"two\nlines"\nb,1,\n',
    ],
)
def test_quirks_of_csv_are_read(content: str | bytes, tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, content))
    assert [(label.model, label.dockq, label.target) for label in labels] == [("a", 0.5, ""), ("b", 1.0, "")]


@pytest.mark.parametrize("header", ["target", "Target", "TARGET", " target "])
def test_the_target_column_is_found_in_any_case(header: str, tmp_path: Path) -> None:
    (label,) = read_labels(write(tmp_path, f"MODEL,dockq,{header}\na/b, 0 , T1 \n"))
    assert label == Label("a/b", 0.0, "T1", 2)


def test_lines_are_counted_in_the_file_not_in_the_rows(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "\nMODEL,dockq\n\na,0\n\n\nb,1\n"))
    assert [label.line for label in labels] == [4, 7]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty", "header MODEL,dockq"]),
        ("\n \n", ["empty"]),
        ("MODEL,dockq\n", ["no rows below the header"]),
        ("a,0.5\nb,0.1\n", ["no column MODEL (found: a, 0.5)"]),
        ("MODEL|dockq\na|0.5\n", ["no column MODEL (found: MODEL|dockq)"]),
        ("MODEL dockq\na 0.5\n", ["no column MODEL (found: MODEL dockq)"]),
        ("#MODEL,dockq\na,0.5\n", ["no column MODEL (found: a, 0.5)"]),
        ("MODEL;dockq\na;0,503\n", ["line 2", "'0,503' (a decimal comma)", "write a point"]),
        ("MODEL\tdockq\na\t0,503\n", ["line 2", "a decimal comma"]),
        ("MODEL;dockq\na;0.5;\n", ["line 2 has 3 cells between semicolons", "2, as the header has"]),
        ("MODEL,dockq,DockQ\na,0.5,0.1\n", ["2 columns dockq (dockq, DockQ)", "one of them"]),
        ("MODEL,Model,dockq\na,b,0.5\n", ["2 columns MODEL (MODEL, Model)"]),
        ("MODEL,dockq,target,Target\na,0.5,T0,T1\n", ["2 columns target (target, Target)"]),
        ("MODEL,dockq\na,85.3\n", ["line 2", "'85.3'"]),
        ("MODEL,dockq\na,50%\n", ["line 2", "'50%'"]),
        ("MODEL,dockq\na,0_5\n", ["line 2", "'0_5'"]),
        ("MODEL,dockq\na,0.5\n# a remark\n", ["line 3 has 1 cells"]),
        ("MODEL,dockq\na,0.5\n".encode("utf-16-le"), ["can't be read", "UTF-16 without its byte order mark"]),
        ("MODEL,dockq\nä,0.5\n".encode("latin-1"), ["can't be read"]),
        ("MODEL,score\na,0.5\n", ["no column dockq (found: MODEL, score)"]),
        ("MODEL,dockq\na,0.5\nb,1.0001\n", ["line 3", "dockq of b is '1.0001'", "a number in [0, 1]"]),
        ("MODEL,dockq\na,-0.1\n", ["line 2", "'-0.1'"]),
        ("MODEL,dockq\na,nan\n", ["line 2", "'nan'"]),
        ("MODEL,dockq\na,inf\n", ["line 2", "'inf'"]),
        ("MODEL,dockq\na,\n", ["line 2", "dockq of a is ''"]),
        ("MODEL,dockq\na,high\n", ["line 2", "'high'"]),
        ('MODEL,dockq\na,"0,5"\n', ["line 2", "'0,5'"]),
        ("MODEL,dockq\na,0,5\n", ["line 2 has 3 cells", "2, as the header has"]),
        ("MODEL,dockq,kind\na,0.5\n", ["line 2 has 2 cells", "expected 3"]),
        ("MODEL,dockq\n,0.5\n", ["line 2", "MODEL is empty"]),
        ("MODEL,dockq\na,0.5\n\nb,0.1\na,0.6\n", ["a is 0.5 in line 2 and 0.6 in line 5", "remove one of the lines"]),
        ("MODEL,dockq\na,0.50000001\na,0.50000002\n", ["0.50000001 in line 2 and 0.50000002 in line 3"]),
        ('MODEL,dockq\n"a,0.5\nb,0.1\n', ["line"]),
        ("MODEL,dockq\n" + "a" * 200_000 + ",0.5\n", ["line 2"]),
        (b"MODEL,dockq\n\xff\xfe,0.5\n", ["can't be read"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ["can't be read"]),
        (b"\x00\x00\x00", ["labels.csv"]),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(content: str | bytes, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "word"), [("no.csv", "no such file"), (".", "can't be read"), ("a\0b", "can't be read")]
)
def test_a_file_that_is_none(name: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=word) as caught:
        read_labels(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def test_a_decoy_of_two_targets_is_two_decoys(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "Target,Model,DockQ,CAPRI\nA,m,0.5,2\nB,m,0.1,0\nA,m,0.50,2\n"))
    assert [(label.target, label.model, label.dockq) for label in labels] == [("A", "m", 0.5), ("B", "m", 0.1)]
    with pytest.raises(DataError, match=r"A/m is 0\.5 in line 2 and 0\.6 in line 4"):
        read_labels(write(tmp_path, "target,MODEL,dockq\nA,m,0.5\nB,m,0.1\nA,m,0.6\n"))


@pytest.mark.parametrize("header", ["lddt", "lDDT", "LDDT", " lDDT "])
def test_another_quality_is_read_by_its_name(header: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"MODEL,dockq,{header}\na,0.5,0.75\n")
    assert [label.dockq for label in read_labels(path, "lddt")] == [0.75]
    with pytest.raises(DataError, match=r"no column tm \(found: MODEL, dockq, .*\); expected the columns MODEL,tm"):
        read_labels(path, "tm")


def test_a_quality_beyond_one_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: rmsd of a is '3\.1'"):
        read_labels(write(tmp_path, "MODEL,dockq,rmsd\na,0.5,3.1\n"), "rmsd")
