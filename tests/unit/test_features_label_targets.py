"""Labels of several targets: which native is whose, what rows are called, and how they come into one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.structures import helix, helix_pair, moved, pdb_text
from topotrain.cli import main
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import read_labels
from topotrain.data.split import read_split
from topotrain.errors import DataError
from topotrain.features.dockq import label_decoys

pytest.importorskip("DockQ", reason="DockQ is not installed")

SHIFTS = {"T1": (0.0, 0.5, 0.0), "T2": (0.5, 2.0, 0.0)}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two targets whose decoys have the same names."""
    for target, shift in SHIFTS.items():
        put(tmp_path / "natives" / f"{target}.pdb")
        for number in (1, 2):
            put(tmp_path / "decoys" / target / f"m{number}.pdb", tuple(number * part for part in shift))
    return tmp_path


def run(arguments: list[str]) -> int:
    """The program's exit status."""
    try:
        main(arguments)
    except SystemExit as ended:
        return ended.code
    return 0


def put(path: Path, shift: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pdb_text(moved(helix_pair(14), "B", shift)))


def models(decoys: Path, native: Path, **options) -> list[str]:
    report = label_decoys(decoys, native, **options)
    assert all(row.target == row.MODEL.split("/")[0] for row in report.rows if "/" in row.MODEL)
    return [row.MODEL for row in report.rows]


@pytest.mark.parametrize("name", ["T1.pdb", "t1.pdb", "T1_native.pdb", "T1/native.pdb", "T1-b.ent"])
def test_a_folder_with_the_natives_name_is_a_target(folders: Path, name: str) -> None:
    put(folders / "n" / name)
    assert models(folders / "decoys" / "T1", folders / "n" / name) == ["T1/m1", "T1/m2"]


@pytest.mark.parametrize("name", ["native.pdb", "T11.pdb", "T2.pdb"])
def test_other_folders_give_the_names_of_the_files(folders: Path, name: str) -> None:
    put(folders / "n" / name)
    assert models(folders / "decoys" / "T1", folders / "n" / name) == ["m1", "m2"]


def test_a_target_that_is_given(folders: Path) -> None:
    native = folders / "natives" / "T2.pdb"
    assert models(folders / "decoys" / "T1", native, target="X") == ["X/m1", "X/m2"]
    assert models(folders / "decoys" / "T1" / "m2.pdb", native, target="X") == ["X/m2"]
    assert models(folders / "decoys" / "T1" / "m2.pdb", native) == ["T1/m2"]


def test_a_job_of_alphafold_3(tmp_path: Path) -> None:
    for sample in (0, 1):
        put(tmp_path / "af3" / "job" / f"seed-1_sample-{sample}" / "model.pdb")
    put(tmp_path / "job.pdb")
    assert models(tmp_path / "af3" / "job", tmp_path / "job.pdb") == [
        "job/seed-1_sample-0/model",
        "job/seed-1_sample-1/model",
    ]


def test_a_folder_of_natives(folders: Path) -> None:
    (folders / "natives" / "T2.pdb").rename(folders / "natives" / "T2_bound.pdb")
    put(folders / "decoys" / "T3" / "deeper" / "m.pdb")
    put(folders / "natives" / "T3" / "anything.pdb")
    put(folders / "decoys" / "T4" / "m.pdb")
    report = label_decoys(folders / "decoys", folders / "natives")
    assert [row.MODEL for row in report.rows] == ["T1/m1", "T1/m2", "T2/m1", "T2/m2", "T3/deeper/m"]
    assert list(report.failures) == ["T4"]
    assert report.failures["T4"].startswith(f"T4: no native below {folders / 'natives'}")
    assert models(folders / "decoys" / "T1", folders / "natives") == ["T1/m1", "T1/m2"]
    assert models(folders / "decoys" / "T1" / "m2.pdb", folders / "natives") == ["T1/m2"]
    assert models(folders / "decoys" / "T3", folders / "natives") == ["T3/deeper/m"]
    put(folders / "decoys" / "stray.pdb")
    assert list(label_decoys(folders / "decoys", folders / "natives").failures) == ["T4", "stray"]


