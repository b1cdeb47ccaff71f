"""Builds of files as people have them: MODELs, archives, what is said, what is kept, what strict refuses."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.structures import helix, helix_pair, pdb_text, write_models
from topotrain.cli import main
from topotrain.data.graph_file import read_graph
from topotrain.errors import DataError
from topotrain.features import BuildReport, build_graphs
from topotrain.features import graph as graph_module
from topotrain.features.structure import READER_VERSION
from topotrain.features.structure_changes import summary_line

NO_TOPOLOGY = "topology/none/v1"


def build(structures: Path, out: Path, **options: Any) -> BuildReport:
    return build_graphs(structures, out, topology_module=NO_TOPOLOGY, **options)


def ensemble(slides: tuple[float, ...]) -> str:
    parts = [pdb_text(helix_pair(slide=slide)).removesuffix("END\n") for slide in slides]
    return "".join(f"MODEL     {n:4d}\n{part}ENDMDL\n" for n, part in enumerate(parts, 1)) + "END\n"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A standard file, one with names of a force field, and an ensemble of three."""
    folder = tmp_path / "structures"
    write_models(folder, (0.0,), target="T")
    (folder / "T" / "field.pdb").write_text(pdb_text(helix_pair()).replace("LEU", "NLE").replace("SER", "SEP"))
    (folder / "T" / "many.pdb").write_text(ensemble((0.0, 1.0, 2.0)))
    return folder


