"""The members of a JSON object one by one, for files that are too long to be held whole."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any

from topotrain.limits import DEPTH, DIGITS, JSON_BYTES, SIDECAR_BYTES
from topotrain.reading.content import open_regular
from topotrain.reading.json_file import BITS_OF_A_DIGIT, DECODER, check_value, too_deep

CHUNK = 2**20  # characters
SPACE = re.compile(r"[ \t\n\r]*")
AFTER_A_VALUE = frozenset(",:]} \t\n\r")


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of each member of the object that a file holds, in order.

    Raises:
        OSError: it can't be read.
        ValueError: it is not JSON in UTF-8, no object, holds a key twice, or is over a limit; the message has the
            line.
    """
    with open_regular(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        text = _Text(file, SIDECAR_BYTES.value)
        try:
            yield from _members(text)
        except JSONDecodeError as error:
            raise ValueError(f"line {text.line + error.doc.count(chr(10), 0, error.pos)}: {error.msg}") from None
        except RecursionError:
            raise ValueError(f"line {text.line}: {too_deep()}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"after line {text.line}: byte {error.object[error.start]:#04x} is no UTF-8") from None
        except ValueError as error:
            raise ValueError(f"line {text.line}: {error}") from None


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    depth, bits = DEPTH.value - 1, int(DIGITS.value * BITS_OF_A_DIGIT)
    keys: set[str] = set()
    text.expect("{")
    if text.next() == "}":
        text.expect("}")
    else:
        separator = ","
        while separator == ",":
            key = text.value()
            if not isinstance(key, str):
                raise ValueError("a key is no text")
            if key in keys:
                raise ValueError(f"key {key[:80]!r} is given twice")
            keys.add(key)
            text.expect(":")
            value = text.value()
            check_value(value, depth, bits)
            yield key, value
            separator = text.expect(",}")
    if text.next():
        raise ValueError("more after the object")


class _Text:
    """A text of which only the part that is being read is in memory."""

    def __init__(self, file: IO[str], most: int) -> None:
        self._file, self._text, self._at = file, "", 0
        self._before, self._left, self._most = 1, most, JSON_BYTES.value

    @property
    def line(self) -> int:
        """The line that is being read, from 1."""
        return self._before + self._text.count("\n", 0, self._at)

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            found = SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(CHUNK):
                return ""

    def expect(self, characters: str) -> str:
        """Go past one of these characters."""
        found = self.next()
        if not found or found not in characters:
            raise ValueError(f"{found!r} where one of {characters!r} was expected")
        self._at += 1
        return found

    def value(self) -> Any:
        """Go past a value; as long as it may go on beyond what was read, more is read."""
        self.next()
        size = CHUNK
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                # A number that ends where another character of one follows may be cut off itself.
                if self._text[end : end + 1] in AFTER_A_VALUE or not self._more(size):
                    self._at = end
                    return value
            except JSONDecodeError:
                if not self._more(size):
                    raise
            if len(self._text) > self._most + CHUNK:
                raise ValueError(f"a member of more than {self._most} characters; {JSON_BYTES.raise_it}")
            size *= 2

    def _more(self, size: int) -> bool:
        chunk = self._file.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise ValueError(f"more than {SIDECAR_BYTES.value} characters; {SIDECAR_BYTES.raise_it}")
        self._before = self.line
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
