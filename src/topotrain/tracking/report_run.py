"""Reports that ``mlflow run`` started: their run keeps what they printed."""

from __future__ import annotations

import os

from topotrain.fields import TAG_COMMAND
from topotrain.tracking.store import open_store


def record_report(uri: str, command: str, text: str, artifact: str) -> None:
    """Tag the run that ``mlflow run`` made for a report, and keep what was printed; otherwise do nothing.

    Args:
        uri: of the tracking store.
        command: the topotrain command; runs so tagged are no training runs.
        text: what was printed.
        artifact: file name to keep it under.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        client = open_store(uri)
        client.set_tag(run_id, TAG_COMMAND, command)
        client.log_text(run_id, text, artifact)
