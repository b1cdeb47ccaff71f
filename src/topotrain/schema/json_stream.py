"""The members of a JSON object one by one, for files that are too long to be held whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CHUNK = 2**20  # characters
SPACE = re.compile(r"[ \t\n\r]*")
AFTER_A_VALUE = frozenset(",:]} \t\n\r")
DECODER = json.JSONDecoder()


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of each member of the object that a file holds, in order.

    Raises:
        OSError: it can't be read.
        ValueError: it is not JSON in UTF-8, or no object.
        RecursionError: values are nested too deep.
    """
    with path.open(encoding="utf-8") as file:
        text = _Text(file)
        text.expect("{")
        if text.next() == "}":
            text.expect("}")
        else:
            separator = ","
            while separator == ",":
                key = text.value()
                if not isinstance(key, str):
                    raise ValueError("a key is no text")
                text.expect(":")
                yield key, text.value()
                separator = text.expect(",}")
        if text.next():
            raise ValueError("more after the object")


class _Text:
    """A text of which only the part that is being read is in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0

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
            except ValueError:
                if not self._more(size):
                    raise
            size *= 2

    def _more(self, size: int) -> bool:
        chunk = self._file.read(size)
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
