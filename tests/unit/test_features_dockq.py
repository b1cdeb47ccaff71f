"""DockQ labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit.structures import Atom, helix, helix_pair, moved, pdb_text
from topotrain.errors import DataError
from topotrain.features.dockq import capri_class, label_decoys

pytest.importorskip("DockQ", reason="DockQ is not installed")


@pytest.mark.parametrize(
    ("dockq", "capri"),
    [(0.0, 0), (0.2299, 0), (0.23, 1), (0.4899, 1), (0.49, 2), (0.7999, 2), (0.80, 3), (1.0, 3)],
)
def test_capri_classes(dockq: float, capri: int) -> None:
    assert capri_class(dockq) == capri


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "native.pdb"
    path.write_text(pdb_text(helix_pair(14)))
    return path


def write(folder: Path, name: str, text: str) -> None:
    (folder / "T1").mkdir(parents=True, exist_ok=True)
    (folder / "T1" / f"{name}.pdb").write_text(text)


def test_the_native_scores_one_and_shifts_score_less(tmp_path: Path, native: Path) -> None:
    models = tmp_path / "models"
    atoms = helix_pair(14)
    write(models, "a_native", pdb_text(moved(moved(atoms, "A", (9, 9, 9)), "B", (9, 9, 9))))
    write(models, "b_near", pdb_text(moved(atoms, "B", (1.0, 0.5, 0.0))))
    write(models, "c_far", pdb_text(moved(atoms, "B", (40.0, 30.0, 20.0))))
    write(models, "d_alone", pdb_text(helix("A", 14)))
    write(models, "e_bad", "nothing")
    report = label_decoys(models, native)
    rows = {row.MODEL: row for row in report.rows}
    assert rows["T1/a_native"].dockq == 1.0
    assert rows["T1/a_native"].capri == 3
    assert rows["T1/a_native"].target == "T1"
    assert 0.3 < rows["T1/b_near"].dockq < 1.0
    assert rows["T1/c_far"].dockq < 0.1
    assert rows["T1/c_far"].fnat == 0.0
    assert set(report.failures) == {"T1/d_alone", "T1/e_bad"}
    assert "fewer than two protein chains" in report.failures["T1/d_alone"]


def test_dockq_by_its_formula(tmp_path: Path, native: Path) -> None:
    write(tmp_path / "models", "m", pdb_text(moved(helix_pair(14), "B", (2.0, 1.0, 0.0))))
    (row,) = label_decoys(tmp_path / "models", native).rows
    expected = (row.fnat + 1 / (1 + (row.irmsd / 1.5) ** 2) + 1 / (1 + (row.lrmsd / 8.5) ** 2)) / 3
    assert row.dockq == pytest.approx(expected, abs=2e-4)


def test_a_file_written_anew_is_read_anew(tmp_path: Path, native: Path) -> None:
    """DockQ 2.1.3 caches by path."""
    models = tmp_path / "models"
    write(models, "m", pdb_text(helix_pair(14)))
    (first,) = label_decoys(models, native).rows
    write(models, "m", pdb_text(moved(helix_pair(14), "B", (2.0, 1.0, 0.0))))
    (second,) = label_decoys(models, native).rows
    assert first.dockq == 1.0
    assert second.dockq < 0.9
    native.write_text((models / "T1" / "m.pdb").read_text())
    (third,) = label_decoys(models, native).rows
    assert third.dockq == 1.0


def test_natives_that_cannot_serve(tmp_path: Path, native: Path) -> None:
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    with pytest.raises(DataError, match="no native structure"):
        label_decoys(tmp_path / "models", tmp_path / "nowhere.pdb")
    native.write_text(pdb_text(helix("A", 14)))
    with pytest.raises(DataError, match="fewer than two protein chains"):
        label_decoys(tmp_path / "models", native)


def renamed(residues: dict[int, str], chain: str = "B") -> str:
    """The native with other residues at some places of a chain."""
    atoms = helix_pair(14)
    return pdb_text(
        replace(atom, residue=residues.get(atom.number, atom.residue)) if atom.chain == chain else atom
        for atom in atoms
    )


def test_a_native_of_another_sequence_is_refused(tmp_path: Path, native: Path) -> None:
    """DockQ itself falls back to chain names, and gives a number that means nothing."""
    write(tmp_path / "models", "other", renamed(dict.fromkeys(range(101, 115), "TRP")))
    write(tmp_path / "models", "same", pdb_text(helix_pair(14)))
    report = label_decoys(tmp_path / "models", native)
    assert [(row.MODEL, row.dockq) for row in report.rows] == [("T1/same", 1.0)]
    (line,) = report.failures.values()
    assert line.startswith(f"T1/other: chain B of the native {native} has no counterpart among the 2 chains")
    assert "at least 70% of the longer chain's residues" in line


def test_a_few_mutations_do_not_matter(tmp_path: Path, native: Path) -> None:
    write(tmp_path / "models", "mutant", renamed({103: "TRP", 110: "TRP"}))
    (row,) = label_decoys(tmp_path / "models", native).rows
    assert row.dockq > 0.9
    assert row.chain_map == "AB:AB"


def test_chains_under_each_others_names_are_told_apart(tmp_path: Path) -> None:
    """A mutant with swapped names: chains are matched by sequence, not by name."""
    swapped = [replace(atom, chain="AB"[atom.chain == "A"]) for atom in different_pair()]
    mutant = [replace(atom, residue="TRP") if atom.number == 3 else atom for atom in swapped]
    write(tmp_path / "models", "swapped", pdb_text(sorted(mutant, key=lambda atom: atom.chain)))
    native = tmp_path / "native.pdb"
    native.write_text(pdb_text(different_pair()))
    (row,) = label_decoys(tmp_path / "models", native).rows
    assert (row.chain_map, row.irmsd, row.lrmsd) == ("AB:BA", 0.0, 0.0)
    assert row.dockq > 0.85  # contacts of the other residue are lost


def different_pair() -> list[Atom]:
    """Two helices whose sequences have no residue in common."""
    other = {"ALA": "GLY", "SER": "THR", "LEU": "PHE"}
    return [replace(a, residue=other[a.residue]) if a.chain == "B" else a for a in helix_pair(14)]


def test_standard_output_stays_empty(tmp_path: Path, native: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    label_decoys(tmp_path / "models", native)
    assert capfd.readouterr().out == ""
