"""Structures with importances as B-factors, and the scripts that show them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from kit.structures import helix_pair, pdb_text
from topotrain.errors import DataError
from topotrain.features.structure import Structure, read_structure
from topotrain.scoring.annotate import Annotated, Annotations
from topotrain.scoring.explain import Explanation, Residue

VALUES = {("A", "3"): 0.0567, ("A", "4"): -0.1234, ("B", "103"): 0.02}
FOUND = Explanation(0.5, 0.4, tuple((Residue(*key), value) for key, value in VALUES.items()), ())


@pytest.fixture
def structure(tmp_path: Path) -> Structure:
    path = tmp_path / "m.pdb"
    path.write_text(pdb_text(helix_pair()))
    return read_structure(path)


@pytest.mark.parametrize("mmcif", [False, True])
def test_b_factors_are_hundredths_of_the_quality(tmp_path: Path, structure: Structure, mmcif: bool) -> None:
    written = Annotations(tmp_path / "out").write("T1/m", structure, FOUND, mmcif=mmcif)
    assert written.name == ("T1__m.cif" if mmcif else "T1__m.pdb")
    assert written.largest == pytest.approx(12.34)
    path = tmp_path / "out" / written.name
    (model,) = gemmi.read_structure(str(path))
    factors = {(chain.name, str(res.seqid)): {at.b_iso for at in res} for chain in model for res in chain}
    assert all(len(each) == 1 for each in factors.values())
    for key, each in factors.items():
        assert each.pop() == pytest.approx(100 * VALUES.get(key, 0.0), abs=0.006)
    again = read_structure(path)
    assert again.residue_ids == structure.residue_ids
    np.testing.assert_allclose(again.coords, structure.coords, atol=1e-3)
    assert again.atom_names.tolist() == structure.atom_names.tolist()
    assert again.residue_names.tolist() == structure.residue_names.tolist()


def test_insertion_codes_and_what_no_pdb_file_has_room_for(tmp_path: Path, structure: Structure) -> None:
    annotations = Annotations(tmp_path / "out")
    coded = replace(structure, insertion_codes=np.array(["", *"BBBB", *[""] * (structure.num_residues - 5)]))
    why = Explanation(0.5, 0.4, ((Residue("A", "3B"), 0.01),), ())
    written = annotations.write("coded", coded, why, mmcif=False)
    assert written == Annotated("coded.pdb", pytest.approx(1.0))
    assert read_structure(tmp_path / "out" / "coded.pdb").residue_ids == coded.residue_ids
    large = replace(structure, residue_numbers=structure.residue_numbers + 9950)
    named = replace(structure, chain_ids=np.array([f"LONG{name}" for name in structure.chain_ids]))
    for name, one in (("large", large), ("named", named)):
        assert annotations.write(name, one, why, mmcif=False).name == f"{name}.cif"
        assert read_structure(tmp_path / "out" / f"{name}.cif").residue_ids == one.residue_ids


HOSTILE = ["a b", "x;delete all", "y'\"z", "@evil", "-flag", "../up", "новое имя", "", "A b", "n" * 300]


def test_names_are_plain_so_that_no_script_runs_them(tmp_path: Path, structure: Structure) -> None:
    annotations = Annotations(tmp_path / "out")
    written = [annotations.write(name, structure, FOUND, mmcif=False) for name in HOSTILE]
    names = [one.name for one in written]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and ".." not in name for name in names), names
    assert len({name.lower() for name in names}) == len(HOSTILE)
    annotations.finish(written)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "view.pml", "view.cxc"}
    pymol = (tmp_path / "out" / "view.pml").read_text().splitlines()
    assert [line for line in pymol if line.startswith("load ")] == [
        f"load {name}, model_{number}" for number, name in enumerate(names, start=1)
    ]
    assert "spectrum b, blue_white_red, interface, minimum=-12.34, maximum=12.34" in pymol
    chimerax = (tmp_path / "out" / "view.cxc").read_text().splitlines()
    assert [line for line in chimerax if line.startswith("open ")] == [f"open {name}" for name in names]
    assert f"hide #2-{len(names)} models" in chimerax
    assert any("palette blue:white:red range -12.34,12.34" in line for line in chimerax)
    known = "load|hide|show|color|select|spectrum|disable|enable|deselect|zoom|#|open|style|view"
    assert all(re.match(rf"({known})\b|#", line) for line in (*pymol, *chimerax))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, structure: Structure) -> None:
    (tmp_path / "file").write_text("of mine")
    with pytest.raises(DataError, match="can't be written"):
        Annotations(tmp_path / "file").write("m", structure, FOUND, mmcif=False)
