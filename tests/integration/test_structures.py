"""From structure files to ranked models: build, label, train on two edge modules, score."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from pathlib import Path

import pytest

import topotrain
from kit.commands import exit_status
from kit.recorded import mlflow_client
from topotrain.data.demo import demo_paths
from topotrain.errors import SchemaError
from topotrain.features import build_recorded_graphs

TARGETS = 3  # two to train on, one to validate
DECOYS = 4


@pytest.fixture(scope="session")
def all_structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "structures"
    assert exit_status("demo-structures", "--out", out) == 0
    return out


@pytest.fixture(scope="session")
def demo_labels() -> dict[str, float]:
    paths = demo_paths()
    rows: dict[str, float] = {}
    for path in (paths.train_labels, paths.val_labels, paths.holdout_labels):
        rows |= {row["MODEL"]: float(row["dockq"]) for row in csv.DictReader(path.open())}
    return rows


@pytest.fixture(scope="session")
def few(all_structures: Path, demo_labels: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of decoys of the smallest targets, with label files, as a user would bring them."""
    root = tmp_path_factory.mktemp("few")
    folders = [folder for split in ("train", "val", "holdout") for folder in (all_structures / split).iterdir()]
    by_size = sorted(folders, key=lambda folder: sum(path.stat().st_size for path in folder.glob("*.pdb")))[:TARGETS]
    for number, folder in enumerate(by_size):
        target = root / "structures" / folder.name
        target.mkdir(parents=True)
        paths = sorted(p for p in folder.glob("*.pdb") if f"{folder.name}/{p.stem}" in demo_labels)
        chosen = sorted(paths, key=lambda p: demo_labels[f"{folder.name}/{p.stem}"])[:: max(len(paths) // DECOYS, 1)]
        labels = root / ("train.csv" if number < TARGETS - 1 else "val.csv")
        lines = [] if labels.exists() else ["MODEL,dockq"]
        for path in chosen[:DECOYS]:
            shutil.copyfile(path, target / path.name)
            key = f"{folder.name}/{path.stem}"
            lines.append(f"{key},{demo_labels[key]}")
        with labels.open("a") as file:
            file.write("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def built(few: Path) -> dict[str, Path]:
    """Graphs of two edge modules; without topology, which takes most of the time."""
    folders = {}
    for module in ("edge/legacy_band/v11", "edge/distance/v1"):
        out = few / module.replace("/", "-")
        arguments = ["--edge-module", module, "--topology-module", "topology/none/v1"]
        assert exit_status("build-graphs", few / "structures", "--out", out, *arguments) == 0
        folders[module] = out
    return folders


def train(few: Path, graphs: Path, uri: str) -> topotrain.TrainResult:
    config = few / "recipe.yaml"
    config.write_text(
        "paths: {graph: graphs, train_labels: train.csv, val_labels: val.csv}\n"
        "trainer: {num_epochs: 2}\ncheckpoints: {keep: 1}\ndataloader: {batch_size: 4}\n"
    )
    return topotrain.fit(config, overrides=[f"paths.graph={graphs}"], tracking_uri=uri)


def test_nothing_but_the_graphs_changes_between_feature_sets(few, built, store_uri):
    """Two edge modules, one configuration: schemas, digests and network widths differ as they must."""
    client = mlflow_client(store_uri)
    params = {
        module: client.get_run(train(few, graphs, store_uri).run_id).data.params for module, graphs in built.items()
    }
    legacy, distance = params["edge/legacy_band/v11"], params["edge/distance/v1"]
    assert (legacy["schema.edge.dim"], distance["schema.edge.dim"]) == ("11", "1")
    assert legacy["schema.edge.module"] == "edge/legacy_band/v11"
    assert distance["schema.edge.module"] == "edge/distance/v1"
    assert legacy["schema.digest"] != distance["schema.digest"]
    assert legacy["schema.node.dim"] == distance["schema.node.dim"] == "32"
    fewer = int(legacy["model.num_parameters"]) - int(distance["model.num_parameters"])
    assert fewer == (11 - 1) * (32 + 4 * 16)  # of the encoder, and of the columns pooled in four ways
    changed = {key for key in legacy if legacy[key] != distance[key]}
    assert all(key.startswith(("schema.", "paths.graph", "data.digest", "model.num")) for key in changed), changed


def test_score_builds_with_the_recorded_modules_and_ranks(few, built, store_uri, capsys):
    train(few, built["edge/distance/v1"], store_uri)
    out = few / "scores.csv"
    status = exit_status("score", few / "structures", "--out", out, "--tracking-uri", store_uri)
    assert status == 0, capsys.readouterr().err
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == TARGETS * DECOYS
    assert all(0.0 <= float(row["PRED_DOCKQ"]) <= 1.0 for row in rows)
    for target in {row["TARGET"] for row in rows}:
        mine = [row for row in rows if row["TARGET"] == target]
        assert [int(row["RANK"]) for row in mine] == list(range(1, DECOYS + 1))
        scores = [float(row["PRED_DOCKQ"]) for row in mine]
        assert scores == sorted(scores, reverse=True)
    assert "read:" not in capsys.readouterr().err
    folder = next((few / "structures").iterdir())
    parts = [path.read_text().replace("END\n", "") for path in sorted(folder.glob("*.pdb"))[:2]]
    many = few / "ensembles" / folder.name / "many.pdb"
    many.parent.mkdir(parents=True)
    many.write_text("".join(f"MODEL     {n:4d}\n{part}ENDMDL\n" for n, part in enumerate(parts, 1)) + "END\n")
    words = ["score", few / "ensembles", "--out", out, "--tracking-uri", store_uri]
    assert exit_status(*words) == 0
    assert "read: 1 file: 1 MODEL left out" in capsys.readouterr().err
    assert exit_status(*words, "--strict") == 2
    assert exit_status(*words, "--models", "all", "--strict") == 0
    alone = {row["MODEL"]: row["PRED_DOCKQ"] for row in rows}
    names = [f"{folder.name}/{path.stem}" for path in sorted(folder.glob("*.pdb"))[:2]]
    found = {row["MODEL"]: row["PRED_DOCKQ"] for row in csv.DictReader(out.open())}
    assert found == {f"{folder.name}/many_{n}": alone[name] for n, name in enumerate(names, 1)}


def test_score_refuses_a_missing_or_another_version_of_a_module(few, built, tmp_path):
    summary = next((built["edge/distance/v1"] / "logs").glob("*/graph_builder_summary.json"))
    registry = json.loads(summary.read_text())["modules"]
    for identifier, words in (("edge/nobody/v1", "not installed"), ("edge/distance/v2", "edge/distance/v1")):
        registry["edge"]["id"] = identifier
        with pytest.raises(SchemaError) as error:
            build_recorded_graphs(few / "structures", tmp_path / "out", registry)
        assert identifier in str(error.value)
        assert words in str(error.value)
        assert error.value.exit_code == 2


def test_one_bad_structure_costs_one_line(few, tmp_path, capsys):
    folder = tmp_path / "structures" / "T"
    shutil.copytree(next(p for p in (few / "structures").iterdir() if p.is_dir()), folder)
    (folder / "bad.pdb").write_text("ATOM  this is no structure\n")
    arguments = ["build-graphs", tmp_path / "structures", "--topology-module", "topology/none/v1"]
    assert exit_status(*arguments, "--out", tmp_path / "graphs") == 0
    told = capsys.readouterr().err
    assert "bad.pdb" in told
    assert f"{DECOYS} graphs built, 0 kept, 1 failed" in told
    assert told.strip().endswith("1 failed")
    assert exit_status(*arguments, "--out", tmp_path / "graphs", "--strict") == 2
    assert f"{DECOYS} graphs built" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--edge-module", "edge/nobody/v1"], "edge/nobody/v1"),
        (["--set", "edge.nothing=1"], "nothing"),
        (["--set", "interface.cutoff"], "kind.parameter=value"),
        (["--set", "interface.cutoff=wide"], "cutoff"),
    ],
)
def test_bad_build_options_are_one_line(few, tmp_path, capsys, arguments, words):
    assert exit_status("build-graphs", few / "structures", "--out", tmp_path / "g", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_features_lists_what_is_shipped(capsys):
    assert exit_status("features", "--kind", "edge", "--json") == 0
    modules = {module["id"]: module for module in json.loads(capsys.readouterr().out)}
    assert modules["edge/multi_scale/v24"]["width"] == len(modules["edge/multi_scale/v24"]["columns"])
    assert modules["edge/multi_scale/v24"]["orientation_dependent"] is True
    assert exit_status("features") == 0
    assert "interface/polar_cutoff/v1" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("DockQ") is None, reason="DockQ is not installed")
def test_label_gives_the_demo_labels_again(few, all_structures, demo_labels, tmp_path, capsys):
    target = next(p for p in (few / "structures").iterdir() if p.is_dir())
    native = all_structures / "natives" / f"{target.name}.pdb"
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,note\nother,kept\n")
    folder = tmp_path / "models" / target.name
    shutil.copytree(target, folder)
    assert exit_status("label", tmp_path / "models", "--native", native, "--out", labels) == 0
    rows = {row["MODEL"]: row for row in csv.DictReader(io.StringIO(labels.read_text()))}
    assert rows["other"]["note"] == "kept"
    assert len(rows) == DECOYS + 1
    for path in folder.glob("*.pdb"):
        key = f"{target.name}/{path.stem}"
        assert float(rows[key]["dockq"]) == pytest.approx(demo_labels[key], abs=2e-3)
        assert rows[key]["capri"] in ("0", "1", "2", "3")


@pytest.mark.skipif(importlib.util.find_spec("DockQ") is None, reason="DockQ is not installed")
def test_label_refuses_the_native_of_another_complex(few, all_structures, tmp_path, capsys):
    one, other, *_ = sorted(path for path in (few / "structures").iterdir() if path.is_dir())
    labels = tmp_path / "labels.csv"
    native = all_structures / "natives" / f"{other.name}.pdb"
    assert exit_status("label", one, "--native", native, "--out", labels) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[0].startswith(f"failed: all {DECOYS} decoys: the native {native} is another complex (no chain of")
    assert told[-1] == f"error: {one}: no decoy could be labelled; expected decoys of the native's complex; " + (
        "see above for why"
    )
    assert not labels.exists()
