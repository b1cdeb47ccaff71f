"""The same command line again: begun, gone on with, complete; and a cluster that warns, kills and starts it again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

import topotrain
from kit.commands import exit_status
from kit.graphs import GraphSet, write_graph_set
from kit.holding import pausing
from kit.recorded import mlflow_client
from kit.run_contents import assert_alike
from kit.runs import HandMadeRun, silent_beat
from kit.waiting import PATIENCE, wait_for
from topotrain.errors import EXIT_AGAIN, ConfigError, TrackingError
from topotrain.fields import TAG_HEARTBEAT, TAG_LEASE, TAG_RECIPE_DIGEST, TAG_STATUS_NOTE
from topotrain.tracking.heartbeat import INTERVAL_SECONDS, MISSED_BEATS
from topotrain.training.fit import recipe_digest

EPOCHS = 6
GOING_ON = "going on in epoch 2, after "
RECIPE = [
    f"trainer.num_epochs={EPOCHS}",
    "optimizer.learning_rate=0.01",
    "scheduler.patience=0",
    "mlflow.register=none",
    "logging.log_every_n_steps=1",
]


@dataclass(frozen=True)
class Ground:
    """A store, graphs, and a Python to start the program with."""

    python: str
    uri: str
    graph_set: GraphSet
    folder: Path

    @property
    def settings(self) -> list[str]:
        return [part for one in (*self.graph_set.overrides, *RECIPE) for part in ("--override", one)]

    def command(self, name: str, *more: str) -> list[str]:
        run = ["-m", "topotrain", "run", "--tracking-uri", self.uri, "--run-name", name, "--continue"]
        return [self.python, *run, *self.settings, *more]

    def runs(self, name: str) -> list[str]:
        client = mlflow_client(self.uri)
        homes = [one.experiment_id for one in client.search_experiments()]
        return [run.info.run_id for run in client.search_runs(homes, f"attributes.run_name = '{name}'")]


@pytest.fixture(scope="module")
def ground(quick_python: str, _empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    write_graph_set(folder / "set")
    return Ground(quick_python, f"sqlite:///{folder / 'mlflow.db'}", GraphSet(folder / "set"), folder)


@pytest.fixture(scope="module")
def straight(ground: Ground) -> str:
    """A run that nothing disturbed."""
    done = subprocess.run(ground.command("straight"), capture_output=True, text=True, cwd=ground.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def cut_off(command: list[str], signum: int, when: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Exit status and lines of a process that says a line that fits, and waits for the signal that it gets then."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | environment | pausing(when),
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.match(when, line):
            os.kill(process.pid, signum)
            break
    lines += process.stderr.readlines()
    return process.wait(PATIENCE), "".join(lines)


def in_epoch(number: int) -> str:
    return f"epoch {number}/.*step"


@pytest.mark.parametrize(
    ("signum", "status", "note"),
    [
        (signal.SIGUSR1, EXIT_AGAIN, r"interrupted by signal 10 after 2 epochs and \d batches"),
        (signal.SIGTERM, 143, r"interrupted by signal 15 after 2 epochs and \d batches"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_the_same_command_goes_on_and_then_says_that_it_is_complete(ground, straight, signum, status, note):
    name = f"cut off by {signum}"
    ended, lines = cut_off(ground.command(name), signum, in_epoch(2), ground.folder)
    assert ended == status, lines
    assert "Traceback" not in lines
    (run_id,) = ground.runs(name)
    assert re.fullmatch(note, mlflow_client(ground.uri).get_run(run_id).data.tags.get(TAG_STATUS_NOTE, ""))
    for said in (GOING_ON if note else "going on after epoch 1", f"run {name} is complete after {EPOCHS} epochs"):
        done = subprocess.run(ground.command(name), capture_output=True, text=True, cwd=ground.folder)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
        assert done.stdout.split() == [run_id]
    assert ground.runs(name) == [run_id]
    assert_alike(ground.uri, straight, run_id)


def test_what_was_cut_off_before_its_first_checkpoint_begins_anew(ground, straight):
    status, lines = cut_off(ground.command("early"), signal.SIGKILL, in_epoch(0), ground.folder)
    assert status == -signal.SIGKILL, lines
    (early,) = ground.runs("early")
    done = subprocess.run(ground.command("early"), capture_output=True, text=True, cwd=ground.folder)
    assert done.returncode == 0, done.stderr
    assert f"run {early} (early) was cut off before its first checkpoint: beginning anew" in done.stderr
    assert_alike(ground.uri, straight, done.stdout.split()[-1])


def test_another_recipe_or_name_is_another_run(ground, straight):
    common = {"tracking_uri": ground.uri, "progress": False}
    recipe = [*ground.graph_set.overrides, *RECIPE]
    again = topotrain.fit_or_resume(overrides=[*recipe, "logging.log_every_n_steps=7"], run_name="straight", **common)
    assert again.run_id == straight, "what is shown decides nothing"
    other = topotrain.fit_or_resume(overrides=[*recipe, "seed=5"], run_name="straight", **common)
    assert other.run_id != straight
    assert sorted(ground.runs("straight")) == sorted([straight, other.run_id])


def test_a_run_that_somebody_trains_is_left_alone(ground):
    command = ground.command("busy", "--override", "trainer.num_epochs=500")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ground.folder)
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(in_epoch(1), line):
            break
    second = subprocess.run(command, capture_output=True, text=True, cwd=ground.folder)
    process.terminate()
    process.stderr.read()
    assert process.wait(PATIENCE) == 143
    assert second.returncode == 2
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert "(busy) is still being trained; expected a run that ended or was cut off; wait for it" in line
    assert len(ground.runs("busy")) == 1


def of_another_machine(ground: Ground, name: str, seconds_ago: float) -> tuple[HandMadeRun, list[str]]:
    """A run that another machine records, or recorded until now, and how it was configured."""
    overrides = [*ground.graph_set.overrides, *RECIPE]
    recipe = topotrain.load_config(None, overrides).config
    tags = {TAG_RECIPE_DIGEST: recipe_digest(recipe, None, None)}
    beat = {**silent_beat(seconds_ago / 60), "writer": "w"}
    run = HandMadeRun(ground.uri, name, experiment=recipe.mlflow.experiment, tags=tags, heartbeat=beat)
    run.client.set_tag(run.run_id, f"{TAG_LEASE}w", json.dumps({**beat, "held": True}))
    return run, overrides


def test_a_machine_that_was_lost_a_moment_ago_is_waited_for(ground, straight):
    lost, overrides = of_another_machine(ground, "lost machine", MISSED_BEATS * INTERVAL_SECONDS - 3)
    made = topotrain.fit_or_resume(overrides=overrides, run_name="lost machine", tracking_uri=ground.uri)
    assert made.run_id != lost.run_id, "it had no checkpoint"
    assert_alike(ground.uri, straight, made.run_id)


def test_a_machine_that_gives_another_sign_of_life_has_the_run(ground, caplog):
    busy, overrides = of_another_machine(ground, "elsewhere", 5)
    sign = json.dumps({**silent_beat(0), "writer": "w"})

    def beat() -> None:
        wait_for(lambda: "waiting whether it goes on" in caplog.text)
        busy.client.set_tag(busy.run_id, TAG_HEARTBEAT, sign)

    other = threading.Thread(target=beat)
    other.start()
    with pytest.raises(TrackingError, match="is still being trained"):
        topotrain.fit_or_resume(overrides=overrides, run_name="elsewhere", tracking_uri=ground.uri)
    other.join()


def test_it_needs_a_name_and_a_server(ground, capsys):
    with pytest.raises(
        ConfigError, match="no name to find the run by; expected --run-name, mlflow.run_name, or a conf"
    ):
        topotrain.fit_or_resume(overrides=RECIPE, tracking_uri=ground.uri)
    assert exit_status("run", "--continue", "--offline", "--run-name", "x", "--tracking-uri", ground.uri) == 2
    assert "expected either --continue or --offline" in capsys.readouterr().err


def test_the_configuration_s_file_gives_the_name(ground, tmp_path):
    config = tmp_path / "my_recipe.yaml"
    config.write_text(json.dumps({"trainer": {"num_epochs": 1}, "mlflow": {"register": "none"}}))
    paths = [one for one in ground.graph_set.overrides if one.startswith("paths.")]
    made = topotrain.fit_or_resume(config, overrides=paths, tracking_uri=ground.uri, progress=False)
    assert made.run_name == "my_recipe"


def test_under_mlflow_run_the_new_run_goes_on_for_the_one_that_was_cut_off(ground, straight):
    client = mlflow_client(ground.uri)
    made = [client.create_run("0", run_name=f"serious-fox-{number}").info.run_id for number in range(3)]
    cut_off(ground.command("adopted"), signal.SIGTERM, in_epoch(2), ground.folder, MLFLOW_RUN_ID=made[0])
    said = []
    for run_id in made[1:]:
        done = subprocess.run(
            ground.command("adopted"),
            capture_output=True,
            text=True,
            cwd=ground.folder,
            env=os.environ | {"MLFLOW_RUN_ID": run_id},
        )
        assert done.returncode == 0, done.stderr
        said.append((done.stdout.split(), GOING_ON in done.stderr, "is complete after" in done.stderr))
    assert said == [([made[1]], True, False), ([made[1]], False, True)]
    assert client.get_run(made[1]).data.tags["topotrain.resumed_from"] == made[0]
    assert sorted(ground.runs("adopted")) == sorted(made[:2])


SLURM = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "1"}


@pytest.mark.parametrize("script", ["train.sbatch", "array.sbatch"])
def test_slurm_warns_kills_and_starts_the_job_again(ground, root, tmp_path, script):
    """The scripts with stand-ins for Slurm's two commands: a step is a process, a requeued job is noted."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, line in (("srun", 'echo "step $$" >&2; exec "$@"'), ("scontrol", f'echo "$@" >>{tmp_path}/requeued')):
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    config = tmp_path / "recipe.yaml"
    config.write_text("trainer: {devices: 1}\n")
    given = [str(config), *([] if script == "array.sbatch" else ["by slurm"]), *ground.settings]
    command = ["bash", str(root / "deploy" / "slurm" / script), *given]
    path = os.pathsep.join([str(tools), str(Path(ground.python).parent), os.environ["PATH"]])
    environment = os.environ | SLURM | {"PATH": path, "MLFLOW_TRACKING_URI": ground.uri}

    warned = environment | pausing(in_epoch(2))
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=warned)
    assert job.stderr is not None
    step = 0
    for line in job.stderr:
        if line.startswith("step "):
            step = int(line.split()[1])
        if re.match(in_epoch(2), line):
            os.kill(step, signal.SIGUSR1)
            break
    job.stderr.read()
    assert job.wait(PATIENCE) == EXIT_AGAIN
    assert (tmp_path / "requeued").read_text() == f"requeue {'77_3' if script == 'array.sbatch' else '77'}\n"
    outputs = []
    for said in (GOING_ON, f"is complete after {EPOCHS} epochs"):
        done = subprocess.run(command, capture_output=True, text=True, env=environment | {"SLURM_RESTART_COUNT": "1"})
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
        outputs.append(done.stdout.split()[-1])
    assert outputs[0] == outputs[1]
    run = mlflow_client(ground.uri).get_run(outputs[0])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == ("recipe-seed-3" if script == "array.sbatch" else "by slurm")
    assert run.data.params["dataloader.seed"] == ("3" if script == "array.sbatch" else "222")
    assert (tmp_path / "requeued").read_text().count("\n") == 1
