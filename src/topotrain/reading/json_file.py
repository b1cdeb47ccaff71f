"""JSON from anywhere: plain values, no key twice, no number that strict JSON does not know, nothing endless."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from topotrain.errors import DataError, UserInputError
from topotrain.limits import DEPTH, DIGITS, JSON_BYTES
from topotrain.reading.content import content_of, text_of
from topotrain.text import one_line

BITS_OF_A_DIGIT = math.log2(10)


def parse_json(text: str | bytes) -> Any:
    """Plain values.

    Raises:
        ValueError: not JSON, a key given twice, a number that is none (NaN), too large or too long, or values nested
            too deep; the message is one line.
    """
    if len(text) > JSON_BYTES.value:
        raise ValueError(f"more than {JSON_BYTES.value} bytes; {JSON_BYTES.raise_it}")
    try:
        value = DECODER.decode(text_of(text) if isinstance(text, bytes) else text)
    except RecursionError:
        raise too_deep() from None
    check_value(value, DEPTH.value, int(DIGITS.value * BITS_OF_A_DIGIT))
    return value


def read_json(
    path: Path, expected: str, kind: type[UserInputError] = DataError, *, name: str = "", absent: str = ""
) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        expected: what it should be, for messages.
        kind: of the error.
        name: what messages call it; by default its path.
        absent: what is said of one that is not there, if not that it is not readable.

    Raises:
        UserInputError: of this kind: missing, or not JSON in UTF-8.
    """
    try:
        return parse_json(content_of(path, JSON_BYTES))
    except (OSError, ValueError) as error:
        missing = absent if isinstance(error, FileNotFoundError) else ""
        reason = missing or f"not readable as JSON ({one_line(error)})"
        raise kind(f"{name or path}: {reason}", expected) from None


def check_value(value: Any, depth: int, bits: int) -> None:
    """Refuse what can be written in JSON, and that nothing which reads on could take.

    Args:
        value: as it was decoded.
        depth: how many values may lie within one another.
        bits: of a whole number.

    Raises:
        ValueError: a number is too large or too long, or values are nested too deep.
    """
    kind = type(value)
    if kind is dict or kind is list:
        if not depth:
            raise too_deep()
        for inner in value.values() if kind is dict else value:
            if type(inner) is not str:  # most are
                check_value(inner, depth - 1, bits)
    elif kind is float and not math.isfinite(value):
        raise ValueError("a number is too large")
    elif kind is int and value.bit_length() > bits:
        raise ValueError(f"a number has more than {DIGITS.value} digits; {DIGITS.raise_it}")


def too_deep() -> ValueError:
    """What is said of values within values within values."""
    return ValueError(f"values nested deeper than {DEPTH.value}; {DEPTH.raise_it}")


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        seen: set[str] = set()
        twice = next(key for key, _ in members if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:80]!r} is given twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
