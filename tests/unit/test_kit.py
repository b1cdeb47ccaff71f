"""What the other tests stand on: skips that are failures in CI, and a Python that is started quickly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.strict_skips import PLACE, STRICT

SKIPPING = """
import pytest
from kit.strict_skips import reference_data, skip_without_reference_data

def test_fine(): pass
@pytest.mark.xfail
def test_known(): assert False
def test_program(): pytest.skip("mkdssp is not installed")
@pytest.mark.skipif(True, reason="DockQ is not installed")
def test_dockq(): pass
def test_data():
    if not (reference_data() or __import__("pathlib").Path("none")).is_dir():
        skip_without_reference_data("vectors")
@pytest.fixture
def part(): skip_without_reference_data("part")
def test_part(part): pass
"""
WHOLE_FILE = "import pytest\npytest.importorskip('no_such_module_at_all')\ndef test_one(): pass\n"


@pytest.mark.parametrize(
    ("strict", "data", "failed"),
    [
        (False, True, set()),
        (True, True, {"dockq", "part", "test_file.py"}),
        (True, False, {"dockq", "data", "part", "test_file.py"}),  # named, and not there
        (True, None, {"dockq", "test_file.py"}),
    ],
)
def test_a_skip_for_what_ought_to_be_there_is_a_failure(
    tmp_path: Path, root: Path, strict: bool, data: bool | None, failed: set[str]
) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "test_file.py").write_text(WHOLE_FILE)
    kit = root / "tests" / "kit"
    if data is None:  # nowhere beside the file that looks for them
        kit = tmp_path / "copy" / "kit"
        kit.mkdir(parents=True)
        (kit / "strict_skips.py").write_text((root / "tests" / "kit" / "strict_skips.py").read_text())
    (tmp_path / "conftest.py").write_text(
        "from kit.strict_skips import pytest_make_collect_report, pytest_runtest_makereport\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (STRICT, PLACE)}
    environment |= {"PYTHONPATH": str(kit.parent)} | ({STRICT: "1"} if strict else {})
    if data is not None:
        environment[PLACE] = str(tmp_path if data else tmp_path / "absent")
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    found = re.findall(r"^(?:FAILED|ERROR) (?:test_skipping.py::test_)?([\w.]+)", done.stdout, flags=re.MULTILINE)
    assert set(found) == failed, done.stdout
    assert done.returncode == bool(failed)


def started(python: str, code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, **options)


def test_a_quick_python_is_a_python(quick_python: str, tmp_path: Path) -> None:
    """Arguments, environment, folder, streams and exit status are those of whoever starts it."""
    code = (
        "import json, os, sys; print('to the left', file=sys.stderr); "
        "print(json.dumps([sys.argv, os.environ['MINE'], os.getcwd(), sys.stdin.read(), 'torch' in sys.modules])); "
        "sys.exit(7)"
    )
    done = started(quick_python, code, "a b", cwd=tmp_path, env={**os.environ, "MINE": "x"}, input="given")
    assert json.loads(done.stdout) == [["-c", "a b"], "x", str(tmp_path), "given", True]
    assert (done.stderr, done.returncode) == ("to the left\n", 7)
    failed = started(quick_python, "import atexit; atexit.register(print, 'at the end'); 1 / 0")
    assert (failed.returncode, failed.stdout) == (1, "at the end\n")
    assert "ZeroDivisionError" in failed.stderr
    assert started(quick_python, "import os; os.kill(os.getpid(), 9)").returncode == -signal.SIGKILL


def test_a_quick_python_is_a_real_one_for_other_programs_and_other_code(quick_python: str, tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules)"
    other = tmp_path / "elsewhere" / "topotrain"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / "__main__.py").write_text("print('another program')")
    assert started(quick_python, code).stdout == "True\n"
    assert started(quick_python, code, cwd=other.parent).stdout == "False\n"
    environment = {**os.environ, "PYTHONPATH": str(other.parent)}
    assert started(quick_python, code, env=environment).stdout == "False\n"
    command = [quick_python, "-m", "topotrain"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "another program\n"
    (tmp_path / "file.py").write_text(code)
    assert subprocess.run([quick_python, "file.py"], cwd=tmp_path, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 3), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_quick_python_passes_signals_on(quick_python: str, signum: int, status: int) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = subprocess.Popen([quick_python, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    assert process.wait() == status
    assert process.stdout.read() == "", "its end of the pipe is closed: it has ended as well"