class TestWhatIsSaid:
    def test_line_summary_and_metadata(self, tmp_path: Path, mixed: Path) -> None:
        report = build(mixed, tmp_path / "graphs")
        assert set(report.changes) == {"T/field", "T/many"}
        assert report.changes_line == (
            "3 files: 2 MODELs left out, which models=all takes in 1 file; "
            "12 residues renamed (NLE to LEU 6, SEP to SER 6) in 1 file"
        )
        summary = json.loads(report.summary_path.read_text())["reader"]
        assert summary["version"] == READER_VERSION
        assert {item["model"]: item["changes"] for item in summary["changed"]} == report.changes
        reader = read_graph(tmp_path / "graphs" / "T" / "field.pt").metadata["reader"]
        assert reader == {"version": READER_VERSION, "changes": report.changes["T/field"]}
        assert json.loads(report.metadata_path.read_text())["_builder"]["reader_version"] == READER_VERSION

    def test_nothing_where_nothing_was_changed(self, tmp_path: Path) -> None:
        write_models(tmp_path / "in", (0.0, 1.0))
        report = build(tmp_path / "in", tmp_path / "graphs")
        assert report.changes_line == ""
        assert json.loads(report.summary_path.read_text())["reader"]["changed"] == []

    def test_kept_graphs_say_it_again(self, tmp_path: Path, mixed: Path) -> None:
        first, again = (build(mixed, tmp_path / "graphs") for _ in range(2))
        assert len(again.kept) == 3
        assert again.changes_line == first.changes_line

    def test_many_kinds_of_names_are_cut(self) -> None:
        counts = {"A to ALA": 1, "B to ALA": 2, "C to ALA": 3, "D to ALA": 4}
        line = summary_line({"x": {"residues_renamed": counts}}, 9)
        assert line == "9 files: 10 residues renamed (D to ALA 4, C to ALA 3, B to ALA 2, ...) in 1 file"

    def test_strict(self, tmp_path: Path, mixed: Path) -> None:
        with pytest.raises(
            DataError, match="2 of 3 structures were not read as they stand, the first: .*field.pdb: 12"
        ):
            build(mixed, tmp_path / "graphs", strict=True)
        assert (tmp_path / "graphs" / "T" / "m0.pt").exists()
        (mixed / "T" / "field.pdb").unlink()
        assert build(mixed, tmp_path / "all", strict=True, models="all").num_graphs == 4

    def test_the_command_says_it(self, tmp_path: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["build-graphs", str(mixed), "--out", str(tmp_path / "g"), "--topology-module", NO_TOPOLOGY]
        words += ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        main(words)
        assert "\nread: 3 files: 2 MODELs left out" in f"\n{capsys.readouterr().err}"
        main([*words, "--models", "all"])
        assert "3 graphs built, 2 kept, 0 failed" in capsys.readouterr().err
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--strict"])
        assert stopped.value.code == 2
        assert "error: 2 of 3 structures were not read as they stand" in capsys.readouterr().err


class TestModels:
    def test_each_is_a_decoy(self, tmp_path: Path, mixed: Path) -> None:
        report = build(mixed, tmp_path / "graphs", models="all")
        assert report.built == ("T/field", "T/m0", "T/many_1", "T/many_2", "T/many_3")
        for number, slide in enumerate((0.0, 1.0, 2.0), 1):
            (tmp_path / "one").mkdir(exist_ok=True)
            (tmp_path / "one" / "m.pdb").write_text(pdb_text(helix_pair(slide=slide)))
            build(tmp_path / "one", tmp_path / f"one{number}")
            one = read_graph(tmp_path / f"one{number}" / "m.pt")
            many = read_graph(tmp_path / "graphs" / "T" / f"many_{number}.pt")
            assert one.edge_attr.equal(many.edge_attr)
            assert one.x.equal(many.x)
        assert len(build(mixed, tmp_path / "graphs", models="all").kept) == 5

    def test_names_that_are_taken(self, tmp_path: Path, mixed: Path) -> None:
        (mixed / "T" / "many_2.pdb").write_text(pdb_text(helix_pair()))
        with pytest.raises(DataError, match="would both become T/many_2.pt"):
            build(mixed, tmp_path / "graphs", models="all")


class TestOlderReaders:
    """Graphs that another version of the reader made."""

    @pytest.mark.parametrize(("name", "value"), [("READER_VERSION", 1), ("READER", "nothing")])
    def test_standard_files_are_kept_and_others_built_again(
        self, tmp_path: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
    ) -> None:
        with monkeypatch.context() as older:
            older.setattr(graph_module, name, value)
            build(mixed, tmp_path / "graphs")
        report = build(mixed, tmp_path / "graphs")
        assert report.kept == ("T/m0",)
        assert report.built == ("T/field", "T/many")
        assert len(build(mixed, tmp_path / "graphs").kept) == 3


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def tarred(path: Path, files: dict[str, str], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


class TestArchives:
    FILES = {
        "T/m0.pdb": pdb_text(helix_pair()),
        "T/notes.txt": "not a structure",
        "T/._m0.pdb": "what a Mac leaves",
        "U/m1.PDB": pdb_text(helix_pair(slide=1.0)),
    }

    @pytest.mark.parametrize(
        "pack",
        [
            lambda folder, files: zipped(folder / "decoys.ZIP", files),
            lambda folder, files: tarred(folder / "decoys.tar.gz", files),
            lambda folder, files: tarred(folder / "decoys.tgz", files),
            lambda folder, files: tarred(folder / "decoys.tar", files, "w"),
            lambda folder, files: tarred(folder / "decoys.tar.xz", files, "w:xz"),
        ],
    )
    def test_they_stand_for_their_folder(self, tmp_path: Path, pack: Callable[[Path, dict[str, str]], Path]) -> None:
        archive = pack(tmp_path, self.FILES)
        report = build(archive, tmp_path / "graphs")
        assert report.built == ("T/m0", "U/m1")
        assert json.loads(report.summary_path.read_text())["dataset_dir"] == str(archive)
        assert len(build(archive, tmp_path / "graphs").kept) == 2
        folder = tmp_path / "folder"
        for name, text in self.FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        assert len(build(folder, tmp_path / "graphs").kept) == 2

    def test_errors_name_the_archive(self, tmp_path: Path) -> None:
        archive = zipped(tmp_path / "a.zip", {"T/bad.pdb": "", "T/alone.pdb": pdb_text(helix("A", 8))})
        failures = build(archive, tmp_path / "graphs").failures
        assert failures["T/bad"].startswith(f"{archive}/T/bad.pdb: no ATOM records")
        assert "one chain alone (A)" in failures["T/alone"]

    @pytest.mark.parametrize("name", ["../out.pdb", "/tmp/out.pdb", "T/../../out.pdb", "..\\out.pdb", "C:/out.pdb"])
    @pytest.mark.parametrize("pack", [zipped, tarred])
    def test_no_path_leaves(self, tmp_path: Path, name: str, pack: Callable[..., Path]) -> None:
        archive = pack(tmp_path / f"a.{'zip' if pack is zipped else 'tar.gz'}", {name: pdb_text(helix_pair())})
        with pytest.raises(DataError, match="leads out of it"):
            build(archive, tmp_path / "graphs")
        assert not list(tmp_path.rglob("out.pdb"))

    def test_links_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret.pdb").write_text(pdb_text(helix_pair()))
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("T/m.pdb")
            entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.pdb")
            archive.addfile(entry)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            info = zipfile.ZipInfo("T/m.pdb")
            info.external_attr = 0o120777 << 16
            packed.writestr(info, str(tmp_path / "secret.pdb"))
        for name in ("a.tar", "a.zip"):
            with pytest.raises(DataError, match="is a link"):
                build(tmp_path / name, tmp_path / "graphs")

    def test_sizes_and_numbers_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = zipped(tmp_path / "a.zip", self.FILES)
        for name, value in (("ARCHIVE_ENTRIES", 2), ("ARCHIVE_BYTES", 100), ("STRUCTURE_BYTES", 100)):
            with monkeypatch.context() as bounded:
                bounded.setenv(f"TOPOTRAIN_MAX_{name}", str(value))
                with pytest.raises(DataError, match=f"over.*TOPOTRAIN_MAX_{name} raises the limit"):
                    build(archive, tmp_path / "graphs")

    @pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
    def test_damaged(self, tmp_path: Path, name: str) -> None:
        whole = zipped(tmp_path / name, self.FILES) if name == "a.zip" else tarred(tmp_path / name, self.FILES)
        whole.write_bytes(whole.read_bytes()[:400])
        with pytest.raises(DataError, match="cannot be unpacked"):
            build(whole, tmp_path / "graphs")

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.zip holds no structure files"):
            build(zipped(tmp_path / "a.zip", {"notes.txt": ""}), tmp_path / "graphs")


def test_whatever_is_raised_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models(tmp_path / "in", (0.0, 1.0))
    plain = graph_module.read_structure

    def raising(path: str, *more: Any, **options: Any) -> Any:
        if path.endswith("m0.pdb"):
            raise RecursionError("deep\ndown")
        return plain(path, *more, **options)

    monkeypatch.setattr(graph_module, "read_structure", raising)
    report = build(tmp_path / "in", tmp_path / "graphs", models="all")
    assert report.built == ("T1/m1",)
    assert list(report.failures) == ["T1/m0"]
    assert "RecursionError: deep down" in report.failures["T1/m0"]


def test_one_chain_says_what_was_left_out(tmp_path: Path) -> None:
    """An ensemble of one chain may be the copies of an assembly."""
    part = pdb_text(helix("A", 8)).removesuffix("END\n")
    (tmp_path / "m.pdb").write_text(f"MODEL        1\n{part}ENDMDL\nMODEL        2\n{part}ENDMDL\nEND\n")
    failure = build(tmp_path / "m.pdb", tmp_path / "graphs").failures[f"{tmp_path.name}/m"]
    assert "one chain alone (A); 1 MODEL left out" in failure
    assert "cutoff" not in failure
    assert os.linesep not in failure
