"""DockQ labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from features_kit import helix, helix_pair, moved, pdb_text

from topotrain.errors import DataError
from topotrain.features.labels import capri_class, label_models

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
    report = label_models(models, native)
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
    (row,) = label_models(tmp_path / "models", native).rows
    expected = (row.fnat + 1 / (1 + (row.irmsd / 1.5) ** 2) + 1 / (1 + (row.lrmsd / 8.5) ** 2)) / 3
    assert row.dockq == pytest.approx(expected, abs=2e-4)


def test_a_file_written_anew_is_read_anew(tmp_path: Path, native: Path) -> None:
    """DockQ 2.1.3 caches by path."""
    models = tmp_path / "models"
    write(models, "m", pdb_text(helix_pair(14)))
    (first,) = label_models(models, native).rows
    write(models, "m", pdb_text(moved(helix_pair(14), "B", (2.0, 1.0, 0.0))))
    (second,) = label_models(models, native).rows
    assert first.dockq == 1.0
    assert second.dockq < 0.9
    native.write_text((models / "T1" / "m.pdb").read_text())
    (third,) = label_models(models, native).rows
    assert third.dockq == 1.0


def test_natives_that_cannot_serve(tmp_path: Path, native: Path) -> None:
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    with pytest.raises(DataError, match="no native structure"):
        label_models(tmp_path / "models", tmp_path / "nowhere.pdb")
    native.write_text(pdb_text(helix("A", 14)))
    with pytest.raises(DataError, match="fewer than two protein chains"):
        label_models(tmp_path / "models", native)


def test_standard_output_stays_empty(tmp_path: Path, native: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    label_models(tmp_path / "models", native)
    assert capfd.readouterr().out == ""
