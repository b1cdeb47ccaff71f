"""Where structures come from: folders, archives of them, files; each file under the key that its graph will have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.archives import archive_stem, folder_of, is_archive
from topotrain.features.structure import is_structure_file, structure_stem
from topotrain.files import walk_files


@dataclass(frozen=True)
class StructureFiles:
    """Structure files, wherever they come from.

    Attributes:
        root: the folder, archive or file that was given; the folder that several have in common.
        flat: whether files were named one by one, which then are as those of one folder.
        places: folders that have to be readable to read them.
        found: {key of the graph: file}, sorted by key where they come from one place.
        shown: {key: what errors call the file}, where that is another path: an archive's files are unpacked.
    """

    root: Path
    flat: bool
    places: tuple[Path, ...]
    found: dict[str, Path] = field(default_factory=dict)
    shown: dict[str, Path] = field(default_factory=dict)

    def add(self, key: str, path: Path, shown: Path) -> None:
        """Take a file.

        Raises:
            DataError: another file has its key.
        """
        if self.found.setdefault(key, path) != path:
            raise DataError(
                f"{self.shown[key]} and {shown} would both become {key}.pt",
                "one file for each structure",
                "rename or remove one",
            )
        self.shown[key] = shown


@contextmanager
def structure_files(structures: Path | Sequence[Path]) -> Iterator[StructureFiles]:
    """The structure files of what was given; archives are unpacked for as long as the block lasts.

    Several paths are as the folder around them, if it held nothing else.

    Args:
        structures: a folder, an archive (zip, tar) or a file; or several of them.

    Raises:
        DataError: nothing there, or two files for one graph.
    """
    with ExitStack() as unpacked:
        if isinstance(structures, Path):
            folder = unpacked.enter_context(folder_of(structures))
            files = StructureFiles(structures, False, (folder,))
            _take(files, folder, structures, find_structures(folder, structures))
        else:
            files = _several({Path(os.path.abspath(path)): path for path in structures}, unpacked)
        yield files


def _several(paths: Mapping[Path, Path], unpacked: ExitStack) -> StructureFiles:
    """Of {absolute path: as it was given}."""
    folders = {path: unpacked.enter_context(folder_of(path)) for path in paths}
    flat = all(folder.is_file() for folder in folders.values())
    alone = next(iter(paths)) if len(paths) == 1 and not flat else None
    root = alone or Path(os.path.commonpath([path.parent for path in paths]))
    places = {folder.parent if folder.is_file() else folder: None for folder in folders.values()}
    files = StructureFiles(root, flat, tuple(places))
    for path, given in paths.items():
        found = find_structures(folders[path], given)
        if path != alone:
            place = path.parent.relative_to(root)
            if folders[path].is_file():
                found = {(place / structure_stem(path)).as_posix(): path}
            else:
                place = place / (archive_stem(path) if is_archive(path) else path.name)
                found = {(place / key).as_posix(): file for key, file in found.items()}
        _take(files, folders[path], given, found)
    return files


def _take(files: StructureFiles, folder: Path, given: Path, found: dict[str, Path]) -> None:
    for key, path in found.items():
        files.add(key, path, given if folder.is_file() else given / path.relative_to(folder))


def find_structures(structures: Path, named: Path | None = None) -> dict[str, Path]:
    """Structure files by graph key, sorted.

    Args:
        structures: a folder, searched through, or one file.
        named: what errors call it, where it is an unpacked archive's.

    Raises:
        DataError: nothing there, or two files for one key.
    """
    if structures.is_file():
        return {"/".join(part for part in (structures.parent.name, structure_stem(structures)) if part): structures}
    if not structures.is_dir():
        raise DataError(
            f"{structures.absolute()} does not exist",
            "a folder of structures, an archive of one, or one structure file",
            "check the path",
        )
    found: dict[str, Path] = {}
    for path in walk_files(structures):
        if not is_structure_file(path):
            continue
        key = (path.parent.relative_to(structures) / structure_stem(path)).as_posix()
        if key in found:
            raise DataError(
                f"{found[key]} and {path} would both become {key}.pt",
                "one file for each structure",
                "rename or remove one",
            )
        found[key] = path
    if not found:
        raise DataError(
            f"{(named or structures).absolute()} holds no structure files",
            "files named .pdb, .ent, .cif or .mmcif, plain or compressed",
            "check the path",
        )
    return dict(sorted(found.items()))
