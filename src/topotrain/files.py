"""Files and folders that are there whole or not at all, and how a folder is walked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.limits import FOLDER_DEPTH, FOLDER_WAYS
from topotrain.text import one_line

TEMPORARY_PREFIX = ".topotrain-"
TEMPORARY_SUFFIX = ".tmp"
SHOWN_PATH = 200  # characters


def cache_dir() -> Path:
    """Where the user keeps what can be made again."""
    return Path(platformdirs.user_cache_dir("topotrain"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside and rename it, so that a kill leaves the old one or the new one, never half of one.

    Raises:
        OSError: it can't be written.
    """
    with replacing(path) as aside:
        aside.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path aside to write to; it takes this one's place when the block ends without an error.

    What is no file, such as ``/dev/null`` or a pipe, stays, and is written to.

    Raises:
        OSError: it can't be written.
    """
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / path.name
            yield aside
            with aside.open("rb") as content, path.open("wb") as stream:
                shutil.copyfileobj(content, stream)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether a path is a device or a pipe, or stands for one that is open, as ``/dev/stdout`` does."""
    open_one = path.is_symlink() and os.readlink(path).startswith("/proc/")
    return open_one or (path.exists() and not path.is_file() and not path.is_dir())


def write_text(text: str, out: Path) -> None:
    """Write a text file that the user asked for, whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise DataError(
            f"{out}: can't be written ({error.strerror})", EXPECTED, "make room, or choose another"
        ) from None


def make_whole(root: Path, make: Callable[[Path], None]) -> bool:
    """Make a folder aside and move it here whole.

    Args:
        root: where it goes.
        make: fills an empty folder.

    Returns:
        Whether it was this call that made it; another process may have been first.

    Raises:
        OSError: it can't be written.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=root.parent))
    try:
        make(aside)
        aside.chmod(0o755)
        os.rename(aside, root)
    except OSError:
        if not root.exists():
            raise
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def make_new(out: Path, make: Callable[[Path], None]) -> None:
    """Make a folder that the user asked for and that does not exist yet, whole or not at all.

    Raises:
        DataError: it exists, or can't be written.
    """
    exists = DataError(f"{out}: exists", "a folder that does not exist yet", "choose another --out")
    if out.exists() or out.is_symlink():
        raise exists
    try:
        if not make_whole(out, make):
            raise exists
    except OSError as error:
        why = error.strerror or one_line(error)
        raise DataError(f"{out}: can't be written ({why})", EXPECTED, "make room, or choose another") from None


def walk_files(root: Path) -> Iterator[Path]:
    """Every visible file below a folder, sorted, through linked folders too.

    A link back to a folder above ends there.

    Raises:
        DataError: folders lie deeper in each other than anybody would lay them, or links lead to one in more ways.
    """
    yield from map(Path, walk_paths(str(root)))


def walk_paths(root: str) -> Iterator[str]:
    """As ``walk_files``, in plain text, which takes a tenth of the time."""
    yield from _walked(root, (), defaultdict(int))


def _walked(folder: str, above: tuple[tuple[int, int], ...], ways: dict[tuple[int, int], int]) -> Iterator[str]:
    """The files below a folder.

    Args:
        folder: the folder.
        above: which folders it lies in.
        ways: how often each folder was come to so far: of a few links that fork again and again, there are more ways
            than anything could go.
    """
    try:
        state = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a folder that may not be looked into holds nothing that could be read
        return
    here = state.st_dev, state.st_ino
    if here in above:
        return
    ways[here] += 1
    if ways[here] > FOLDER_WAYS.value:
        what = f"{os.path.realpath(folder)}: links lead to this folder in more than {FOLDER_WAYS.value} ways"
        raise DataError(what, "a folder of files", f"give it itself, or remove the links; {FOLDER_WAYS.raise_it}")
    if len(above) > FOLDER_DEPTH.value:
        what = f"{folder[:SHOWN_PATH]}...: folders lie more than {FOLDER_DEPTH.value} deep in each other"
        raise DataError(what, "a folder of files", FOLDER_DEPTH.raise_it)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _leads_to_folder(entry):
            yield from _walked(entry.path, (*above, here), ways)
        else:
            yield entry.path


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: whoever opens it will say so
        return False
