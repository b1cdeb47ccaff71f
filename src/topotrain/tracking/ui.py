"""MLflow's web page on the current store."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from topotrain.credentials import mask_uri
from topotrain.errors import TrackingError
from topotrain.tracking.address import artifact_root, is_server, page, resolve_tracking_uri
from topotrain.tracking.runs import LATEST
from topotrain.tracking.store import Store


def serve_page(tracking_uri: str | None, host: str, port: int, say: Callable[[str], None]) -> None:
    """Become the server of the page, until interrupted; for a store that is a server, say where its page is.

    Args:
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        host: to listen on.
        port: to listen on.
        say: takes lines for the user.

    Raises:
        TrackingError: the store can't be used, or the port is taken.
    """
    uri = resolve_tracking_uri(tracking_uri, None, say)
    if is_server(uri):
        say(f"this store is a server; its page is {mask_uri(uri).rstrip('/')}/{page()}")
        return
    store, experiment = Store.open(uri), ""
    with suppress(TrackingError):  # there is no run yet
        experiment = store.runs.find(LATEST).experiment_id
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TrackingError(
                f"{host}:{port} can't be listened on ({error.strerror})", "a free port", "give --port"
            ) from None
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    if root := artifact_root(uri):
        command += ["--default-artifact-root", root]
    say(f"opening http://{host}:{port}/{page(experiment)} on {mask_uri(uri)} (Ctrl-C ends it)")
    # Job execution starts a second fleet of processes that only generative-AI features use.
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": uri,  # rather than as an option, which others can read
    }
    # This process becomes the server, so that a signal ends the server and leaves no orphan.
    os.execve(sys.executable, command, environment)  # noqa: S606
