"""The shipped modules: values worked out by hand, and laws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import Delaunay
from scipy.spatial.distance import pdist, squareform
from scipy.spatial.transform import Rotation

from kit.structures import Atom, calpha_pair, helix, helix_pair, pdb_text
from topotrain.errors import DataError
from topotrain.features.dssp import backbone_angles, relative_accessibility, secondary_structure
from topotrain.features.geometry import count_in_bins, cross_chain_contacts, dihedral_angles
from topotrain.features.graph import GraphArrays, compute_graph
from topotrain.features.module_set import select_modules
from topotrain.features.residue_types import RESIDUE_TYPES
from topotrain.features.structure import Structure, read_structure
from topotrain.features.topology_persistence_basic import barcodes

EDGE_MODULES = ("edge/legacy_band/v11", "edge/multi_scale/v24", "edge/distance/v1", "edge/plus_topo_min/v1")


def structure_of(folder: Path, atoms: list[Atom]) -> Structure:
    path = folder / "m.pdb"
    path.write_text(pdb_text(atoms))
    return read_structure(path)


def graph_of(structure: Structure, **modules: object) -> tuple[GraphArrays, dict[str, int]]:
    """The graph, and its edge columns' positions by name."""
    chosen = select_modules(**modules)  # type: ignore[arg-type]
    return compute_graph(structure, chosen), {name: n for n, name in enumerate(chosen.edge_columns)}


def bare(structure: Structure, edge: str, **settings: object) -> tuple[GraphArrays, dict[str, int]]:
    return graph_of(structure, edge_module=edge, topology_module="topology/none/v1", settings=settings)


def two_residues(folder: Path) -> Structure:
    """C-alphas 5 Angstrom apart (3-4-5), with an atom each at known places."""
    return structure_of(
        folder,
        [
            Atom("CA", "ALA", "A", 1, (0.0, 0.0, 0.0)),
            Atom("CB", "ALA", "A", 1, (0.0, 0.0, 1.5)),
            Atom("CA", "TRP", "B", 1, (3.0, 4.0, 0.0)),
            Atom("CB", "TRP", "B", 1, (0.0, 0.0, 12.5)),
            Atom("O", "TRP", "B", 1, (0.0, 0.0, 0.5), element="O"),
        ],
    )


class TestInterface:
    @pytest.mark.parametrize(("distance", "found"), [(9.999, True), (10.0, False), (10.001, False)])
    def test_cutoff_is_strict(self, tmp_path: Path, distance: float, found: bool) -> None:
        residues = select_modules().interface.find(structure_of(tmp_path, calpha_pair(distance)))
        assert residues.tolist() == ([0, 1] if found else [])

    def test_one_chain_has_no_interface(self, tmp_path: Path) -> None:
        structure = structure_of(tmp_path, helix("A", 8))
        assert not len(select_modules().interface.find(structure))
        with pytest.raises(DataError, match="one chain alone"):
            compute_graph(structure, select_modules())

    def test_contacts_equal_brute_force(self, tmp_path: Path) -> None:
        structure = structure_of(tmp_path, helix_pair(14) + helix("C", 6, (0.0, -7.0, 3.0)))
        pairs, distances = cross_chain_contacts(structure, np.arange(structure.num_residues), 0.0, 10.0)
        expected = [
            (i, j)
            for i in range(structure.num_residues)
            for j in range(i + 1, structure.num_residues)
            if structure.chain_ids[i] != structure.chain_ids[j]
            and np.linalg.norm(structure.ca[i] - structure.ca[j]) < 10.0
        ]
        assert [tuple(pair) for pair in pairs] == expected
        assert distances == pytest.approx([np.linalg.norm(structure.ca[i] - structure.ca[j]) for i, j in expected])

    def test_blocks_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        structure = structure_of(tmp_path, helix_pair(14))
        whole = cross_chain_contacts(structure, np.arange(28), 0.0, 10.0)
        monkeypatch.setattr("topotrain.features.geometry.BLOCK_ROWS", 5)
        parts = cross_chain_contacts(structure, np.arange(28), 0.0, 10.0)
        assert np.array_equal(whole[0], parts[0])
        assert np.array_equal(whole[1], parts[1])

    def test_multi_scale_widens_the_interface_unless_told(self) -> None:
        assert select_modules(edge_module="edge/multi_scale/v24").interface.params == {"cutoff": 14.0}
        assert select_modules().interface.params == {"cutoff": 10.0}
        told = select_modules(edge_module="24D Scalars", settings={"interface.cutoff": "12"})
        assert told.interface.params == {"cutoff": 12.0}


