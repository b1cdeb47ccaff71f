"""The same atoms in many writings make the same structure and the same graph."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.writings import (
    FORCE_FIELD,
    MODIFIED,
    WRITINGS,
    Record,
    blocks,
    chains,
    cif,
    demo_complex,
    hybrid36,
    in_pieces,
    of_chain,
    pdb,
    renamed,
    segments,
    water,
)
from topotrain.errors import DataError
from topotrain.features.graph import GraphArrays, compute_graph
from topotrain.features.module_set import select_modules
from topotrain.features.residue_names import ALIASES, STANDARD_NAMES, residue_name
from topotrain.features.structure import Structure, read_structure


def small() -> list[Record]:
    """The first 40 residues of each chain: enough for every property of order and naming."""
    return [atom for atom in demo_complex() if atom.number <= 40]


def assert_same(one: Structure, other: Structure) -> None:
    """Equal but for the names of chains and the order of atoms within a residue."""
    assert one.num_residues == other.num_residues
    assert np.array_equal(one.residue_starts, other.residue_starts)
    for name in ("residue_names", "residue_numbers", "insertion_codes"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    ranks = [np.unique(item.chain_ids, return_index=True, return_inverse=True)[1:] for item in (one, other)]
    assert np.array_equal(ranks[0][0][ranks[0][1]], ranks[1][0][ranks[1][1]]), "residues of other chains"
    for item in (one, other):
        assert len(item.coords) == len(item.elements) == len(item.atom_names) == item.residue_starts[-1]
    orders = [np.lexsort((item.atom_names, item.atom_residues)) for item in (one, other)]
    for name in ("coords", "elements", "atom_names"):
        left, right = (getattr(item, name)[order] for item, order in zip((one, other), orders, strict=True))
        assert np.array_equal(left, right), name


@lru_cache(maxsize=1)
def reference() -> tuple[Structure, GraphArrays]:
    structure = read_structure("m.pdb", pdb(demo_complex()))
    return structure, graph_of(structure)


def graph_of(structure: Structure) -> GraphArrays:
    return compute_graph(structure, select_modules(topology_module="topology/none/v1"))


@pytest.mark.parametrize("writing", WRITINGS)
def test_every_writing_makes_the_same_structure(writing: str) -> None:
    name, content, changes = WRITINGS[writing](demo_complex())
    structure = read_structure(name, content)
    assert_same(structure, reference()[0])
    assert set(structure.changes) == changes
    assert structure.num_models == {"an ensemble": 3, "an ensemble by END": 2}.get(writing, 1)


@pytest.mark.parametrize(
    "writing",
    [
        "no elements, names left", "hydrogens, no elements, names left", "force-field names", "four-letter names",
        "oxygens of CHARMM", "modified residues as HETATM at the end", "interleaved chains", "chains in MODELs",
        "segment ids", "long chains in mmCIF", "mmCIF, the least", "water as ATOM",
    ],
)  # fmt: skip
def test_and_the_same_graph(writing: str) -> None:
    name, content, _ = WRITINGS[writing](demo_complex())
    graph, expected = graph_of(read_structure(name, content)), reference()[1]
    assert [node.split(":")[1] for node in graph.node_ids] == [node.split(":")[1] for node in expected.node_ids]
    assert np.array_equal(graph.edge_index, expected.edge_index)
    assert np.array_equal(graph.x, expected.x)
    assert np.array_equal(graph.edge_attr, expected.edge_attr)


class TestAnyOrder:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.integers(2, 9).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)))))
    def test_pieces_in_any_order(self, cut: tuple[int, list[int]]) -> None:
        number, order = cut
        self.holds(in_pieces(small(), order, number))

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.randoms(use_true_random=False))
    def test_records_in_any_order(self, random) -> None:
        atoms = small()
        random.shuffle(atoms)
        self.holds(atoms)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, 1), min_size=500, max_size=500))
    def test_chains_interleaved_in_any_way(self, turns: list[int]) -> None:
        parts = [iter(of_chain(small(), chain)) for chain in "AB"]
        mixed = [atom for turn in turns if (atom := next(parts[turn], None)) is not None]
        self.holds([*mixed, *parts[0], *parts[1]])

    def holds(self, atoms: list[Record]) -> None:
        structure = read_structure("m.pdb", pdb(atoms))
        first = structure.chain_ids[0]
        other = "B" if first == "A" else "A"
        expected = read_structure("m.pdb", pdb([*of_chain(small(), first), *of_chain(small(), other)]))
        assert_same(structure, expected)


class TestAnyName:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.data())
    def test_any_alias_of_any_residue(self, data: st.DataObject) -> None:
        known = {
            name: [alias for alias in ALIASES if ALIASES[alias] == name and len(alias) < 4] for name in STANDARD_NAMES
        }
        atoms = small()
        chosen = {
            (atom.chain, atom.number): data.draw(st.sampled_from([atom.residue, *known[atom.residue]]))
            for atom in atoms
            if atom.name == "CA"
        }
        named = [replace(atom, residue=chosen[atom.chain, atom.number]) for atom in atoms]
        structure = read_structure("m.pdb", pdb(named))
        assert_same(structure, read_structure("m.pdb", pdb(atoms)))
        num_other = sum(chosen[atom.chain, atom.number] != atom.residue for atom in atoms if atom.name == "CA")
        assert sum(structure.changes.get("residues_renamed", {}).values()) == num_other

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        st.lists(
            st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12),
            min_size=2, max_size=2, unique=True,
        ),
        st.integers(-500, 3_000),
    )  # fmt: skip
    def test_any_chain_and_number(self, names: list[str], shift: int) -> None:
        atoms = [replace(atom, number=atom.number + shift, chain=names[atom.chain == "B"]) for atom in small()]
        from_cif = read_structure("m.cif", cif(atoms))
        assert set(from_cif.chain_ids) == set(names)
        assert from_cif.changes == {}
        if max(map(len, names)) <= 2:
            from_pdb = read_structure("m.pdb", pdb(atoms))
            assert from_pdb.residue_ids == from_cif.residue_ids
            assert_same(from_pdb, from_cif)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.integers(0, 79), st.booleans())
    def test_any_split_into_blocks(self, place: int, end: bool) -> None:
        """A chain that goes on in the next MODEL is one chain."""
        atoms = small()
        cut = [n for n, atom in enumerate(atoms) if atom.name == "N"][place]
        parts = [part for part in (atoms[:cut], atoms[cut:]) if part]
        structure = read_structure("m.pdb", blocks(*parts, kind="END" if end else "MODEL"))
        assert_same(structure, read_structure("m.pdb", pdb(atoms)))


def test_hybrid_36_numbers_and_long_serials() -> None:
    atoms = [replace(atom, number=atom.number + 9_980) for atom in small()]
    assert hybrid36(10_000) == "A000"
    structure = read_structure("m.pdb", pdb(atoms))
    assert structure.residue_numbers.max() == 10_020
    lines = pdb(small()).decode().splitlines()
    moved = "\n".join(f"ATOM  {100000 + n}{line[11:]}" for n, line in enumerate(lines[:-1])).encode()
    assert_same(read_structure("m.pdb", moved), read_structure("m.pdb", pdb(small())))


class TestNames:
    def test_every_alias_is_one_of_the_twenty(self) -> None:
        assert set(ALIASES.values()) <= STANDARD_NAMES
        assert not set(ALIASES) & STANDARD_NAMES
        for name in STANDARD_NAMES:
            assert residue_name(name).standard == name
            assert residue_name(f"N{name}").standard == residue_name(f"C{name}").standard == name

    def test_modified_residues_of_the_wwpdb(self) -> None:
        assert {name: residue_name(alias).standard for name, alias in MODIFIED.items()} == {n: n for n in MODIFIED}
        assert residue_name("DAL").standard == "ALA"
        assert residue_name("MLY").standard == "LYS"

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("HOH", "water"), ("SOL", "water"), ("TIP3", "water"), ("ACE", "cap"), ("NME", "cap"), ("DA", "nucleic"),
         ("U", "nucleic"), ("DG5", "nucleic"), ("CYT", "nucleic"), ("ZN", "other"), ("CA", "other"), ("NAG", "other"),
         ("UNK", "amino"), ("XYZ", "unknown")],
    )  # fmt: skip
    def test_what_is_no_amino_acid(self, name: str, kind: str) -> None:
        assert residue_name(name).kind == kind

    def test_unknown_residues_are_counted(self) -> None:
        structure = read_structure("m.pdb", pdb(renamed(small(), {"GLY": "UNK", "ALA": "XYZ"})))
        counts = structure.changes["residues_unknown"]
        assert counts == {
            "UNK": sum(a.name == "CA" and a.residue == "GLY" for a in small()),
            "XYZ": sum(a.name == "CA" and a.residue == "ALA" for a in small()),
        }


class TestHetatm:
    def test_free_amino_acids_are_no_residues(self) -> None:
        free = [
            replace(atom, record="HETATM", number=900, xyz=(" 100.000", atom.xyz[1], atom.xyz[2]))
            for atom in small()[:4]
        ]
        structure = read_structure("m.pdb", pdb([*small(), *free]))
        assert_same(structure, read_structure("m.pdb", pdb(small())))
        assert structure.changes == {"residues_left_out": {free[0].residue: 1}}

    def test_ligands_ions_and_caps_of_atom_records(self) -> None:
        at = ("   1.000", "   2.000", "   3.000")
        extra = [
            Record("CA", "CA", "A", 901, at, "CA"),
            Record("C", "ACE", "A", 0, at, "C"),
            Record("O", "ACE", "A", 0, at, "O"),
            Record("C1", "NAG", "A", 902, at, "C"),
            water(),
        ]
        structure = read_structure("m.pdb", pdb([*extra, *small()]))
        assert_same(structure, read_structure("m.pdb", pdb(small())))
        assert structure.changes == {"residues_left_out": {"CA": 1, "ACE": 1, "NAG": 1, "HOH": 1}}

    def test_mercury_of_a_modified_residue_stays(self) -> None:
        at = ("   1.000", "   2.000", "   3.000")
        atoms = [replace(atom, residue="CMH" if atom.number == 3 else atom.residue) for atom in small()]
        last = max(n for n, atom in enumerate(atoms) if atom.residue == "CMH" and atom.chain == "A")
        atoms.insert(last + 1, Record("HG", "CMH", "A", 3, at, "HG"))
        assert "HG" in read_structure("m.pdb", pdb(atoms)).elements


class TestModels:
    def test_each_model(self) -> None:
        moved = [replace(atom, xyz=(f"{float(atom.xyz[0]) + 1:8.3f}", *atom.xyz[1:])) for atom in small()]
        content = blocks(small(), moved)
        one, two = (read_structure("m.pdb", content, model=place) for place in (0, 1))
        assert two.coords[:, 0] == pytest.approx(one.coords[:, 0] + 1)
        assert one.changes == two.changes == {}
        assert one.num_models == 2

    def test_neither_an_ensemble_nor_an_assembly(self) -> None:
        a, b = of_chain(small(), "A"), of_chain(small(), "B")
        with pytest.raises(DataError, match="hold chain A again beside other chains"):
            read_structure("m.pdb", blocks([*a, *b], [*a, *chains(b, {"B": "C"})]))

    def test_segments_tell_copies_of_a_chain_apart(self) -> None:
        """A homodimer of CHARMM: blank chains, the same residues in both MODELs."""
        a = of_chain(small(), "A")
        again = [replace(atom, chain="Z") for atom in a]
        structure = read_structure("m.pdb", blocks(segments(a), segments(again)))
        assert set(structure.chain_ids) == {"PROA", "PROZ"}
        assert structure.num_models == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (pdb(chains(small(), {"A": "", "B": ""})), "chain identifiers are missing"),
            (pdb(chains(small(), {"A": "A", "B": "A"})), "two residues are called A:"),
            (
                pdb(small()).replace(b"ALA A   1 ", b"ALA A**** "),
                "line 1: .* is no residue number",
            ),
        ],
    )
    def test_names_that_say_too_little(self, content: bytes, said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_structure("m.pdb", content)

    @pytest.mark.parametrize("bad", ["     nan", "********", "        ", "     inf", " 1.0 2.0"])
    def test_coordinates_that_are_none(self, bad: str) -> None:
        lines = pdb(small()).decode().splitlines(keepends=True)
        lines[4] = lines[4][:38] + bad + lines[4][46:]
        with pytest.raises(DataError, match="line 5: coordinates are not numbers"):
            read_structure("m.pdb", "".join(lines).encode())

    def test_coordinates_too_wide_for_their_columns(self) -> None:
        """A number that runs into its neighbour would be read as two others."""
        lines = pdb(small()).decode().splitlines(keepends=True)
        lines[4] = lines[4][:30] + "-1000.1231000.456  50.000" + lines[4][54:]
        with pytest.raises(DataError, match="line 5: coordinates are not numbers in their columns"):
            read_structure("m.pdb", "".join(lines).encode())

    def test_bad_water_does_not_matter(self) -> None:
        bad = Record("O", "HOH", "W", 1, ("********",) * 3, "O", record="HETATM")
        assert_same(read_structure("m.pdb", pdb([*small(), bad])), read_structure("m.pdb", pdb(small())))

    @pytest.mark.parametrize(
        ("without", "said"),
        [
            (["Cartn_y"], "no column Cartn_y"),
            (["auth_asym_id", "label_asym_id"], "no column auth_asym_id or label_asym_id"),
            (["auth_seq_id", "label_seq_id"], "no column auth_seq_id or label_seq_id"),
            (["auth_comp_id", "label_comp_id"], "no column auth_comp_id or label_comp_id"),
            (["auth_atom_id", "label_atom_id"], "no column auth_atom_id or label_atom_id"),
        ],
    )
    def test_missing_columns_are_named(self, without: list[str], said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_structure("m.cif", cif(small(), without))

    def test_mmcif_coordinates(self) -> None:
        content = cif(small(), change=lambda name, cell: "?" if name == "Cartn_z" else cell)
        with pytest.raises(DataError, match="Cartn_z of atom 1 is"):
            read_structure("m.cif", content)


def test_cases_of_people(shared_data: Path) -> None:
    cases = shared_data / "cases"
    base = read_structure(cases / "four_letter_residue_names" / "models" / "base.pdb")
    same = [
        "four_letter_residue_names/models/HISE.pdb",
        "label_chain_in_two_pieces/models/split_chain.pdb",
        "label_chain_in_two_pieces/models/split_one.pdb",
        "label_with_force_field_names/models/his_charmm.pdb",
        "left_justified_names_without_elements/models/left_no_elements.pdb",
        "modified_residues_left_out/models/SEP_as_HETATM.pdb",
        "mmcif_columns/models/c_noauth.cif",
        "mmcif_columns/models/c_nogroup.cif",
        "mmcif_columns/models/c_noocc.cif",
        "label_one_bad_model_loses_all/models/long_chain_names.cif",
    ]
    for name in same:
        assert_same(read_structure(cases / name), base)
    assert set(FORCE_FIELD) & set(base.residue_names)
