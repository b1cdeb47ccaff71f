"""The benchmarks on tiny graphs: that they measure what they say, not how fast anything is."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "script",
    ["run.py", "reference.py", "made_graphs.py", "store_formats.py", "devices.py", "scale.py", "scale_tune.py"],
)
def test_help_has_an_example(root, script):
    """What ``--help`` shows is the module's docstring."""
    source = (root / "benchmarks" / script).read_text()
    assert f"python benchmarks/{script} " in ast.get_docstring(ast.parse(source))
    assert "description=__doc__" in source
