"""Contacts between partners, and pDockQ where B-factors are pLDDT."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from kit.structures import Atom, cif_text, helix, helix_pair, pdb_text
from topotrain.features.confidence import Confidence, confidence, contact_pairs, pdockq
from topotrain.features.graph import GraphTask, compute_task
from topotrain.features.module_set import select_modules
from topotrain.features.partners import Partners
from topotrain.features.structure import Structure, read_structure


def read(path: Path, text: str) -> tuple[Structure, bytes]:
    path.write_text(text)
    return read_structure(path), path.read_bytes()


def with_factors(text: str, factor: dict[tuple[str, int], float]) -> str:
    """PDB text with B-factors by chain and number."""
    lines = []
    for line in text.splitlines():
        if line.startswith("ATOM"):
            line = f"{line[:60]}{factor[line[21], int(line[22:26])]:6.2f}{line[66:]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def rising(atoms: list[Atom]) -> dict[tuple[str, int], float]:
    """A pLDDT of its own for each residue."""
    return {(atom.chain, atom.number): 50.0 + atom.number % 100 + 20 * (atom.chain == "B") for atom in atoms}


def test_pdockq_is_that_of_the_paper() -> None:
    """By hand: 100 contacts of pLDDT 90 make x = 180, and the sigmoid of it 0.724 / (1 + exp(-1.424)) + 0.018."""
    assert pdockq(90.0, 100) == pytest.approx(0.724 / (1 + math.exp(-0.052 * 27.389)) + 0.018)
    assert pdockq(90.0, 100) == pytest.approx(0.60155, abs=1e-4)
    assert pdockq(152.611 / 2, 100) == pytest.approx(0.724 / 2 + 0.018)
    assert pdockq(10.0, 1) == pytest.approx(0.018, abs=5e-4)


def test_contacts_are_pairs_of_c_betas_of_other_partners(tmp_path: Path) -> None:
    atoms = [*helix_pair(), *helix("C", 8, (0.0, 16.0, 0.0), first=201)]
    structure, _ = read(tmp_path / "m.pdb", pdb_text(atoms))
    beta = structure.atom_positions("CB")
    expected = {
        (one, other)
        for one in range(len(beta))
        for other in range(one + 1, len(beta))
        if structure.chain_ids[one] != structure.chain_ids[other] and np.linalg.norm(beta[one] - beta[other]) <= 8.0
    }
    assert len(expected) > 5
    assert set(map(tuple, contact_pairs(structure).tolist())) == expected
    joined = read_structure(tmp_path / "m.pdb", partners=Partners.read("A,B:C"))
    chains = {frozenset(joined.chain_ids[list(pair)].tolist()) for pair in contact_pairs(joined)}
    assert chains == {frozenset("BC")}


def test_a_residue_without_c_beta_is_where_its_c_alpha_is(tmp_path: Path) -> None:
    pair = [Atom("CA", "GLY", "A", 1, (0.0, 0.0, 0.0)), Atom("CA", "GLY", "B", 2, (8.0, 0.0, 0.0))]
    assert len(contact_pairs(read(tmp_path / "m.pdb", pdb_text(pair))[0])) == 1
    pair[1] = Atom("CA", "GLY", "B", 2, (8.01, 0.0, 0.0))
    assert len(contact_pairs(read(tmp_path / "m.pdb", pdb_text(pair))[0])) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_plddt_is_read_where_each_residue_has_one_value(tmp_path: Path, packed: bool) -> None:
    atoms = helix_pair()
    text, path = with_factors(pdb_text(atoms), rising(atoms)), tmp_path / ("m.pdb.gz" if packed else "m.pdb")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    structure = read_structure(path)
    found = confidence(structure, path.read_bytes())
    rows = np.unique(contact_pairs(structure))
    values = [rising(atoms)[str(structure.chain_ids[row]), int(structure.residue_numbers[row])] for row in rows]
    assert found.contacts == len(contact_pairs(structure))
    assert found.plddt == pytest.approx(np.mean(values))
    assert found.pdockq == pytest.approx(pdockq(float(np.mean(values)), found.contacts))


def test_other_b_factors_are_no_plddt(tmp_path: Path) -> None:
    atoms = helix_pair()
    factors = rising(atoms)
    constant = dict.fromkeys(factors, 80.0)
    shares = {key: value / 100 for key, value in factors.items()}
    negative = {**factors, ("A", 1): -1.0}
    large = {**factors, ("A", 1): 100.5}
    for each in (constant, shares, negative, large, dict.fromkeys(factors, 0.0)):
        structure, content = read(tmp_path / "m.pdb", with_factors(pdb_text(atoms), each))
        assert confidence(structure, content).pdockq is None
    lines = with_factors(pdb_text(atoms), factors).splitlines()
    lines[3] = f"{lines[3][:60]}{33.0:6.2f}{lines[3][66:]}"  # of a crystal: atoms of a residue differ
    structure, content = read(tmp_path / "m.pdb", "\n".join(lines))
    assert confidence(structure, content) == Confidence(confidence(structure, content).contacts)


def test_an_mmcif_file_may_say_that_its_atoms_have_plddt(tmp_path: Path) -> None:
    rows, number = [], 0
    for line in cif_text(helix_pair()).splitlines():
        if line.startswith("ATOM"):
            number += 1
            parts = line.split()
            parts[14] = f"{60 + number % 30}.5"
            line = " ".join(parts)
        rows.append(line)
    text = "\n".join(rows)
    assert confidence(*read(tmp_path / "m.cif", text)).pdockq is None
    said = text + "\nloop_\n_ma_qa_metric.id\n_ma_qa_metric.name\n_ma_qa_metric.type\n1 pLDDT pLDDT\n#\n"
    found = confidence(*read(tmp_path / "m.cif", said))
    assert found.plddt is not None
    assert 60 < found.plddt < 91


def test_a_complex_without_contacts_has_a_pdockq_of_zero(tmp_path: Path) -> None:
    atoms = helix_pair(gap=30.0)
    structure, content = read(tmp_path / "m.pdb", with_factors(pdb_text(atoms), rising(atoms)))
    assert confidence(structure, content) == Confidence(0, None, 0.0)


@pytest.mark.parametrize("topology", ["topology/none/v1", "topology/persistence_basic/v1"])
def test_node_plddt_has_it_beside_the_columns_of_dssp_topo_merge(tmp_path: Path, topology: str) -> None:
    """Predicted or not, the other columns are the same; where B-factors are something else, both columns are 0."""
    atoms = helix_pair()
    factor = rising(atoms)

    def nodes(name: str, module: str, text: str) -> tuple[np.ndarray, list[str], list[str]]:
        (tmp_path / name).write_text(text)
        modules = select_modules(node_module=module, topology_module=topology)
        task = GraphTask("m", str(tmp_path / name), json.dumps(modules.specification()))
        arrays = compute_task(task).arrays
        assert arrays is not None
        return arrays.x, arrays.node_ids, list(modules.node_columns)

    predicted = with_factors(pdb_text(atoms), factor)
    x, names, columns = nodes("m.pdb", "node/plddt/v1", predicted)
    assert columns[32:34] == ["plddt", "has_plddt"]
    assert x[:, 32].tolist() == [factor[chain, int(number)] for chain, number in (name.split(":") for name in names)]
    assert x[:, 33].tolist() == [1.0] * len(names)
    without, _, plain = nodes("m.pdb", "node/dssp_topo_merge/v1", predicted)
    assert plain == [*columns[:32], *columns[34:]]
    assert np.array_equal(np.delete(x, [32, 33], axis=1), without)

    other, _, _ = nodes("other.pdb", "node/plddt/v1", with_factors(pdb_text(atoms), dict.fromkeys(factor, 80.0)))
    assert np.array_equal(np.delete(other, [32, 33], axis=1), without)
    assert not other[:, 32:34].any()
