"""``--chains A,B:C``: contacts between partners alone, chains that are not named left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.commands import exit_status
from kit.structures import helix, pdb_text
from topotrain.data.demo import write_demo_structures
from topotrain.data.graph_file import Graph, read_graph
from topotrain.errors import DataError, UserInputError
from topotrain.features import build_graphs
from topotrain.features.geometry import cross_chain_contacts
from topotrain.features.graph import compute_graph
from topotrain.features.module_set import select_modules
from topotrain.features.partners import Partners
from topotrain.features.structure import read_structure
from topotrain.schema.resolve import resolve_schema

THREE = [*helix("A", 10), *helix("B", 10, (0.0, 8.0, 0.5), first=31), *helix("C", 10, (0.0, 16.0, 1.0), first=61)]
QUICK = {"topology_module": "topology/none/v1"}


def three(folder: Path) -> Path:
    """Three helices in a row: A beside B, B beside C."""
    path = folder / "T" / "m.pdb"
    path.parent.mkdir(parents=True)
    path.write_text(pdb_text(THREE))
    return path


def built(structures: Path, out: Path, **options: str) -> Graph:
    report = build_graphs(structures, out, **QUICK, **options)
    assert not report.failures, report.failures
    return read_graph(next(out.rglob("*.pt")))


def pairs_of_chains(graph: Graph) -> set[str]:
    chains = [name[0] for name in graph.metadata["node_ids"]]
    return {chains[one] + chains[other] for one, other in graph.edge_index.T.tolist()}


@pytest.mark.parametrize(
    ("text", "same"), [("A,B:C", "A,B:C"), ("C:B,A", "A,B:C"), (" A , B : C ", "A,B:C"), ("H:L:A", "A:H:L")]
)
def test_how_they_are_written(text: str, same: str) -> None:
    assert str(Partners.read(text)) == same


@pytest.mark.parametrize("text", ["", "A", "A,B", "A:", ":A", "A,:B", "A:A", "A,B:B", "::"])
def test_what_names_no_two_partners_is_refused(text: str) -> None:
    with pytest.raises(UserInputError, match="expected chains of each partner, such as A,B:C"):
        Partners.read(text)


@pytest.mark.parametrize(
    ("chains", "pairs"),
    [
        (None, {"AB", "BA", "BC", "CB"}),
        ("A:B:C", {"AB", "BA", "BC", "CB"}),
        ("A,B:C", {"BC", "CB"}),
        ("A:C,B", {"AB", "BA"}),
        ("A:B", {"AB", "BA"}),
    ],
)
def test_contacts_are_between_partners(tmp_path: Path, chains: str | None, pairs: set[str]) -> None:
    three(tmp_path / "s")
    graph = built(tmp_path / "s", tmp_path / "g", **({"chains": chains} if chains else {}))
    assert pairs_of_chains(graph) == pairs
    assert graph.metadata.get("chains") == (str(Partners.read(chains)) if chains else None)
    numbers = [(name[0], int(name[2:])) for name in graph.metadata["node_ids"]]
    assert numbers == sorted(numbers)  # names and order as in the file


def test_a_chain_that_is_not_named_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    three(tmp_path / "s")
    two = tmp_path / "two" / "T" / "m.pdb"
    two.parent.mkdir(parents=True)
    two.write_text(pdb_text([atom for atom in THREE if atom.chain != "C"]))
    one, other = (
        built(tmp_path / "s", tmp_path / "g", chains="A:B"), built(tmp_path / "two", tmp_path / "h"),
    )  # fmt: skip
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_together_is_as_under_one_name(tmp_path: Path) -> None:
    """Of a real complex, one chain cut in two: as partners of the cut chain, the pieces have its contacts."""
    write_demo_structures(tmp_path / "demo")
    path = min((tmp_path / "demo" / "holdout").rglob("*.pdb"), key=lambda path: (path.stat().st_size, path))
    whole = read_structure(path)
    first, second = dict.fromkeys(whole.chain_ids.tolist())
    middle = int(np.median(whole.residue_numbers[whole.chain_ids == second]))
    cut = tmp_path / "cut.pdb"
    cut.write_text(
        "".join(
            f"{line[:21]}Z{line[22:]}" if line[21:22] == second and int(line[22:26]) > middle else line
            for line in path.read_text().splitlines(keepends=True)
            if line.startswith(("ATOM", "TER"))
        )
    )
    modules = select_modules()
    one = compute_graph(whole, modules)
    other = compute_graph(read_structure(cut, partners=Partners.read(f"{first}:{second},Z")), modules)
    apart = compute_graph(read_structure(cut), modules)
    assert [name.replace("Z:", f"{second}:") for name in other.node_ids] == one.node_ids
    assert any(name.startswith("Z:") for name in other.node_ids)
    assert np.array_equal(one.edge_index, other.edge_index)
    assert np.array_equal(one.edge_attr, other.edge_attr)
    topology = [place for place, name in enumerate(modules.node_columns) if name in modules.topology_columns]
    assert len(topology) == 140
    assert np.array_equal(one.x[:, topology], other.x[:, topology])
    assert apart.edge_index.shape[1] > one.edge_index.shape[1]  # the pieces, left apart, touch each other


def test_a_third_partner_has_its_contacts_too(tmp_path: Path) -> None:
    path = three(tmp_path)
    structure = read_structure(path, partners=Partners.read("A,C:B"))
    every = np.arange(structure.num_residues)
    found = cross_chain_contacts(structure, every, 0.0, 10.0)[0]
    without = cross_chain_contacts(replace(structure, partners=None), every, 0.0, 10.0)[0]
    assert found.tolist() == without.tolist()  # A and C do not touch


def test_an_unknown_chain_names_those_that_there_are(tmp_path: Path) -> None:
    path = three(tmp_path)
    with pytest.raises(DataError) as error:
        read_structure(path, partners=Partners.read("A,B:D"))
    assert str(error.value) == f"{path}: has no chain D; expected chains that it has: A, B, C; check --chains"
    with pytest.raises(DataError, match="write A,B for several chains of one partner"):
        read_structure(path, partners=Partners.read("AB:C"))


def test_partners_that_do_not_touch(tmp_path: Path) -> None:
    path = three(tmp_path)
    with pytest.raises(DataError, match="no interface residues among partners A:C; expected two partners in contact"):
        compute_graph(read_structure(path, partners=Partners.read("A:C")), select_modules())


def test_a_model_takes_graphs_with_and_without(tmp_path: Path) -> None:
    """Partners are read from the file, as MODELs are; what the columns mean is the same."""
    three(tmp_path / "s")
    built(tmp_path / "s", tmp_path / "g")
    (tmp_path / "g" / "T").rename(tmp_path / "g" / "T0")
    graphs = [read_graph(next((tmp_path / "g").rglob("*.pt")), "T0/m")]
    graphs.append(built(tmp_path / "s", tmp_path / "h", chains="A,B:C"))
    digests = [resolve_schema([graph.facts], tmp_path / "h").digest for graph in graphs]
    assert digests[0] == digests[1]


def test_other_partners_are_built_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three(tmp_path / "s")
    words = ["build-graphs", tmp_path / "s", "--out", tmp_path / "g", "--topology-module", "topology/none/v1"]
    for chains, said in (("A,B:C", "1 built"), ("C:B,A", "1 kept"), ("A:B,C", "1 built"), ("", "1 built")):
        assert exit_status(*words, "--chains", chains) == 0
        number, done = said.split()
        assert f"{number} graphs {done}" in capsys.readouterr().err.replace(", 1 kept", ", 1 graphs kept")
    assert exit_status(*words, "--chains", "A,B") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: chains 'A,B' names no two partners")


def test_a_real_complex_of_three_chains(shared_data: Path, tmp_path: Path) -> None:
    """Of all contacts, those between the partners; as if two chains had one name."""
    path = shared_data / "cases" / "end_between_receptor_and_ligand" / "native.pdb"
    modules = select_modules()
    every = compute_graph(read_structure(path), modules)
    found = compute_graph(read_structure(path, partners=Partners.read("A,B:C")), modules)
    contacts = [
        {(graph.node_ids[one], graph.node_ids[other]) for one, other in graph.edge_index.T.tolist()}
        for graph in (every, found)
    ]
    assert contacts[1] == {pair for pair in contacts[0] if "C" in (pair[0][0], pair[1][0])}
    assert len(contacts[0]) > len(contacts[1]) > 0
    one_name = tmp_path / "m.pdb"
    one_name.write_text(
        "".join(
            f"{line[:21]}A{int(line[22:26]) + 1000:4d}{line[26:]}" if line[21] == "B" else line
            for line in path.read_text().splitlines(keepends=True)
            if line.startswith("ATOM")
        )
    )
    renamed = compute_graph(read_structure(one_name), modules)
    assert renamed.node_ids == [f"A:{int(name[2:]) + 1000}" if name[0] == "B" else name for name in found.node_ids]
    for name in ("edge_index", "edge_attr", "x"):
        assert np.array_equal(getattr(renamed, name), getattr(found, name)), name


def test_chains_whose_names_are_words(shared_data: Path) -> None:
    path = shared_data / "cases" / "label_one_bad_model_loses_all" / "models" / "long_chain_names.cif"
    structure = read_structure(path, partners=Partners.read("HeavyChain2:HeavyChain1"))
    assert structure.partner_ids.tolist() == read_structure(path).partner_ids.tolist()
