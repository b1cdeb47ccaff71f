"""Folders for what a process needs for a while; those that a kill left behind are cleared by the next process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from topotrain.disk import EXPECTED, database_fault, disk_fault, fault_in, unwritable
from topotrain.errors import DiskError, TopotrainError
from topotrain.text import one_line

PREFIX = "topotrain-"
MAKE_ROOM = "make room, or set TMPDIR to another"
WORK = "work"
LOCK = "in-use"  # locked as long as the process that made the folder lives
NAMELESS_SECONDS = 3600.0  # after which a folder that never got its name is nobody's

_locks: dict[Path, FileLock] = {}


def make_scratch(kind: str) -> Path:
    """A new, empty folder, which stays until ``remove_scratch`` or until this process is no more.

    Args:
        kind: what it is for, as part of its name.

    Raises:
        DiskError: it can't be made.
    """
    try:
        clear_left()
        root = Path(tempfile.gettempdir())
        # Locked before it has the name by which others look for folders that nobody holds.
        new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
        lock = FileLock(new / LOCK, thread_local=False)
        lock.acquire(timeout=0)
        folder = new.rename(root / f"{PREFIX}{kind}-{uuid4().hex[:8]}") / WORK
        folder.mkdir()
    except OSError as error:
        raise DiskError(f"no folder for work can be made ({one_line(error)})", EXPECTED, MAKE_ROOM) from None
    _locks[folder] = lock
    return folder


def check_scratch() -> None:
    """See, before anything is begun, that there is room for such folders.

    Raises:
        DiskError: there is none.
    """
    folder = make_scratch("check")
    full = unwritable(folder)
    remove_scratch(folder)
    if full:
        raise _full(_root(folder), full)


def remove_scratch(folder: Path) -> None:
    """Remove a folder that this process made."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    lock = _locks.pop(folder, None)
    if lock is not None:
        lock.release()


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """As ``make_scratch``, for the length of a block.

    Args:
        kind: what it is for, as part of its name.

    Raises:
        DiskError: it can't be made, or written.
    """
    folder = make_scratch(kind)
    try:
        with writing(folder):
            yield folder
    finally:
        remove_scratch(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what writes to such a folder, and to temporary files beside it.

    Raises:
        DiskError: they can't be written.
    """
    try:
        yield
    except TopotrainError:
        raise
    except Exception as error:
        fault = fault_in(error, _root(folder))
        if fault is None:
            raise
        raise _full(_root(folder), fault) from error


def temporary_fault(error: Exception) -> DiskError | None:
    """What to say of an error of what writes to temporary files; ``None`` where they could be written."""
    fault = None if database_fault(error) else disk_fault(error)
    try:
        return _full(Path(tempfile.gettempdir()), fault) if fault else None
    except OSError:  # there is no such folder
        return None


def _root(folder: Path) -> Path:
    """Where temporary files are, beside which a folder was made."""
    return folder.parent.parent


def _full(folder: Path, fault: str) -> DiskError:
    return DiskError(f"the folder for temporary files {folder} can't be written ({fault})", EXPECTED, MAKE_ROOM)


def clear_left() -> None:
    """Remove what killed processes left; once in a process."""
    _clear_left(Path(tempfile.gettempdir()))


@lru_cache(maxsize=8)
def _clear_left(root: Path) -> None:
    """Remove this user's folders whose process is no more; once in a process."""
    for folder in root.glob(f".{PREFIX}*"):  # its process was killed before it could be given its name
        with suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > NAMELESS_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob(f"{PREFIX}*"):
        path = folder / LOCK
        with suppress(OSError, Timeout):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not path.is_file():
                continue
            with FileLock(path, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
