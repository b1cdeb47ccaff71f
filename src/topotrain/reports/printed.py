"""What a report printed, kept by the run that ``mlflow run`` made for it."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("topotrain")


def keep_report(command: str, text: str, artifact: str, tracking_uri: str | None) -> None:
    """Keep what a command printed, under ``mlflow run``; otherwise do nothing.

    Args:
        command: the topotrain command.
        text: what it printed.
        artifact: file name to keep it under.
        tracking_uri: of the command line.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    from topotrain.text import one_line
    from topotrain.tracking.report_run import record_report
    from topotrain.tracking.store import resolve_tracking_uri

    try:
        record_report(resolve_tracking_uri(tracking_uri or None, None, log.info), run_id, command, text, artifact)
    except Exception as error:  # noqa: BLE001 (what was printed is printed; keeping it is a courtesy)
        log.warning("what was printed could not be kept with the run (%s)", one_line(error))