class TestEdges:
    def test_each_contact_twice_once_each_way(self, tmp_path: Path) -> None:
        graph, _ = bare(structure_of(tmp_path, helix_pair()), "edge/distance/v1")
        edges = [tuple(edge) for edge in graph.edge_index.T.tolist()]
        assert len(set(edges)) == len(edges) > 4
        assert all(edges[k + 1] == edges[k][::-1] for k in range(0, len(edges), 2))
        first = edges[::2]
        assert first == sorted(first)
        assert all(a < b for a, b in first)

    def test_legacy_band_by_hand(self, tmp_path: Path) -> None:
        graph, column = bare(two_residues(tmp_path), "edge/legacy_band/v11")
        row = graph.edge_attr[0]
        # Pairs: CA-CA 5; CA-CB 12.5; CA-O 0.5 (not counted); CB-CA sqrt(27.25) = 5.22; CB-CB 11; CB-O 1 (in
        # [1, 2)).
        expected = {"ca_distance": 5.0, "count_1_2": 1, "count_5_6": 2, "count_10_inf": 2}
        assert {name: row[position] for name, position in column.items() if row[position]} == expected
        bins = [f"count_{low}_{low + 1}" for low in range(1, 10)]
        assert list(column) == ["ca_distance", *bins, "count_10_inf"]
        assert np.array_equal(graph.edge_attr[0], graph.edge_attr[1])

    def test_legacy_band_scaled_is_declared_and_has_no_data_in_it(self, tmp_path: Path) -> None:
        modules = select_modules(settings={"edge.scale_features": "true"})
        assert modules.edge.variant == "legacy_band_v11_scaled"
        assert modules.edge.scaling != "none"
        graph, _ = bare(two_residues(tmp_path), "edge/legacy_band/v11", **{"edge.scale_features": True})
        assert graph.edge_attr[0, 0] == 0.5
        assert graph.edge_attr[0, 1:].sum() == pytest.approx(1.0)
        assert select_modules().edge.scaling == "none"

    def test_multi_scale_by_hand(self, tmp_path: Path) -> None:
        graph, column = bare(two_residues(tmp_path), "edge/multi_scale/v24")
        assert len(column) == 24
        there, back = graph.edge_attr
        expected = {
            "ca_distance": 5.0, "inverse_distance": 0.2, "unit_x": 0.6, "unit_y": 0.8, "unit_z": 0.0,
            "source_chain_code": 1 / 26, "target_chain_code": 2 / 26, "source_residue_code": 1 / 21,
            "target_residue_code": 19 / 21, "band_index": 0.0, "band_short": 1.0, "band_medium": 0.0,
            "band_long": 0.0, "fraction_0_2": 2 / 6, "fraction_4_6": 2 / 6, "fraction_10_12": 1 / 6,
            "fraction_12_14": 1 / 6, "fraction_2_4": 0.0, "fraction_18_20": 0.0, "contacts_5A": 3.0,
        }  # fmt: skip
        assert {name: there[column[name]] for name in expected} == pytest.approx(expected)
        assert back[column["unit_x"]] == pytest.approx(-0.6)
        assert back[column["source_chain_code"]] == pytest.approx(2 / 26)

    @pytest.mark.parametrize(("distance", "band"), [(5.999, 0), (6.0, 1), (9.999, 1), (10.0, 2), (13.999, 2)])
    def test_multi_scale_bands(self, tmp_path: Path, distance: float, band: int) -> None:
        graph, column = bare(structure_of(tmp_path, calpha_pair(distance)), "edge/multi_scale/v24")
        assert graph.edge_attr[0, column["band_index"]] == band
        assert graph.edge_attr[0, column["band_short"] + band] == 1.0

    def test_multi_scale_contacts_outside_every_band_are_none(self, tmp_path: Path) -> None:
        bands = [
            {"label": "a", "min_distance": 0, "max_distance": 4},
            {"label": "b", "min_distance": 8, "max_distance": 9},
        ]
        graph, _ = bare(structure_of(tmp_path, calpha_pair(6.0)), "edge/multi_scale/v24", **{"edge.bands": bands})
        assert graph.edge_attr.shape == (0, 23)
        assert len(graph.x) == 2

    def test_distance(self, tmp_path: Path) -> None:
        graph, _ = bare(two_residues(tmp_path), "edge/distance/v1")
        assert graph.edge_attr.tolist() == [[5.0], [5.0]]

    def test_plus_topo_min(self, tmp_path: Path) -> None:
        structure = structure_of(tmp_path, helix_pair())
        graph, column = graph_of(structure, edge_module="edge/plus_topo_min/v1")
        legacy, _ = graph_of(structure)
        assert graph.edge_attr.shape[1] == len(column) == 11 + 3 * 140 + 3
        assert np.array_equal(graph.edge_attr[:, :11], legacy.edge_attr)
        topology = graph.x[:, 32:]
        a, b = topology[graph.edge_index[0]], topology[graph.edge_index[1]]
        assert np.array_equal(graph.edge_attr[:, 11:151], np.minimum(a, b))
        assert np.array_equal(graph.edge_attr[:, 151:291], np.maximum(a, b))
        assert np.array_equal(graph.edge_attr[:, 291:431], np.abs(a - b))
        norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        assert graph.edge_attr[:, 431] == pytest.approx(np.minimum(*norms))
        assert graph.edge_attr[:, 433] == pytest.approx((a * b).sum(axis=1) / (norms[0] * norms[1]))
        assert np.array_equal(graph.edge_attr[::2], graph.edge_attr[1::2])

    def test_plus_topo_min_without_topology(self, tmp_path: Path) -> None:
        graph, column = bare(two_residues(tmp_path), "edge/plus_topo_min/v1")
        assert len(column) == 14
        assert graph.edge_attr[0, 11:].tolist() == [0.0, 0.0, 0.0]

    def test_counts_equal_numpy_histograms(self) -> None:
        random = np.random.default_rng(1)
        distances = random.uniform(0, 14, size=(7, 60))
        distances[:, 50:] = np.nan
        edges = np.append(np.arange(1.0, 11.0), np.inf)
        expected = [np.histogram(row[np.isfinite(row)], bins=edges)[0] for row in distances]
        assert np.array_equal(count_in_bins(distances, edges), expected)


