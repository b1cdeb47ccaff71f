"""On-disk formats for a packed store of graphs, side by side: reading batches in random order, writing, memory.

python benchmarks/store_formats.py [--json FILE] [--shape demo wide] [--graphs 10000 2000] [--rounds 3]

Every format holds the same graphs and gives the same batches of 16: node features, edge ends and edge features, as
fresh tensors. Each reading is a process of its own that goes once through all graphs in random order: ``cold`` with
the files dropped from the page cache before, ``warm`` right after. Memory is what that process holds after one pass
above what it held before it opened the store: anonymous, and pages of mapped files, of which some 10 MB are program
code. LMDB is measured where it can be imported. The speed of some checksums closes the table.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import multiprocessing
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_graphs import SHAPES, make_graphs
from measuring import MEGA, Spread, figure, forget_pages, machine, memory, seconds, settle, table, write_json
from store_kinds import NEEDS, STORES, Store, parts_of
from torch_geometric.data import Data

BATCH = 16


def read_once(name: str, folder: Path, shape: str, number: int, check: float) -> dict[str, float]:
    """One pass in random order in this process: milliseconds a batch, and megabytes held afterwards."""
    torch.set_num_threads(1)
    store = STORES[name](folder, SHAPES[shape])
    before = memory()
    order = np.random.default_rng(0).permutation(number).tolist()
    batches = [order[start : start + BATCH] for start in range(0, number, BATCH)]
    opening = seconds(store.open)
    total = sum(float(part.double().sum()) for part in store.batch(range(min(BATCH, number))))
    if abs(total - check) > 1e-6 * max(1.0, abs(check)):
        raise ValueError(f"{name}: another content than was written: {total}, {check}")

    def one_pass() -> None:
        for batch in batches:
            store.batch(batch)

    taken = seconds(one_pass)
    after = memory()
    held = {f"{kind} MB": after[kind] - before[kind] for kind in ("anon", "file")}
    return {"open ms": 1e3 * opening, "ms a batch": 1e3 * taken / len(batches), **held}


def checksums() -> dict[str, float]:
    """GB a second."""
    block = np.random.default_rng(0).bytes(1 << 27)
    kinds: dict[str, Callable[[bytes], Any]] = {
        "zlib.crc32": zlib.crc32,
        "zlib.adler32": zlib.adler32,
        "hashlib.sha256": lambda data: hashlib.sha256(data).digest(),
        "hashlib.blake2b": lambda data: hashlib.blake2b(data).digest(),
    }
    if importlib.util.find_spec("xxhash"):
        import xxhash

        kinds["xxhash.xxh3_128"] = lambda data: xxhash.xxh3_128(data).digest()
    return {
        name: len(block) / 1e9 / min(seconds(partial(kind, block)) for _ in range(3)) for name, kind in kinds.items()
    }


def write_all(store: Store, graphs: Sequence[Data]) -> None:
    """To the disk, not to its cache alone."""
    store.write(iter(graphs))
    settle(store.folder)


def measure(shape_name: str, number: int, rounds: int, root: Path) -> list[dict[str, Any]]:
    """All formats on one size, in turn."""
    shape, rows = SHAPES[shape_name], {}
    names: list[str] = []
    graphs = [graph for graph, _ in make_graphs(shape, number)]
    check = sum(float(part.double().sum()) for graph in graphs[:BATCH] for part in parts_of(graph))
    for place, (name, kind) in enumerate(STORES.items()):
        if name in NEEDS and not importlib.util.find_spec(NEEDS[name]):
            print(f"{name}: skipped, {NEEDS[name]} is not installed", file=sys.stderr)
            continue
        folder = root / f"{shape_name}-{place}"
        folder.mkdir(parents=True)
        store, names = kind(folder, shape), [*names, name]
        wrote = seconds(partial(write_all, store, graphs))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGA
        rows[name] = {"format": name, "graphs": shape_name, "write s": wrote, "MB": size}
    passes: dict[tuple[str, str], list[dict[str, float]]] = {}
    context = multiprocessing.get_context("forkserver")
    # These are imported once, though every reading is a new process.
    context.set_forkserver_preload(["torch", "torch_geometric.data", "safetensors.torch", "pyarrow"])
    readers = ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)
    for _ in range(rounds):
        for name in names:
            folder = root / f"{shape_name}-{list(STORES).index(name)}"
            for kind_of_pass in ("cold", "warm", "warm"):
                if kind_of_pass == "cold":
                    forget_pages(folder)
                found = readers.submit(read_once, name, folder, shape_name, number, check).result()
                passes.setdefault((name, kind_of_pass), []).append(found)
    for name in names:
        cold, warm = passes[name, "cold"], passes[name, "warm"]
        rows[name] |= {f"{kind} ms a batch": Spread.of([one["ms a batch"] for one in found])
                       for kind, found in (("cold", cold), ("warm", warm))}  # fmt: skip
        rows[name] |= {key: Spread.of([one[key] for one in warm]).median for key in ("open ms", "anon MB", "file MB")}
    return list(rows.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["demo", "wide"])
    parser.add_argument("--graphs", type=int, nargs="+", default=[10000, 2000], help="of each shape (10000 2000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=None, help="where to write (a temporary folder)")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {"machine": machine(), "formats": []}
    for shape, number in zip(given.shape, given.graphs, strict=True):
        with tempfile.TemporaryDirectory(dir=given.workdir) as folder:
            rows = measure(shape, number, given.rounds, Path(folder))
        print(f"\n{number} graphs of {SHAPES[shape]}\n\n{table(rows)}", flush=True)
        content["formats"] += rows
    content["checksums, GB/s"] = checksums()
    print("\nchecksums, GB/s: " + ", ".join(f"{n} {figure(v)}" for n, v in content["checksums, GB/s"].items()))
    write_json(given.json, content)


if __name__ == "__main__":
    main()
