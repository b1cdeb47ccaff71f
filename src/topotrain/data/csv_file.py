"""CSV files that people write: rows with their line numbers, or an error that gives one."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import DataError
from topotrain.text import one_line


@dataclass(frozen=True)
class CsvFile:
    """The rows of one file.

    Attributes:
        path: the file.
        header: column names as written.
        rows: line number and cells of each row, as many as the header has.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def columns(self, *needed: str) -> dict[str, int]:
        """Where each column is, by its name in small letters; the first of two that share a name.

        Raises:
            DataError: a needed column is missing.
        """
        found = {name.strip().lower(): index for index, name in reversed(list(enumerate(self.header)))}
        for name in needed:
            if name.lower() not in found:
                raise DataError(
                    f"{self.path}: no column {name} (found: {', '.join(self.header)})",
                    f"the columns {','.join(needed)}",
                )
        return found


def read_csv(path: Path, *needed: str, rows_needed: bool = True) -> CsvFile:
    """Read a CSV in UTF-8 with a header; blank lines are skipped.

    Args:
        path: the file.
        needed: columns it must have, for messages.
        rows_needed: whether a header alone is an error.

    Raises:
        DataError: missing or malformed file, or rows of other length than the header; line numbers are given.
    """
    names = ",".join(needed)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", f"a CSV with {names}") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null byte
        raise DataError(f"{path}: can't be read ({one_line(error)})", "a CSV file in UTF-8") from None
    reader = csv.reader(text.splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {one_line(error)}", "a CSV file") from None
    if not rows:
        raise DataError(f"{path}: empty", f"a header {names} and a row for each decoy")
    content = CsvFile(path, rows[0][1], rows[1:])
    content.columns(*needed)
    for line, row in content.rows:
        if len(row) != len(content.header):
            raise DataError(f"{path}: line {line} has {len(row)} cells", f"{len(content.header)}, as the header has")
    if rows_needed and not content.rows:
        raise DataError(f"{path}: no rows below the header", "one for each decoy")
    return content


def number(text: str) -> float:
    """A number, or NaN for anything else."""
    try:
        return float(text)
    except ValueError:
        return math.nan
