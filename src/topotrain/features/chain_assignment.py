"""Which chain of a decoy stands for which of the native: fewest mismatches, then the best DockQ, in bounded time.

The score of an assignment is a sum over the native's interfaces of a number that depends on two chains alone, so each
number is computed once, and the assignments are searched in a tree: chains are assigned one after another, and a
branch is left when what it can reach at most is no more than what was found. The argument is in
docs/decisions/labels-with-dockq.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from topotrain.features.interface_scores import Interface
from topotrain.features.structure import FloatArray, IntArray

# Nodes of the tree that are looked at. Those of all assignments of 7 identical chains to 7 are 13,700.
MAX_NODES = 20_000
MAX_SEEDS = 25  # assignments to begin with
EQUAL = 1e-9  # DockQ; what differs by less is rounding
IMPOSSIBLE = 1e9  # mismatches of chains that are not alike


@dataclass(frozen=True)
class Assignment:
    """Chains of the decoy for those of the native.

    Attributes:
        chains: for each native chain that has an interface, the index of the decoy's chain.
        proven: whether no other assignment is better.
    """

    chains: dict[int, int]
    proven: bool


def _best_pairs(costs: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows and columns of the cheapest assignment."""
    from scipy.optimize import linear_sum_assignment  # imported on use: listing modules needs none of it

    rows, columns = linear_sum_assignment(costs)
    return rows, columns


def unmatched_chains(mismatches: FloatArray) -> list[int]:
    """Rows (native chains) that are left over when as many as can be have a column (decoy chain) of their own.

    Args:
        mismatches: (num_native, num_decoy) mismatches; ``IMPOSSIBLE`` where chains are not alike.
    """
    rows, columns = _best_pairs(mismatches)
    matched = {int(row) for row, column in zip(rows, columns, strict=True) if mismatches[row, column] < IMPOSSIBLE}
    return [row for row in range(len(mismatches)) if row not in matched]


def best_assignment(
    interfaces: Sequence[Interface], mismatches: FloatArray, score: Callable[[Interface, int, int], float]
) -> Assignment:
    """The assignment with the fewest mismatches, and among those the one with the best sum of scores.

    Args:
        interfaces: of the native.
        mismatches: (num_native, num_decoy) mismatches of each pair of chains, ``IMPOSSIBLE`` where they are not
            alike; every native chain with an interface can have a decoy chain of its own.
        score: DockQ of an interface with two chains of the decoy, asked for only where there is a choice.
    """
    nodes = _in_order(interfaces)
    possible = _possible(mismatches[nodes])
    if (possible.sum(axis=1) == 1).all():
        return Assignment({node: int(np.argmax(row)) for node, row in zip(nodes, possible, strict=True)}, True)
    search = _Search(nodes, possible, mismatches, interfaces, score)
    search.start()
    search.descend([], 0.0)
    return Assignment(dict(zip(nodes, search.best, strict=True)), search.visited < MAX_NODES)


def _in_order(interfaces: Sequence[Interface]) -> list[int]:
    """Native chains with an interface, each with as many as can be to those before it."""
    neighbours: dict[int, set[int]] = {}
    for interface in interfaces:
        neighbours.setdefault(interface.first, set()).add(interface.second)
        neighbours.setdefault(interface.second, set()).add(interface.first)
    order: list[int] = []
    while len(order) < len(neighbours):
        left = [node for node in neighbours if node not in order]
        order.append(max(left, key=lambda node: (len(neighbours[node] & set(order)), len(neighbours[node]), -node)))
    return order


def _possible(mismatches: FloatArray) -> np.ndarray:
    """(num_chains, num_decoy) whether a pair is in any assignment with the fewest mismatches."""
    fewest = _fewest(mismatches)
    possible = np.zeros(mismatches.shape, dtype=bool)
    for row, column in zip(*np.nonzero(mismatches < IMPOSSIBLE), strict=True):
        others = np.delete(np.delete(mismatches, row, axis=0), column, axis=1)
        possible[row, column] = mismatches[row, column] + _fewest(others) <= fewest
    return possible


def _fewest(mismatches: FloatArray) -> float:
    return float(mismatches[_best_pairs(mismatches)].sum())


