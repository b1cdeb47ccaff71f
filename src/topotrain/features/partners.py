"""Which chains make up which partner of a complex: ``A,B:C`` is A and B together against C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from topotrain.errors import DataError, UserInputError
from topotrain.features.atom_table import AtomTable, IntArray

EXPECTED = "chains of each partner, such as A,B:C (A and B together, and C)"


@dataclass(frozen=True)
class Partners:
    """Chains of each partner, as a user names them.

    Attributes:
        groups: chains of each partner, in alphabetical order, as the partners are: who writes them in another order
            means the same.
    """

    groups: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, text: str) -> Partners:
        """``A,B:C``: commas between the chains of a partner, colons between partners.

        Raises:
            UserInputError: fewer than two partners, one without chains, or a chain that is named twice.
        """
        groups = [[name.strip() for name in part.split(",")] for part in text.split(":")]
        chains = [name for group in groups for name in group]
        twice = sorted({name for name in chains if chains.count(name) > 1 and name})
        if len(groups) < 2 or not all(chains):
            raise UserInputError(f"chains {text!r} names no two partners", EXPECTED)
        if twice:
            raise UserInputError(f"chains {text!r} names chain {twice[0]} twice", EXPECTED)
        return cls(tuple(sorted(tuple(sorted(group)) for group in groups)))

    def __str__(self) -> str:
        return ":".join(",".join(group) for group in self.groups)

    @property
    def chains(self) -> tuple[str, ...]:
        """All chains that are named."""
        return tuple(name for group in self.groups for name in group)

    def named(self, table: AtomTable) -> AtomTable:
        """The atoms of the chains that are named; a chain that is not is as if the file did not hold it."""
        return table.take(table.chains.are(set(self.chains).__contains__))

    def check(self, path: str, found: Iterable[str], there: Callable[[], Iterable[str]]) -> None:
        """See that every chain that is named has residues.

        Args:
            path: of the structure; named in the error.
            found: chains that have.
            there: gives all chains of the file, for the error.

        Raises:
            DataError: one has none.
        """
        missing = sorted(set(self.chains) - set(found))
        if not missing:
            return
        known = sorted(set(there()))
        letters = [name for name in missing if len(name) > 1 and set(name) <= set(known)]
        raise DataError(
            f"{path}: has no chain {missing[0]}",
            f"chains that it has: {', '.join(known)}",
            f"write {','.join(letters[0])} for several chains of one partner" if letters else "check --chains",
        )

    def numbers(self, chain_ids: Iterable[str]) -> IntArray:
        """(n,) int64 which partner each chain is of, from 0."""
        of_chain = {name: number for number, group in enumerate(self.groups) for name in group}
        return np.array([of_chain[str(chain)] for chain in chain_ids], dtype=np.int64)
