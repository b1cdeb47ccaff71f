"""The demo data set: decoys of real complexes, shipped with the package (``demo_data/DATA_CARD.md``)."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from topotrain.data.demo_codec import DemoGraph, pdb_texts, unpack_graphs, unpack_structures
from topotrain.errors import DataError
from topotrain.fields import NODE_IDS, SIDECAR_NAME, SUMMARY_NAME
from topotrain.files import cache_dir, make_new, make_whole
from topotrain.text import csv_writer, one_line

DATA_DIR = Path(__file__).parent / "demo_data"
GRAPHS_FILE = DATA_DIR / "graphs.safetensors.xz"
STRUCTURES_FILE = DATA_DIR / "structures.safetensors.xz"
CARD_FILE = DATA_DIR / "DATA_CARD.md"

SPLITS = ("train", "val", "holdout")
LABEL_COLUMNS = ("MODEL", "dockq", "capri", "target", "kind", "source")
LOG_DIR = "logs/graph_builder.demo"
NATIVES = "natives"


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo data set lies on disk.

    Attributes:
        graphs: the graph folder.
        train_labels: labels of the targets to train on.
        val_labels: labels of the validation targets.
        holdout_labels: labels of targets that are for a last look, after every choice is made.
    """

    graphs: Path
    train_labels: Path
    val_labels: Path
    holdout_labels: Path


@cache
def demo_version() -> str:
    """The version of the demo data set: the first digits of the SHA-256 of its graphs."""
    try:
        return hashlib.sha256(GRAPHS_FILE.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise _not_installed(GRAPHS_FILE, error) from None


def demo_paths(cache: Path | None = None) -> DemoPaths:
    """The demo data set as files, made on first use.

    Args:
        cache: where to keep it; by default the user's cache directory.

    Raises:
        DataError: it can't be written.
    """
    root = (cache or cache_dir()) / f"demo-{demo_version()}"
    if not root.exists():
        try:
            make_whole(root, make_demo)
        except OSError as error:
            raise DataError(
                f"{root}: the demo data set can't be written ({one_line(error)})",
                "a cache directory that can be written",
                "set XDG_CACHE_HOME",
            ) from None
    return DemoPaths(root / "graphs", *(root / f"{split}.csv" for split in SPLITS))


def demo_structures() -> Path:
    """The structures of the demo data set to train and validate on, named as its labels name them; made on first use.

    Raises:
        DataError: they can't be written.
    """
    root = cache_dir() / f"demo-structures-{demo_version()}"
    if not root.exists():
        try:
            make_whole(root, _make_structures)
        except OSError as error:
            raise DataError(
                f"{root}: the demo structures can't be written ({one_line(error)})",
                "a cache directory that can be written",
                "set XDG_CACHE_HOME",
            ) from None
    return root


def _make_structures(root: Path) -> None:
    whole = root / "whole"
    make_structures(whole)
    for split in ("train", "val"):
        for target in sorted((whole / split).iterdir()):
            target.rename(root / target.name)
    shutil.rmtree(whole)


def write_demo(out: Path) -> None:
    """Write the demo data set, graphs and labels, to a folder that does not exist yet.

    Raises:
        DataError: the folder exists, or can't be written.
    """
    make_new(out, make_demo)


def write_demo_structures(out: Path) -> None:
    """Write the structures that the demo graphs were built from, to a folder that does not exist yet.

    Decoys become ``SPLIT/TARGET/MODEL.pdb``, below their split named as the labels name them; native complexes
    ``natives/TARGET.pdb``.

    Raises:
        DataError: the folder exists, or can't be written.
    """
    make_new(out, make_structures)


def make_demo(root: Path) -> None:
    """Write graphs, metadata and label files into a folder; the same bytes on every call."""
    import torch
    from torch_geometric.data import Data

    graphs, index = unpack_graphs(_read(GRAPHS_FILE))
    folder = root / "graphs"
    for target in dict.fromkeys(graph.key.partition("/")[0] for graph in graphs):
        (folder / target).mkdir(parents=True)
    sidecar: dict[str, Any] = dict(index["sidecar_head"])
    for graph in graphs:
        edge_info = _edge_info(graph, index)
        data = Data(
            x=torch.from_numpy(graph.x),
            edge_index=torch.from_numpy(graph.edge_index),
            edge_attr=torch.from_numpy(graph.edge_attr),
            metadata={**index["metadata"], "edge_info": edge_info, NODE_IDS: graph.node_ids},
        )
        # To a buffer, not to a file: torch writes the file's name into the archive.
        buffer = io.BytesIO()
        torch.save(data, buffer)
        (folder / f"{graph.key}.pt").write_bytes(buffer.getvalue())
        sidecar[graph.key] = {**index["sidecar_entry"], "edge_metadata": edge_info}
    (folder / SIDECAR_NAME).write_text(json.dumps(sidecar, indent=1, sort_keys=True), encoding="utf-8")
    logs = folder / LOG_DIR
    logs.mkdir(parents=True)
    (logs / SUMMARY_NAME).write_text(json.dumps(index["summary"], indent=1), encoding="utf-8")
    for split in SPLITS:
        with (root / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv_writer(file).writerows([LABEL_COLUMNS, *index["labels"][split]])


def make_structures(root: Path) -> None:
    """Write decoys and natives as PDB files into a folder; the same bytes on every call."""
    (root / NATIVES).mkdir(parents=True)
    _, index = unpack_graphs(_read(GRAPHS_FILE))
    splits = {target: split for split in SPLITS for _, _, _, target, *_ in index["labels"][split]}
    for target in unpack_structures(_read(STRUCTURES_FILE)):
        folder = root / splits[target.name] / target.name
        folder.mkdir(parents=True)
        for model, text in pdb_texts(target):
            path = folder / f"{model}.pdb" if model else root / NATIVES / f"{target.name}.pdb"
            path.write_text(text, encoding="ascii")


def _edge_info(graph: DemoGraph, index: dict[str, Any]) -> dict[str, Any]:
    return {**index["edge_info"], "edge_count": graph.edge_index.shape[1], "model_key": graph.key}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _not_installed(path, error) from None


def _not_installed(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error.strerror})", "the data that comes with the package", "install topotrain again"
    )
