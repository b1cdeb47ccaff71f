"""The bytes of one file and the text that they are, never more of them than a limit allows."""

from __future__ import annotations

import codecs
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO

from topotrain.limits import Limit, MiB

BOM = "\ufeff"


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it.

    A pipe or a device is none: it may hold nothing for ever, or something without end.

    Raises:
        OSError: it is not there, or can't be opened.
        ValueError: no regular file, or a path that no file can have.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(number, "rb")
    os.close(number)
    raise ValueError("a folder" if stat.S_ISDIR(mode) else "no regular file")


def content_of(path: Path, limit: Limit) -> bytes:
    """What a file holds.

    Raises:
        OSError: it is not there, or can't be read.
        ValueError: no regular file, larger than the limit, or a path that no file can have.
    """
    with open_regular(path) as file:
        size, most = os.fstat(file.fileno()).st_size, limit.value
        if size <= most:
            content = file.read(max(size, MiB) + 1)  # some say that they are empty, and are not (/proc)
            if len(content) <= most:
                return content
    raise ValueError(f"more than {most} bytes; {limit.raise_it}")


def read_at_most(file: IO[bytes], most: int) -> bytes:
    """What is left of a file that may unpack to any length, a byte more than the most at the most.

    It is read in pieces: a reader that is asked for all at once holds it twice.
    """
    pieces, left = [], most + 1
    while left > 0 and (piece := file.read(min(left, MiB))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def text_of(content: bytes, *, wide: bool = False) -> str:
    """UTF-8, with or without a byte order mark, as text.

    Args:
        content: of a file.
        wide: whether UTF-16 is read too, where its byte order mark says so.

    Raises:
        ValueError: it is none, or holds null characters; the message has the line.
    """
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide and content.startswith(marks) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: byte {content[error.start]:#04x} is no {encoding.upper()}") from None
    at = text.find("\0")
    if at >= 0:
        hint = ": no text, or UTF-16 without its byte order mark" if wide else ""
        raise ValueError(f"line {text.count(chr(10), 0, at) + 1}: it holds null characters{hint}")
    return text.removeprefix(BOM)
