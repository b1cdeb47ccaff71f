"""``topotrain explain``: of structures and graphs, by the command line, from Python, and as its page writes it."""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import topotrain
from kit.commands import exit_status
from topotrain.errors import DataError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explain.md"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def ends(row: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    return tuple((row[f"CHAIN_{n}"], row[f"NUMBER_{n}"], row[f"NAME_{n}"]) for n in "12")


def test_residues_and_contacts_of_a_structure(structure_model: Any, tmp_path: Path, capsys: Any) -> None:
    source, contacts = structure_model.structures / "T3" / "m1.pdb", tmp_path / "contacts.csv"
    status = exit_status("explain", source, "--contacts", contacts, "--tracking-uri", structure_model.uri)
    told = capsys.readouterr()
    assert status == 0, told.err
    rows = rows_of(told.out)
    assert list(rows[0]) == ["CHAIN", "NUMBER", "NAME", "IMPORTANCE"]
    values = [float(row["IMPORTANCE"]) for row in rows]
    assert values == sorted(values, reverse=True)
    residues = {(row["CHAIN"], row["NUMBER"], row["NAME"]) for row in rows}
    assert {chain for chain, _, _ in residues} == {"A", "B"}
    assert {name for _, _, name in residues} == {"ALA", "SER", "LEU"}
    assert all(100 < int(number) < 111 for chain, number, _ in residues if chain == "B")
    pairs = rows_of(contacts.read_text())
    assert {end for row in pairs for end in ends(row)} <= residues
    assert all(one[0] != other[0] for one, other in map(ends, pairs))

    found = topotrain.explain(source, tracking_uri=structure_model.uri)
    assert [(one.chain, one.number, one.name) for one, _ in found.residues] == [tuple(row.values())[:3] for row in rows]
    assert sum(values) == pytest.approx(found.score - found.reference, abs=1e-3)
    said = re.search(r"DockQ ([\d.]+), and ([\d.]+) where .* (\d+) residues sum to ([+-][\d.]+)$", told.err, re.M)
    assert said is not None
    numbers = [float(text) for text in said.groups()]
    assert numbers == pytest.approx([found.score, found.reference, len(rows), found.total], abs=1e-4)


def test_a_graph_gives_what_its_structure_gives_but_for_names(structure_model: Any) -> None:
    uri = structure_model.uri
    built = topotrain.explain(structure_model.structures / "T2" / "m0.pdb", tracking_uri=uri)
    read = topotrain.explain(structure_model.graphs / "T2" / "m0.pt", tracking_uri=uri)
    assert read.score == pytest.approx(built.score, abs=1e-12)
    by_place = {(one.chain, one.number): value for one, value in built.residues}
    assert {(one.chain, one.number): pytest.approx(value) for one, value in read.residues} == by_place
    assert {one.name for one, _ in read.residues} == {""}


def test_a_graph_that_names_no_residues_is_explained_by_node(structure_model: Any, tmp_path: Path, capsys: Any) -> None:
    copied = tmp_path / "graphs"
    shutil.copytree(structure_model.graphs, copied)
    path = copied / "T1" / "m0.pt"
    data = torch.load(path, weights_only=False)
    del data.metadata["node_ids"]
    torch.save(data, path)
    assert exit_status("explain", path, "--tracking-uri", structure_model.uri) == 0
    rows = rows_of(capsys.readouterr().out)
    assert {row["CHAIN"] for row in rows} == {""}
    assert sorted(int(row["NUMBER"]) for row in rows) == list(range(len(data.x)))


@pytest.mark.parametrize("name", ["missing.pdb", "structures", "notes.txt"])
def test_what_is_no_complex_is_one_line(structure_model: Any, tmp_path: Path, capsys: Any, name: str) -> None:
    (tmp_path / "structures").mkdir()
    (tmp_path / "notes.txt").write_text("of mine")
    assert exit_status("explain", tmp_path / name, "--tracking-uri", structure_model.uri) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: .*/\S+ (does not exist|is no structure and no graph); expected .*\n", told.err)


def test_what_gives_no_graph_says_why(structure_model: Any, tmp_path: Path) -> None:
    lonely = tmp_path / "one.pdb"
    text = (structure_model.structures / "T1" / "m0.pdb").read_text()
    lonely.write_text("".join(line + "\n" for line in text.splitlines() if line[21:22] != "B"))
    with pytest.raises(DataError, match="one chain alone"):
        topotrain.explain(lonely, tracking_uri=structure_model.uri)
    other = tmp_path / "other.pt"
    torch.save({"x": torch.zeros(2, 2)}, other)
    with pytest.raises(DataError, match="edge_index"):
        topotrain.explain(other, tracking_uri=structure_model.uri)


def test_the_page_is_run_as_it_is_written(
    structure_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copyfile(structure_model.root / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert {language for language, _ in blocks} == {"bash", "python"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), {})
            continue
        for line in code.strip().splitlines():
            assert exit_status(*shlex.split(line)[1:]) == 0, capsys.readouterr().err
            for path in (tmp_path / "complexes/holdout/1BGS_AE").glob("d[1-4][03-9].pdb"):
                path.unlink(missing_ok=True)  # fewer are as good here
    assert (tmp_path / "residues.csv").is_file()
    assert (tmp_path / "contacts.csv").is_file()
    assert (tmp_path / "report.html").stat().st_size < 5_500_000
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == len(list((tmp_path / "annotated").iterdir())) - 1
