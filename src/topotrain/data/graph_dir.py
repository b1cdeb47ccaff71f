"""A directory of graphs: which there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError
from topotrain.fields import GRAPH_SUFFIX
from topotrain.files import walk_paths


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
        begin = len(str(self.root).rstrip(os.sep)) + 1
        paths = (path[begin:] for path in walk_paths(str(self.root)) if path.endswith(GRAPH_SUFFIX))
        keys = (path.removesuffix(GRAPH_SUFFIX).replace(os.sep, "/") for path in paths)
        return sorted(key for key in keys if not key.endswith("/"))

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / f"{key}{GRAPH_SUFFIX}"

    def states(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """(num_keys, 2) size in bytes and time of change in ns of each graph's file; -1 where there is none."""
        found = np.full((len(keys), 2), -1, dtype=np.int64)
        for row, key in enumerate(keys):
            try:
                state = os.stat(f"{self.root}{os.sep}{key}{GRAPH_SUFFIX}")
            except OSError:
                continue
            found[row] = state.st_size, state.st_mtime_ns
        return found
