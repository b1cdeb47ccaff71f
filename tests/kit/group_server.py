"""The server of a group, as ``make server`` starts it: MLflow on PostgreSQL, with users. One for the whole suite."""

from __future__ import annotations

import configparser
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock

from kit.waiting import PATIENCE

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "server" / "server.py"


def load_script() -> ModuleType:
    """deploy/server/server.py, as a module."""
    spec = importlib.util.spec_from_file_location("deployed_server", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GroupServer:
    """The server, and its users.

    Args:
        data: its folder.
        port: of MLflow.
        database_port: of PostgreSQL.
    """

    def __init__(self, data: Path, port: int, database_port: int) -> None:
        self.script = load_script()
        self.server = self.script.Server(data, port, database_port, "postgres")
        self.data, self.address = data, str(self.server.address)

    def start(self) -> None:
        """Start it."""
        self.data.mkdir(exist_ok=True)
        self.script.make_database(self.server)
        with (self.server.cluster / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")  # nothing here has to outlive the machine
        self.script.start(self.server)

    def stop(self) -> None:
        """End it, without waiting for anything."""
        self.script.stop_mlflow(self.server, (signal.SIGKILL,))
        if self.server.cluster.exists():
            self.script.pg_ctl(self.server, "stop", "-m", "immediate")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call the script as ``make server`` does."""
        options = ["--data", str(self.data), "--port", str(self.server.port)]
        options += ["--database-port", str(self.server.database_port)]
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments, *options],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextmanager
    def without_mlflow(self) -> Iterator[None]:
        """MLflow is killed in the middle of whatever it does, and is back afterwards."""
        self.script.stop_mlflow(self.server, (signal.SIGKILL,))
        try:
            yield
        finally:
            self.script.start_mlflow(self.server)

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """PostgreSQL is stopped under MLflow, which goes on, and is back afterwards."""
        self.script.stop_database(self.server)
        try:
            yield
        finally:
            self.script.start_database(self.server)

    @cached_property
    def admin(self) -> dict[str, str]:
        """What the first user sets."""
        read = configparser.RawConfigParser()
        read.read(self.server.admin)
        return {name.upper(): value for name, value in read["mlflow"].items()}

    def user(self, name: str) -> dict[str, str]:
        """Make an ordinary user; what they set."""
        password = secrets.token_urlsafe(12)
        self.users().create_user(name, password)
        return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}

    def users(self) -> Any:
        """MLflow's client for users and permissions, as the first user."""
        from mlflow.server import get_app_client

        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.admin.items():
                patch.setenv(name, value)
            return _Acting(get_app_client("basic-auth", self.address), self.admin)

    def dump(self) -> str:
        """Everything the database holds, as a backup does."""
        command = [str(self.script.programs() / "pg_dump"), "-w", self.server.database_uri.replace("+psycopg2", "")]
        environment = self.server.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


class _Acting:
    """A client whose calls are made as one user, whoever the environment names."""

    def __init__(self, client: Any, variables: dict[str, str]) -> None:
        self._client, self._variables = client, variables

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                for variable, value in self._variables.items():
                    patch.setenv(variable, value)
                return method(*args, **kwargs)

        return call


@contextmanager
def shared_group_server(shared: Path) -> Iterator[GroupServer]:
    """The one server of all processes of the suite: the first that asks starts it, the last that leaves ends it.

    Args:
        shared: a folder that all of them see.
    """
    note, lock = shared / "group server", FileLock(shared / "group_server.lock")
    with lock:
        if note.exists():
            data, port, database_port, users = note.read_text().splitlines()
        else:
            # Not below pytest's folder, which is its user's alone: as root, PostgreSQL runs as another.
            data, users = tempfile.mkdtemp(prefix="topotrain-group-server-"), "0"
            os.chmod(data, 0o711)
            port, database_port = str(free_port()), str(free_port())
        one = GroupServer(Path(data), int(port), int(database_port))
        if users == "0":
            try:
                one.start()
            except BaseException as error:
                one.stop()
                shutil.rmtree(data)
                note.unlink(missing_ok=True)
                raise AssertionError(f"the server did not start: {error}") from error  # pytest takes no SystemExit
        note.write_text("\n".join([data, port, database_port, str(int(users) + 1)]))
    try:
        yield one
    finally:
        with lock:
            left = int(note.read_text().splitlines()[3]) - 1
            if left:
                note.write_text("\n".join([data, port, database_port, str(left)]))
            else:
                one.stop()
                note.unlink()
                shutil.rmtree(data)


def require_postgresql() -> None:
    """Skip where there is no PostgreSQL."""
    try:
        load_script().programs()
    except SystemExit as stop:
        pytest.skip(str(stop))


@contextmanager
def in_use(shared: Path, *, alone: bool) -> Iterator[None]:
    """The server is used; by nothing else meanwhile where an outage would be everybody's.

    Args:
        shared: a folder that all processes of the suite see.
        alone: whether nothing else may use it.
    """
    with (shared / "group server in use").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
