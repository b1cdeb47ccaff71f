"""How this program was called, and how it is called again: what the environment says of that."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from topotrain.credentials import mask_uri

RUN_VARIABLE = "MLFLOW_RUN_ID"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
RETRIES_VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
LONG_ENOUGH_FOR_THREE = 12.0  # seconds
SERVES_VARIABLE = "TOPOTRAIN_SERVES"
PROGRESS_VARIABLE = "TOPOTRAIN_PROGRESS"
THREADS_VARIABLE = "OMP_NUM_THREADS"
RANK_VARIABLE = "TOPOTRAIN_RANK"
STOP_VARIABLE = "TOPOTRAIN_STOP_SIGNALS"
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
TRAVELLING = ("MLFLOW_", "TOPOTRAIN_MAX_")
# What ``mlflow run`` tells the process of one run, and what must not reach the processes that work for it.
ADOPTION_VARIABLES = (RUN_VARIABLE, "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def resume_command(run_id: str, tracking_uri: str) -> str:
    """The command that resumes a run."""
    return f"{program()} resume --run-id {run_id} --tracking-uri {shlex.quote(mask_uri(tracking_uri))}"


def sync_advice(journal: Path | None = None) -> str:
    """What to do about a journal that holds what a server does not have, or about all of them."""
    return f"deliver it with: {program()} sync {shlex.quote(str(journal)) if journal else ''}".rstrip()


def program() -> str:
    """How the user's shell calls this program: by its path where its environment, here, is not activated."""
    here = Path(sys.executable).parent / "topotrain"
    if "VIRTUAL_ENV" not in os.environ and here.is_relative_to(Path.cwd()) and here.exists():
        return str(here.relative_to(Path.cwd()))
    return "topotrain"


def adopted_run() -> str | None:
    """Id of the run that ``mlflow run`` made for this process (MLFLOW_RUN_ID), until it is taken or released."""
    return os.environ.get(RUN_VARIABLE) or None


def take_adopted_run() -> str | None:
    """The adopted run, for the one that records it: afterwards there is none, so that a second run opens its own."""
    return os.environ.pop(RUN_VARIABLE, None) or None


def release_adopted_run(run_id: str) -> None:
    """Say that a run is recorded in another way than by adopting it; another run stays adopted."""
    if adopted_run() == run_id:
        del os.environ[RUN_VARIABLE]


def environment_uri() -> str | None:
    """The tracking URI of the environment (MLFLOW_TRACKING_URI), where one is set."""
    return os.environ.get(URI_VARIABLE) or None


def wait_at_most(seconds: int) -> None:
    """How long a request to a server may take, unless the user has said so (MLFLOW_HTTP_REQUEST_TIMEOUT)."""
    os.environ.setdefault(TIMEOUT_VARIABLE, str(seconds))


@contextmanager
def answering_within(seconds: float | None) -> Iterator[None]:
    """Ask a server, which has so long to answer in all, whatever the user set; without seconds as ever.

    Args:
        seconds: for three attempts and the pauses between them, as MLflow makes them.
    """
    if seconds is None:
        yield
        return
    attempts, pauses = (3, 6.0) if seconds > LONG_ENOUGH_FOR_THREE else (1, 0.0)
    each = max(1, int((seconds - pauses) / attempts))
    settings = {TIMEOUT_VARIABLE: str(each), RETRIES_VARIABLE: str(attempts - 1)}
    with variables(settings):
        yield


def travelling_environment() -> dict[str, str]:
    """What goes with a command to another machine: how servers are asked, limits, and how many threads."""
    stay = {*ADOPTION_VARIABLES, URI_VARIABLE}
    return {
        THREADS_VARIABLE: threads_asked() or "1",
        **{name: value for name, value in os.environ.items() if name.startswith(TRAVELLING) and name not in stay},
    }


def same_code() -> dict[str, str]:
    """What makes a process import this very package, where it is not installed."""
    folder = Path(__file__).resolve().parents[1]
    if folder.name in ("site-packages", "dist-packages"):
        return {}
    further = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([further] if further else [])])}


def threads_asked() -> str | None:
    """How many threads the user asks numerical libraries to take (OMP_NUM_THREADS), as written."""
    return os.environ.get(THREADS_VARIABLE)


def serving_parent() -> int | None:
    """Process id of the batch that this process works for (TOPOTRAIN_SERVES), if it works for one."""
    parent = os.environ.get(SERVES_VARIABLE, "")
    return int(parent) if parent.isdigit() else None


def stop_signals() -> str:
    """Signals that end a run so that it can be started again (TOPOTRAIN_STOP_SIGNALS), as written."""
    return os.environ.get(STOP_VARIABLE, "USR1")


def launched_rank() -> str:
    """Which of the processes that train together this one is (TOPOTRAIN_RANK), as the process that started it says."""
    return os.environ.get(RANK_VARIABLE, "")


def rank_environment(rank: str, packages: str) -> dict[str, str]:
    """The environment of a process that trains together with this one.

    Args:
        rank: which of them it is, as ``launched_rank`` is to give it back.
        packages: the folder that this package lies in.
    """
    path = os.pathsep.join([packages, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**serving_environment(), RANK_VARIABLE: rank, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def steps_tasks() -> int:
    """How many processes Slurm's ``srun`` started beside this one, itself included; 1 where it did not."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return int(tasks) if tasks.isdigit() else 1


def shares_torchruns_store() -> bool:
    """Whether the store by which processes find each other is kept by ``torchrun`` itself."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def torchruns_attempt() -> str:
    """How often ``torchrun`` has started these processes anew."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


@contextmanager
def talking_within(machine: bool) -> Iterator[None]:
    """Let processes find each other by this machine's own network, where all are on it and the user says nothing.

    Args:
        machine: whether all are.
    """
    own = next((name for name in ("lo", "lo0") if name in {one for _, one in socket.if_nameindex()}), None)
    if not machine or own is None or INTERFACE_VARIABLE in os.environ:
        yield
        return
    os.environ[INTERFACE_VARIABLE] = own
    try:
        yield
    finally:
        del os.environ[INTERFACE_VARIABLE]


def progress_file() -> Path | None:
    """Where a process that works for another says how far it is (TOPOTRAIN_PROGRESS)."""
    path = os.environ.get(PROGRESS_VARIABLE)
    return Path(path) if path else None


def serving_environment() -> dict[str, str]:
    """The environment of a process that works for this one: this one's own, without the adopted run."""
    own = {name: value for name, value in os.environ.items() if name not in ADOPTION_VARIABLES}
    return {**own, SERVES_VARIABLE: str(os.getpid())}


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which processes that are started within get too."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
