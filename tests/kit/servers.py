"""MLflow servers on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from kit.waiting import PATIENCE, wait_for


class Server:
    """A server on loopback that keeps artifacts itself; it can be stopped and started again at the same address."""

    def __init__(self, store_uri: str, artifacts: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.store_uri, self.artifacts, self.log = store_uri, artifacts, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store_uri, "--workers", "1"]
        command += ["--artifacts-destination", str(self.artifacts), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, self.log.read_text, every=0.2)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            urllib.request.urlopen(f"{self.address}/health", timeout=PATIENCE).read()
        except OSError:
            return False
        return True

    def send(self, signum: int) -> None:
        """Send a signal to all of its processes: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signum)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signum)
            self._process.wait(PATIENCE)
            self._process = None
