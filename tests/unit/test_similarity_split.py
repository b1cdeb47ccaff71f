"""Chains that are alike, complexes that they link, and folds that are cut between these."""

from __future__ import annotations

import csv
import random
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from kit.commands import exit_status
from topotrain.errors import DataError, UserInputError
from topotrain.features.residue_names import AMINO_ACIDS
from topotrain.features.similarity import Likeness, Link, clusters_of, find_links, likeness
from topotrain.features.split import split_structures

# Frequencies of amino acids in Swiss-Prot, per mille (UniProtKB/Swiss-Prot release statistics).
LETTERS = "ARNDCQEGHILKMFPSTWYV"
FREQUENCIES = (83, 55, 41, 55, 14, 39, 67, 71, 23, 59, 97, 58, 24, 39, 47, 66, 54, 11, 29, 69)


def chain(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(LETTERS, FREQUENCIES, k=length))


def changed(sequence: str, share: float, seed: int) -> str:
    """The sequence with a share of its residues made others."""
    rng = random.Random(seed)
    places = rng.sample(range(len(sequence)), round(share * len(sequence)))
    letters = list(sequence)
    for place in places:
        letters[place] = rng.choice([letter for letter in LETTERS if letter != letters[place]])
    return "".join(letters)


def write_complex(path: Path, chains: Mapping[str, str], first_residue: int = 1) -> None:
    """C-alpha atoms along a line, chain beside chain."""
    lines = []
    for column, (name, sequence) in enumerate(chains.items()):
        for number, letter in enumerate(sequence, start=first_residue):
            x, y = 3.8 * number % 900, 8.0 * column
            lines.append(
                f"ATOM  {len(lines) % 99999 + 1:5d}  CA  {AMINO_ACIDS[letter]} {name}{number:4d}    "
                f"{x:8.3f}{y:8.3f}{0.0:8.3f}  1.00  0.00           C\n"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines) + "END\n")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_unrelated_chains_are_not_alike() -> None:
    pairs = [(chain(40 + seed % 200, seed), chain(60 + seed % 170, 1000 + seed)) for seed in range(60)]
    peptides = [(chain(9, seed), chain(250, 2000 + seed)) for seed in range(60)]
    assert not [pair for pair in (*pairs, *peptides) if likeness(*pair)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.45])
def test_related_chains_are_alike_in_either_order(share: float) -> None:
    one = chain(150, 1)
    other = changed(one, share, 2)
    found = likeness(one, other)
    assert found is not None
    assert found == likeness(other, one)
    assert found.identity == pytest.approx(1 - share, abs=0.01)
    assert (found.identity, found.aligned) == (1.0, 150) or share


def test_identity_is_what_is_asked_for() -> None:
    one = chain(150, 3)
    other = changed(one, 0.45, 4)
    assert likeness(one, other, 0.4)
    assert likeness(one, other, 0.7) is None
    assert likeness(one, one, 1.0)


def test_a_shared_domain_links_long_chains_and_a_short_stretch_does_not() -> None:
    domain, stretch = chain(80, 5), chain(30, 6)
    for shared, alike in ((domain, True), (stretch, False)):
        one, other = chain(300, 7) + shared, shared + chain(400, 8)
        assert (likeness(one, other) is not None) is alike
    assert likeness(stretch, chain(200, 9) + stretch + chain(200, 10)), "all of the shorter chain"


def test_unknown_residues_are_like_nothing() -> None:
    assert likeness("X" * 100, "X" * 100) is None
    assert likeness("", "A") is None


def test_links_are_of_the_chains_most_alike_and_do_not_depend_on_order_or_processes() -> None:
    common, partner = chain(120, 11), chain(90, 12)
    chains = {
        "first": frozenset({common, chain(70, 13)}),
        "second": frozenset({changed(common, 0.3, 14), partner}),
        "third": frozenset({changed(common, 0.5, 15), changed(partner, 0.1, 16)}),
        "alone": frozenset({chain(100, 17), chain(100, 18)}),
        "copy": frozenset({chain(70, 13)}),
    }
    links = find_links(chains)
    found = {(link.first, link.second): link.likeness for link in links}
    assert set(found) == {("first", "second"), ("second", "third"), ("copy", "first"), ("first", "third")}
    assert found["second", "third"].identity >= 0.9
    assert found["copy", "first"] == Likeness(1.0, 70, 0)
    assert find_links(dict(reversed(chains.items())), jobs=2) == links


def test_what_is_linked_by_others_between_is_one_cluster() -> None:
    how = Likeness(0.5, 100, 200)
    clusters = clusters_of(["d", "a", "c", "b", "e"], [Link("a", "b", how), Link("b", "d", how)])
    assert clusters == {"a": "a", "b": "a", "c": "c", "d": "a", "e": "e"}


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """Six targets of two decoys; T0 and T3 have a partner alike, T3 and T4 the other."""
    base = {n: {"A": chain(80, 100 + n), "B": chain(60, 200 + n)} for n in range(6)}
    base[3]["B"] = changed(base[0]["A"], 0.3, 1)
    base[4]["A"] = changed(base[3]["A"], 0.3, 2)
    root = tmp_path / "decoys"
    for number, chains in base.items():
        write_complex(root / f"T{number}" / "one.pdb", chains)
        shorter = {name: sequence[5:] for name, sequence in chains.items()}  # as decoys often lack residues
        write_complex(root / f"T{number}" / "two.pdb", shorter, 6)
    return root


