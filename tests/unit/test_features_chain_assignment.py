"""Which chains of a decoy are compared with which of the native."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.structures import Atom, helix, pdb_text
from topotrain.data.demo import write_demo_structures
from topotrain.features.chain_alignment import Alignments
from topotrain.features.chain_assignment import IMPOSSIBLE, MAX_NODES, best_assignment, unmatched_chains
from topotrain.features.chain_atoms import polymer_chains
from topotrain.features.dockq import label_decoys
from topotrain.features.dockq_library import as_biopython, compare_interface, residue_distances
from topotrain.features.interface_scores import Interface, InterfaceScores, native_interfaces
from topotrain.features.structure import read_structure

pytest.importorskip("DockQ", reason="DockQ is not installed")


@pytest.fixture(scope="module")
def decoy_structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The structures of the demo data."""
    folder = tmp_path_factory.mktemp("demo") / "complexes"
    write_demo_structures(folder)
    return folder


NAMES = "ABCDEFGHIJKLMNOPQRST"


def interfaces_of(pairs: list[tuple[int, int]]) -> list[Interface]:
    return [Interface(first, second, np.zeros((1, 1), dtype=np.float32)) for first, second in pairs]


def problem(seed: int, native: int, decoy: int, groups: int = 1, mutants: float = 0.0):
    """Random scores; chains of one group may stand for each other."""
    random = np.random.default_rng(seed)
    every = itertools.combinations(range(native), 2)
    pairs = [pair for pair in every if random.random() < 0.6 or pair[1] == pair[0] + 1]
    scores = {(pair, x, y): random.random() ** 3 for pair in pairs for x, y in itertools.permutations(range(decoy), 2)}
    mismatches = np.full((native, decoy), IMPOSSIBLE)
    for row, column in itertools.product(range(native), range(decoy)):
        if row % groups == column % groups:
            mismatches[row, column] = random.integers(1, 4) if random.random() < mutants else 0
    return interfaces_of(pairs), mismatches, scores


def brute_force(interfaces, mismatches, scores) -> tuple[float, float]:
    """Fewest mismatches and then the best sum, over every assignment."""
    best = (math.inf, math.inf)
    for chains in itertools.permutations(range(mismatches.shape[1]), len(mismatches)):
        cost = sum(mismatches[row, chain] for row, chain in enumerate(chains))
        if cost < IMPOSSIBLE:
            value = sum(scores[(i.first, i.second), chains[i.first], chains[i.second]] for i in interfaces)
            best = min(best, (cost, -value))
    return best[0], -best[1]


