"""MLflow on PostgreSQL, with proxied artifacts and users, on loopback: ``python deploy/server/server.py start``.

Everything lies in one folder: the database, the artifacts, the logs, and the passwords, which only their owner may
read. Starting what runs and stopping what does not change nothing. docs/server.md says how a group goes on from here.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

HOST = "127.0.0.1"
DATABASE = ROLE = "mlflow"
PATIENCE = 180.0  # seconds; the first start makes a hundred tables
STOPPING = 20.0  # seconds for what is under way; then it is killed
DEBIAN = Path("/usr/lib/postgresql")  # where Debian keeps the programs of each version, apart from PATH
NEEDED = {"psycopg2": "psycopg2-binary", "flask_wtf": "mlflow[auth]"}


def fail(message: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"error: {' '.join(message.split())}")


@dataclass(frozen=True)
class Server:
    """One server.

    Args:
        data: its folder.
        port: of MLflow.
        database_port: of PostgreSQL.
        user: that PostgreSQL runs as where the caller is root, whom it refuses.
    """

    data: Path
    port: int
    database_port: int
    user: str

    @property
    def address(self) -> str:
        """What clients are given."""
        return f"http://{HOST}:{self.port}"

    @property
    def database_uri(self) -> str:
        """Without the password, which the list of processes would show; libpq takes it from ``pgpass``.

        The driver is named: which one plain ``postgresql://`` means depends on the version of SQLAlchemy.
        """
        return f"postgresql+psycopg2://{ROLE}@{HOST}:{self.database_port}/{DATABASE}"

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own folder."""
        return self.data / "postgresql"

    @property
    def admin(self) -> Path:
        """Name and password of the first user, as MLflow's clients read ``~/.mlflow/credentials``."""
        return self.data / "admin.ini"

    @property
    def log(self) -> Path:
        """What MLflow says."""
        return self.data / "mlflow.log"

    @property
    def pid_file(self) -> Path:
        """MLflow's process, when it started, since ids are given again, and its address."""
        return self.data / "mlflow.pid"

    @property
    def environment(self) -> dict[str, str]:
        """For programs that connect to the database."""
        return {**os.environ, "PGPASSFILE": str(self.data / "pgpass")}


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first moment on, and whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


# PostgreSQL


@functools.cache
def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = [path.parent for path in DEBIAN.glob("*/bin/pg_ctl")]
    if not versions:
        fail("PostgreSQL is not installed; expected pg_ctl; install it (Debian: apt-get install postgresql)")
    return max(versions, key=lambda path: float(path.parent.name))