class TestTopology:
    def test_equilateral_triangle(self) -> None:
        points = 3.0 * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]])
        deaths, loops = barcodes(points)
        assert deaths.ravel() == pytest.approx([3.0, 3.0])
        # The loop is born with the last edge and dies at the circumdiameter, side * 2 / sqrt(3).
        assert loops == pytest.approx(np.array([[3.0, 3.0 * 2 / np.sqrt(3)]]))

    def test_hexagon_and_square_lie_in_a_plane(self) -> None:
        angles = np.arange(6) * np.pi / 3
        hexagon = 2.0 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        deaths, loops = barcodes(hexagon)
        assert deaths.ravel() == pytest.approx([2.0] * 5)
        assert loops == pytest.approx(np.array([[2.0, 4.0]]))
        _, loops = barcodes(np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]))
        assert loops == pytest.approx(np.array([[1.0, np.sqrt(2.0)]]))

    @pytest.mark.parametrize("size", [0, 1, 2, 3])
    def test_few_points(self, size: int) -> None:
        deaths, loops = barcodes(np.array([[0.0, 0, 0], [2, 0, 0], [5, 0, 0]])[:size])
        assert deaths.ravel().tolist() == pytest.approx([2.0, 3.0][: max(size - 1, 0)])
        assert len(loops) == 0

    def test_h0_is_the_minimum_spanning_tree(self) -> None:
        points = np.random.default_rng(5).uniform(-6, 6, size=(60, 3))
        deaths, _ = barcodes(points)
        tree = minimum_spanning_tree(squareform(pdist(points))).data
        assert np.sort(deaths.ravel()) == pytest.approx(np.sort(tree))

    def test_h1_agrees_with_exact_arithmetic(self) -> None:
        import gudhi

        points = np.random.default_rng(6).uniform(-6, 6, size=(50, 3))
        exact = gudhi.AlphaComplex(points=points, precision="exact").create_simplex_tree()
        exact.compute_persistence(min_persistence=0.0)
        expected = 2 * np.sqrt(exact.persistence_intervals_in_dimension(1))
        loops = barcodes(points)[1]
        assert np.sort(loops, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-9)
        assert len(Delaunay(points).simplices) > len(loops)

    def test_columns_by_hand(self, tmp_path: Path) -> None:
        atoms = [
            Atom("CA", "GLY", "A", 1, (0, 0, 0)),
            Atom("C", "GLY", "A", 1, (3, 0, 0)),
            Atom("CB", "GLY", "A", 1, (0, 8, 0)),  # at 8.0 exactly: within
            Atom("CG", "GLY", "A", 1, (0, 0, 8.001)),  # just outside
            Atom("N", "GLY", "B", 1, (-2, 0, 0), element="N"),
        ]
        structure = structure_of(tmp_path, atoms)
        module = select_modules().topology
        row = dict(zip(module.columns(), module.compute(structure, np.array([0]))[0], strict=True))
        assert [row[f"f0_C_death_{name}"] for name in ("sum", "min", "max", "mean", "std")] == [
            11.0,
            3.0,
            8.0,
            5.5,
            2.5,
        ]
        assert row["f0_CN_death_sum"] == 2.0 + 3.0 + 8.0
        assert row["f0_N_death_sum"] == row["f0_O_death_max"] == row["f1_CNO_len_sum"] == 0.0

    def test_short_bars_are_dropped(self, tmp_path: Path) -> None:
        atoms = [
            Atom("CA", "GLY", "A", 1, (0, 0, 0)),
            Atom("C", "GLY", "A", 1, (0.009, 0, 0)),
            Atom("CB", "GLY", "A", 1, (4, 0, 0)),
        ]
        structure = structure_of(tmp_path, atoms)
        module = select_modules().topology
        row = dict(zip(module.columns(), module.compute(structure, np.array([0]))[0], strict=True))
        assert row["f0_C_death_min"] == pytest.approx(3.991)
        assert row["f0_C_death_sum"] == pytest.approx(3.991)


