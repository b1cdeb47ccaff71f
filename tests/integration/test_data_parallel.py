"""Several processes that train one network: the curve of one, the same bits every time, and no end that hangs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kit.graphs import PUBLISHED, RANKING, GraphSet, write_graph_set
from kit.recorded import metric_history, mlflow_client
from kit.run_contents import assert_alike, leases, weights
from kit.waiting import PATIENCE, wait_for
from topotrain.fields import TAG_PARAM_DRIFT, TAG_STATUS_NOTE
from topotrain.training.training_run import TOLERANCE

EPOCHS = 3
RECIPE = [
    f"trainer.num_epochs={EPOCHS}",
    "dataloader.batch_size=5",  # of 12 training graphs: 5, 5 and 2, so that of three processes one is left without
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "mlflow.register=none",
    "logging.log_every_n_steps=1",
]
CURVES = ("train_mse", "val_loss", "val_spearman_corr", "val_ranking_loss", "selection_metric", "learning_rate")


@dataclass(frozen=True)
class Ground:
    """A store, graphs, and a Python to start the program with."""

    python: str
    uri: str
    graph_set: GraphSet
    folder: Path

    def command(self, name: str, *more: str, by: tuple[str, ...] = ()) -> list[str]:
        """Of a run."""
        settings = [part for one in (*self.graph_set.overrides, *RECIPE, *more) for part in ("--override", one)]
        run = ["-m", "topotrain", "run", "--tracking-uri", self.uri, "--run-name", name]
        return [*(by or (self.python,)), *run, *settings]

    def done(self, command: list[str]) -> str:
        """The run that a command made; it has to succeed."""
        ended = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=PATIENCE)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout.split()[-1]

    def train(self, name: str, *more: str, by: tuple[str, ...] = ()) -> str:
        """A run that ends by itself."""
        return self.done(self.command(name, *more, by=by))

    def resume(self, run_id: str, *overrides: str) -> str:
        settings = [part for one in overrides for part in ("--override", one)]
        command = [self.python, "-m", "topotrain", "resume", "--run-id", run_id, "--tracking-uri", self.uri, *settings]
        return self.done(command)

    def find(self, name: str) -> str:
        client = mlflow_client(self.uri)
        homes = [one.experiment_id for one in client.search_experiments()]
        (run,) = client.search_runs(homes, f"attributes.run_name = '{name}'")
        return run.info.run_id


@pytest.fixture(scope="module")
def ground(quick_python: str, _empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    write_graph_set(folder / "set")
    return Ground(quick_python, f"sqlite:///{folder / 'mlflow.db'}", GraphSet(folder / "set"), folder)


@pytest.fixture(scope="module")
def alone(ground: Ground) -> str:
    """A run of one process."""
    return ground.train("alone")


@pytest.fixture(scope="module")
def together(ground: Ground) -> str:
    """A run of two that nothing disturbed."""
    return ground.train("together", "trainer.devices=2")


def assert_close(ground: Ground, one: str, other: str) -> None:
    """Every curve within the tolerance that a run names, each point once; weights alike to rounding."""
    client = mlflow_client(ground.uri)
    for name in CURVES:
        left, right = (metric_history(client, run, name) for run in (one, other))
        assert list(left) == list(right) == list(range(EPOCHS))
        assert list(right.values()) == pytest.approx(list(left.values()), abs=float(TOLERANCE)), name
        assert len(client.get_metric_history(other, name)) == EPOCHS
    left, right = (weights(ground.uri, run)["last.ckpt"] for run in (one, other))
    assert all((left[name] - right[name]).abs().max() < 1e-3 for name in left)


def test_two_processes_make_the_curve_of_one(ground, alone, together):
    assert_close(ground, alone, together)
    tags = mlflow_client(ground.uri).get_run(together).data.tags
    assert mlflow_client(ground.uri).get_run(together).info.status == "FINISHED"
    assert TAG_STATUS_NOTE not in tags
    assert leases(ground.uri, together) == []


def test_two_runs_of_two_are_equal_to_the_last_bit_also_from_python(ground, together):
    overrides = [*ground.graph_set.overrides, *RECIPE, "trainer.devices=2"]
    script = (
        "import topotrain\n"
        f"print(topotrain.fit(overrides={overrides}, tracking_uri={ground.uri!r}, run_name='again').run_id)"
    )
    again = ground.done([ground.python, "-c", script])
    assert_alike(ground.uri, together, again)


@pytest.mark.parametrize(
    "recipe",
    [
        ["trainer.devices=3", *PUBLISHED],
        ["trainer.devices=2", "trainer.accumulate_grad_batches=2", "dataloader.num_workers=1"],
        ["trainer.devices=3", "trainer.accumulate_grad_batches=2", "dataloader.batch_size=2", *RANKING],
    ],
    ids=["one without graphs", "accumulated", "ranking"],
)
def test_the_curve_is_that_of_one_process_however_graphs_are_left_over(ground, request, recipe):
    expected = ground.train(f"1 {request.node.name}", *recipe[1:])
    assert_close(ground, expected, ground.train(request.node.name, *recipe))


def cut_off(ground: Ground, name: str, who: str, signum: int) -> tuple[int, str, list[int]]:
    """A run of two of which one process gets a signal in the second epoch: exit status, lines, the others' ids."""
    command = ground.command(name, "trainer.devices=2", "trainer.num_epochs=500")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ground.folder)
    assert process.stderr is not None
    lines, ranks = [], []
    for line in process.stderr:
        lines.append(line)
        if found := re.findall(r"rank \d+ is process (\d+)", line):
            ranks = [int(one) for one in found]
        if line.startswith("epoch 1/499") and "step" in line:
            assert len(ranks) == 1
            os.kill(ranks[0] if who == "rank 1" else process.pid, signum)
            break
    lines += process.stderr.readlines()
    return process.wait(PATIENCE), "".join(lines), ranks


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.mark.parametrize("devices", [2, 1])
def test_a_lost_rank_fails_the_run_which_goes_on_with_as_many_or_fewer(ground, alone, together, devices):
    name = f"lost, then {devices}"
    status, lines, ranks = cut_off(ground, name, "rank 1", signal.SIGKILL)
    assert status == 2
    assert f"error: rank 1 (process {ranks[0]}) was ended by signal 9; expected" in lines
    assert "Traceback" not in lines
    run = mlflow_client(ground.uri).get_run(ground.find(name))
    assert run.info.status == "FAILED"
    assert f"rank 1 (process {ranks[0]})" in run.data.tags[TAG_STATUS_NOTE]
    assert gone(ranks)
    ground.resume(run.info.run_id, f"trainer.num_epochs={EPOCHS}", f"trainer.devices={devices}")
    assert_close(ground, together, run.info.run_id)
    left, right = (weights(ground.uri, one)["last.ckpt"] for one in (together, run.info.run_id))
    if devices == 2:
        assert all((left[key] == right[key]).all() for key in left), "the bits of a run that nothing disturbed"
    else:
        tags = mlflow_client(ground.uri).get_run(run.info.run_id).data.tags
        assert '"key": "trainer.devices", "from": "2", "to": "1"' in tags[TAG_PARAM_DRIFT]


