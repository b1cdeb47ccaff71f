"""How documents, tables, near names and other libraries' errors are written; one way each."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from topotrain.credentials import mask_credentials, mask_values

SHOWN_CHARACTERS = 300
FIRST_CHARACTERS = 200
MISSING = "-"
MINUTE, HOUR, DAY = 60, 3600, 86400

# A server's answer that it does not know who asks, or does not let them, in the words of MLflow's client: of a call,
# and of an artifact. Other answers with status 403 (a host name that is not allowed, say) keep their words.
UNKNOWN_USER = re.compile(r"failed with error code 401\b|\b401 Client Error")
NO_PERMISSION = re.compile(
    r"endpoint \S*?/mlflow/(?P<call>\S+) failed with error code 403.*Permission denied"
    r"|403 Client Error.* for url: \S*?/mlflow-artifacts/.*Permission denied"
)


def as_json(document: Any) -> str:
    """A document as it is printed and recorded; credentials in its texts are masked."""
    masked = mask_values(document)
    text = json.dumps(masked, indent=2, ensure_ascii=False)
    return (text if is_utf8(text) else json.dumps(masked, indent=2)) + "\n"


def csv_writer(file: Any) -> Any:
    """A writer of CSV rows to a text file; ``None`` is an empty cell."""
    return csv.writer(file, lineterminator="\n")


def least_to_most(numbers: Sequence[int]) -> str:
    """``352 to 360``, or ``352`` where all are the same."""
    return f"{min(numbers)} to {max(numbers)}" if len(set(numbers)) > 1 else str(numbers[0])


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV text; ``None`` is an empty cell."""
    text = io.StringIO()
    csv_writer(text).writerows(rows)
    return text.getvalue()


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Cells as a table of Markdown; the first row is the header."""
    head, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def aligned(rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """Cells in columns that line up, one line for each row.

    Args:
        rows: of equal length; the header, if there is one, is the first.
        left: how many columns are aligned to the left, the others to the right; by default all.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        parts = [
            cell.ljust(width) if left is None or number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a name, if one is like it at all."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name, or "" where none is near."""
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else ""


def name_fault(name: str) -> str:
    """Why a file's name can't be a decoy's, or ""."""
    odd = next((character for character in name if unicodedata.category(character) in ("Cc", "Cs")), "")
    if not odd:
        return ""
    kind = "a control character" if unicodedata.category(odd) == "Cc" else "bytes that are no UTF-8"
    return f"its name holds {kind} ({ascii(name)[1:-1][:SHOWN_CHARACTERS]})"


def one_line(error: Exception, limit: int = SHOWN_CHARACTERS) -> str:
    """What another library says went wrong, short, on one line, and without credentials."""
    said = " ".join(str(error).split())
    return mask_credentials(refusal(said) or said or type(error).__name__)[:limit]


def refusal(said: str) -> str:
    """Plain words for a server's answer that the user is unknown, or may not; empty for anything else."""
    if UNKNOWN_USER.search(said):
        return "the server does not know this user: no name and password were given, or they are wrong (401)"
    denied = NO_PERMISSION.search(said)
    return f"this user has no permission for {denied['call'] or 'artifacts'} (403)" if denied else ""


def is_utf8(text: str) -> bool:
    """Whether a text can be written; an argument or a variable may hold bytes that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_line(text: str, otherwise: str) -> str:
    """The first line of what torch says of a file, short; the others advise to run what is in it."""
    return (text.strip().splitlines() or [otherwise])[0][:FIRST_CHARACTERS]


def duration(seconds: float | None) -> str:
    """A time span in its two largest units, such as ``3 min 20 s``."""
    if seconds is None:
        return MISSING
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, name, below, below_name in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"
