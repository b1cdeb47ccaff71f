"""Around the start of Ray: an address that answers, its variables, and what it would take from this process."""

from __future__ import annotations

import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

from topotrain.errors import ConfigError

ANSWER_SECONDS = 20.0  # that a cluster has to take this process in
REACH_SECONDS = 5.0
ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):([0-9]{1,5})")
# Ray ends what a worker started at once, by SIGKILL. Ours close their run when they see that the worker is gone.
CHILDREN_LIVE = {"RAY_kill_child_processes_on_worker_exit": "false"}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='CRITICAL'); ray.shutdown()"


def check_address(address: str) -> None:
    """See within bounds that a cluster answers: Ray itself would try for minutes, and then end this process.

    Args:
        address: HOST:PORT, or ``auto``.

    Raises:
        ConfigError: it does not, or refuses this process.
    """
    match = ADDRESS.fullmatch(address)
    if address != "auto" and match is None:
        raise ConfigError(f"address {address!r} is none of a Ray cluster", "HOST:PORT of its head, or auto")
    silent = f"the Ray cluster at {address} does not answer"
    start = "start it, or check the address"
    if match is not None:
        try:
            socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"{silent} ({error})", "the head of a cluster", start) from None
    try:
        done = subprocess.run(  # noqa: S603 (our own words)
            [sys.executable, "-c", PROBE, address], capture_output=True, timeout=ANSWER_SECONDS, check=False
        )
        said, late = done.stderr, False
    except subprocess.TimeoutExpired as error:
        said, late = error.stderr or b"", True
    text = said.decode(errors="replace")
    if "Unauthenticated" in text or "AuthToken" in text:
        raise ConfigError(
            f"the Ray cluster at {address} refuses this process", "its token", "set RAY_AUTH_MODE=token, RAY_AUTH_TOKEN"
        )
    if late:
        raise ConfigError(f"{silent} within {ANSWER_SECONDS:.0f} s", "the head of a cluster", start)
    if done.returncode:
        last = ([line.strip() for line in text.splitlines() if line.strip()] or [""])[-1]
        mismatch = re.search(r"Version mismatch.*?(?=This process)(.*)", text, re.DOTALL)
        why = " ".join(mismatch[0].split()) if mismatch else last
        raise ConfigError(
            f"the Ray cluster at {address} can't be used ({why})",
            "a cluster of the same versions, of which this machine is a node",
        )


@cache
def own_token() -> Mapping[str, str]:
    """So that nobody else on this machine gives work to a Ray that is started here.

    Ray asks for it when it is imported, and keeps it as long as the process lives.
    """
    return {} if "ray" in sys.modules else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class _WithoutRay:
    """Standard output, less what threads of Ray print: it is for documents."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def apart_from_ray() -> Iterator[None]:
    """Keep standard output free of what Ray says."""
    stream = sys.stdout
    sys.stdout = _WithoutRay(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = stream


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep our answers to signals, which Ray replaces when it is started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
