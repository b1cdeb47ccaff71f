"""The atoms of a structure file as written, before anything is left out or put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# DSSP: longer C-N distances are chain breaks. Angstrom.
MAX_PEPTIDE_BOND = 2.5


@dataclass(frozen=True, eq=False)
class Words:
    """A column of texts that repeat: its different values, and which of them each row has.

    Attributes:
        values: different texts.
        codes: (n,) positions in ``values``.
    """

    values: tuple[str, ...]
    codes: IntArray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Words:
        """From one text a row."""
        known: dict[str, int] = {}
        codes = [known.setdefault(text, len(known)) for text in texts]
        return cls(tuple(known), np.array(codes, dtype=np.int64))

    @classmethod
    def coded(cls, texts: Sequence[str], codes: IntArray) -> Words:
        """From texts that may repeat, and which of them each row has."""
        known: dict[str, int] = {}
        places = np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)
        return cls(tuple(known), places[codes] if len(places) else codes.astype(np.int64))

    def mapped(self, change: Callable[[str], str]) -> Words:
        """Every text changed by a function."""
        return Words.coded([change(value) for value in self.values], self.codes)

    def replaced(self, rows: BoolArray, texts: Words) -> Words:
        """The texts of another column in some rows.

        Args:
            rows: (n,) where.
            texts: (n,) the other column.
        """
        codes = np.where(rows, texts.codes + len(self.values), self.codes)
        return Words.coded([*self.values, *texts.values], codes)

    def take(self, rows: npt.NDArray[np.int64] | BoolArray) -> Words:
        """Some rows."""
        return Words(self.values, self.codes[rows])

    def are(self, test: Callable[[str], bool]) -> BoolArray:
        """(n,) whether the text of each row passes a test."""
        return np.array([test(value) for value in self.values], dtype=bool)[self.codes]

    def texts(self) -> npt.NDArray[np.str_]:
        """(n,) the text of each row."""
        return np.array(self.values, dtype=np.str_)[self.codes]


@dataclass(frozen=True, eq=False)
class AtomTable:
    """The ATOM and HETATM records of a file, all MODELs, in file order. Coordinates in Angstrom.

    Attributes:
        blocks: (n,) int64: which MODEL, counted from 0; what comes after ``END`` is a MODEL of its own.
        chains: chain identifiers, "" for blank.
        segids: segment identifiers, "" for none.
        names: residue names in capitals.
        numbers: (n,) int64 residue numbers.
        codes: insertion codes, "" for none.
        atoms: atom names in capitals.
        elements: element symbols in capitals: the column, else what the name's position says; X where unknown.
        altlocs: alternate locations, "" for none.
        het: (n,) whether it is a HETATM record.
        coords: (n, 3) float64.
    """

    blocks: IntArray
    chains: Words
    segids: Words
    names: Words
    numbers: IntArray
    codes: Words
    atoms: Words
    elements: Words
    altlocs: Words
    het: BoolArray
    coords: FloatArray

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: IntArray | BoolArray) -> AtomTable:
        """Some rows, in the order given."""
        taken: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, column in taken.items():
            taken[name] = column.take(rows) if isinstance(column, Words) else column[rows]
        return AtomTable(**taken)

    def residue_keys(self) -> IntArray:
        """(n,) a number for each chain, residue number and insertion code together."""
        least = int(self.numbers.min(initial=0))
        span = int(self.numbers.max(initial=0)) - least + 1
        keys = (self.chains.codes * span + self.numbers - least) * max(len(self.codes.values), 1) + self.codes.codes
        return keys.astype(np.int64)
