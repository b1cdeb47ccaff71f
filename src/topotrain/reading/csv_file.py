"""CSV files that people write: rows with their line numbers, or an error that gives one."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import DataError
from topotrain.limits import CSV_BYTES, CSV_CELL, CSV_LINE, NAME
from topotrain.reading.content import content_of, text_of
from topotrain.text import SHOWN_CHARACTERS, one_line

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
COMMENT = "#"
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
NEVER_TOO_LONG = 200  # characters of a name: asking the environment takes longer than reading it
BROKEN = re.compile(r"[\x00-\x08\n-\x1f\x7f\x85\u2028\u2029]")
EXCELS_HINT = re.compile(r"sep=(.)", re.IGNORECASE)


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
        """Where each column is, by its name in small letters; of two that share a name the first.

        Raises:
            DataError: a needed column is missing, or there twice.
        """
        names = _names(self.header)
        found = {name: index for index, name in reversed(list(enumerate(names)))}
        for name in needed:
            if name.lower() not in found:
                raise DataError(
                    f"{self.path}: no column {name} (found: {', '.join(self.header)})",
                    f"the columns {','.join(needed)}",
                )
            self.refuse_doubled(name)
        return found

    def refuse_doubled(self, name: str) -> None:
        """Refuse a column that is there twice, in any case: which one is meant would be a guess.

        Raises:
            DataError: it is.
        """
        spellings = [cell.strip() for cell in self.header if cell.strip().lower() == name.lower()]
        if len(spellings) > 1:
            raise DataError(f"{self.path}: {len(spellings)} columns {name} ({', '.join(spellings)})", "one of them")


def read_csv(path: Path, *needed: str, rows_needed: bool = True) -> CsvFile:
    """Read a CSV with a header, separated by commas, semicolons or tabs.

    UTF-8 and UTF-16 (with its byte order mark) are read. Blank lines are skipped, and above the header lines that
    begin with ``#`` and Excel's ``sep=;``. The separator is the one that gives the needed columns, never a guess from
    the rows.

    Args:
        path: the file.
        needed: columns it must have, for messages.
        rows_needed: whether a header alone is an error.

    Raises:
        DataError: missing or malformed file, or rows of other length than the header; line numbers are given.
    """
    text = _text(path, ",".join(needed))
    separator, rows = _parted(path, text, {name.lower() for name in needed})
    if not rows:
        raise DataError(f"{path}: empty", f"a header {','.join(needed)} and a row for each decoy")
    content = CsvFile(path, rows[0][1], rows[1:])
    content.columns(*needed)
    for line, row in content.rows:
        if len(row) != len(content.header):
            parted = "" if separator == "," else f" between {SEPARATORS[separator]}"
            raise DataError(
                f"{path}: line {line} has {len(row)} cells{parted}", f"{len(content.header)}, as the header has"
            )
    if rows_needed and not content.rows:
        raise DataError(f"{path}: no rows below the header", "one for each decoy")
    return content


def refuse_broken(path: Path, line: int, column: str, cell: str) -> None:
    """Refuse a name that goes over the end of its line: a quote is missing or too many, and two rows are one.

    Raises:
        DataError: it does, or it is longer than any name.
    """
    if len(cell) > NEVER_TOO_LONG and len(cell) > NAME.value:
        raise DataError(f"{path}: line {line}: {column} has {len(cell)} characters", "a name", NAME.raise_it)
    if BROKEN.search(cell):
        raise DataError(
            f"{path}: line {line}: {column} is {cell[:SHOWN_CHARACTERS]!r}, with a line break or a control character",
            "a name",
            "see to the quotes before that line",
        )


def what_is_wrong(text: str) -> str:
    """Why a cell is no number, where that can be said: a remark to put behind the cell."""
    return " (a decimal comma)" if DECIMAL_COMMA.fullmatch(text) else ""


def _names(header: list[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _text(path: Path, names: str) -> str:
    try:
        return text_of(content_of(path, CSV_BYTES), wide=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", f"a CSV with {names}") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null byte
        raise DataError(f"{path}: can't be read ({one_line(error)})", "a CSV file in UTF-8 or UTF-16") from None


def _parted(path: Path, text: str, needed: set[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator and the rows, the header first; without the needed columns those that are found with commas."""
    hint = EXCELS_HINT.fullmatch(text.lstrip().partition("\n")[0].strip())
    separators = [hint[1]] if hint and hint[1] in SEPARATORS else list(SEPARATORS)
    found = []
    for separator in separators:
        rows = _rows(path, text, separator)
        if rows and needed <= set(_names(rows[0][1])):
            return separator, rows
        found.append((separator, rows))
    return found[0]


def _rows(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    csv.field_size_limit(CSV_CELL.value)
    reader = csv.reader(_lines(text), delimiter=separator, skipinitialspace=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        do = CSV_CELL.raise_it if "field limit" in str(error) else ""
        raise DataError(f"{path}: line {reader.line_num}: {error}", "a CSV file", do) from None
    except ValueError as error:
        raise DataError(f"{path}: line {reader.line_num + 1}: {error}", "a CSV file", CSV_LINE.raise_it) from None


def _lines(text: str) -> Iterator[str]:
    """The lines; those above the header that are no row are blank, so that lines are counted as in the file."""
    above, longest = True, CSV_LINE.value
    for line in io.StringIO(text, newline=""):
        if len(line) > longest:
            raise ValueError(f"it has more than {longest} characters")
        shown = line.strip() if above else ""
        skipped = above and (shown.startswith(COMMENT) or EXCELS_HINT.fullmatch(shown) is not None)
        above = above and (skipped or not shown)
        yield "\n" if skipped else line
