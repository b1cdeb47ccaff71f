"""Which protein chains are alike, and which complexes are linked by them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from topotrain.features.sequences import UNKNOWN_LETTER
from topotrain.processes import run_tasks
from topotrain.progress import OnItemDone

MIN_IDENTITY = 0.4  # of the residues that are aligned
MIN_SHARE = 0.5  # of the shorter chain that the alignment has to cover, unless it covers a domain
DOMAIN_RESIDUES = 60
# A gap of k residues costs 11 + k; the values that BLAST has for BLOSUM62 with these costs (Altschul et al., Nucleic
# Acids Res. 25(17), 3389, 1997) say how often a score comes by chance.
GAP_COSTS = (-12, -1)
LAMBDA, KAPPA = 0.267, 0.041
MAX_CHANCE = 1e-3  # alignments of this score that two unrelated chains of these lengths would have
CHUNK_CELLS = 5_000_000  # of alignment matrices in one task, about 0.2 s
LETTERS = frozenset("ACDEFGHIKLMNPQRSTVWY")


@dataclass(frozen=True, order=True)
class Likeness:
    """Two chains that are alike.

    Attributes:
        identity: share of the aligned residues that are the same.
        aligned: residues of each that are aligned.
        score: of the alignment, in BLOSUM62's units.
    """

    identity: float
    aligned: int
    score: int


@dataclass(frozen=True, order=True)
class Link:
    """Two complexes with a chain alike.

    Attributes:
        first: the one, by name.
        second: the other; after the first in alphabetical order.
        likeness: of the two chains that are the most alike.
    """

    first: str
    second: str
    likeness: Likeness


def likeness(one: str, other: str, min_identity: float = MIN_IDENTITY) -> Likeness | None:
    """How two chains are alike, or ``None`` where they are not.

    Their best local alignment (BLOSUM62) decides: it has at least 40 % identical residues, covers half of the shorter
    chain or 60 residues, and has a score that unrelated chains of these lengths have once in a thousand pairs or less
    often.

    Args:
        one: sequence, a letter for each residue; letters other than the twenty count as unknown.
        other: the same of the other chain.
        min_identity: share of the aligned residues.
    """
    if not one or not other:
        return None
    alignment, score = _aligned(*sorted((one, other)))
    pairs = (alignment >= 0).all(axis=1)
    first, second = sorted((one, other))
    letters = [(first[i], second[j]) for i, j in alignment[pairs].tolist()]
    aligned = len(letters)
    same = sum(a == b and a in LETTERS for a, b in letters)
    covers = aligned >= min(MIN_SHARE * min(len(one), len(other)), DOMAIN_RESIDUES)
    chance = KAPPA * len(one) * len(other) * math.exp(-LAMBDA * score)
    if not aligned or not covers or chance > MAX_CHANCE or same < min_identity * aligned:
        return None
    return Likeness(same / aligned, aligned, score)


def _aligned(first: str, second: str) -> tuple[Any, int]:
    """(length, 2) positions of the best local alignment, -1 in gaps; and its score."""
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal

    one, other = (
        ProteinSequence("".join(letter if letter in LETTERS else UNKNOWN_LETTER for letter in text))
        for text in (first, second)
    )
    matrix = SubstitutionMatrix.std_protein_matrix()
    best = align_optimal(one, other, matrix, gap_penalty=GAP_COSTS, local=True, max_number=1)[0]
    return np.asarray(best.trace).reshape(-1, 2), int(best.score)


@dataclass(frozen=True)
class _Row:
    """One chain, and those that it is compared with."""

    chain: str
    others: tuple[str, ...]
    min_identity: float


def find_links(
    chains: Mapping[str, frozenset[str]],
    *,
    apart: Collection[str] = (),
    min_identity: float = MIN_IDENTITY,
    jobs: int = 1,
    progress: OnItemDone | None = None,
) -> list[Link]:
    """All pairs of complexes that have a chain alike, each chain of the one compared with each of the other.

    Args:
        chains: sequences of each complex.
        apart: complexes of which one is in each pair; by default any two are compared.
        min_identity: as of ``likeness``.
        jobs: processes; the result does not depend on it.
        progress: takes (done, total, "") in pairs of chains.

    Returns:
        Sorted by the names.
    """
    owners: dict[str, list[str]] = {}
    for name in sorted(chains):
        for sequence in sorted(chains[name]):
            owners.setdefault(sequence, []).append(name)
    tasks = list(_rows(owners, frozenset(apart), min_identity))
    total, done = sum(len(task.others) for task in tasks), 0
    best: dict[tuple[str, str], Likeness] = {}

    def note(one: str, other: str, how: Likeness) -> None:
        for a in owners[one]:
            for b in owners[other]:
                if a != b and (not apart or (a in apart) != (b in apart)):
                    pair = (a, b) if a < b else (b, a)
                    best[pair] = max(how, best.get(pair, how))

    for sequence in owners:
        note(sequence, sequence, Likeness(1.0, len(sequence), 0))
    for task, found in run_tasks(_compare, tasks, jobs, _died):
        for other, how in found:
            note(task.chain, other, how)
        done += len(task.others)
        if progress is not None:
            progress(done, total, "")
    return [Link(*pair, how) for pair, how in sorted(best.items())]


def num_cells(chains: Mapping[str, frozenset[str]], apart: Collection[str]) -> int:
    """How large the matrices of ``find_links`` are: some 25 million are filled in a second."""
    sizes = [(name in apart, sum(map(len, sequences))) for name, sequences in chains.items()]
    one, other = (sum(size for side, size in sizes if side is which) for which in (True, False))
    return one * other


def _rows(owners: Mapping[str, Sequence[str]], apart: frozenset[str], min_identity: float) -> Iterator[_Row]:
    """Pairs of chains whose complexes are not one and the same, in portions of about the same work."""
    waiting: dict[str, list[str]] = {}
    for one, other in combinations(owners, 2):
        names = {*owners[one], *owners[other]}
        if len(names) > 1 and (not apart or (names & apart and names - apart)):
            waiting.setdefault(one, []).append(other)
    for one, others in waiting.items():
        portion, cells = list[str](), 0
        for other in others:
            portion.append(other)
            cells += len(one) * len(other)
            if cells >= CHUNK_CELLS:
                yield _Row(one, tuple(portion), min_identity)
                portion, cells = [], 0
        if portion:
            yield _Row(one, tuple(portion), min_identity)


def _compare(row: _Row) -> tuple[_Row, list[tuple[str, Likeness]]]:
    found = ((other, likeness(row.chain, other, row.min_identity)) for other in row.others)
    return row, [(other, how) for other, how in found if how is not None]


def _died(row: _Row) -> tuple[_Row, list[tuple[str, Likeness]]]:
    raise MemoryError("a process that aligned chains was ended, as the system does when memory runs out")


def clusters_of(names: Sequence[str], links: Sequence[Link]) -> dict[str, str]:
    """The cluster of each complex: all that are linked, directly or by others between; called by its first name."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ordered = sorted(names)
    place = {name: number for number, name in enumerate(ordered)}
    rows, columns = ([place[name] for name in side] for side in ([x.first for x in links], [x.second for x in links]))
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(ordered),) * 2)
    _, component = connected_components(graph, directed=False)
    first: dict[int, str] = {}
    for name, number in zip(ordered, component.tolist(), strict=True):
        first.setdefault(number, name)
    return {name: first[number] for name, number in zip(ordered, component.tolist(), strict=True)}