class _Search:
    """Branch and bound over assignments, one native chain a level."""

    def __init__(
        self,
        nodes: list[int],
        possible: np.ndarray,
        mismatches: FloatArray,
        interfaces: Sequence[Interface],
        score: Callable[[Interface, int, int], float],
    ) -> None:
        self.visited, self.best, self.best_value = 0, list[int](), -np.inf
        self._possible = possible
        # A mismatch weighs more than all interfaces together.
        self._alone = np.where(possible, -mismatches[nodes] * (len(interfaces) + 1), -np.inf)
        level = {node: number for number, node in enumerate(nodes)}
        self._tables: list[tuple[int, int, FloatArray]] = []  # earlier level, later level, scores by their chains
        for interface in interfaces:
            table = np.full((possible.shape[1],) * 2, -np.inf)
            one, other = level[interface.first], level[interface.second]
            for x in np.flatnonzero(possible[one]).tolist():
                for y in np.flatnonzero(possible[other]).tolist():
                    if x != y:
                        table[x, y] = score(interface, x, y)
            self._tables.append((one, other, table) if one < other else (other, one, table.T))
        self._to_earlier = [[(a, t) for a, b, t in self._tables if b == number] for number in range(len(nodes))]

    def value(self, chains: Sequence[int]) -> float:
        """Of a whole assignment, by level."""
        alone = sum(self._alone[number, chain] for number, chain in enumerate(chains))
        return float(alone + sum(table[chains[a], chains[b]] for a, b, table in self._tables))

    def start(self) -> None:
        """Good assignments to begin with: from the best pairs of each interface, grown and then improved."""
        _, columns = _best_pairs(np.where(self._possible, -self._alone, IMPOSSIBLE))
        starts = [columns.tolist()]
        pairs = [
            (float(table.flat[index]), a, b, *divmod(int(index), table.shape[1]))
            for a, b, table in self._tables
            for index in np.argsort(table, axis=None)[::-1][:MAX_SEEDS]
        ]
        for _, a, b, x, y in sorted(pairs, reverse=True)[:MAX_SEEDS]:
            starts.append(self._grown({a: x, b: y}))
        for chains in starts:
            if None not in chains:
                self._keep(*self._improved([chain for chain in chains if chain is not None]))

    def _grown(self, chains: dict[int, int]) -> list[int | None]:
        """Chain by chain, each as good as can be beside those before it."""
        size = len(self._possible)
        while len(chains) < size:
            best: tuple[float, int, int] | None = None
            for number in set(range(size)) - set(chains):
                gains = self._gains(number, chains)
                choice = int(np.argmax(gains))
                joined = sum(1 for a, b, _ in self._tables if number in (a, b) and (a in chains or b in chains))
                if np.isfinite(gains[choice]) and joined and (best is None or gains[choice] > best[0]):
                    best = float(gains[choice]), number, choice
            if best is None:
                number = min(set(range(size)) - set(chains))
                gains = self._gains(number, chains)
                if not np.isfinite(gains).any():
                    break
                best = 0.0, number, int(np.argmax(gains))
            chains[best[1]] = best[2]
        return [chains.get(number) for number in range(size)]

    def _gains(self, number: int, chains: dict[int, int]) -> FloatArray:
        """(num_decoy,) what each chain adds at a level, given the chains of some others; -inf for those in use."""
        gains: FloatArray = self._alone[number].copy()
        for a, b, table in self._tables:
            if a == number and b in chains:
                gains += table[:, chains[b]]
            elif b == number and a in chains:
                gains += table[chains[a]]
        gains[list(chains.values())] = -np.inf
        return gains

    def _improved(self, chains: list[int]) -> tuple[list[int], float]:
        """Two chains exchanged, or one for an unused one, as long as it helps."""
        value, better = self.value(chains), True
        while better:
            better = False
            for first in range(len(chains)):
                for chain in np.flatnonzero(self._possible[first]).tolist():
                    trial = [chains[first] if other == chain else other for other in chains]
                    trial[first] = chain
                    found = self.value(trial)
                    if found > value + EQUAL:
                        chains, value, better = trial, found, True
        return chains, value

    def _keep(self, chains: list[int], value: float) -> None:
        if value > self.best_value + EQUAL:
            self.best, self.best_value = list(chains), value

    def descend(self, chains: list[int], value: float) -> None:
        """Try the chains of the next level, the most promising first, within ``MAX_NODES``."""
        if len(chains) == len(self._possible):
            self._keep(chains, value)
            return
        number = len(chains)
        gains: FloatArray = self._alone[number].copy()
        for a, table in self._to_earlier[number]:
            gains += table[chains[a]]
        gains[chains] = -np.inf
        for choice in np.argsort(-gains, kind="stable").tolist():
            if not np.isfinite(gains[choice]) or self.visited >= MAX_NODES:
                break
            self.visited += 1
            reached = value + float(gains[choice])
            if reached + self._most([*chains, choice]) > self.best_value + EQUAL:
                self.descend([*chains, choice], reached)

    def _most(self, chains: list[int]) -> float:
        """What the levels that are left can add at most."""
        free: IntArray = np.setdiff1d(np.arange(self._possible.shape[1]), chains)
        most = 0.0
        for number in range(len(chains), len(self._possible)):
            open_ends = self._alone[number, free].copy()
            for a, table in self._to_earlier[number]:
                open_ends += table[chains[a], free] if a < len(chains) else table[np.ix_(free, free)].max(axis=0)
            most += float(open_ends.max(initial=-np.inf))
        return most
