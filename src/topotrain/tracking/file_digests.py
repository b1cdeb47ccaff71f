"""What a version's files were when it was registered, and whether they still are that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from topotrain.errors import TrackingError
from topotrain.fields import TAG_FILES, TAG_FILES_DIGEST
from topotrain.reading.json_file import parse_json
from topotrain.tracking.records import VersionRecord

# MLflow writes it wherever it fetches a version to, in a local store beside the version's own files. Nothing runs it.
MLFLOWS_OWN = "registered_model_meta"
COMPILED = "__pycache__"  # Python leaves it where MLflow loads a version from a local store
SHOWN = 12  # characters of a digest, in messages and in the list of files
MOST_NAMED = 3  # files of each kind, in messages
MOST_LISTED = 8000  # characters of the list; MLflow takes more, other stores may not
CLEAR = (
    f"the {COMPILED} folders hold what Python compiled when the version was loaded, and would be run without being "
    "compared: remove them"
)
DO = "restore its files or take another version, and let nobody serve it; see docs/serving.md"


@dataclass(frozen=True)
class Verified:
    """A version whose files are those that were registered.

    Attributes:
        uri: of the version, an alias resolved to its number.
        digest: SHA-256 over the names and contents of its files.
        files: how many there are.
    """

    uri: str
    digest: str
    files: int


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a version's folder, by its path below."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MLFLOWS_OWN:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def total_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over names and digests."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: name.split("/")):
        text = os.fsencode(name)
        digest.update(b"%d %s %s" % (len(text), text, bytes.fromhex(files[name])))
    return digest.hexdigest()


def digest_tags(files: Mapping[str, str]) -> dict[str, str]:
    """What a version says of its files: one digest that decides, and a short one of each to name those that differ."""
    listed = json.dumps({name: digest[:SHOWN] for name, digest in files.items()}, separators=(",", ":"))
    return {TAG_FILES_DIGEST: total_digest(files), **({TAG_FILES: listed} if len(listed) <= MOST_LISTED else {})}


def check_files(version: VersionRecord, folder: Path, *, compiled: bool) -> Verified | None:
    """Hold fetched files against what was recorded of a version; ``None`` where nothing was.

    Args:
        version: as the server knows it.
        folder: of the files.
        compiled: whether what Python compiled counts; who runs nothing of a version need not care.

    Raises:
        TrackingError: they differ.
    """
    recorded = version.tags.get(TAG_FILES_DIGEST)
    if recorded is None:
        return None
    files = file_digests(folder)
    own = {name: digest for name, digest in files.items() if COMPILED not in name.split("/")}
    clear = DO
    if total_digest(own) == recorded:
        files, clear = (files, CLEAR) if compiled else (own, DO)
    found = total_digest(files)
    if found != recorded:
        raise TrackingError(
            f"{version.uri}: its files are not those that were registered "
            f"({_difference(version.tags.get(TAG_FILES), files)})",
            f"SHA-256 {recorded[:SHOWN]}.., found {found[:SHOWN]}..",
            clear,
        )
    return Verified(version.uri, found, len(files))


def _difference(listed: str | None, files: Mapping[str, str]) -> str:
    """Which files differ, as far as the list tells."""
    try:
        known = parse_json(listed or "")
        before = {str(name): str(digest) for name, digest in known.items()}
    except (ValueError, AttributeError):
        before = {}
    if not before:
        return "which ones is not recorded"
    kinds = {
        "changed": [name for name in before if name in files and files[name][:SHOWN] != before[name]],
        "missing": [name for name in before if name not in files],
        "added": [name for name in files if name not in before],
    }
    said = [f"{kind}: {_named(names)}" for kind, names in kinds.items() if names]
    return "; ".join(said) or "the list of them was changed too"


def _named(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
