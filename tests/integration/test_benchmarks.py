"""The benchmarks on tiny graphs: that they measure what they say, not how fast anything is."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PARTS = (
    "step",
    "epoch",
    "first-epoch",
    "memory",
    "schema",
    "predict",
    "recording",
    "commands",
    "per-graph",
    "roofline",
)


# As ``python SCRIPT`` runs it, after some words of ours.
AS_SCRIPT = """
import os, runpy, sys
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
%s
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(
    python: str, root: Path, name: str, *arguments: str, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """What a script prints; started by ``quick_python``, so are its commands: how fast they are is not asked."""
    command = [python, "-c", AS_SCRIPT % first, str(root / "benchmarks" / name), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, text=True, capture_output=True)


@pytest.mark.long
def test_every_part_beside_the_reference(root, tmp_path, quick_python):
    """Equal losses and gradients on equal weights are held by the part ``step`` itself."""
    out = tmp_path / "results.json"
    done = run_script(quick_python, root, "run.py", "--smoke", "--json", str(out), "--workdir", str(tmp_path / "work"))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    rows = content["rows"]
    assert {row["part"] for row in rows} == set(PARTS)
    assert content["machine"]["cores"] >= 1
    for row in rows:
        ours = row["ours"]
        assert math.isfinite(ours["median"] if isinstance(ours, dict) else ours), row
        if "times as fast" in row:
            assert 0 < row["times as fast"]["least"] <= row["times as fast"]["median"] <= row["times as fast"]["most"]
    (step,) = (row for row in rows if row["part"] == "step")
    assert step["losses and gradients differ by"] < 1e-3
    for part in PARTS:
        assert f"\n{part}: " in done.stdout


@pytest.mark.long
def test_every_format_gives_what_was_written(root, tmp_path, quick_python):
    """Each reader holds its first batch against what was made."""
    out = tmp_path / "formats.json"
    sizes = ["--shape", "demo", "--graphs", "20", "--rounds", "1"]
    done = run_script(quick_python, root, "store_formats.py", *sizes, "--workdir", str(tmp_path), "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["formats"]
    assert len(rows) >= 6 and all(row["warm ms a batch"]["median"] > 0 for row in rows)


@pytest.mark.long
def test_a_step_on_every_device(root, quick_python):
    done = run_script(
        quick_python, root, "devices.py", "--batches", "2", "3", "--nodes", "8", "--edges", "20", "--rounds", "1"
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[1][:4] for line in done.stdout.splitlines()[1:]] == ["CPU "] * 2


@pytest.mark.long
def test_processes_that_train_together(root, tmp_path):
    """One of the settings; their processor time is that of processes of their own."""
    first = "import scale_ddp; scale_ddp.SETTINGS = scale_ddp.SETTINGS[-1:]"
    given = ["ddp", "--graphs", "24", "--rounds", "1", "--workdir", str(tmp_path), "--json", str(tmp_path / "out.json")]
    done = run_script(sys.executable, root, "scale.py", *given, first=first)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["ddp"]
    assert row["times as fast"]["median"] > 0


@pytest.mark.long
@pytest.mark.parametrize(("part", "ray"), [("build", False), ("score", True)])
def test_one_process_several_and_those_of_ray(root, tmp_path, quick_python, part, ray):
    if ray:
        pytest.importorskip("ray")
    given = [part, "--graphs", "4", "--rounds", "1", *([] if ray else ["--no-ray"])]
    out = tmp_path / "out.json"
    done = run_script(quick_python, root, "scale.py", *given, "--workdir", str(tmp_path / "work"), "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())[part]
    ways = ["one process", "2 processes", *(["2 on a Ray that is up", "2 on a Ray of its own"] if ray else [])]
    assert [row["by"] for row in rows] == ways
    assert all(row["what"].startswith("4 ") and row["times as fast as one"]["least"] > 0 for row in rows)


def test_folds_are_cut_between_clusters(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from cross_validation_data import make_folds

    clusters = {f"T{number:02d}": f"C{number // 3 if number < 30 else number}" for number in range(60)}
    decoys = SimpleNamespace(clusters=clusters, sizes=dict.fromkeys(clusters, 10))
    by_repetition = [make_folds(decoys, 5, repetition) for repetition in (1, 2)]
    assert by_repetition[0] == make_folds(decoys, 5, 1)
    assert {fold.held_out for fold in by_repetition[0]} != {fold.held_out for fold in by_repetition[1]}
    for folds in by_repetition:
        assert sorted(target for fold in folds for target in fold.held_out) == sorted(clusters)
        assert {len(fold.held_out) for fold in folds} <= {11, 12, 13}
        for fold in folds:
            parts = [{clusters[target] for target in names} for names in (fold.train, fold.val, fold.held_out)]
            assert len(set.union(*parts)) == sum(map(len, parts)), "a cluster on two sides"
            assert len(parts[1]) == round(len(set.union(*parts[:2])) / 10)
            few, more = fold.limited(9), fold.limited(18)
            assert len(few.learned) == 9 and set(few.learned) < set(more.learned) and few.val and few.train
            assert few.held_out == fold.held_out
            turned = [fold.turned(number) for number in range(10)]
            assert (turned[0], {one.held_out for one in turned}) == (fold, {fold.held_out})
            assert len({target for one in turned for target in one.val}) > 0.8 * len(fold.learned), "others steer each"
            assert all({*one.train, *one.val} == set(fold.learned) and not {*one.train} & {*one.val} for one in turned)


@pytest.fixture(scope="module")
def labelled(root, tmp_path_factory):
    """Graphs of ten complexes; 0 and 1 are alike, so are 1 and 2. Half of the decoys are of another kind."""
    sys.path.insert(0, str(root / "benchmarks"))
    from made_graphs import Shape, write_set

    folder = tmp_path_factory.mktemp("made")
    made = write_set(folder, Shape(nodes=6, edges=12, node_dim=4, edge_dim=3), 80)
    rows = [line for path in (made.val_labels, made.train_labels) for line in path.read_text().splitlines()[1:]]
    labels, clusters = folder / "labels.csv", folder / "clusters.csv"
    kinds = [f"{row},{('near', 'far')[number % 2]}" for number, row in enumerate(rows)]
    labels.write_text("\n".join(["MODEL,dockq,kind", *kinds]) + "\n")
    clusters.write_text("target,cluster\nT00000,T00001\nT00001,T00002\n")
    return made.graphs, labels, clusters


def table_of(text):
    """Rows of the first table by column."""
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n\n")[0].splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.long
def test_cross_validation_goes_on_where_it_was_and_says_what_it_was_about(root, tmp_path, quick_python, labelled):
    graphs, labels, clusters = map(str, labelled)
    given = ["--out", str(tmp_path / "out"), "--data", "made", graphs, labels, "--clusters", clusters, "--folds", "2"]
    arm = ["--seeds", "1", "2", "--arm", "short", "trainer.num_epochs=2"]
    done = run_script(quick_python, root, "cross_validation.py", *given, *arm, "--learning-curve", "6")
    assert done.returncode == 0, done.stderr
    rows = table_of(done.stdout)
    names = ["larger trees", "training mean", "number of edges", "trees"]
    names += ["short, 2 seeds' mean", "short, 2 seeds' scores averaged"]
    assert [(row["kind"], row["scored by"]) for row in rows] == [(k, n) for k in ("all", "near", "far") for n in names]
    assert all(row["targets"] == "10" and float(row["MSE"]) > 0 for row in rows)
    scores = sorted((tmp_path / "out" / "scores").glob("*/*.json"))
    assert len(scores) == 2 * 2 + 2 * 2 * 2  # folds and sizes of the baselines; of the arm by seed too
    one = json.loads((tmp_path / "out" / "scores" / "short" / "r1-f1-s1.json").read_text())
    other = json.loads((tmp_path / "out" / "scores" / "short" / "r1-f2-s1.json").read_text())
    held_out = [{key.split("/")[1] for key in each["scores"]["best"]} for each in (one, other)]
    alike = {"T00000", "T00001", "T00002"}
    assert not held_out[0] & held_out[1] and len(held_out[0] | held_out[1]) == 10
    assert alike <= held_out[0] or alike <= held_out[1]
    assert "\n| 6 | made | all | larger trees |" in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        *("learning_curve.png", "calibration_short.png", "targets_short.png")
    }

    (tmp_path / "out" / "scores" / "short" / "r1-f2-s2.json").unlink()  # as if it had been stopped here
    again = run_script(quick_python, root, "cross_validation.py", *given, *arm)
    assert [line.split(":")[0] for line in again.stderr.splitlines()] == ["short r1-f2 seed 2"], again.stderr
    assert table_of(again.stdout) == rows
    beside = run_script(quick_python, root, "cross_validation.py", *given, "--against", "short")
    kept = {row["scored by"]: row for row in table_of(beside.stdout) if row["kind"] == "all"}
    assert kept["short, 2 seeds' mean"]["difference to short"] == ""
    assert kept["larger trees"]["difference to short"], beside.stderr
    changed = run_script(quick_python, root, "cross_validation.py", *given, *arm, "model.num_layers=3")
    assert changed.returncode == 1
    assert changed.stderr.startswith("error: ") and "another recipe" in changed.stderr


@pytest.mark.parametrize(
    "script",
    [
        "cross_validation.py",
        "run.py",
        "reference.py",
        "made_graphs.py",
        "store_formats.py",
        "devices.py",
        "scale.py",
        "scale_tune.py",
    ],
)
def test_help_has_an_example(root, script):
    """What ``--help`` shows is the module's docstring."""
    source = (root / "benchmarks" / script).read_text()
    assert f"python benchmarks/{script} " in ast.get_docstring(ast.parse(source))
    assert "description=__doc__" in source


@pytest.mark.long
def test_whether_the_demo_data_are_learned(root, quick_python):
    done = run_script(quick_python, root, "demo_learned.py", "--seeds", "1", "--override", "trainer.num_epochs=1")
    assert done.returncode == 0, done.stderr
    tables = done.stdout.split("\n\n")[1:]
    assert [table.split(" (")[0] for table in tables] == ["| val", "| val, docked", "| holdout", "| holdout, docked"]
    for table in tables:
        rows = [line.split(" | ")[0] for line in table.strip().splitlines()[2:]]
        assert rows[:2] == ["| mean of training", "| number of edges"]
        assert rows[3:] == ["| network, seed 1", "| network, mean of seeds"]
