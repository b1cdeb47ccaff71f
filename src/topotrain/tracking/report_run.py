"""Reports that ``mlflow run`` started: their run keeps what they printed."""

from __future__ import annotations

from topotrain.fields import TAG_COMMAND
from topotrain.tracking.store import open_store


def record_report(uri: str, run_id: str, command: str, text: str, artifact: str) -> None:
    """Tag the run that ``mlflow run`` made for a report, and keep what was printed.

    Args:
        uri: of the tracking store.
        run_id: that run's id.
        command: the topotrain command; runs so tagged are no training runs.
        text: what was printed.
        artifact: file name to keep it under.
    """
    client = open_store(uri)
    client.set_tag(run_id, TAG_COMMAND, command)
    client.log_text(run_id, text, artifact)
