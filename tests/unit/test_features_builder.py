"""Folders of graphs: formats, resuming, failures, processes."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit.structures import (
    cif_text,
    die_answering,
    halve_or_die,
    halve_or_wait,
    helix,
    helix_pair,
    pdb_text,
    refuse,
    write_models,
)
from topotrain.data.graph_file import read_graph
from topotrain.errors import DataError, UserInputError
from topotrain.features import BuildReport, build_graphs, build_recorded_graphs
from topotrain.features.inputs import find_structures
from topotrain.processes import run_tasks

SLIDES = (0.0, 1.0, 2.5)


def graph_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.pt"))}


def build(folder: Path, out: str = "graphs", **options: Any) -> BuildReport:
    return build_graphs(folder / "structures", folder / out, **options)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    return write_models(tmp_path / "structures", SLIDES)


def test_graph_file_and_sidecar(tmp_path: Path, models: list[str]) -> None:
    seen: list[tuple[int, int, str]] = []
    report = build(tmp_path, progress=lambda *state: seen.append(state))
    assert report.built == tuple(models)
    assert report.failures == {}
    assert seen == [(n + 1, 3, key) for n, key in enumerate(models)]
    graph = read_graph(tmp_path / "graphs" / "T1" / "m0.pt")
    assert (graph.x.dtype, graph.edge_index.dtype, graph.edge_attr.dtype) == (
        torch.float32,
        torch.int64,
        torch.float32,
    )
    assert graph.x.shape[1] == 172
    assert graph.edge_attr.shape == (graph.edge_index.shape[1], 11)
    metadata = graph.metadata
    assert metadata["node_ids"][0].startswith("A:")
    assert len(metadata["node_ids"]) == len(graph.x)
    assert metadata["edge_info"]["edge_count"] == len(graph.edge_attr)
    assert metadata["edge_info"]["model_key"] == "T1/m0"

    sidecar = json.loads(report.metadata_path.read_text())
    assert [key for key in sidecar if not key.startswith("_")] == models
    entry = sidecar["T1/m0"]
    assert entry["edge_module"] == "edge/legacy_band/v11"
    assert entry["edge_metadata"] == metadata["edge_info"]
    assert entry["edge_params"] == metadata["edge_params"]
    assert len(entry["edge_feature_columns"]) == entry["edge_metadata"]["feature_dim"] == 11
    assert len(entry["node_feature_columns"]) == 172


def test_summary(tmp_path: Path, models: list[str]) -> None:
    report = build(tmp_path)
    summary = json.loads(report.summary_path.read_text())
    assert report.summary_path.parent.name.startswith("graph_builder.")
    assert report.summary_path.parents[2] == tmp_path / "graphs"
    output = report.summary_path.parent / summary["edge"]["output_dir"]
    assert output.resolve() == (tmp_path / "graphs").resolve()
    assert summary["edge"]["edge_feature_dim"] == 11
    assert summary["edge"]["success"] == summary["built"] == 3
    assert all(summary["stage_seconds"][stage] >= 0 for stage in ("read", "interface", "topology", "node", "edge"))
    for kind in ("interface", "topology", "node", "edge"):
        described = summary["modules"][kind]
        assert described["id"].startswith(kind)
        assert described["jobs"] == 1
        assert set(described["params"]) == set(described["defaults"])


def test_the_format_is_that_of_the_real_graphs(tmp_path: Path, models: list[str], shared_data: Path) -> None:
    real = json.loads((shared_data / "real_docking" / "graphs" / "graph_metadata.json").read_text())
    key, theirs = next(iter(real.items()))
    ours = json.loads(build(tmp_path).metadata_path.read_text())["T1/m0"]
    assert ours["edge_module"] == theirs["edge_module"]
    assert json.dumps(ours["edge_params"], sort_keys=True) == json.dumps(theirs["edge_params"], sort_keys=True)
    assert ours["node_feature_columns"] == theirs["node_feature_columns"]
    assert ours["edge_metadata"]["edge_feature_variant"] == theirs["edge_metadata"]["edge_feature_variant"]
    graph = read_graph(shared_data / "real_docking" / "graphs" / f"{key}.pt")
    mine = read_graph(tmp_path / "graphs" / "T1" / "m0.pt")
    assert set(graph.metadata) <= set(mine.metadata)
    assert set(graph.metadata["edge_info"]) <= set(mine.metadata["edge_info"])
    assert graph.edge_index[:, :2].tolist() == graph.edge_index[:, :2].flip(0).flip(1).tolist()


def test_gzip_and_mmcif_make_the_same_features(tmp_path: Path) -> None:
    folder = tmp_path / "structures"
    folder.mkdir()
    atoms = helix_pair()
    (folder / "plain.pdb").write_text(pdb_text(atoms))
    (folder / "packed.pdb.gz").write_bytes(gzip.compress(pdb_text(atoms).encode()))
    (folder / "other.cif").write_text(cif_text(atoms))
    assert build(tmp_path).built == ("other", "packed", "plain")
    graphs = [read_graph(tmp_path / "graphs" / f"{name}.pt") for name in ("plain", "packed", "other")]
    for graph in graphs[1:]:
        assert all(
            torch.equal(getattr(graph, name), getattr(graphs[0], name)) for name in ("x", "edge_index", "edge_attr")
        )
        assert graph.metadata["node_ids"] == graphs[0].metadata["node_ids"]


def test_two_processes_make_the_same_bytes(tmp_path: Path, models: list[str]) -> None:
    (tmp_path / "structures" / "T1" / "bad.pdb").write_text("nothing")
    build(tmp_path, out="one")
    report = build(tmp_path, out="two", jobs=2)
    assert report.built == tuple(models)
    assert set(report.failures) == {"T1/bad"}
    one, two = graph_bytes(tmp_path / "one"), graph_bytes(tmp_path / "two")
    assert len(one) == 3
    assert one == two
    sidecars = [(tmp_path / name / "graph_metadata.json").read_bytes() for name in ("one", "two")]
    assert sidecars[0] == sidecars[1]


class TestResume:
    def test_unchanged_graphs_are_kept(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        before = graph_bytes(tmp_path / "graphs")
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "graphs").rglob("*.pt")}
        sidecar = (tmp_path / "graphs" / "graph_metadata.json").read_bytes()
        (tmp_path / "graphs" / "T1" / "m1.pt").unlink()
        report = build(tmp_path)
        assert report.built == ("T1/m1",)
        assert report.kept == ("T1/m0", "T1/m2")
        assert graph_bytes(tmp_path / "graphs") == before
        assert (tmp_path / "graphs" / "graph_metadata.json").read_bytes() == sidecar
        assert all(path.stat().st_mtime_ns == times[path] for path in times if path.name != "m1.pt")

    def test_changes_are_built_again(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        (tmp_path / "structures" / "T1" / "m2.pdb").write_text(pdb_text(helix_pair(slide=4.0)))
        assert build(tmp_path).built == ("T1/m2",)

    def test_graphs_of_other_modules_are_kept_apart_or_give_way(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        write_models(tmp_path / "more", [0.5], target="T2")
        build_graphs(tmp_path / "more", tmp_path / "graphs")
        before = graph_bytes(tmp_path / "graphs")
        others: list[dict[str, Any]] = [{"settings": {"edge.distance_max": "9"}}, {"edge_module": "edge/distance/v1"}]
        others.append({"settings": {"interface.cutoff": "9"}})
        for other in others:
            with pytest.raises(DataError, match=r"holds 4 graphs of other modules .* against .*--replace") as caught:
                build(tmp_path, **other)
            assert caught.value.exit_code == 2
        assert "interface module" in str(caught.value)
        assert "edge module" not in str(caught.value)
        assert graph_bytes(tmp_path / "graphs") == before
        other = {"edge_module": "edge/distance/v1"}
        assert build(tmp_path, **other, replace_others=True).built == tuple(models)
        assert not (tmp_path / "graphs" / "T2" / "m0.pt").exists(), "of the former modules"
        assert build(tmp_path, **other, replace_others=True).kept == tuple(models)
        assert build(tmp_path, **other).kept == tuple(models)

    def test_damaged_graphs_are_built_again(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        before = graph_bytes(tmp_path / "graphs")
        (tmp_path / "graphs" / "T1" / "m0.pt").write_bytes(b"damaged")
        (tmp_path / "graphs" / "T1" / "m1.pt").write_bytes(before["T1/m1.pt"][:-100])
        assert build(tmp_path).built == ("T1/m0", "T1/m1")
        assert graph_bytes(tmp_path / "graphs") == before

    def test_a_graph_whose_input_went_bad_is_removed(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        (tmp_path / "structures" / "T1" / "m0.pdb").write_text("broken")
        report = build(tmp_path)
        assert set(report.failures) == {"T1/m0"}
        assert not (tmp_path / "graphs" / "T1" / "m0.pt").exists()
        assert "T1/m0" not in json.loads(report.metadata_path.read_text())

    def test_another_folder_of_structures_adds_to_the_sidecar(self, tmp_path: Path, models: list[str]) -> None:
        build(tmp_path)
        write_models(tmp_path / "more", [0.5], target="T2")
        report = build_graphs(tmp_path / "more", tmp_path / "graphs")
        entries = [key for key in json.loads(report.metadata_path.read_text()) if not key.startswith("_")]
        assert entries == [*models, "T2/m0"]

    def test_a_kill_leaves_what_the_same_command_completes(self, tmp_path: Path) -> None:
        keys = write_models(tmp_path / "structures", np.linspace(0, 4, 40))
        code = (
            "import sys, time, topotrain.features as f\n"
            "def progress(done, *others):\n"
            "    print(done, *others, file=sys.stderr, flush=True)\n"
            "    time.sleep(600 if done == 20 else 0)\n"
            "f.build_graphs(sys.argv[1], sys.argv[2], topology_module='topology/none/v1', progress=progress)"
        )
        source = str(Path(sys.modules["topotrain"].__file__ or "").parents[1])
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "structures"), str(tmp_path / "killed")],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": source},
        )
        assert process.stderr is not None
        while not process.stderr.readline().startswith(b"1 40 "):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len(graph_bytes(tmp_path / "killed"))
        assert 0 < done < len(keys)
        (tmp_path / "killed" / "T1" / ".topotrain-m9.pt.1.tmp").write_bytes(b"half a graph")
        report = build(tmp_path, out="killed", topology_module="topology/none/v1")
        assert len(report.kept) == done
        build(tmp_path, out="straight", topology_module="topology/none/v1")
        assert graph_bytes(tmp_path / "killed") == graph_bytes(tmp_path / "straight")
        assert not list((tmp_path / "killed").rglob(".topotrain-*"))
        sidecars = [(tmp_path / name / "graph_metadata.json").read_bytes() for name in ("killed", "straight")]
        assert sidecars[0] == sidecars[1]


class TestFailures:
    def test_one_bad_file_costs_one_line(self, tmp_path: Path, models: list[str]) -> None:
        folder = tmp_path / "structures" / "T1"
        (folder / "empty.pdb").write_text("")
        (folder / "alone.pdb").write_text(pdb_text(helix("A", 8)))
        report = build(tmp_path)
        assert report.built == tuple(models)
        summary = json.loads(report.summary_path.read_text())
        assert {item["model"]: item["stage"] for item in summary["failures"]} == {
            "T1/empty": "read", "T1/alone": "interface",
        }  # fmt: skip
        assert all("\n" not in item["error"] and item["model"][3:] in item["error"] for item in summary["failures"])
        assert [item["model"] for item in summary["interface"]["failures"]] == ["T1/alone"]
        assert summary["failed"] == 2

    def test_strict_raises_after_the_rest_is_done(self, tmp_path: Path, models: list[str]) -> None:
        (tmp_path / "structures" / "T1" / "bad.pdb").write_text("")
        with pytest.raises(DataError, match="1 of 4 structures failed"):
            build(tmp_path, strict=True)
        assert len(graph_bytes(tmp_path / "graphs")) == 3
        assert (tmp_path / "graphs" / "graph_metadata.json").exists()

    def test_nothing_to_build(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            build(tmp_path)
        (tmp_path / "structures").mkdir()
        with pytest.raises(DataError, match="holds no structure files"):
            build(tmp_path)

    def test_two_files_for_one_graph(self, tmp_path: Path, models: list[str]) -> None:
        (tmp_path / "structures" / "T1" / "m0.cif").write_text("")
        with pytest.raises(DataError, match="would both become T1/m0.pt"):
            build(tmp_path)

    def test_missing_mkdssp_stops_the_build(
        self, tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserInputError, match="mkdssp is not installed"):
            build(tmp_path, settings={"node.dssp": "mkdssp"})

    def test_jobs_must_be_positive(self, tmp_path: Path, models: list[str]) -> None:
        with pytest.raises(UserInputError, match="jobs is 0"):
            build(tmp_path, jobs=0)


def test_keys(tmp_path: Path) -> None:
    for name in ("flat.pdb", "T/m_1.v2.cif.gz", "T/deep/x.ent", ".hidden/y.pdb", "T/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert list(find_structures(tmp_path)) == ["T/deep/x", "T/m_1.v2", "flat"]
    (tmp_path / "L").symlink_to(tmp_path / "T")
    assert list(find_structures(tmp_path)) == ["L/deep/x", "L/m_1.v2", "T/deep/x", "T/m_1.v2", "flat"]
    assert list(find_structures(tmp_path / "T" / "m_1.v2.cif.gz")) == ["T/m_1.v2"]


def test_recorded_modules_build_the_same_graphs(tmp_path: Path, models: list[str]) -> None:
    options = {"edge_module": "edge/multi_scale/v24", "settings": {"edge.contact_threshold": "4.5"}}
    report = build(tmp_path, **options)
    registry = json.loads(report.summary_path.read_text())["modules"]
    build_recorded_graphs(tmp_path / "structures", tmp_path / "again", registry)
    assert graph_bytes(tmp_path / "again") == graph_bytes(tmp_path / "graphs")


class TestPool:
    @pytest.mark.parametrize("work", [halve_or_die, die_answering])
    def test_a_dead_process_costs_its_own_task_alone(self, work: Callable[[int], float]) -> None:
        results = list(run_tasks(work, [1, 2, 3, 4, 5], 2, died=lambda number: -float(number)))
        assert sorted(results) == [-3.0, 0.5, 1.0, 2.0, 2.5]
        assert multiprocessing.active_children() == []

    def test_many_tasks_outlive_many_deaths(self) -> None:
        results = list(run_tasks(halve_or_die, [3, *range(100), 3], 3, died=lambda number: -float(number)))
        assert sorted(results) == sorted([-3.0] * 3 + [number / 2 for number in range(100) if number != 3])

    def test_an_error_is_raised_and_ends_the_others(self) -> None:
        with pytest.raises(OSError, match="no three"):
            list(run_tasks(refuse, [1, 2, 3, 4, 5], 2, died=lambda number: -number))
        assert multiprocessing.active_children() == []

    def test_work_under_way_ends_when_nobody_wants_it(self) -> None:
        results = run_tasks(halve_or_wait, [1, 0, 0, 0], 2, died=lambda number: -float(number))
        assert next(results) == 0.5
        assert len(multiprocessing.active_children()) == 2
        results.close()
        assert multiprocessing.active_children() == []

    def test_a_script_without_a_guard_is_not_run_again(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            f"from {halve_or_die.__module__} import halve_or_die\n"
            "from topotrain.processes import run_tasks\n"
            "print(sorted(run_tasks(halve_or_die, [1, 2, 4], 2, died=print)))\n"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=120
        )
        assert (ended.stdout, ended.returncode) == ("[0.5, 1.0, 2.0]\n", 0), ended.stderr

    def test_workers_run_this_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loaded model version puts the code it carries first on the path."""
        (tmp_path / "topotrain").mkdir()
        (tmp_path / "topotrain" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        assert sorted(run_tasks(halve_or_die, [1, 2], 2, died=lambda number: -1.0)) == [0.5, 1.0]

    def test_workers_end_with_a_parent_that_was_killed(self) -> None:
        code = f"from {halve_or_wait.__module__} import halve_or_wait\n"
        code += "from topotrain.processes import run_tasks\n"
        code += "list(run_tasks(halve_or_wait, [0, 0], 2, died=print))"
        parent = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == [b"waiting\n"] * 2
        parent.kill()
        # The workers hold the other end of the pipe too, so that it ends with the last of them.
        assert parent.communicate(timeout=60)[0] == b""


def test_mkdssp_and_builtin_agree_where_mkdssp_is_installed(tmp_path: Path, models: list[str]) -> None:
    import shutil

    if shutil.which("mkdssp") is None:
        pytest.skip("mkdssp is not installed")
    build(tmp_path)
    build(tmp_path, out="other", settings={"node.dssp": "mkdssp"})
    ours, theirs = (read_graph(tmp_path / name / "T1" / "m0.pt").x for name in ("graphs", "other"))
    assert torch.equal(ours[:, 3:], theirs[:, 3:])
    assert torch.allclose(ours[:, 0], theirs[:, 0], atol=0.03)
    assert torch.allclose(ours[:, 1:3], theirs[:, 1:3], atol=1e-3)
