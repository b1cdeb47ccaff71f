"""Reading structures: what is kept, what is left out, what is refused."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.structures import Atom, cif_text, helix_pair, pdb_text
from topotrain.errors import DataError
from topotrain.features.structure import Structure, is_structure_file, read_structure, structure_stem


def read(folder: Path, text: str, name: str = "m.pdb") -> Structure:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return read_structure(path)


def assert_same(one: Structure, other: Structure) -> None:
    assert np.array_equal(one.coords, other.coords)
    assert one.residue_ids == other.residue_ids
    for name in ("elements", "atom_names", "residue_starts", "chain_ids", "residue_names", "insertion_codes"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_gzip_and_mmcif_read_the_same_as_pdb(tmp_path: Path) -> None:
    atoms = [replace(atom, code="B" if atom.number == 3 else " ") for atom in helix_pair()]
    plain = read(tmp_path, pdb_text(atoms))
    assert_same(plain, read(tmp_path, pdb_text(atoms), "m.pdb.gz"))
    assert_same(plain, read(tmp_path, cif_text(atoms), "m.cif"))
    assert_same(plain, read(tmp_path, cif_text(atoms), "n.mmcif.gz"))


def test_author_numbers_and_insertion_codes(tmp_path: Path) -> None:
    atoms = [
        Atom("CA", "GLY", "A", -2, (0, 0, 0)),
        Atom("CA", "ALA", "A", 52, (4, 0, 0)),
        Atom("CA", "ALA", "A", 52, (8, 0, 0), code="A"),
        Atom("CA", "SER", "B", 52, (0, 9, 0)),
    ]
    structure = read(tmp_path, pdb_text(atoms))
    assert structure.residue_ids == ["A:-2", "A:52", "A:52A", "B:52"]
    assert structure.residue_names.tolist() == ["GLY", "ALA", "ALA", "SER"]
    assert structure.atom_residues.tolist() == [0, 1, 2, 3]


def test_hydrogens_and_hetero_atoms_are_left_out(tmp_path: Path) -> None:
    atoms = [
        Atom("CA", "GLY", "A", 1, (0, 0, 0)),
        Atom("HA", "GLY", "A", 1, (1, 0, 0), element="H"),
        Atom("DA", "GLY", "A", 1, (1, 1, 0), element="D"),
        Atom("O", "HOH", "A", 99, (5, 5, 5), element="O", record="HETATM"),
        Atom("CA", "GLY", "B", 1, (3, 0, 0)),
    ]
    structure = read(tmp_path, pdb_text(atoms))
    assert structure.atom_names.tolist() == ["CA", "CA"]


def test_first_alternate_location_of_each_residue(tmp_path: Path) -> None:
    atoms = [
        Atom("N", "SER", "A", 1, (0, 0, 0), element="N"),
        Atom("CA", "SER", "A", 1, (1, 0, 0), altloc="B"),
        Atom("CA", "SER", "A", 1, (2, 0, 0), altloc="A"),
        Atom("CB", "SER", "A", 1, (3, 0, 0), altloc="B"),
        Atom("CB", "SER", "A", 1, (4, 0, 0), altloc="A"),
        Atom("CA", "GLY", "A", 2, (5, 0, 0), altloc="A"),
        Atom("CA", "ALA", "A", 2, (6, 0, 0), altloc="B"),
    ]
    structure = read(tmp_path, pdb_text(atoms))
    assert structure.coords[:, 0].tolist() == [0.0, 1.0, 3.0, 5.0]
    assert structure.residue_names.tolist() == ["SER", "GLY"]


def test_alternates_without_letters_count_once(tmp_path: Path) -> None:
    """Cleaning tools strip the letters and leave the atoms."""
    atoms = [
        Atom("CA", "LYS", "A", 1, (0, 0, 0)),
        Atom("CA", "LYS", "A", 1, (0.4, 0, 0)),
        Atom("CD", "LYS", "A", 1, (4, 0, 0)),
        Atom("CD", "LYS", "A", 1, (0, 4, 0)),
        Atom("CA", "GLY", "B", 1, (5, 0, 0)),
    ]
    assert read(tmp_path, pdb_text(atoms)).coords.tolist() == [[0, 0, 0], [4, 0, 0], [5, 0, 0]]


def test_first_model_alone(tmp_path: Path) -> None:
    one = pdb_text([Atom("CA", "GLY", "A", 1, (0, 0, 0))]).replace("END\n", "")
    two = pdb_text([Atom("CA", "GLY", "A", 1, (7, 0, 0))]).replace("END\n", "")
    text = f"MODEL        1\n{one}ENDMDL\nMODEL        2\n{two}ENDMDL\nEND\n"
    assert read(tmp_path, text).coords.tolist() == [[0.0, 0.0, 0.0]]


def test_missing_calpha_is_nan(tmp_path: Path) -> None:
    structure = read(tmp_path, pdb_text([Atom("N", "GLY", "A", 1, (1, 2, 3), element="N")]))
    assert np.isnan(structure.ca).all()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.pdb", "hello\n", "no ATOM records"),
        ("m.pdb", "", "no ATOM records"),
        ("m.pdb", pdb_text(helix_pair()).replace("   0.", "   x.", 1), "coordinates are not numbers"),
        ("m.pdb", pdb_text(helix_pair())[:200], "line 3"),
        ("m.cif", "data_x\n_cell.length_a 1\n", "no _atom_site table"),
        ("m.cif", "loop_ garbage", "m.cif"),
        ("m.cif", cif_text(helix_pair()).replace(" 1.0 0.0 ", " 1.0 ", 1), "m.cif"),
        ("m.txt", "", "no structure file"),
        ("m.pdb", pdb_text([Atom("O", "HOH", "A", 1, (0, 0, 0), "O", record="HETATM")]), "no ATOM records"),
    ],
)
def test_malformed_files_are_refused_by_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_structure(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_bad_coordinate_names_its_line(tmp_path: Path) -> None:
    lines = pdb_text(helix_pair()).splitlines(keepends=True)
    lines[6] = lines[6][:30] + "********" + lines[6][38:]
    with pytest.raises(DataError, match="line 7"):
        read(tmp_path, "".join(lines))


def test_cut_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pdb.gz"
    path.write_bytes(gzip.compress(pdb_text(helix_pair()).encode())[:-20])
    with pytest.raises(DataError, match="gzip"):
        read_structure(path)


def test_two_residues_under_one_name_are_refused(tmp_path: Path) -> None:
    atoms = helix_pair()
    again = [replace(atom, chain="A", number=atom.number - 100) if atom.chain == "B" else atom for atom in atoms]
    with pytest.raises(DataError, match="two residues are called A:1 "):
        read(tmp_path, pdb_text(again))


def test_names() -> None:
    assert is_structure_file(Path("a.PDB.gz"))
    assert not is_structure_file(Path("a.pt"))
    assert structure_stem(Path("x/1abc_1.v2.pdb.gz")) == "1abc_1.v2"
    assert structure_stem(Path("1abc.cif")) == "1abc"
