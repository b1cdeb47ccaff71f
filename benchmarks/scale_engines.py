"""Parts ``build``, ``score`` and ``batch`` of scale.py: one worker beside several, local processes beside Ray.

Times are of whole commands, by the clock; a cluster that Ray keeps up is started once, before anything is measured.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from made_graphs import LARGE, write_set
from measuring import Spread, ratios
from processes import environment

START_SECONDS = 60
ALONE = "one process"


def build(workdir: Path, *, graphs: int, rounds: int, processes: int, ray: bool = True) -> list[dict[str, Any]]:
    """Structures to graphs: the demo data set's, some hundred atoms a chain.

    Args:
        workdir: for structures and graphs.
        graphs: how many structures at most.
        rounds: of each row, in turns.
        processes: of several.
        ray: whether Ray's are measured too.
    """
    structures = _structures(workdir, graphs)
    number = sum(path.suffix == ".pdb" for path in structures.rglob("*"))

    def command(out: Path, engine: Sequence[str]) -> list[str]:
        return ["build-graphs", str(structures), "--out", str(out), *engine]

    return _rows(f"{number} structures to graphs", number, workdir, command, rounds, processes, ray)


def score(workdir: Path, *, graphs: int, rounds: int, processes: int, ray: bool = True) -> list[dict[str, Any]]:
    """Graphs to scores, with a model of default settings.

    Args:
        workdir: for graphs and the model.
        graphs: how many.
        rounds: of each row, in turns.
        processes: of several.
        ray: whether Ray's are measured too.
    """
    made = write_set(workdir / f"large-{graphs}", LARGE, graphs)
    model = _model(workdir, made.overrides)

    def command(out: Path, engine: Sequence[str]) -> list[str]:
        return ["predict", "--model", str(model), "--graphs", str(made.graphs), "--out", f"{out}.csv", *engine]

    number = len(list(made.graphs.rglob("*.pt")))
    what = f"{number} graphs of {LARGE.nodes} nodes and {LARGE.edges} edges to scores"
    return _rows(what, number, workdir, command, rounds, processes, ray)


def batch(workdir: Path, *, graphs: int, rounds: int, processes: int) -> list[dict[str, Any]]:
    """What a run costs more as the one job of a batch.

    Args:
        workdir: for stores.
        graphs: not asked.
        rounds: of both, in turns.
        processes: not asked.
    """
    del graphs, processes
    manifest = workdir / "one.yaml"
    manifest.write_text("jobs:\n  - name: one\n    overrides: {trainer.num_epochs: 3}\n", encoding="utf-8")
    bare: list[float] = []
    job: list[float] = []
    for number in range(rounds):
        for found, words in (
            (bare, ["run", "--override", "trainer.num_epochs=3"]),
            (job, ["batch", "--manifest", str(manifest)]),
        ):
            uri = f"sqlite:///{workdir / f'batch-{number}-{words[0]}.db'}"
            found.append(_seconds(workdir, [*words, "--tracking-uri", uri]))
    more = [one - other for one, other in zip(job, bare, strict=True)]
    return [
        {
            "what": "a run of three epochs on the demo data",
            "by itself, s": Spread.of(bare),
            "as a batch's job, s": Spread.of(job),
            "more, s": Spread.of(more),
        }
    ]


def _rows(
    what: str,
    number: int,
    workdir: Path,
    command: Callable[[Path, Sequence[str]], list[str]],
    rounds: int,
    processes: int,
    ray: bool,
) -> list[dict[str, Any]]:
    """One worker, several, and several of Ray: rounds in turns, each with an output of its own."""
    several = ["--jobs", str(processes)]
    ways: dict[str, tuple[list[str], dict[str, str]]] = {ALONE: ([], {}), f"{processes} processes": (several, {})}
    with _cluster(processes) if ray else nullcontext() as up:
        if up is not None:
            address, variables = up
            there = [*several, "--engine", "ray"]
            ways[f"{processes} on a Ray that is up"] = ([*there, "--address", address], variables)
            ways[f"{processes} on a Ray of its own"] = (there, {})
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (engine, more) in ways.items():
                with tempfile.TemporaryDirectory(dir=workdir) as out:
                    taken[name].append(_seconds(workdir, command(Path(out) / "out", engine), more))
    return [
        {
            "what": what,
            "by": name,
            "s": Spread.of(seconds),
            "a second": number / Spread.of(seconds).median,
            "times as fast as one": ratios(taken[ALONE], seconds),
        }
        for name, seconds in taken.items()
    ]


def _seconds(workdir: Path, words: Sequence[str], more: dict[str, str] | None = None) -> float:
    """What a command takes."""
    env = {**environment(workdir / "cache"), "XDG_STATE_HOME": str(workdir / "state"), **(more or {})}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "topotrain", *words], env=env, cwd=workdir, text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"topotrain {' '.join(words)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def _structures(workdir: Path, most: int) -> Path:
    place = workdir / "complexes"
    if not place.exists():
        _seconds(workdir, ["demo-structures", "--out", str(place)])
    few = workdir / f"structures-{most}"
    if not few.exists():
        for path in sorted((place / "holdout").rglob("*.pdb"))[:most]:
            target = few / path.relative_to(place / "holdout")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return few


def _model(workdir: Path, overrides: Sequence[str]) -> Path:
    """A version's folder; one epoch is enough, since a score takes as long whatever the weights are."""
    import mlflow

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    place = workdir / "model"
    if not place.exists():
        uri = f"sqlite:///{workdir / 'model.db'}"
        given = [part for one in (*overrides, "trainer.num_epochs=1", "checkpoints.keep=1") for part in ("-o", one)]
        _seconds(workdir, ["run", *given, "--tracking-uri", uri])
        mlflow.set_tracking_uri(uri)
        mlflow.artifacts.download_artifacts("models:/topoqa@candidate", dst_path=str(place))
    return place


@contextmanager
def _cluster(cores: int) -> Iterator[tuple[str, dict[str, str]]]:
    """A head on this machine, of processes of our own, with a token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "head.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port", address.rpartition(":")[2]]
        command += ["--block", f"--num-cpus={cores}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        command += ["--object-store-memory=200000000", "--disable-usage-stats", "--temp-dir", folder]
        with log.open("wb") as output:
            head = subprocess.Popen(
                command, env={**environment(), **variables}, stdout=output, stderr=output, start_new_session=True
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while "Ray runtime started" not in log.read_text():
                if head.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"Ray did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield address, variables
        finally:
            _end(head)


def _end(head: subprocess.Popen[bytes]) -> None:
    """End the head with all that it started."""
    import psutil

    tree = psutil.Process(head.pid).children(recursive=True)
    for one in [psutil.Process(head.pid), *tree]:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    head.wait()
    psutil.wait_procs(tree, timeout=START_SECONDS)
