"""Disks that take nothing more: full, or read-only; what an error says of that, and which folder it is."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROBE_BYTES = 2**22  # a checkpoint, a model and some records of the default network
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EIO)
# As libraries say it that keep the error's number to themselves.
DATABASE = re.compile(
    "database or disk is full|disk I/O error|attempt to write a readonly database|unable to open database file"
)
WORDS = re.compile(
    "No space left on device|Read-only file system|Disk quota exceeded|File too large"
    f"|PytorchStreamWriter failed writing file|{DATABASE.pattern}"
)
EXPECTED = "a folder that can be written, with space left"


def disk_fault(error: BaseException) -> str | None:
    """What an error, or one that it came of, says of a disk that takes nothing more; ``None`` of any other error."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in UNWRITABLE:
            return os.strerror(one.errno)
        found = WORDS.search(str(one))
        if found:
            return found[0]
    return None


def file_fault(error: BaseException) -> str | None:
    """As ``disk_fault``, and of a file that may not be written; for errors that come of nothing but writing files."""
    refused = next((one for one in _chain(error) if isinstance(one, OSError) and one.errno in REFUSED), None)
    return disk_fault(error) or (os.strerror(refused.errno or 0) if refused else None)


def database_fault(error: BaseException) -> str | None:
    """As ``disk_fault``, of the file of a database alone."""
    found = DATABASE.search(str(error))
    return found[0] if found else None


def unwritable(folder: Path) -> str | None:
    """Why a folder takes no file just now; ``None`` where it does. Of one that is not there, its nearest parent.

    Args:
        folder: which.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".topotrain-", suffix=".probe") as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return None


def fault_in(error: BaseException, folder: Path) -> str | None:
    """As ``file_fault``, of what writes to a folder; ``None`` where the error names a file elsewhere."""
    paths = [str(one.filename) for one in _chain(error) if isinstance(one, OSError) and one.filename is not None]
    if any(Path(path).is_relative_to(folder) for path in paths):
        return file_fault(error)
    return None if paths else disk_fault(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
