"""Which decoys are compared with which native, and what their rows are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.builder import Models
from topotrain.features.inputs import find_structures
from topotrain.features.structure import Structure, is_structure_file, read_content, read_structure, structure_stem
from topotrain.text import did_you_mean

NAME_ENDS = (".", "_", "-")  # what may follow a target's name in its native's: 1AY7_native.pdb


@dataclass(frozen=True)
class LabelTask:
    """One decoy to be labelled.

    Attributes:
        key: the ``MODEL`` of its row.
        path: the decoy, as errors name it.
        native: its native.
        chains: the native's chains that count; empty for all.
        call: number of the call that it belongs to.
        file: where the decoy lies; an archive's files are unpacked.
        model: which MODEL of an ensemble, from 0; None for the first.
    """

    key: str
    path: str
    native: str
    chains: tuple[str, ...]
    call: int
    file: str
    model: int | None = None

    def structure(self) -> Structure:
        """The decoy.

        Raises:
            DataError: it cannot be read.
        """
        return read_structure(self.path, read_content(Path(self.file)), model=self.model)


def label_tasks(
    decoys: Path,
    folder: Path,
    native: Path,
    *,
    target: str | None,
    chains: tuple[str, ...],
    models: Models,
    call: int,
) -> tuple[list[LabelTask], dict[str, str]]:
    """The decoys with their natives, by ``MODEL``.

    Args:
        decoys: what was asked for: a folder of structures, an archive of one, or one file.
        folder: where it lies; an archive is unpacked.
        native: a structure, or a folder of natives.
        target: the target of all the decoys, where it is given.
        chains: the native's chains that count.
        models: which MODELs of ensembles.
        call: number of the call.

    Returns:
        The tasks, and {target: one line} of targets without a native.

    Raises:
        DataError: no decoys, no native, or names that do not say which native is whose.
    """
    if native.is_dir():
        found, natives = _by_target(folder, native, target)
    elif is_structure_file(native) and native.is_file():
        found = _named(folder, target or _named_after(decoys, native), given=target is not None)
        natives = dict.fromkeys(found, native)
    else:
        raise DataError(
            f"{native.absolute()}: no native structure", "a PDB or mmCIF file, plain or .gz", "check the path"
        )
    tasks = [
        LabelTask(key, str(_shown(path, decoys, folder)), str(natives[key]), chains, call, str(path))
        for key, path in found.items()
        if key in natives
    ]
    if models == "all":
        tasks = [one for task in tasks for one in _each_model(task)]
    without: dict[str, str] = {}
    known = _natives(native) if native.is_dir() else {}
    for key in found:
        name = key.partition("/")[0]
        if key not in natives:
            near = did_you_mean(name, known)
            without[name] = f"{name}: no native below {native}" + (f"; {near}" if near else "")
    if not tasks:
        raise DataError(
            f"{decoys.absolute()}: no decoy has a native below {native}",
            "a native named as each folder of decoys (TARGET.pdb, or a folder TARGET with one file)",
            next(iter(without.values())),
        )
    return tasks, without


def _shown(path: Path, decoys: Path, folder: Path) -> Path:
    """How errors name a decoy: an archive's files lie elsewhere."""
    return path if folder == decoys else decoys / path.relative_to(folder)


def _each_model(task: LabelTask) -> list[LabelTask]:
    """The decoys of a file, named as the graph builder names them."""
    try:
        number = task.structure().num_models
    except Exception:  # noqa: BLE001  labelling will say what is wrong with it
        number = 1
    if number == 1:
        return [task]
    return [replace(task, key=f"{task.key}_{place + 1}", model=place) for place in range(number)]


def _named(decoys: Path, target: str, given: bool = False) -> dict[str, Path]:
    """Structures by ``MODEL``, below the target where there is one."""
    found = find_structures(decoys)
    if given and decoys.is_file():
        found = {structure_stem(decoys): decoys}
    return {f"{target}/{key}" if target else key: path for key, path in found.items()}


def _named_after(decoys: Path, native: Path) -> str:
    """The decoys' folder, where the native's name says that it is a target's folder, or ""."""
    if decoys.is_file():  # which is named below its folder anyway
        return ""
    folder = decoys.resolve()
    names = [structure_stem(native)]
    if native.resolve().parent != folder:
        names.append(native.resolve().parent.name)
    return folder.name if any(_is_of(folder.name, name) for name in names) else ""


def _is_of(target: str, name: str) -> bool:
    """Whether a native of this name is the target's."""
    target, name = target.lower(), name.lower()
    return name == target or name.startswith(tuple(f"{target}{end}" for end in NAME_ENDS))


def _by_target(decoys: Path, folder: Path, target: str | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """The decoys of several targets, and the natives of those that have one."""
    natives = _natives(folder)
    found = {
        key: path
        for key, path in _named(decoys, target or "", given=target is not None).items()
        if folder.resolve() not in path.resolve().parents
    }
    fitting = {name: _native_of(name, natives, folder) for name in {key.partition("/")[0] for key in found}}
    own = decoys.resolve().name
    if not any(fitting.values()) and target is None and not decoys.is_file():  # the folder of one target
        found = {f"{own}/{key}": path for key, path in found.items()}
        fitting = {own: _native_of(own, natives, folder)}
    return found, {key: path for key in found if (path := fitting[key.partition("/")[0]]) is not None}


def _natives(folder: Path) -> dict[str, list[Path]]:
    """Structures by the name that says whose they are: their own below the folder, or that of their folder."""
    natives: dict[str, list[Path]] = {}
    for key, path in find_structures(folder).items():
        natives.setdefault(key.partition("/")[0], []).append(path)
    return natives


def _native_of(target: str, natives: dict[str, list[Path]], folder: Path) -> Path | None:
    named = natives.get(target) or [path for name, paths in natives.items() if _is_of(target, name) for path in paths]
    if len(named) > 1:
        raise DataError(
            f"{folder.absolute()}: {named[0]} and {named[1]} could both be the native of {target}",
            "one native for each target",
            "remove or rename one",
        )
    return named[0] if named else None
