"""``score`` for a person with one complex: what may be given, what is kept, what a bad file costs."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

import topotrain
from kit.commands import exit_status
from kit.holding import pausing_at_file
from kit.structures import write_models
from kit.waiting import wait_for
from topotrain.data.demo import write_demo_structures
from topotrain.data.graph_cache import FOLDER, SUFFIX, GraphCache
from topotrain.data.graph_file import read_graph
from topotrain.features import graph as graph_module
from topotrain.scoring.load import load_model

DECOYS = 24  # enough for a call to be killed in the middle
NO_TOPOLOGY = ["--topology-module", "topology/none/v1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tracking URI of a store with a model that learned from helices, without topology, which takes longest."""
    root = tmp_path_factory.mktemp("model")
    for target in ("T1", "T2", "T3"):
        keys = write_models(root / "structures", (0.0, 1.0, 2.0, 3.0), target)
        rows = [f"{key},{0.1 + 0.2 * number}" for number, key in enumerate(keys)]
        with (root / ("val.csv" if target == "T3" else "train.csv")).open("a") as file:
            file.write("\n".join([*([] if file.tell() else ["MODEL,dockq"]), *rows]) + "\n")
    assert exit_status("build-graphs", root / "structures", "--out", root / "graphs", *NO_TOPOLOGY) == 0
    uri = f"sqlite:///{root / 'mlflow.db'}"
    paths = {"graph": root / "graphs", "train_labels": root / "train.csv", "val_labels": root / "val.csv"}
    settings = ["trainer.num_epochs=1", "checkpoints.keep=1"]
    topotrain.fit(
        overrides=[*settings, *(f"paths.{key}={path}" for key, path in paths.items())],
        tracking_uri=uri, progress=False,
    )  # fmt: skip
    return uri


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models of one real complex."""
    root = tmp_path_factory.mktemp("demo")
    write_demo_structures(root / "all")
    folders = [path for path in (root / "all" / "holdout").iterdir() if path.is_dir()]
    chosen = min(folders, key=lambda folder: (sum(path.stat().st_size for path in folder.iterdir()), folder))
    for path in sorted(chosen.iterdir())[:DECOYS]:
        (root / "complex").mkdir(exist_ok=True)
        shutil.copyfile(path, root / "complex" / path.name)
    return root / "complex"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "topotrain" / FOLDER


@pytest.fixture
def few(decoys: Path, tmp_path: Path) -> Path:
    """Three of them."""
    (tmp_path / "few").mkdir()
    for path in sorted(decoys.iterdir())[:3]:
        shutil.copyfile(path, tmp_path / "few" / path.name)
    return tmp_path / "few"


def scored(capsys: pytest.CaptureFixture[str], model: str, *words: object, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert exit_status("score", *words, "--tracking-uri", model) == status
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_one_table_however_the_models_are_given(few, model, tmp_path, capsys, monkeypatch):
    folder, told = scored(capsys, model, few)
    files = sorted(few.iterdir())
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    shutil.make_archive(str(tmp_path / "few"), "gztar", few)
    assert "1 target: few (3 decoys)" in told
    assert [row.split(",")[1] for row in folder.splitlines()[1:]] == ["few"] * 3
    others = {
        "files": files,
        "relative files": [Path("few") / path.name for path in files],
        "files in another order, one twice": [*files[::-1], files[0]],
        "zip": [tmp_path / "few.zip"],
        "tar": [tmp_path / "few.tar.gz"],
        "folder and its files": [few, "--jobs", 2],
        "all built again": [few, "--no-cache"],
        "all built again by two": [few, "--no-cache", "--jobs", 2],
    }
    for name, words in others.items():
        assert scored(capsys, model, *words)[0] == folder, name
    monkeypatch.chdir(few)
    assert scored(capsys, model, *[path.name for path in files])[0] == folder
    assert scored(capsys, model, ".")[0] == folder
    one = scored(capsys, model, files[0].name)[0].splitlines()[1]
    assert (
        one.split(",")[:3] == next(row for row in folder.splitlines() if row.startswith(files[0].stem)).split(",")[:3]
    )


def test_files_named_one_by_one_are_one_target_and_folders_are_targets(few, model, tmp_path, capsys):
    for target, path in zip("XYY", sorted(few.iterdir()), strict=True):
        place = tmp_path / "by" / target / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    root = tmp_path / "by"
    by_target, told = scored(capsys, model, root)
    assert "2 targets: X (1 decoy), Y (2 decoys)" in told
    assert scored(capsys, model, root / "X", root / "Y")[0] == by_target  # as the folder around them
    files = sorted(root.rglob("*.pdb"))
    assert scored(capsys, model, *files, "--target-level", 1)[0] == by_target
    together, told = scored(capsys, model, *files)
    assert "1 target: by (3 decoys)" in told
    assert sorted(row.split(",")[3] for row in together.splitlines()[1:]) == ["1", "2", "3"]
    same = {tuple(row.split(",")[::2][:2]) for row in by_target.splitlines()}
    assert {tuple(row.split(",")[::2][:2]) for row in together.splitlines()} == same
    assert scored(capsys, model, root, "--target-pattern", "^(.)")[0] == by_target


def test_a_second_call_builds_nothing(few, model, cache, capsys, monkeypatch):
    first, _ = scored(capsys, model, few)
    entries = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert len(entries) == 3
    (few / "copy.pdb").write_bytes(next(few.iterdir()).read_bytes())  # another name, the same structure

    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(graph_module, "compute_graph", refuse)
    second, _ = scored(capsys, model, few)
    assert set(first.splitlines()) & set(second.splitlines())
    assert len(second.splitlines()) == 5
    scores = [row.split(",")[2] for row in second.splitlines()[1:]]
    assert len(set(scores)) == 3  # the copy scores as what it is a copy of
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == entries
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    (few / "copy.pdb").unlink()
    assert scored(capsys, model, few)[0] == first
    path = next(iter(cache.iterdir()))
    path.write_bytes(path.read_bytes()[:-7])
    assert scored(capsys, model, few)[0] == first
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == entries  # the same bytes again


def test_other_chains_and_other_modules_are_other_graphs(few, model, cache, capsys):
    scored(capsys, model, few)
    first, second = dict.fromkeys(line[21] for line in next(few.iterdir()).open() if line.startswith("ATOM"))
    plain, _ = scored(capsys, model, few)
    named, _ = scored(capsys, model, few, "--chains", f"{second}:{first}")
    assert named == plain
    assert len(list(cache.iterdir())) == 6
    scored(capsys, model, few, "--no-cache", "--chains", f"{first}:{second}")
    assert len(list(cache.iterdir())) == 6


def test_one_unreadable_file_costs_one_row(few, model, capsys):
    clean, _ = scored(capsys, model, few)
    (few / "bad.pdb").write_text("ATOM  this is no structure\n")
    table, told = scored(capsys, model, few)
    rows = list(csv.DictReader(table.splitlines()))
    assert table.splitlines()[0] == f"{clean.splitlines()[0]},ERROR"
    assert [line.removesuffix(",") for line in table.splitlines()[1:-1]] == clean.splitlines()[1:]
    assert (rows[-1]["MODEL"], rows[-1]["TARGET"], rows[-1]["PRED_DOCKQ"], rows[-1]["RANK"]) == ("bad", "few", "", "")
    assert "bad.pdb" in rows[-1]["ERROR"]
    assert f"failed: {rows[-1]['ERROR']}" in told
    assert "3 structures scored, 1 failed" in told
    assert scored(capsys, model, few, "--strict", status=2)[0] == ""
    alone, told = scored(capsys, model, few / "bad.pdb", status=2)
    assert alone == ""
    assert told.splitlines()[-1].startswith(f"error: {few}: no structure gives a graph; the first: {few / 'bad.pdb'}")


def test_an_unknown_chain_is_one_error_that_lists_the_chains(few, model, capsys):
    out, told = scored(capsys, model, few, "--chains", "A:q", status=2)
    assert out == ""
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    chains = sorted({line[21] for line in next(few.iterdir()).open() if line.startswith("ATOM")})
    assert f"has no chain q; expected chains that it has: {', '.join(chains)}" in line


@pytest.mark.long
@pytest.mark.parametrize(("kind", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_call_that_was_cut_off_goes_on(decoys, model, cache, quick_python, kind, status):
    command = [quick_python, "-m", "topotrain", "score", str(decoys), "--tracking-uri", model]
    environment = os.environ | pausing_at_file(4, SUFFIX)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        wait_for(lambda: process.poll() is not None or len(list(cache.glob(f"*{SUFFIX}"))) >= 3)
        process.send_signal(kind)
        out, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (status, b"")
    assert (b"graphs that were built are kept: the same command goes on" in told) == (kind == signal.SIGINT)
    left = {path: path.stat().st_ino for path in cache.iterdir() if path.suffix == SUFFIX}
    assert 3 <= len(left) < DECOYS
    assert all(GraphCache(cache).get(path.stem) for path in left)
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]  # two at once
    tables = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert all(path.stat().st_ino == number for path, number in left.items())  # taken, not built again
    assert len([path for path in cache.iterdir() if path.suffix == SUFFIX]) == DECOYS
    again = subprocess.run([*command, "--no-cache"], capture_output=True, check=True, timeout=120)
    assert tables == [again.stdout, again.stdout]


def test_the_page(root, model, tmp_path, monkeypatch, capsys):
    """docs/score.md as it is written; ``model`` stands for the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", model)
    found = re.findall(r"```(bash|python)\n(.*?)```", (root / "docs" / "score.md").read_text(), flags=re.DOTALL)
    assert [language for language, _ in found] == ["bash", "python", "bash"]

    def run(block: str) -> None:
        for line in block.strip().splitlines():
            assert exit_status(*shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err

    run(found[0][1])
    table = (tmp_path / "scores.csv").read_text()
    shown = capsys.readouterr()
    assert "2 structures scored, 0 failed" in shown.err
    assert len(shown.out.splitlines()) == 3
    exec(found[1][1], {})
    first = table.splitlines()[1].split(",")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{first[0]} {float(first[2])}"
    assert "learned from 8 structures of 2 complexes" in printed[1]
    run(found[2][1])
    assert "The starter model is 5 networks, which learned from" in capsys.readouterr().err


def test_real_complexes_by_name_and_as_a_folder(shared_data, model, tmp_path, capsys):
    files = sorted((shared_data / "features").glob("*.pdb"))
    assert len(files) == 4
    table, told = scored(capsys, model, *files)
    assert "1 target: features (4 decoys)" in told
    assert scored(capsys, model, *files, "--jobs", 2, "--no-cache")[0] == table
    assert scored(capsys, model, files[0].parent)[0] == table
    assert scored(capsys, model, *files, "--chains", "B:A")[0] == table  # each has two chains


def test_a_version_records_what_its_training_columns_hold(model):
    recipe = load_model(None, model).recipe
    train = recipe["data"]["train"]
    folder = Path(recipe["data"]["graph_dir"])
    graphs = [read_graph(path) for target in train["targets"] for path in sorted((folder / target).glob("*.pt"))]
    assert len(graphs) == train["column_ranges"]["num_graphs"] == 8
    for side, values in (("node", [one.x for one in graphs]), ("edge", [one.edge_attr for one in graphs])):
        rows = torch.cat(values).double().numpy()
        expected = {"low": rows.min(axis=0), "high": rows.max(axis=0), "deviation": rows.std(axis=0)}
        for name, columns in expected.items():
            assert train["column_ranges"][side][name] == pytest.approx(columns.tolist(), rel=1e-5, abs=1e-6), name
    assert recipe["within_target_error"] > 0