class TestNodes:
    def test_dihedral_by_hand(self) -> None:
        a, b, c = np.array([[1.0, 0, 0]]), np.array([[0.0, 0, 0]]), np.array([[0.0, 0, 1]])
        for d, angle in (((1, 0, 1), 0.0), ((0, 1, 1), 90.0), ((-1, 0, 1), 180.0), ((0, -1, 1), -90.0)):
            assert dihedral_angles(a, b, c, np.array([d], dtype=float))[0] == pytest.approx(angle)

    def test_ideal_helix(self, tmp_path: Path) -> None:
        structure = structure_of(tmp_path, helix("A", 14))
        phi, psi = backbone_angles(structure)
        assert phi[0] == psi[-1] == 0.0
        assert phi[1:] == pytest.approx([-57.0] * 13, abs=0.2)
        assert psi[:-1] == pytest.approx([-47.0] * 13, abs=0.2)
        assert "".join(secondary_structure(structure)) == "-" + "H" * 12 + "-"

    def test_chain_break_ends_the_helix(self, tmp_path: Path) -> None:
        atoms = [
            replace(atom, xyz=(atom.xyz[0] + 4.0, *atom.xyz[1:])) if atom.number > 10 else atom
            for atom in helix("A", 20)
        ]
        structure = structure_of(tmp_path, atoms)
        phi, psi = backbone_angles(structure)
        assert psi[9] == phi[10] == 0.0
        assert "".join(secondary_structure(structure)) == "-HHHHHHHH--HHHHHHHH-"

    def test_incomplete_residue_is_left_out(self, tmp_path: Path) -> None:
        atoms = [atom for atom in helix("A", 14) if not (atom.number == 7 and atom.name == "O")]
        structure = structure_of(tmp_path, atoms)
        phi, _ = backbone_angles(structure)
        assert secondary_structure(structure)[6] == "-"
        assert phi[6] == phi[7] == 0.0
        assert relative_accessibility(structure, np.array([6])).tolist() == [0.0]

    def test_accessibility_of_a_lone_glycine(self, tmp_path: Path) -> None:
        # Spheres so far apart that none shields another: 4 pi (r + 1.4)^2 each, cut at the residue's maximum.
        spread = [("N", "N", 0.0), ("CA", "C", 50.0), ("C", "C", 100.0), ("O", "O", 150.0)]
        atoms = [Atom(name, "TRP", "A", 1, (x, 0, 0), element) for name, element, x in spread]
        structure = structure_of(tmp_path, atoms)
        total = sum(4 * np.pi * (radius + 1.4) ** 2 for radius in (1.65, 1.87, 1.76, 1.40))
        assert relative_accessibility(structure, np.array([0]))[0] == min(total / 227.0, 1.0)
        two = structure_of(tmp_path, [replace(atom, xyz=(atom.xyz[0] / 1000, 0, 0)) for atom in atoms])
        # All atoms at one place: the largest sphere alone is accessible.
        assert relative_accessibility(two, np.array([0]))[0] == pytest.approx(4 * np.pi * 3.27**2 / 227.0, abs=0.03)

    def test_columns(self, tmp_path: Path) -> None:
        modules = select_modules()
        assert len(modules.node_columns) == 172
        graph = compute_graph(structure_of(tmp_path, helix_pair()), modules)
        column = {name: n for n, name in enumerate(modules.node_columns)}
        assert (graph.x[:, column["SS8_0"] : column["SS8_7"] + 1].sum(axis=1) == 1).all()
        types = graph.x[:, column["AA_0"] : column["AA_20"] + 1].argmax(axis=1)
        assert {RESIDUE_TYPES[index] for index in types} == {"ALA", "SER", "LEU"}
        assert (np.abs(graph.x[:, 1:3]) <= 1).all()
        assert select_modules(topology_module="topology/none/v1").node_columns == modules.node_columns[:32]

    def test_unknown_residue_type(self, tmp_path: Path) -> None:
        atoms = [replace(atom, residue="XYZ") for atom in calpha_pair(5.0)]
        graph, _ = bare(structure_of(tmp_path, atoms), "edge/distance/v1")
        assert graph.x[:, 31].tolist() == [1.0, 1.0]


