"""A directory of graphs: which there are, and which file a label means."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from topotrain.errors import DataError
from topotrain.fields import GRAPH_SUFFIX
from topotrain.files import walk_files


class GraphDirectory:
    """The graph files below a directory, flat (``MODEL.pt``) or by target (``TARGET/MODEL.pt``).

    Args:
        root: the directory.

    Raises:
        DataError: there is no such directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such directory", "a directory of graphs (.pt)", "check paths.graph")

    @cached_property
    def keys(self) -> list[str]:
        """Every graph's path below the root, without suffix, sorted."""
        paths = (path.relative_to(self.root) for path in walk_files(self.root) if path.suffix == GRAPH_SUFFIX)
        return sorted(path.as_posix().removesuffix(GRAPH_SUFFIX) for path in paths)

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / f"{key}{GRAPH_SUFFIX}"

    def resolve(self, model: str) -> str | None:
        """The key a label's ``MODEL`` means, or ``None`` when no file fits.

        ``MODEL`` is a path below the root, with ``__`` standing for ``/`` if need be, or else a stem.

        Raises:
            DataError: more than one file fits; both are named.
        """
        name = model.strip().replace("\\", "/").removesuffix(GRAPH_SUFFIX).removeprefix("./")
        spellings = {name, name.replace("__", "/")}
        fitting = sorted(spellings & self._key_set)
        if not fitting:
            fitting = sorted({key for spelling in spellings for key in self._by_stem.get(spelling, ())})
        if len(fitting) > 1:
            raise DataError(
                f"MODEL {model!r} fits {' and '.join(str(self.path(key)) for key in fitting[:2])}",
                "one file",
                "write its path below the graph directory",
            )
        return fitting[0] if fitting else None

    @cached_property
    def _key_set(self) -> frozenset[str]:
        return frozenset(self.keys)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = defaultdict(list)
        for key in self.keys:
            stems[key.rsplit("/", 1)[-1]].append(key)
        return stems
