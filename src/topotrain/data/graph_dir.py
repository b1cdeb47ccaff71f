"""A directory of graphs: which there are."""

from __future__ import annotations

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