@pytest.mark.parametrize(
    ("native", "decoy", "groups", "mutants"),
    [
        (2, 2, 1, 0.0),
        (2, 5, 1, 0.0),
        (3, 3, 1, 0.3),
        (4, 6, 1, 0.0),
        (4, 4, 2, 0.5),
        (5, 5, 1, 0.0),
        (6, 6, 1, 0.0),
        (6, 6, 1, 0.2),
        (6, 6, 3, 0.0),
        (6, 7, 2, 0.2),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_as_good_as_brute_force(seed: int, native: int, decoy: int, groups: int, mutants: float) -> None:
    interfaces, mismatches, scores = problem(seed, native, decoy, groups, mutants)
    cost, value = brute_force(interfaces, mismatches, scores)
    if math.isinf(cost):
        assert unmatched_chains(mismatches)
        return
    assert not unmatched_chains(mismatches)
    found = best_assignment(interfaces, mismatches, lambda i, x, y: scores[(i.first, i.second), x, y])
    assert found.proven
    chains = found.chains
    assert len(set(chains.values())) == len(chains) == native
    assert sum(mismatches[row, chain] for row, chain in chains.items()) == cost
    reached = sum(scores[(i.first, i.second), chains[i.first], chains[i.second]] for i in interfaces)
    assert reached == pytest.approx(value, abs=1e-6)


def test_without_a_choice_nothing_is_computed() -> None:
    mismatches = np.array([[0.0, IMPOSSIBLE], [IMPOSSIBLE, 2.0]])
    found = best_assignment(interfaces_of([(0, 1)]), mismatches, lambda *_: pytest.fail("not needed"))
    assert found.chains == {0: 0, 1: 1}


def test_paralogues_are_told_apart_before_dockq_is_looked_at() -> None:
    mismatches = np.array([[0.0, 9.0], [9.0, 0.0]])
    found = best_assignment(interfaces_of([(0, 1)]), mismatches, lambda i, x, y: float(x > y))
    assert found.chains == {0: 0, 1: 1}


def test_one_mutated_copy_does_not_bind_the_others() -> None:
    """Which native chain the mutant stands for is open: it costs the same everywhere."""
    mismatches = np.array([[1.0, 0.0, 0.0]] * 3)
    chain = interfaces_of([(0, 1), (1, 2)])
    found = best_assignment(chain, mismatches, lambda i, x, y: float((i.first, x) == (1, 0)))
    assert found.chains[1] == 0


@pytest.mark.parametrize("size", [12, 20])
def test_the_search_is_bounded(size: int) -> None:
    """Scores without any order, the worst that there is; 12 identical chains have 479 million assignments."""
    interfaces, mismatches, scores = problem(1, size, size)
    calls = []

    def score(interface: Interface, x: int, y: int) -> float:
        calls.append(x)
        return scores[(interface.first, interface.second), x, y]

    started = time.monotonic()
    found = best_assignment(interfaces, mismatches, score)
    assert time.monotonic() - started < 60 * (size // 6)
    assert len(calls) == len(interfaces) * size * (size - 1)
    assert not found.proven
    value = sum(scores[(i.first, i.second), found.chains[i.first], found.chains[i.second]] for i in interfaces)
    random = np.random.default_rng(0)
    tried = [random.permutation(size) for _ in range(2000)]
    assert value > max(sum(scores[(i.first, i.second), c[i.first], c[i.second]] for i in interfaces) for c in tried)
    assert MAX_NODES > sum(math.perm(7, k) for k in range(1, 8)), "7 identical chains are searched to the end"


def ring(size: int, residues: int = 12, wobble: float = 0.0, seed: int = 0) -> list[list[Atom]]:
    """Copies of a helix around an axis, each a little out of its place."""
    random = np.random.default_rng(seed)
    radius = 8.5 / (2 * math.sin(math.pi / size))
    chains = []
    for number in range(size):
        angle = 2 * math.pi * number / size
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = random.normal(0.0, wobble, 3)
        atoms = []
        for atom in helix(NAMES[number], residues):
            x, y, z = atom.xyz  # the axis of the helix lies along x
            y, z = turn @ np.array([y + radius, z])
            atoms.append(replace(atom, xyz=tuple(np.add((x, y, z), shift).tolist())))
        chains.append(atoms)
    return chains


def written(path: Path, chains: list[list[Atom]], names: str = NAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pdb_text(replace(a, chain=name) for atoms, name in zip(chains, names, strict=False) for a in atoms))
    return path


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_identical_chains_may_stand_for_each_other(tmp_path: Path, size: int) -> None:
    """Whatever their names and their order in the decoy."""
    native = written(tmp_path / "native.pdb", ring(size))
    chains = ring(size, wobble=1.0, seed=size)
    random = np.random.default_rng(size)
    for number in range(6):
        order = random.permutation(size) if number else range(size)
        names = "".join(random.permutation(list(NAMES[:size]))) if number % 2 else NAMES
        written(tmp_path / "models" / f"m{number}.pdb", [chains[i] for i in order], names)
    rows = label_decoys(tmp_path / "models", native).rows
    assert len(rows) == 6
    assert len({(row.dockq, row.irmsd, row.fnat) for row in rows}) == 1
    assert 0.3 < rows[0].dockq < 0.999


def test_the_best_of_all_assignments_by_dockq_itself(tmp_path: Path) -> None:
    """Six chains in a heap: every pair of chains at every interface by DockQ, every assignment by hand."""
    native = written(tmp_path / "native.pdb", ring(6))
    decoy = written(tmp_path / "models" / "m.pdb", ring(6, wobble=4.0, seed=3))
    theirs, ours = (polymer_chains(read_structure(path)) for path in (native, decoy))
    made = [[as_biopython(chain) for chain in chains] for chains in (ours, theirs)]
    scores = {}
    interfaces = native_interfaces(theirs)
    fast = InterfaceScores(theirs, ours, Alignments())
    for each in interfaces:
        for x, y in itertools.permutations(range(6), 2):
            result = compare_interface((made[0][x], made[0][y]), (made[1][each.first], made[1][each.second]))
            scores[(each.first, each.second), x, y] = result["DockQ"]
            assert fast.dockq(each, x, y) == pytest.approx(result["DockQ"], abs=1e-5)
    _, value = brute_force(interfaces, np.zeros((6, 6)), scores)
    (row,) = label_decoys(tmp_path / "models", native).rows
    assert row.interfaces == len(interfaces) >= 6
    assert row.dockq == pytest.approx(value / len(interfaces), abs=6e-5)


def test_twelve_identical_chains_take_bounded_time(tmp_path: Path) -> None:
    native = written(tmp_path / "native.pdb", ring(12, residues=20))
    order = np.random.default_rng(5).permutation(12)
    near, far = (ring(12, residues=20, wobble=wobble, seed=7) for wobble in (0.7, 8.0))
    written(tmp_path / "models" / "far.pdb", [far[i] for i in order])
    written(tmp_path / "models" / "in_order.pdb", near)
    written(tmp_path / "models" / "near.pdb", [near[i] for i in order])
    started = time.monotonic()
    report = label_decoys(tmp_path / "models", native)
    assert time.monotonic() - started < 120
    rows = {row.MODEL: row for row in report.rows}
    assert rows["near"].dockq == rows["in_order"].dockq > 0.6
    assert rows["far"].dockq < 0.3
    assert "near" not in report.notes


def test_distances_are_dockqs_as_far_as_it_looks(tmp_path: Path) -> None:
    from DockQ.operations_nocy import residue_distances as dockqs

    one, other = polymer_chains(read_structure(written(tmp_path / "a.pdb", ring(5, residues=30, wobble=5.0))))[:2]
    ours, theirs = (f(one.coords, other.coords, one.sizes, other.sizes) for f in (residue_distances, dockqs))
    near = theirs < 100
    assert near.any()
    assert not near.all()
    assert (ours[near] == theirs[near]).all()
    assert (ours[~near] >= 100).all()


@pytest.mark.parametrize("decoy", ["1BGS_AE/d03", "3HSY_AB/d10"])
def test_the_formula_is_dockqs_on_real_complexes(decoy_structures: Path, decoy: str) -> None:
    target = decoy.partition("/")[0]
    ours, theirs = (
        polymer_chains(read_structure(decoy_structures / part))
        for part in (f"holdout/{decoy}.pdb", f"natives/{target}.pdb")
    )
    (each,) = native_interfaces(theirs)
    value = InterfaceScores(theirs, ours, Alignments()).dockq(each, 0, 1)
    result = compare_interface(tuple(map(as_biopython, ours)), tuple(map(as_biopython, theirs)))
    assert value == pytest.approx(result["DockQ"], abs=1e-4)
