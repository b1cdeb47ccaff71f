"""DockQ labels."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.structures import Atom, helix, helix_pair, moved, pdb_text
from topotrain.errors import DataError
from topotrain.features import dockq, label_targets
from topotrain.features.dockq import capri_class, in_groups, label_decoys

pytest.importorskip("DockQ", reason="DockQ is not installed")

Rewrite = Callable[[list[Atom]], list[Atom]]


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


def ensemble(*atoms: list[Atom]) -> str:
    """Several MODELs in one file."""
    blocks = (f"MODEL     {number:4d}\n{pdb_text(each)[:-4]}ENDMDL\n" for number, each in enumerate(atoms, start=1))
    return "".join(blocks) + "END\n"


def test_each_model_of_an_ensemble_is_a_decoy_where_asked(tmp_path: Path, native: Path) -> None:
    atoms = helix_pair(14)
    write(tmp_path / "models", "e", ensemble(atoms, moved(atoms, "B", (1.0, 1.0, 0.0))))
    report = label_decoys(tmp_path / "models", native)
    assert [(row.MODEL, row.dockq) for row in report.rows] == [("T1/e", 1.0)]
    assert report.changes_line.startswith("2 files: 1 MODEL left out")
    report = label_decoys(tmp_path / "models", native, models="all", strict=True)
    assert [row.MODEL for row in report.rows] == ["T1/e_1", "T1/e_2"]
    assert report.rows[0].dockq == 1.0 > report.rows[1].dockq
    assert report.changes_line == ""
    with pytest.raises(DataError, match="1 of 2 structures were not read as they stand, the first: T1/e: 1 MODEL"):
        label_decoys(tmp_path / "models", native, strict=True)


def test_an_archive_is_labelled_as_its_folder(tmp_path: Path, native: Path) -> None:
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    write(tmp_path / "models", "bad", "nothing")
    shutil.make_archive(str(tmp_path / "decoys"), "zip", tmp_path / "models")
    report = label_decoys(tmp_path / "decoys.zip", native)
    assert [row.MODEL for row in report.rows] == ["T1/m"]
    assert f"{tmp_path / 'decoys.zip'}/T1/bad.pdb" in report.failures["T1/bad"]


# The same two complexes, as people write them.


def native_and_decoy() -> tuple[list[Atom], list[Atom]]:
    """A complex of a longer and a shorter helix of other sequences, and a decoy of it."""
    other = {"ALA": "GLY", "SER": "THR", "LEU": "PHE"}
    small = [replace(atom, residue=other[atom.residue]) for atom in helix("B", 12, (1.0, 8.0, 0.5), first=101)]
    native = helix("A", 20) + small
    return native, moved(native, "B", (1.5, 1.0, 0.0))


def renamed_chains(names: str) -> Rewrite:
    return lambda atoms: [replace(atom, chain=names["AB".index(atom.chain)]) for atom in atoms]


def renumbered(atoms: list[Atom]) -> list[Atom]:
    return [replace(atom, number=atom.number + (300 if atom.chain == "A" else -98)) for atom in atoms]


def pieces(*spans: tuple[str, int, int]) -> Rewrite:
    """Residues of some spans after one another."""
    return lambda atoms: [a for chain, low, high in spans for a in atoms if a.chain == chain and low <= a.number < high]


def with_water(atoms: list[Atom]) -> list[Atom]:
    return [*atoms, Atom("O", "HOH", "B", 999, (30.0, 30.0, 30.0), "O")]


def with_ligand(atoms: list[Atom]) -> list[Atom]:
    return [*atoms, Atom("C1", "HEM", "L", 1, (3.0, 3.0, 3.0)), Atom("FE", "HEM", "L", 1, (4.0, 3.0, 3.0), "FE")]


REWRITES = {
    "as it is": lambda atoms: atoms,
    "other names": renamed_chains("XY"),
    "names exchanged": renamed_chains("BA"),
    "other numbers": renumbered,
    "B first": pieces(("B", 0, 999), ("A", 0, 999)),
    "a piece of A after B": pieces(("A", 1, 9), ("B", 0, 999), ("A", 9, 99)),
    "the end of A first": pieces(("A", 9, 99), ("B", 0, 999), ("A", 1, 9)),
    "pieces in disorder": pieces(("A", 15, 99), ("B", 105, 999), ("A", 1, 9), ("B", 0, 105), ("A", 9, 15)),
    "three pieces": pieces(("B", 0, 105), ("A", 1, 9), ("B", 105, 999), ("A", 9, 99)),
    "a water in B": with_water,
    "a ligand": with_ligand,
}


@pytest.mark.parametrize("side", ["decoy", "native"])
@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_the_same_atoms_give_the_same_dockq(tmp_path: Path, rewrite: Rewrite, side: str) -> None:
    native, decoy = native_and_decoy()
    texts = {"native": pdb_text(native), "decoy": pdb_text(decoy)}
    changed = {**texts, side: pdb_text(rewrite(native if side == "native" else decoy))}
    found = []
    for number, pair in enumerate((texts, changed)):
        write(tmp_path / f"{number}", "m", pair["decoy"])
        (tmp_path / f"native{number}.pdb").write_text(pair["native"])
        report = label_decoys(tmp_path / f"{number}", tmp_path / f"native{number}.pdb")
        assert not report.failures
        found += [replace(row, chain_map="") for row in report.rows]
    assert found[0] == found[1]
    assert 0.3 < found[0].dockq < 0.9


@pytest.mark.parametrize(
    ("rewrite", "least", "note"),
    [
        (lambda atoms: [replace(a, residue="TRP") if a.number in (5, 105) else a for a in atoms], 0.8, "TRP"),
        (lambda atoms: [a for a in atoms if a.number not in (1, 2, 101, 112)], 0.8, "identical to chain"),
        (lambda atoms: [a for a in atoms if not 1 <= a.number < 9], 0.4, "chain A is 60% identical to chain A"),
        (lambda atoms: [*atoms, *helix("C", 20, (0.0, 50.0, 0.0))], 0.99, "chain C has no counterpart in the native"),
    ],
    ids=["mutations", "ends missing", "a part", "a chain too many"],
)
def test_chains_that_are_not_quite_the_same(tmp_path: Path, rewrite: Rewrite, least: float, note: str) -> None:
    native, _ = native_and_decoy()
    (tmp_path / "native.pdb").write_text(pdb_text(native))
    write(tmp_path / "models", "m", pdb_text(rewrite(native)))
    report = label_decoys(tmp_path / "models", tmp_path / "native.pdb")
    (row,) = report.rows
    assert row.dockq >= least
    assert row.irmsd < 0.01
    if note != "TRP":
        assert any(note in line for line in report.notes["T1/m"])
    else:
        assert row.interfaces == 1


def test_a_native_chain_without_a_counterpart_is_refused_or_left_out(tmp_path: Path) -> None:
    atoms = helix_pair(14)
    third = [replace(a, residue="TRP") for a in helix("C", 14, (0.0, -8.0, 0.5))]
    (tmp_path / "native.pdb").write_text(pdb_text([*atoms, *third]))
    for name in ("a", "b"):
        write(tmp_path / "models", name, pdb_text(atoms))
    report = label_decoys(tmp_path / "models", tmp_path / "native.pdb")
    assert not report.rows
    (line,) = in_groups(report.failures.items(), 2)
    assert line.startswith(f"all 2 decoys: chain C of the native {tmp_path / 'native.pdb'} has no counterpart")
    report = label_decoys(tmp_path / "models", tmp_path / "native.pdb", native_chains=["A", "B"])
    assert [row.dockq for row in report.rows] == [1.0, 1.0]
    with pytest.raises(DataError, match="no chain Q; expected some of A, B, C"):
        label_decoys(tmp_path / "models", tmp_path / "native.pdb", native_chains=["A", "Q"])


def test_a_chain_that_touches_none_is_not_needed(tmp_path: Path, native: Path) -> None:
    native.write_text(pdb_text([*helix_pair(14), *helix("Z", 30, (0.0, 90.0, 0.0))]))
    write(tmp_path / "models", "m", pdb_text(helix_pair(14)))
    (row,) = label_decoys(tmp_path / "models", native).rows
    assert (row.dockq, row.chain_map) == (1.0, "AB:AB")


def test_the_native_of_another_complex_is_one_line(tmp_path: Path, native: Path) -> None:
    other = [replace(atom, residue="TRP") for atom in helix_pair(14)]
    for name in ("a", "b", "c"):
        write(tmp_path / "models", name, pdb_text(other))
    report = label_decoys(tmp_path / "models", native)
    assert not report.rows
    (line,) = in_groups(report.failures.items(), 3)
    assert line.startswith(f"all 3 decoys: the native {native} is another complex (no chain of the decoy is 70%")


def test_what_is_said_of_several_decoys_is_one_line() -> None:
    said = [("a", "a: one"), ("b", "b: two"), ("c", "c: two"), ("d", "models/d.pdb: three")]
    assert in_groups(said, 4) == ["a: one", "2 decoys (b ... c): two", "models/d.pdb: three"]
    assert in_groups(said[1:3], 2) == ["all 2 decoys: two"]
    assert in_groups(said[:1], 1) == ["a: one"]


def test_chance_alignments_are_no_counterparts(tmp_path: Path) -> None:
    """A short peptide finds most of its letters, with gaps between them, in any long chain."""
    random = np.random.default_rng(4)
    names = random.choice(["ALA", "GLY", "VAL", "ASP", "LYS", "PHE"], 120)
    long = [replace(a, residue=str(names[a.number - 1])) for a in helix("A", 120)]
    peptide = [replace(a, residue=str(names[7 * (a.number % 100)])) for a in helix("B", 8, (0.0, 8.0, 0.5), first=101)]
    (tmp_path / "native.pdb").write_text(pdb_text([*long, *peptide]))
    another = [replace(a, chain="C") for a in moved(long, "A", (0.0, 9.0, 0.0))]
    write(tmp_path / "models", "m", pdb_text([*long, *another]))
    report = label_decoys(tmp_path / "models", tmp_path / "native.pdb")
    assert "chain B of the native" in report.failures["T1/m"]


def test_a_file_that_fails_costs_one_line(tmp_path: Path, native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised, also by the libraries."""
    for name in ("a", "b", "c", "d"):
        write(tmp_path / "models", name, pdb_text(helix_pair(14)))
    compare, read, calls = dockq.compare_interface, label_targets.read_structure, []

    def faulty_compare(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("in\nDockQ")
        return compare(*arguments)

    def faulty_read(path, *arguments, **options):
        if str(path).endswith("c.pdb"):
            raise RuntimeError("parser")
        return read(path, *arguments, **options)

    monkeypatch.setattr(dockq, "compare_interface", faulty_compare)
    monkeypatch.setattr(label_targets, "read_structure", faulty_read)
    report = label_decoys(tmp_path / "models", native)
    assert [row.MODEL for row in report.rows] == ["T1/a", "T1/d"]
    assert list(report.failures) == ["T1/b", "T1/c"]
    assert "b.pdb: cannot be compared with" in report.failures["T1/b"]
    assert "(ZeroDivisionError: in DockQ)" in report.failures["T1/b"]
    assert "\n" not in "".join(report.failures.values())


def test_processes_do_not_matter(tmp_path: Path, native: Path) -> None:
    for number in range(3):
        write(tmp_path / "models", f"m{number}", pdb_text(moved(helix_pair(14), "B", (number, 0.5, 0.0))))
    write(tmp_path / "models", "n", "nothing")
    done: list[tuple[int, int]] = []
    one = label_decoys(tmp_path / "models", native)
    two = label_decoys(tmp_path / "models", native, lambda *at: done.append(at[:2]), jobs=2)
    assert one == two
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


DOCKQ_COMMAND = re.compile(r"Total DockQ over (\d+) native interfaces: ([\d.]+) with (\S+):(\S+) model:native mapping")


def by_command(decoy: Path, native: Path, *options: str) -> tuple[int, float]:
    """Interfaces and DockQ by DockQ's own command."""
    script = Path(importlib.util.find_spec("DockQ").origin).with_name("DockQ.py")
    command = [sys.executable, str(script), str(decoy), str(native), "--short", "--n_cpu", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    interfaces, value, *_ = DOCKQ_COMMAND.search(done.stdout).groups()
    return int(interfaces), float(value)


def test_agrees_with_dockqs_own_command(tmp_path: Path) -> None:
    native, decoy = native_and_decoy()
    third = helix("C", 20, (3.0, 4.0, 8.0))
    decoy += moved(third, "C", (0.5, -1.0, 0.4))
    (tmp_path / "native.pdb").write_text(pdb_text([*native, *third]))
    exchanged = [replace(a, chain={"A": "C", "C": "A"}.get(a.chain, "B")) for a in decoy]
    write(tmp_path / "models", "m", pdb_text(sorted(exchanged, key=lambda a: a.chain)))
    (row,) = label_decoys(tmp_path / "models", tmp_path / "native.pdb").rows
    interfaces, value = by_command(tmp_path / "models" / "T1" / "m.pdb", tmp_path / "native.pdb")
    assert row.interfaces == interfaces == 3
    assert row.dockq == pytest.approx(value, abs=6e-4)
    assert row.chain_map == "ABC:CBA"


def test_dockqs_example(shared_data: Path) -> None:
    """1A2K, an example of DockQ: 0.653, also with a mutation."""
    case = shared_data / "cases" / "label_one_mutation_loses_chain_mapping"
    report = label_decoys(case / "models", case / "native.pdb")
    assert {row.MODEL: round(row.dockq, 3) for row in report.rows} == {"as_is": 0.653, "mut_C": 0.653}
    assert {row.interfaces for row in report.rows} == {3}
    (row,) = label_decoys(case / "native.pdb", case / "native.pdb").rows
    assert row.dockq == 1.0