def test_who_goes_on_with_another_number_is_told(ground, alone):
    again = [ground.python, "-m", "topotrain", "resume", "--run-id", alone, "--checkpoint", "epoch_0000.ckpt"]
    more = ["--override", "trainer.devices=2", "--tracking-uri", ground.uri]
    ended = subprocess.run([*again, *more], capture_output=True, text=True, cwd=ground.folder, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert "the checkpoint is of 1 processes, and 2 go on: sums are added in another order" in ended.stderr
    assert TOLERANCE in ended.stderr
    assert_close(ground, alone, ended.stdout.split()[-1])


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_rank_0_ends_all(ground, signum, status):
    name = f"signal {signum}"
    found, lines, ranks = cut_off(ground, name, "rank 0", signum)
    assert found == status
    assert "Traceback" not in lines
    assert "the epoch under way will begin anew" in lines
    assert mlflow_client(ground.uri).get_run(ground.find(name)).info.status == "KILLED"
    assert gone(ranks)


def test_no_rank_outlives_rank_0(ground):
    status, _, ranks = cut_off(ground, "rank 0 killed", "rank 0", signal.SIGKILL)
    assert status == -signal.SIGKILL
    wait_for(lambda: gone(ranks))


def test_torchrun_starts_them_too(ground, together):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d")
    by = (*torchrun, "--rdzv-endpoint", "127.0.0.1:0", "--no-python", ground.python)
    assert_alike(ground.uri, together, ground.train("by torchrun", "trainer.devices=2", by=by))


def test_torchrun_that_starts_others_than_asked_for_is_one_line(ground):
    environment = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    command = ground.command("never begun", "trainer.devices=2")
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=PATIENCE)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: torchrun started 4 processes, and trainer.devices and trainer.num_nodes ask for 2; expected as many"
    ]
