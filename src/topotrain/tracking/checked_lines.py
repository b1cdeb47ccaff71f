"""Files of records, one a line, each with its length and checksum: what a kill or a full disk cut off is seen."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topotrain.reading.json_file import parse_json

HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ")
HEAD_LENGTH = 18


class DamagedLineError(Exception):
    """A record in the middle of the file is not what was written.

    Args:
        number: of the record, from 1.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"record {number} is damaged")


class LineWriter:
    """Appends records to a file; each is there whole, or not at all.

    Args:
        path: of the file, which is made where there is none.

    Raises:
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._end = _length_of_whole_lines(path)
        os.ftruncate(self._file, self._end)  # what an earlier process had no time to finish

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is with the operating system when this returns, and survives the process.

        Raises:
            OSError: it can't be written, a full disk say; the file is then as it was.
        """
        line = _encoded(record)
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except BaseException:
            if written < len(line):
                os.ftruncate(self._file, self._end)
            raise
        finally:
            if written == len(line):
                self._end += written

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class LineReader:
    """Reads the records of a file that may grow meanwhile.

    Args:
        path: of the file; one that is not there holds none.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._count = path, 0, 0

    def new(self) -> list[dict[str, Any]]:
        """Records that were added since; a last one that is cut off is left for later.

        Raises:
            DamagedLineError: a record is not what was written.
            OSError: the file can't be read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        records = []
        for line in content.split(b"\n")[:-1]:
            self._count += 1
            records.append(_decoded(line, self._count))
            self._offset += len(line) + 1
        return records


def _encoded(record: Mapping[str, Any]) -> bytes:
    # A file name need not be UTF-8, a record is.
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b"%08x %08x %s\n" % (len(content), zlib.crc32(content), content)


def _decoded(line: bytes, number: int) -> dict[str, Any]:
    head, content = HEAD.match(line), line[HEAD_LENGTH:]
    if head is None or int(head[1], 16) != len(content) or int(head[2], 16) != zlib.crc32(content):
        raise DamagedLineError(number)
    try:
        record = parse_json(content)
    except ValueError:
        raise DamagedLineError(number) from None
    if not isinstance(record, dict):
        raise DamagedLineError(number)
    return record


def _length_of_whole_lines(path: Path) -> int:
    content = path.read_bytes()
    return content.rfind(b"\n") + 1