def test_a_native_that_cannot_serve_costs_its_target_one_line(folders: Path, capsys) -> None:
    (folders / "natives" / "T2.pdb").write_text(pdb_text(helix("A", 14)))
    code = run(["label", str(folders / "decoys"), "--natives", str(folders / "natives")])
    out, err = capsys.readouterr()
    assert code == 0
    assert out.splitlines()[0] == "MODEL,dockq,capri"
    assert len(out.splitlines()) == 3
    failed = [line for line in err.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1
    assert "2 decoys (T2/m1 ... T2/m2)" in failed[0]
    assert "fewer than two protein chains" in failed[0]


def test_natives_that_do_not_say_whose_they_are(folders: Path) -> None:
    put(folders / "natives" / "T1_unbound.pdb")
    put(folders / "natives" / "T2_unbound.pdb")
    (folders / "natives" / "T2.pdb").rename(folders / "natives" / "T2_bound.pdb")
    with pytest.raises(DataError, match="could both be the native of T2"):
        label_decoys(folders / "decoys", folders / "natives")
    with pytest.raises(DataError, match="no decoy has a native below"):
        label_decoys(folders / "decoys" / "T1", folders / "natives", target="Z")


def test_the_second_target_is_added_to_the_first(folders: Path, capsys) -> None:
    labels = folders / "labels.csv"
    for target in (*SHIFTS, "T1"):
        native = folders / "natives" / f"{target}.pdb"
        assert run(["label", str(folders / "decoys" / target), "--native", str(native), "--out", str(labels)]) == 0
    found = {label.model: label.dockq for label in read_labels(labels)}
    assert list(found) == ["T1/m1", "T1/m2", "T2/m1", "T2/m2"]
    assert found["T1/m1"] > found["T1/m2"] > found["T2/m1"] > found["T2/m2"]
    assert labels.read_text().startswith("MODEL,dockq,capri\n")
    assert "changed" not in capsys.readouterr().err


def test_rows_of_another_target_are_not_changed(folders: Path, capsys) -> None:
    """Nothing says that these folders are of two targets, and their names are the same."""
    labels, native = folders / "labels.csv", folders / "native.pdb"
    put(native)
    first, second = (["label", str(folders / "decoys" / target), "--native", str(native)] for target in SHIFTS)
    assert run([*first, "--out", str(labels)]) == 0
    before = labels.read_text()
    assert run([*second, "--out", str(labels)]) == 2
    said = capsys.readouterr().err
    assert "labels.csv: rows have other values: line 2: dockq of m1" in said
    assert "--replace" in said
    assert "--target NAME" in said
    assert labels.read_text() == before
    assert run([*second, "--out", str(labels), "--target", "T2"]) == 0
    assert labels.read_text().startswith(before)
    assert len(read_labels(labels)) == 4
    assert run([*second, "--out", str(labels), "--replace"]) == 0
    assert "changed: line 2: dockq of m1 is " in capsys.readouterr().err
    assert len(read_labels(labels)) == 4


def test_a_labels_file_that_cannot_be_added_to_is_named_before_the_work(folders: Path, capsys) -> None:
    (folders / "labels.csv").write_text("name,dockq\nx,0.1\n")
    arguments = ["label", str(folders / "decoys"), "--natives", str(folders / "natives")]
    assert run([*arguments, "--out", str(folders / "labels.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no column MODEL" in line


def test_rows_of_a_flat_folder_fit_its_graphs(folders: Path) -> None:
    put(folders / "native.pdb")
    for decoys, native, split in (("decoys/T1", "native.pdb", "flat"), ("decoys", "natives", "by_target")):
        graphs, labels = folders / split / "graphs", folders / split / "labels.csv"
        assert run(["build-graphs", str(folders / decoys), "--out", str(graphs)]) == 0
        assert run(["label", str(folders / decoys), "--native", str(folders / native), "--out", str(labels)]) == 0
        found = read_split("train", GraphDirectory(graphs), labels)
        assert len(found.samples) == found.total == len(list(graphs.rglob("*.pt")))


def test_nothing_labelled_is_an_error(folders: Path, capsys) -> None:
    put(folders / "wrong" / "T1.pdb")
    text = (folders / "wrong" / "T1.pdb").read_text()
    (folders / "wrong" / "T1.pdb").write_text(text.replace("ALA", "TRP").replace("SER", "PRO").replace("LEU", "GLY"))
    assert run(["label", str(folders / "decoys" / "T1"), "--native", str(folders / "wrong" / "T1.pdb")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("is another complex") == 1
    assert "all 2 decoys" in err