def test_complexes_that_are_alike_are_in_one_fold(decoys: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    models = [f"T{number}/{name}" for number in range(6) for name in ("one", "two")]
    labels.write_text("MODEL,dockq,remark\n" + "".join(f"{model},0.5,kept\n" for model in models))
    report = split_structures(decoys, labels=labels, num_folds=3, out=tmp_path / "folds")
    fold = {one.target: one.fold for one in report.targets}
    assert fold["T0"] == fold["T3"] == fold["T4"]
    assert {one.cluster for one in report.targets} == {"T0", "T1", "T2", "T5"}
    assert [(link.first, link.second) for link in report.links] == [("T0", "T3"), ("T3", "T4")]
    seen: list[str] = []
    for number in (1, 2, 3):
        train, val = (rows(tmp_path / "folds" / f"fold_{number}_{name}.csv") for name in ("train", "val"))
        assert sorted(row["MODEL"] for row in (*train, *val)) == sorted(models)
        assert {fold[row["MODEL"][:2]] for row in val} == {number}
        assert number not in {fold[row["MODEL"][:2]] for row in train}
        assert val[0]["remark"] == "kept"
        seen += [row["MODEL"] for row in val]
    assert sorted(seen) == sorted(models)
    assert rows(tmp_path / "folds" / "targets.csv")[3] == {
        "target": "T3",
        "cluster": "T0",
        "fold": str(fold["T3"]),
        "decoys": "2",
    }
    again = split_structures(decoys, labels=labels, num_folds=3)
    assert again.targets_csv == report.targets_csv
    assert again.links_csv == (tmp_path / "folds" / "links.csv").read_text()


def test_one_bad_file_costs_itself_and_a_target_without_sequences_is_refused(decoys: Path) -> None:
    (decoys / "T1" / "one.pdb").write_text("nothing\n")
    report = split_structures(decoys, num_folds=3)
    assert list(report.failures) == ["T1/one"]
    assert len(report.targets) == 6
    (decoys / "T1" / "two.pdb").write_text("nothing\n")
    with pytest.raises(DataError, match="target T1: no sequence can be read"):
        split_structures(decoys, num_folds=3)


def test_what_can_not_be_done_is_refused(decoys: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6 targets are 4 clusters, which can't make 5 folds"):
        split_structures(decoys)
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nT0/one,0.5\nT9/one,0.5\n")
    with pytest.raises(DataError, match="1 of 2 labels have no structure"):
        split_structures(decoys, labels=labels, num_folds=2)
    with pytest.raises(UserInputError, match="holds no sequences"):
        split_structures(labels, num_folds=2)
    with pytest.raises(UserInputError, match="folds is 1"):
        split_structures(decoys, num_folds=1)
    with pytest.raises(UserInputError, match="identity is 40"):
        split_structures(decoys, min_identity=40)


def test_labels_alone_are_split_by_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nA/1,0.1\nA/2,0.2\nB__1,0.3\nC_1,0.4\nC_2,0.5\n")
    assert exit_status("split", str(labels), "--by", "target", "--folds", "3", "--out", str(tmp_path / "folds")) == 0
    assert [row["target"] for row in rows(tmp_path / "folds" / "targets.csv")] == ["A", "B", "C"]
    assert sorted(row["MODEL"] for n in (1, 2, 3) for row in rows(tmp_path / "folds" / f"fold_{n}_val.csv")) == [
        *("A/1", "A/2", "B__1", "C_1", "C_2")
    ]
    assert capsys.readouterr().out == ""
    assert exit_status("split", str(labels), "--folds", "2") == 2
    assert "topotrain split STRUCTURES --labels" in capsys.readouterr().err


def test_no_two_splits_of_the_demo_data_are_alike_and_the_page_runs_as_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the demo's natives, two that are alike are both for training."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```bash\n(.*?)```", (root / "docs" / "split.md").read_text(), flags=re.DOTALL)
    first, *others = (shlex.split(line.partition("  #")[0])[1:] for line in block.strip().splitlines())
    assert exit_status(*first) == 0
    given = ("--target-pattern", "(.*)", "--folds", "3", "--out", "natives")
    assert exit_status("split", "complexes/natives", *given) == 0
    links = rows(tmp_path / "natives" / "links.csv")
    assert [(link["target"], link["other_target"]) for link in links] == [("1BD2_AB", "3KPR_AD")]
    folders = sorted((tmp_path / "complexes" / "train").iterdir())
    assert {"1BD2_AB", "3KPR_AD"} <= {folder.name for folder in folders}
    said = capsys.readouterr().err
    assert "18 targets in 17 clusters" in said
    assert "1 pair of targets has a chain alike: 1BD2_AB and 3KPR_AD (83%)" in said
    for folder in folders[:5]:
        for decoy in sorted(folder.iterdir())[1:]:
            decoy.unlink()
    for folder in folders[5:]:
        shutil.rmtree(folder)
    assert [exit_status(*line) for line in others] == [0, 0]
    assert capsys.readouterr().out == (tmp_path / "folds" / "targets.csv").read_text()