def as_owner(server: Server, program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the owner of the database, who must not be root."""
    command = [str(programs() / program), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={server.user}", f"--regid={server.user}", "--init-groups", *command]
    said = server.data / f"{program}.log"  # a file: what is started in the background would hold a pipe open
    with said.open("w", encoding="utf-8") as log:
        done = subprocess.run(command, cwd="/", input=text, text=True, stdout=log, stderr=log, check=False)
    return subprocess.CompletedProcess(command, done.returncode, said.read_text(encoding="utf-8", errors="replace"))


def make_database(server: Server) -> None:
    """An empty database that lets one role in, by its password, from this machine, and nobody else."""
    if server.cluster.exists():
        return
    new = server.cluster.with_name("postgresql.new")  # what a first start that was cut off leaves
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(new, server.user, server.user)
    password = secrets.token_urlsafe(24)
    write_secret(server.data / "pgpass", f"{HOST}:*:{DATABASE}:{ROLE}:{password}\n")
    options = ("--auth=reject", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8")
    done = as_owner(server, "initdb", "-D", str(new), *options)
    if done.returncode == 0:
        (new / "pg_hba.conf").write_text(f"host {DATABASE} {ROLE} {HOST}/32 scram-sha-256\n", encoding="utf-8")
        sql = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"
        done = as_owner(server, "postgres", "--single", "-D", str(new), "postgres", text=sql)
    if done.returncode or "ERROR" in done.stdout:
        fail(f"{new}: no database could be made there ({done.stdout[-300:]})")
    new.rename(server.cluster)


def pg_ctl(server: Server, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start or stop it, and wait for that, or ask whether it runs."""
    return as_owner(server, "pg_ctl", command, "-D", str(server.cluster), "-t", str(int(PATIENCE)), *arguments)


def start_database(server: Server) -> None:
    """PostgreSQL, listening on loopback alone, and on no socket of the file system."""
    if pg_ctl(server, "status").returncode == 0:
        return
    require_free(server.database_port, "--database-port")
    log = server.cluster / "server.log"
    options = f"-p {server.database_port} -c listen_addresses={HOST} -c unix_socket_directories="
    done = pg_ctl(server, "start", "-l", str(log), "-o", options)
    if done.returncode:
        fail(f"PostgreSQL did not start; see {log} ({telling_line(log)})")


def stop_database(server: Server) -> None:
    """Let it finish what it is at, without waiting for its clients."""
    if pg_ctl(server, "status").returncode == 0:
        done = pg_ctl(server, "stop", "-m", "fast")
        if done.returncode:
            fail(f"PostgreSQL did not stop ({done.stdout[-300:]})")


# MLflow


def mlflow_process(server: Server) -> psutil.Process | None:
    """MLflow's process, if it runs."""
    try:
        pid, started, _ = server.pid_file.read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(started) and is_alive(process) else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that ended and that its parent has not asked after does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def user_settings(server: Server) -> dict[str, str]:
    """MLflow's settings of the users; what is secret is made at the first start, and kept."""
    key, rules = server.data / "secret_key", server.data / "basic_auth.ini"
    if not key.exists():
        write_secret(key, secrets.token_urlsafe(32))
    # A password of the environment counts at the first start alone, and is not kept here.
    if not rules.exists() and not os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
        password = f"mlflow_tracking_password = {secrets.token_urlsafe(24)}\n"
        write_secret(server.admin, f"[mlflow]\nmlflow_tracking_username = admin\n{password}")
    template = (Path(__file__).parent / rules.name).read_text(encoding="utf-8")
    write_secret(rules, template.replace("DATABASE_URI", server.database_uri))
    settings = {"MLFLOW_FLASK_SERVER_SECRET_KEY": key.read_text(encoding="utf-8")}
    settings["MLFLOW_AUTH_CONFIG_PATH"] = str(rules)
    admin = configparser.RawConfigParser()
    if admin.read(server.admin, encoding="utf-8"):
        settings["MLFLOW_AUTH_ADMIN_PASSWORD"] = admin["mlflow"]["mlflow_tracking_password"]
    return settings


def start_mlflow(server: Server) -> None:
    """MLflow, in a session of its own; returns when it answers."""
    if mlflow_process(server) is not None:
        return
    require_free(server.port, "--port")
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", HOST, "--port", str(server.port), "--workers", os.environ.get("SERVER_WORKERS", "1")]
    command += ["--backend-store-uri", server.database_uri]
    command += ["--artifacts-destination", str(server.data / "artifacts")]
    environment = {**server.environment, **user_settings(server)}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # of the caller, who may be a client elsewhere
        environment.pop(name, None)
    with server.log.open("a", encoding="utf-8") as log:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    write_secret(server.pid_file, f"{child.pid} {psutil.Process(child.pid).create_time()} {server.address}\n")
    deadline = time.monotonic() + PATIENCE
    while not answers(server):
        if child.poll() is not None:
            fail(f"MLflow did not start; see {server.log} ({telling_line(server.log)})")
        if time.monotonic() > deadline:
            stop_mlflow(server)
            fail(f"MLflow did not answer at {server.address}; see {server.log}")
        time.sleep(0.1)


def answers(server: Server) -> bool:
    """Whether MLflow says that it is well."""
    try:
        with urllib.request.urlopen(f"{server.address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def stop_mlflow(server: Server, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)) -> None:
    """End MLflow and its workers, and nothing else: they are a session of their own."""
    process = mlflow_process(server)
    if process is None:
        return
    family = [process, *process.children(recursive=True)]
    for signum in signals:
        os.killpg(process.pid, signum)
        deadline = time.monotonic() + STOPPING
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not is_alive(process):
            break
    server.pid_file.unlink(missing_ok=True)


def require_free(port: int, option: str) -> None:
    """Say so where somebody else listens: what answers there would be taken for the server started here."""
    deadline = time.monotonic() + 5  # what was killed a moment ago may still be letting go of it
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one can start again at once
            try:
                probe.bind((HOST, port))
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    fail(f"port {port} of {HOST} can't be had ({error.strerror}); give another by {option}")
        time.sleep(0.1)


def telling_line(log: Path) -> str:
    """Of a log, the last line that says what is wrong, or else the last one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = [line for line in lines if line.strip()] or ["it is empty"]
    return next((line for line in reversed(said) if "FATAL" in line or "Error" in line), said[-1])


# The three commands


@contextmanager
def alone(server: Server) -> Iterator[None]:
    """One command at a time on one folder."""
    server.data.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (server.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check(server: Server) -> None:
    """What is needed, before anything is made."""
    programs()
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        fail(f"{' and '.join(missing)} not installed; pip install {' '.join(missing)}")
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam(server.user)
    except KeyError:
        fail(f"no user {server.user} here; expected one for PostgreSQL, which refuses root; give --user")
    reached = ["setpriv", f"--reuid={server.user}", f"--regid={server.user}", "--init-groups", "test", "-x"]
    if subprocess.run([*reached, str(server.data)], check=False).returncode:
        fail(f"{server.data}: {server.user} can't get there; give another folder by --data, or open those above it")


def start(server: Server) -> None:
    """Start what does not run."""
    with alone(server):
        check(server)
        make_database(server)
        start_database(server)
        start_mlflow(server)
    status(server)


def stop(server: Server) -> None:
    """Stop what runs."""
    if not server.data.exists():
        return
    with alone(server):
        stop_mlflow(server)
        if server.cluster.exists():
            stop_database(server)
    status(server)


def status(server: Server) -> None:
    """Say what runs, and where its passwords are."""
    if mlflow_process(server) is None:
        print(f"stopped; what it keeps is in {server.data}")
        return
    address = server.pid_file.read_text(encoding="utf-8").split()[2]
    print(f"running at {address}; what it keeps is in {server.data}")
    if server.admin.exists():
        print(f"its first user is admin, whose password is in {server.admin}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("command", choices=("start", "stop", "status"))
    parser.add_argument("--data", default=os.environ.get("SERVER_DATA", "server-data"), help="its folder")
    parser.add_argument("--port", type=int, default=os.environ.get("SERVER_PORT", "5000"), help="of MLflow")
    parser.add_argument(
        "--database-port", type=int, default=os.environ.get("SERVER_DATABASE_PORT", "5433"), help="of PostgreSQL"
    )
    parser.add_argument("--user", default=os.environ.get("SERVER_USER", "postgres"), help="of PostgreSQL, for root")
    given = parser.parse_args()
    server = Server(Path(given.data).absolute(), given.port, given.database_port, given.user)
    {"start": start, "stop": stop, "status": status}[given.command](server)


if __name__ == "__main__":
    main()
