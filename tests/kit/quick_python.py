"""A Python that has everything imported already, for tests that start the program as a process of its own.

Importing torch, Lightning and MLflow takes six seconds of a processor, and the tests start the program about a hundred
times. ``QuickPython.path`` stands for ``sys.executable``: a small launcher that has a server, which imported everything
once, fork. The child gets the launcher's arguments, environment, folder and streams; the launcher passes signals on to
it, ends with its exit status, and takes it along when it is killed. What is not the program under test, or not the
program of this checkout, runs in a real interpreter.

The child has another parent than a process that was started in earnest, another process group, and more modules loaded.
So what is about these (killing a batch, a terminal, what a command imports) starts ``sys.executable``.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import marshal
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

LAUNCHER = '''\
#!{real} -IS
import marshal, os, signal, socket, sys

PROGRAMS = ("topotrain", "train_cli", "monitor_best_model")


def is_ours(arguments):
    """Whether the server has what is asked for: the program, from the same files."""
    if arguments[:3] == ["-m", "mlflow", "run"]:
        return True
    if arguments[:1] != ["-c"] and not (arguments[:1] == ["-m"] and arguments[1] in PROGRAMS):
        return False
    for folder in [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]:
        if os.path.isdir(os.path.join(folder, "topotrain")):
            return os.path.realpath(os.path.join(folder, "topotrain")) == {package!r}
    return True


name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if not name.startswith("python"):
    arguments = ["-m", name, *arguments]
if not is_ours(arguments):
    os.execv({real!r}, [{real!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
wanted = marshal.dumps((arguments, dict(os.environ), os.getcwd()))
socket.send_fds(server, [len(wanted).to_bytes(8, "big")], [0, 1, 2])
server.sendall(wanted)
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(each, lambda signum, frame: server.sendall(bytes([signum])))
answer = server.recv(4)
status = int.from_bytes(answer, "big", signed=True) if answer else -signal.SIGKILL
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
'''
# Imported by the program when it needs them.
ALSO = (
    *("alembic.command", "mlflow.artifacts", "mlflow.cli", "mlflow.pyfunc", "mlflow.projects.backend.local"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store"),
    *("matplotlib.backends.backend_agg", "matplotlib.pyplot", "pytorch_lightning", "torch_geometric.data"),
)


class QuickPython:
    """The launcher and its server, which is there as long as the ``with`` block lasts."""

    def __enter__(self) -> QuickPython:
        self._folder = tempfile.TemporaryDirectory(prefix="quick")  # a socket's address has to be short
        folder = Path(self._folder.name)
        found = importlib.util.find_spec("topotrain")
        assert found is not None
        assert found.origin is not None
        package = os.path.dirname(os.path.realpath(found.origin))
        self.path = folder / "bin" / "python"
        self.path.parent.mkdir()
        address = str(folder / "socket")
        self.path.write_text(LAUNCHER.format(real=sys.executable, package=package, address=address))
        self.path.chmod(0o755)
        for name in ("python3", "topotrain", "mlflow"):
            (self.path.parent / name).symlink_to(self.path.name)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)  # who asks while the server still imports waits
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), str(self.path)],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(package), *sys.path])},
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()  # closes its standard input, which ends it
        self._folder.cleanup()


class Wanted(NamedTuple):
    """What a launcher asks for."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]


def serve(listener: socket.socket) -> Wanted | None:
    """Fork for each launcher; in a child, what it is to run, and in the server, at its end, nothing."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    launchers: dict[int, socket.socket] = {}
    while True:
        for key, _ in waiting.select():
            if key.fileobj == 0:
                for pid in launchers:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return None
            if key.fileobj is listener:
                launcher, _ = listener.accept()
                wanted = receive(launcher)
                if wanted is None:  # it was killed before it had asked
                    launcher.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    for each in (launcher, listener, waiting, *launchers.values()):
                        each.close()
                    return wanted
                for stream in wanted.streams:
                    os.close(stream)
                launchers[pid] = launcher
                waiting.register(launcher, selectors.EVENT_READ, pid)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
            elif isinstance(key.fileobj, socket.socket):  # a signal to pass on, or the launcher is gone
                if key.data not in launchers:  # its end came in the same moment
                    continue
                told = received(key.fileobj, 1)
                os.kill(key.data, told[0] if told else signal.SIGKILL)
                if not told:
                    waiting.unregister(key.fileobj)
            else:
                status = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                launcher = launchers.pop(key.data)
                try:
                    waiting.unregister(launcher)
                    launcher.sendall(status.to_bytes(4, "big", signed=True))
                except (KeyError, OSError):
                    pass
                launcher.close()
                waiting.unregister(key.fileobj)
                os.close(key.fd)


def received(launcher: socket.socket, size: int) -> bytes:
    """What it sends, at most so many bytes; nothing when it is gone."""
    try:
        return launcher.recv(size)
    except ConnectionResetError:
        return b""


def receive(launcher: socket.socket) -> Wanted | None:
    """What a launcher asks for; nothing when it is killed while it asks."""
    size, streams, _, _ = socket.recv_fds(launcher, 8, 3)
    wanted, content = int.from_bytes(size, "big"), b""
    while len(content) < wanted and (more := received(launcher, 1 << 20)):
        content += more
    if size and len(content) == wanted:
        return Wanted(*marshal.loads(content), streams)
    for stream in streams:
        os.close(stream)
    return None


def become(wanted: Wanted, path: list[str], executable: str) -> None:
    """Turn this child into what was asked for."""
    for number, stream in enumerate(wanted.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wanted.environment)
    if "TOPOTRAIN_SERVES" in os.environ:  # a batch's job watches its parent, which is the server here
        os.environ["TOPOTRAIN_SERVES"] = str(os.getppid())
    os.chdir(wanted.folder)
    extra = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    tempfile.tempdir = None  # that of this environment
    sys.executable = executable  # so that a batch's jobs come this way too
    import numpy as np

    np.random.seed()  # as a new interpreter does; Python's own generator sees to itself
    for file in (Path(entry, "sitecustomize.py") for entry in extra):
        if file.is_file():
            exec(compile(file.read_text(), file, "exec"), {"__name__": "sitecustomize"})
    if wanted.arguments[0] == "-c":
        sys.argv, sys.path[:] = ["-c", *wanted.arguments[2:]], ["", *extra, *path]
        exec(compile(wanted.arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:] = wanted.arguments[1:], [os.getcwd(), *extra, *path]
        runpy.run_module(wanted.arguments[1], run_name="__main__", alter_sys=True)


def run(wanted: Wanted, path: list[str], executable: str) -> int:
    """Run it; the exit status, as an interpreter makes it of what a program ends with."""
    try:
        become(wanted, path, executable)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 (as an interpreter does)
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    executable, path = sys.argv[2], sys.path[1:]
    import topotrain

    for found in pkgutil.walk_packages(topotrain.__path__, "topotrain."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for name in ALSO:
        importlib.import_module(name)
    gc.freeze()
    wanted = serve(listener)
    if wanted is None:
        return
    status = run(wanted, path, executable)
    # As an interpreter ends, save for taking apart its six thousand modules, which takes longer than many a command.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