class TestLaws:
    @pytest.mark.parametrize("edge", EDGE_MODULES)
    def test_rotation_and_translation(self, tmp_path: Path, edge: str) -> None:
        structure = structure_of(tmp_path, helix_pair(12))
        turn = Rotation.from_euler("xyz", [31.0, -57.0, 113.0], degrees=True)
        turned = replace(structure, coords=turn.apply(structure.coords) + [40.0, -25.0, 9.0])
        modules = select_modules(edge_module=edge)
        before, after = compute_graph(structure, modules), compute_graph(turned, modules)
        assert before.node_ids == after.node_ids
        assert np.array_equal(before.edge_index, after.edge_index)
        # Accessibility is sampled on a sphere that does not turn with the molecule.
        assert after.x[:, 0] == pytest.approx(before.x[:, 0], abs=0.03)
        assert after.x[:, 1:] == pytest.approx(before.x[:, 1:], abs=1e-6)
        columns = np.array([not name.startswith("unit_") for name in modules.edge_columns])
        assert modules.edge.orientation_dependent == (not columns.all())
        assert after.edge_attr[:, columns] == pytest.approx(before.edge_attr[:, columns], abs=1e-6)
        if modules.edge.orientation_dependent:
            unit = before.edge_attr[:, ~columns]
            assert after.edge_attr[:, ~columns] == pytest.approx(turn.apply(unit), abs=1e-6)

    def test_chain_order_renumbers_the_nodes_and_nothing_else(self, tmp_path: Path) -> None:
        atoms = helix_pair(12)
        swapped = [atom for atom in atoms if atom.chain == "B"] + [atom for atom in atoms if atom.chain == "A"]
        one, other = (compute_graph(structure_of(tmp_path, part), select_modules()) for part in (atoms, swapped))
        order = [other.node_ids.index(name) for name in one.node_ids]
        assert other.x[order] == pytest.approx(one.x, abs=1e-6)

        def by_name(graph: GraphArrays) -> dict[tuple[str, str], list[float]]:
            ends = zip(*graph.edge_index.tolist(), strict=True)
            rows = graph.edge_attr.tolist()
            return {(graph.node_ids[a], graph.node_ids[b]): row for (a, b), row in zip(ends, rows, strict=True)}

        first, second = by_name(one), by_name(other)
        assert sorted(first) == sorted(second)
        assert all(second[ends] == pytest.approx(row) for ends, row in first.items())

    def test_no_module_scales_in_silence(self, tmp_path: Path) -> None:
        """A graph's features do not change when a distant part of the complex is added."""
        atoms = helix_pair(12)
        far = helix("C", 12, (300.0, 0.0, 0.0)) + helix("D", 12, (300.0, 7.0, 0.0))
        for edge in EDGE_MODULES:
            modules = select_modules(edge_module=edge)
            alone = compute_graph(structure_of(tmp_path, atoms), modules)
            among = compute_graph(structure_of(tmp_path, atoms + far), modules)
            size, edges = len(alone.x), len(alone.edge_attr)
            assert among.edge_attr[:edges] == pytest.approx(alone.edge_attr, abs=1e-9)
            assert among.x[:size, 1:] == pytest.approx(alone.x[:, 1:], abs=1e-9)
            assert among.x[:size, 0] == pytest.approx(alone.x[:, 0], abs=0.01)
