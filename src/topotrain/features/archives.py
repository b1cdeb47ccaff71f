"""Archives of structures (zip, tar) in place of a folder: unpacked so that nothing leaves the folder made for them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO, Any, BinaryIO

from topotrain.errors import DataError
from topotrain.features.structure import is_structure_file
from topotrain.limits import ARCHIVE_BYTES, ARCHIVE_ENTRIES, ARCHIVE_HEADER, STRUCTURE_BYTES
from topotrain.reading.content import open_regular, read_at_most
from topotrain.scratch import scratch

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


def is_archive(path: Path) -> bool:
    """Whether the name says zip or tar, compressed or not."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def archive_stem(path: Path) -> str:
    """An archive's name without ``.zip``, ``.tar.gz`` and the like."""
    name = path.name.lower()
    suffix = max((suffix for suffix in ZIP_SUFFIXES + TAR_SUFFIXES if name.endswith(suffix)), key=len, default="")
    return path.name[: len(path.name) - len(suffix)]


@contextmanager
def folder_of(structures: Path) -> Iterator[Path]:
    """The folder that an archive holds, for as long as the block lasts; anything else is given back as it is.

    Files that are no structures are left where they are.

    Args:
        structures: an archive, a folder or a structure file.

    Raises:
        DataError: the archive cannot be read, has entries that lead out of it or links, or is too large.
    """
    if not (is_archive(structures) and structures.is_file()):
        yield structures
        return
    with scratch("archive") as folder:
        unpack = _unpack_zip if structures.name.lower().endswith(ZIP_SUFFIXES) else _unpack_tar
        try:
            unpack(structures, folder)
        except (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError) as error:
            raise _refused(structures, f"cannot be unpacked ({error})") from error
        except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
            raise _refused(structures, f"cannot be unpacked ({error})") from error
        yield Path(folder)


def _refused(archive: Path, what: str, do: str = "unpack it and give the folder") -> DataError:
    return DataError(f"{archive}: {what}", "a zip or tar archive of structure files", do)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with open_regular(archive) as file, zipfile.ZipFile(file) as entries:
        room = _Room(archive, folder)
        for entry in entries.infolist():
            link = stat.S_ISLNK(entry.external_attr >> 16)
            target = room.place(entry.filename, entry.file_size, entry.is_dir(), link)
            if target is not None:
                with entries.open(entry) as content:
                    room.write(content, target)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with _unpacked(archive) as file, tarfile.open(fileobj=_InPieces(file), mode="r:") as entries:  # type: ignore[call-overload]
        room = _Room(archive, folder)
        for entry in entries:
            target = room.place(entry.name, entry.size, not entry.isfile(), entry.issym() or entry.islnk())
            content = entries.extractfile(entry) if target is not None else None
            if target is not None and content is not None:
                with content:
                    room.write(content, target)


@contextmanager
def _unpacked(archive: Path) -> Iterator[BinaryIO]:
    with open_regular(archive) as file:
        head = file.read(8)
        file.seek(0)
        opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as unpacked:
                yield unpacked


class _InPieces:
    """A file of which nobody reads much at once: tarfile takes what a header says of its length at its word."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """As of a file.

        Raises:
            ValueError: that much is asked for.
        """
        if not 0 <= size <= ARCHIVE_HEADER.value + tarfile.RECORDSIZE:
            what = f"the header of an entry has {size} bytes, over {ARCHIVE_HEADER.value}"
            raise ValueError(f"{what}; {ARCHIVE_HEADER.raise_it}")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()


class _Room:
    """Where an archive's structures go, and how much has gone there."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.folder = archive, folder
        self.num_entries = self.num_bytes = 0

    def place(self, name: str, size: int, no_file: bool, link: bool) -> Path | None:
        """Where an entry goes; None for one that is not needed.

        Raises:
            DataError: it leads out of the archive, is a link or comes twice, or there are too many.
        """
        path = PureWindowsPath(name)  # knows both slashes, and drives
        if path.drive or path.root or ".." in path.parts:
            raise _refused(self.archive, f"its entry {name!r} leads out of it")
        if link:
            raise _refused(self.archive, f"its entry {name!r} is a link")
        self.num_entries += 1
        self.num_bytes += size
        if self.num_entries > ARCHIVE_ENTRIES.value:
            raise _refused(self.archive, f"over {ARCHIVE_ENTRIES.value} entries", ARCHIVE_ENTRIES.raise_it)
        if self.num_bytes > ARCHIVE_BYTES.value:
            raise _refused(self.archive, f"over {ARCHIVE_BYTES.value} bytes unpacked", ARCHIVE_BYTES.raise_it)
        hidden = any(part.startswith(".") for part in path.parts)
        if no_file or hidden or not is_structure_file(Path(path.name)):
            return None
        target = self.folder.joinpath(*path.parts)
        if target.exists():
            raise _refused(self.archive, f"its entry {name!r} comes twice")
        return target

    def write(self, content: IO[bytes], target: Path) -> None:
        """Unpack one entry.

        Raises:
            DataError: it is larger than a structure can be.
        """
        most = STRUCTURE_BYTES.value
        data = read_at_most(content, most)
        if len(data) > most:
            raise _refused(self.archive, f"{target.name} is over {most} bytes", STRUCTURE_BYTES.raise_it)
        if len(data) > shutil.disk_usage(self.folder).free:
            raise _refused(self.archive, f"no room for it in {self.folder.parent}", "make room, or set TMPDIR")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
