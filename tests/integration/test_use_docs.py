"""The pages on using a model, run as they are written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.commands import exit_status
from kit.recorded import artifact_json, mlflow_client
from kit.waiting import PATIENCE, wait_for

DOCUMENTED_PORT = "5001"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and code of each block, in order."""
    yield from re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.fixture
def here(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store whose champion was trained on the graphs in ``demo``."""
    folder = tmp_path / "here"
    folder.mkdir()
    source = finished.uri.removeprefix("sqlite:///")
    for suffix in ("", "-wal", "-shm"):
        if Path(source + suffix).exists():
            shutil.copyfile(source + suffix, folder / f"mlflow.db{suffix}")
    shutil.copytree(finished.graph_set.root, folder / "demo")
    mlflow_client(f"sqlite:///{folder / 'mlflow.db'}").set_registered_model_alias("topoqa", "champion", "2")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    return folder


def test_predict_page(root, here, capsys):
    lines = [line for language, code in blocks(root / "docs" / "predict.md") for line in code.strip().splitlines()]
    assert len(lines) == 5
    for line in lines:
        if "demo-graphs" in line:
            continue  # the folder is there, of graphs that are made faster
        assert exit_status(*shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert (here / "predictions.csv").is_file()
    assert (here / "predictions.parquet").is_file()


def shell(command: list[str], here: Path, root: Path, *folders: str, **options: Any) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PATH"] = os.pathsep.join([*folders, str(Path(sys.executable).parent), environment["PATH"]])
    environment |= {"PYTHONPATH": str(root / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.Popen(command, cwd=here, env=environment, text=True, **options)


def run(command: list[str], here: Path, root: Path, python: str) -> str:
    process = shell(command, here, root, str(Path(python).parent), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    return str(out)


@pytest.mark.project
def test_predict_as_an_entry_point(root, here, quick_python):
    out, uri = here / "predictions.csv", f"sqlite:///{here / 'mlflow.db'}"
    command = ["mlflow", "run", str(root), "-e", "predict", "--env-manager", "local", "--experiment-name", "reports"]
    command += ["-P", f"graphs={here / 'demo' / 'graphs'}", "-P", f"out={out}", "-P", "rank=true"]
    run(command, here, root, quick_python)
    assert out.read_text().splitlines()[0] == "MODEL,TARGET,PRED_DOCKQ,RANK"
    client = mlflow_client(uri)
    (made,) = client.search_runs([client.get_experiment_by_name("reports").experiment_id])
    assert made.data.tags["topotrain.command"] == "predict"
    report = artifact_json(client, made.info.run_id, "predict.json")
    champion = client.get_model_version_by_alias("topoqa", "champion")
    assert report["model"] == f"models:/topoqa/{champion.version}"
    assert (report["scored"], report["failed"]) == (20, {})


@contextlib.contextmanager
def serving(code: str, port: int, here: Path, root: Path) -> Iterator[None]:
    """The server of the page while the block lasts."""
    written = here / "server.log"
    with written.open("w") as log:
        process = shell(shlex.split(code), here, root, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        assert process.poll() is None, written.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=PATIENCE).close()
        except OSError:
            return False
        return True

    try:
        wait_for(answers, written.read_text, every=0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its own session: nothing but the server and its workers
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.server
def test_serving_page(root, here, quick_python):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    parts = [(lang, code.replace(DOCUMENTED_PORT, str(port))) for lang, code in blocks(root / "docs" / "serving.md")]
    assert [language for language, _ in parts] == ["bash", "python", "bash", "bash", "bash", "python", "bash"]
    demo, local, verify, serve, curl, http, batch = (code for _, code in parts)
    assert demo.strip() == "topotrain demo-graphs --out demo"
    printed = run(["python", "-c", local], here, root, quick_python)
    assert printed.count("graph is not base64") == 1
    expected = [float(number) for number in re.findall(r"^\d\s+(0\.\d+)", printed, flags=re.MULTILINE)]
    assert len(expected) == 6
    assert expected[:3] == expected[3:]
    assert run(["sh", "-c", verify], here, root, quick_python).startswith("models:/topoqa/2: ")
    with serving(serve, port, here, root):
        answer = json.loads(run(["sh", "-c", curl], here, root, quick_python))["predictions"]
        assert [row["pred_dockq"] for row in answer[:3]] == pytest.approx(expected[:3], abs=1e-5)
        assert [row["error"] for row in answer[:3]] == [None] * 3
        assert answer[3]["pred_dockq"] is None
        assert "not base64" in answer[3]["error"]
        lines = run(["python", "-c", http], here, root, quick_python).splitlines()
        assert [line.split()[1] for line in lines] == ["None", "None", "None", "graph"]
    run(["sh", "-c", batch], here, root, quick_python)
    scores = json.loads((here / "scores.json").read_text())["predictions"]
    assert [row["pred_dockq"] for row in scores[:3]] == pytest.approx(expected[:3], abs=1e-5)
    assert "not base64" in scores[3]["error"]
