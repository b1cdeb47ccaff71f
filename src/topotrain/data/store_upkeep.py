"""Bringing a packed store up to date with its files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from filelock import FileLock, Timeout

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.store_index import DamagedStoreError, StoreIndex
from topotrain.errors import DataError
from topotrain.files import TEMPORARY_PREFIX, cache_dir, write_whole
from topotrain.progress import Track

if TYPE_CHECKING:
    from topotrain.data.parts import MemoryPart

log = logging.getLogger("topotrain")

PREFIX = "packed-"
ABOUT = "about.json"  # for whoever asks what the folder is
DAMAGED_MARK = "damaged"
IN_MEMORY = "in memory"
SAID_FROM = 1_000  # graphs; fewer are packed before anybody wonders
MOST_PARTS = 200  # each is an open file
SLACK = 2**20  # bytes that gone graphs may always take


def store_folder(root: Path, cache: Path | None = None) -> Path:
    """Where the packed graphs of a directory are kept."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in root.name)[:40]
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return (cache or cache_dir()) / f"{PREFIX}{name}-{digest}"


def read_index(folder: Path, say: Callable[..., None]) -> StoreIndex | None:
    """The index of a store that is whole; ``None`` where there is none."""
    try:
        index = StoreIndex.read(folder)
        if (folder / DAMAGED_MARK).exists():
            raise DamagedStoreError("damaged (a checksum was wrong)")
        return index
    except FileNotFoundError:
        return None
    except DamagedStoreError as error:
        say("%s: %s: packing the graphs again", folder, error)
        return None


def stale_keys(index: StoreIndex, directory: GraphDirectory, keys: Sequence[str]) -> list[str]:
    """Keys that are not packed, or whose files changed since."""
    states = directory.states(keys)
    position = np.array([index.position.get(key, -1) for key in keys], dtype=np.int64)
    same = position >= 0
    rows = index.rows[position[same]]
    same[same] = (rows["size"] == states[same, 0]) & (rows["modified"] == states[same, 1])
    return [key for key, one in zip(keys, same, strict=True) if not one]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time brings a store up to date; the next one waits, and says so.

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that packs the same graphs (%s)", lock.lock_file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def brought_up(
    folder: Path, directory: GraphDirectory, keys: Sequence[str], progress: Track | None
) -> tuple[StoreIndex, Mapping[str, DataError]]:
    """Pack what is missing or changed, drop what is gone, write the index."""
    from topotrain.data.store_build import GRAPHS_A_PART, Packed, pack_files

    index = read_index(folder, log.warning)
    if index is None:
        index = StoreIndex()
        _clear(folder)
    stale = stale_keys(index, directory, keys)
    if not stale:  # another process was first
        return index, {}
    gone = set(stale) | (set(index.keys) - set(directory.keys))
    kept = index.only(np.array([key not in gone for key in index.keys], dtype=bool))
    if _mostly_dead(kept) or len(kept.parts) > MOST_PARTS + len(keys) // GRAPHS_A_PART[1]:
        stale, kept = sorted({*stale, *kept.keys}), StoreIndex()
    began = time.monotonic()
    if len(stale) >= SAID_FROM:
        log.info("packing %d graphs (once: they are kept in %s)", len(stale), folder)
    results: list[Packed] = []

    def graphs() -> Iterator[str]:
        """One after the other, for a bar that counts them."""
        for packed in pack_files(directory, folder, stale):
            results.append(packed)
            yield from packed.keys

    try:
        for _ in progress(graphs(), len(stale), "packing graphs") if progress else graphs():
            pass
        joined = StoreIndex.joined([kept, *(packed.index for packed in results)])
        about = {"graphs": str(directory.root), "num_graphs": len(joined.keys)}
        write_whole(folder / ABOUT, json.dumps(about).encode())
        joined.write(folder)
    finally:
        _sweep(folder)
    if len(stale) >= SAID_FROM:
        log.info("packed %d graphs in %.1f s", len(stale), time.monotonic() - began)
    return joined, {key: error for packed in results for key, error in packed.failures.items()}


def _mostly_dead(kept: StoreIndex) -> bool:
    """Whether more than half of what the parts hold is of graphs that changed or are gone."""
    from topotrain.data.packing import EDGE_COLUMNS

    held, rows = sum(size for _, size in kept.parts), kept.rows
    words = rows["num_nodes"] * rows["node_dim"] + rows["num_rows"] * np.maximum(rows["edge_dim"], 0)
    live = 4 * int((words + rows["num_edges"] * EDGE_COLUMNS).sum())
    return held > 2 * live + SLACK


def _sweep(folder: Path) -> None:
    """Remove parts that the index does not name: of a build that was cut off, or of graphs that are gone."""
    try:
        named = {name for name, _ in StoreIndex.read(folder).parts}
    except (OSError, DamagedStoreError):
        named = set()
    for path in folder.iterdir():
        if path.name.startswith("part-") and path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(TEMPORARY_PREFIX):
            path.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def in_memory(
    folder: Path, directory: GraphDirectory, keys: Sequence[str], progress: Track | None
) -> tuple[StoreIndex, Mapping[str, DataError], MemoryPart]:
    """What is not in the store already is read into memory.

    Raises:
        DataError: it does not fit.
    """
    from topotrain.data.parts import MemoryPart
    from topotrain.data.store_build import pack_in_memory

    try:
        index = read_index(folder, log.debug) or StoreIndex()
    except OSError:
        index = StoreIndex()
    stale = stale_keys(index, directory, keys)
    needed, free = int(directory.states(stale)[:, 0].sum()), psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{folder}: packed graphs can't be kept there, and {len(stale)} graphs ({needed / 2**30:.1f} GB) do not "
            f"fit into memory ({free / 2**30:.1f} GB free)",
            "room for packed graphs",
            "free some, or say where else with paths.cache",
        )
    part = MemoryPart()
    shown = progress(stale, len(stale), "reading graphs") if progress else stale
    packed = pack_in_memory(directory, shown, part, IN_MEMORY)
    changed = set(stale)
    unchanged = index.only(np.array([key not in changed for key in index.keys], dtype=bool))
    return StoreIndex.joined([unchanged, packed.index]), packed.failures, part
