"""Input that is larger than it looks, or never ends, costs one line and little memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit.structures import cif_text, helix_pair, pdb_text
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError
from topotrain.features import build_graphs
from topotrain.features.structure import read_structure
from topotrain.files import walk_files
from topotrain.limits import STRUCTURE_BYTES, MiB
from topotrain.model.checkpoint import load_plain

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, 1),
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
}


def refused(read: Callable[[], Any], *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read()
    for word in words:
        assert word in str(caught.value)


def peak(work: Callable[[], Any]) -> int:
    """The most bytes that Python and numpy held meanwhile."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("line", [b"\n", b"ATOM\n", b"\r"])
def test_a_packed_structure_is_unpacked_as_far_as_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str, line: bytes
) -> None:
    path = tmp_path / f"m.pdb{packing}"
    path.write_bytes(PACKERS[packing](line * (8 * MiB // len(line))))
    monkeypatch.setenv(STRUCTURE_BYTES.variable, str(MiB))
    held = peak(lambda: refused(lambda: read_structure(path), "over 1048576 bytes when unpacked", "raises the limit"))
    assert held < 6 * MiB


def test_text_of_nothing_but_ends_of_lines_takes_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topotrain.features.pdb_file.PIECE", 2**16)
    for ending in (b"\n", b"\r", b"\r\n"):
        (tmp_path / "m.pdb").write_bytes(ending * 4 * MiB)
        held = peak(lambda: refused(lambda: read_structure(tmp_path / "m.pdb"), "no ATOM records"))
        assert held < 20 * MiB  # the lines of all of it would take eight times as much as it is long


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n"])
def test_lines_in_pieces_are_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    text = pdb_text(helix_pair())
    (tmp_path / "a.pdb").write_bytes(text.encode())
    (tmp_path / "b.pdb").write_bytes(text.replace("\n", ending).encode())
    whole = read_structure(tmp_path / "a.pdb")
    for piece in (1, 79, 80, 81, 1000):
        monkeypatch.setattr("topotrain.features.pdb_file.PIECE", piece)
        pieces = read_structure(tmp_path / "b.pdb")
        assert np.array_equal(whole.coords, pieces.coords)
        assert whole.residue_ids == pieces.residue_ids


@pytest.mark.parametrize("limit", ["STRUCTURE_ATOMS", "STRUCTURE_CELLS", "STRUCTURE_RESIDUES", "STRUCTURE_CROWD"])
def test_what_is_no_molecule_is_refused_before_it_is_computed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    pdb, cif = tmp_path / "m.pdb", tmp_path / "m.cif"
    pdb.write_text(pdb_text(helix_pair()))
    cif.write_text(cif_text(helix_pair()))
    read_structure(pdb), read_structure(cif)
    monkeypatch.setenv(f"TOPOTRAIN_MAX_{limit}", "12")
    for path in (cif,) if limit == "STRUCTURE_CELLS" else (pdb, cif):
        refused(lambda path=path: read_structure(path), str(path), f"TOPOTRAIN_MAX_{limit} raises the limit")


def test_residues_on_top_of_each_other_are_no_complex(tmp_path: Path) -> None:
    lines = [
        f"ATOM  {i:5d}  CA  GLY {'AB'[i % 2]}{i // 2:4d}    {i % 10 / 10:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00           C"
        for i in range(3000)
    ]
    (tmp_path / "m.pdb").write_text("\n".join(lines) + "\n")
    report = build_graphs(tmp_path / "m.pdb", tmp_path / "graphs")
    (failure,) = report.failures.values()
    assert "3000 atoms within a cube of 10 Angstrom" in failure


def _tar_of_long_header(path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.size, entry.type = 1 << 32, tarfile.XHDTYPE
    path.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"\n" * 8 * MiB))


def _zip_of_large_entry(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("T/m.pdb", b"\n" * 24 * MiB)


@pytest.mark.parametrize(("name", "make"), [("a.tar.gz", _tar_of_long_header), ("a.zip", _zip_of_large_entry)])
def test_an_archive_gives_no_more_than_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    monkeypatch.setenv(STRUCTURE_BYTES.variable, str(2 * MiB))
    build = lambda: build_graphs(tmp_path / name, tmp_path / "graphs")  # noqa: E731
    assert peak(lambda: refused(build, str(tmp_path / name), "over", "raises the limit")) < 16 * MiB


# Folders


def test_links_that_fork_again_and_again(tmp_path: Path) -> None:
    for level in range(25):
        (tmp_path / f"l{level}").mkdir()
    for level in range(24):
        for name in "ab":
            (tmp_path / f"l{level}" / name).symlink_to(tmp_path / f"l{level + 1}")
    (tmp_path / "l24" / "g.pt").touch()
    refused(lambda: GraphDirectory(tmp_path / "l0").keys, str(tmp_path / "l24"), "FOLDER_WAYS raises the limit")


def test_folders_in_folders(tmp_path: Path) -> None:
    place = str(tmp_path)
    for _ in range(150):
        place += "/d"
        os.mkdir(place)
    refused(lambda: list(walk_files(tmp_path)), str(tmp_path), "more than 100 deep")


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "self.pt").symlink_to("self.pt")
    (tmp_path / "other").symlink_to("other")
    assert GraphDirectory(tmp_path).keys == ["self"]
    refused(lambda: read_graph(tmp_path / "self.pt"), "self.pt")


PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "folder": os.mkdir,
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_costs_itself_alone(tmp_path: Path, kind: str) -> None:
    for name in ("g.pt", "m.pdb", "m.cif.gz", "a.zip", "a.tar.gz", "c.ckpt"):
        PLACES[kind](tmp_path / name)
    done = threading.Event()

    def read_all() -> None:
        refused(lambda: read_graph(tmp_path / "g.pt"), str(tmp_path / "g.pt"))
        refused(lambda: load_plain(tmp_path / "c.ckpt", "a checkpoint"), str(tmp_path / "c.ckpt"))
        for name in ("m.pdb", "m.cif.gz"):
            refused(lambda: read_structure(tmp_path / name), str(tmp_path / name))  # noqa: B023
        for name in ("a.zip", "a.tar.gz"):
            refused(lambda: build_graphs(tmp_path / name, tmp_path / "out"), str(tmp_path / name))  # noqa: B023
        done.set()

    worker = threading.Thread(target=read_all, daemon=True)
    worker.start()
    worker.join(20)
    assert done.is_set()


@pytest.mark.parametrize("kind", PLACES)
def test_metadata_that_are_no_file(graph_set: Any, kind: str) -> None:
    graph_set.sidecar.unlink()
    PLACES[kind](graph_set.sidecar)
    done: list[str] = []

    def resolve() -> None:
        try:
            done.append(inspect_directory(graph_set.graphs).edge_source)
        except DataError as error:
            done.append(str(error))

    worker = threading.Thread(target=resolve, daemon=True)
    worker.start()
    worker.join(20)
    assert str(graph_set.sidecar) in done[0]


def test_a_structure_that_is_not_there_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "T"
    folder.mkdir()
    (folder / "good.pdb").write_text(pdb_text(helix_pair()))
    (folder / "gone.pdb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.pdb")
    with open(os.fsencode(folder) + b"/caf\xe9.pdb", "w") as file:
        file.write(pdb_text(helix_pair()))
    (folder / "a\nb.pdb").write_text(pdb_text(helix_pair()))
    report = build_graphs(tmp_path, tmp_path / "graphs")
    assert report.built == ("T/good",)
    reasons = {key.rpartition("/")[2]: text for key, text in report.failures.items()}
    assert "No such file" in reasons["gone"]
    assert "no regular file" in reasons["pipe"]
    assert "no UTF-8" in reasons["caf\udce9"]
    assert "a control character" in reasons["a\nb"]
    with pytest.raises(DataError, match="4 of 5 structures failed"):
        build_graphs(tmp_path, tmp_path / "graphs", strict=True)


# Torch files


class Asking:
    """Calls something with something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "wish",
    [
        Asking(bytearray, 1 << 36),
        Asking(torch.Tensor, 1 << 18, 1 << 18),
        Asking(torch.FloatTensor, 1 << 36),
    ],
    ids=["bytes", "tensor", "tensor of a kind"],
)
def test_a_file_of_two_kilobytes_is_not_given_what_it_asks_for(tmp_path: Path, wish: Asking) -> None:
    for content in ({"x": wish}, {"x": torch.zeros(2, 2), "metadata": {"a": [wish]}}):
        for zipped in (True, False):
            torch.save(content, tmp_path / "g.pt", _use_new_zipfile_serialization=zipped)
            refused(lambda: read_graph(tmp_path / "g.pt"), "refused, it names")
            refused(lambda: load_plain(tmp_path / "g.pt", "a checkpoint"), "refused, it names")


def test_the_size_of_torch_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"x": torch.zeros(100, 100), "text": ["a" * 5] * 5000}, tmp_path / "g.pt")
    for limit, read in (
        ("GRAPH_BYTES", read_graph),
        ("CHECKPOINT_BYTES", lambda path: load_plain(path, "a checkpoint")),
        ("PICKLE_BYTES", read_graph),
    ):
        with monkeypatch.context() as bounded:
            bounded.setenv(f"TOPOTRAIN_MAX_{limit}", "1000")
            refused(lambda read=read: read(tmp_path / "g.pt"), f"TOPOTRAIN_MAX_{limit} raises the limit")


def test_an_entry_packed_in_a_zip_whose_size_is_made_up_for_elsewhere(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(4, 5)}, tmp_path / "whole.pt")
    whole = zipfile.ZipFile(tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        for name in whole.namelist():
            kind = zipfile.ZIP_DEFLATED if name.endswith("pkl") else zipfile.ZIP_STORED
            archive.writestr(name, whole.read(name), kind)
        archive.writestr("padding", os.urandom(100_000))
    refused(lambda: read_graph(tmp_path / "g.pt"), "more than it holds")
