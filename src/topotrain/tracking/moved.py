"""Artifact folders that are not where the store says: which it is, and how it is pointed at."""

from __future__ import annotations

import shlex
from pathlib import Path

from topotrain.errors import TrackingError
from topotrain.tracking.address import ARTIFACTS_NAME, database_path, local_folder

GUIDE = 'docs/operating.md, "A store that was moved"'


def check_there(artifact_uri: str, store_uri: str) -> None:
    """Refuse a folder of this machine that is not there.

    Args:
        artifact_uri: where the store says that artifacts are; what is no folder of this machine passes.
        store_uri: of the store.

    Raises:
        TrackingError: the folder is not there; the message names it, and says what to do.
    """
    root = local_folder(artifact_uri)
    if root is not None and not root.exists():
        raise absent(root, store_uri)


def absent(root: Path, store_uri: str) -> TrackingError:
    """What to say of artifacts that are not in their folder.

    Args:
        root: what is not there.
        store_uri: of the store.
    """
    database = database_path(store_uri)
    if database is None:
        return TrackingError(
            f"artifact folder {root} is not on this machine",
            "artifacts that the server hands out, or a folder that both machines see",
            f"mount it, or let the server serve artifacts; see {GUIDE}",
        )
    top = next((path for path in root.parents if path.name == ARTIFACTS_NAME), root)
    inside = [path for path in (root, *root.parents) if path == top or top in path.parents]
    missing = next(path for path in reversed(inside) if not path.exists())
    here = database.parent / ARTIFACTS_NAME / missing.relative_to(top)
    found = here.exists() and here != missing
    link = f"ln -s {shlex.quote(str(here if found else 'WHERE_IT_IS'))} {shlex.quote(str(missing))}"
    parent = "" if missing.parent.exists() else f"mkdir -p {shlex.quote(str(missing.parent))} && "
    what = f"artifact folder {missing} is not there"
    if found:
        what += f", but {here} is: the store was moved"
    return TrackingError(
        what, f"artifacts where {database} says", f"move it back, or link it: {parent}{link}; or see {GUIDE}"
    )
