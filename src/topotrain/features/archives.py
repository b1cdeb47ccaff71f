"""Archives of structures (zip, tar) in place of a folder: unpacked so that nothing leaves the folder made for them."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO

from topotrain.errors import DataError
from topotrain.features.structure import MAX_TEXT_BYTES, is_structure_file
from topotrain.scratch import scratch

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_ENTRIES = 200_000
MAX_BYTES = 16 << 30


def is_archive(path: Path) -> bool:
    """Whether the name says zip or tar, compressed or not."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


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


def _refused(archive: Path, what: str) -> DataError:
    return DataError(f"{archive}: {what}", "a zip or tar archive of structure files", "unpack it and give the folder")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as entries:
        room = _Room(archive, folder)
        for entry in entries.infolist():
            link = stat.S_ISLNK(entry.external_attr >> 16)
            target = room.place(entry.filename, entry.file_size, entry.is_dir(), link)
            if target is not None:
                with entries.open(entry) as content:
                    room.write(content, target)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "r:*") as entries:
        room = _Room(archive, folder)
        for entry in entries:
            target = room.place(entry.name, entry.size, not entry.isfile(), entry.issym() or entry.islnk())
            content = entries.extractfile(entry) if target is not None else None
            if target is not None and content is not None:
                with content:
                    room.write(content, target)


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
        if self.num_entries > MAX_ENTRIES or self.num_bytes > MAX_BYTES:
            raise _refused(self.archive, f"over {MAX_ENTRIES} entries or {MAX_BYTES >> 30} GB")
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
        target.parent.mkdir(parents=True, exist_ok=True)
        data = content.read(MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise _refused(self.archive, f"{target.name} is over {MAX_TEXT_BYTES >> 20} MB")
        target.write_bytes(data)
