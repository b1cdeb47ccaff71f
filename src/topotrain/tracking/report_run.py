"""Reports that ``mlflow run`` started: their run keeps what they printed."""

from __future__ import annotations

import logging

from topotrain.credentials import mask_credentials
from topotrain.fields import TAG_COMMAND
from topotrain.invocation import adopted_run
from topotrain.text import one_line

log = logging.getLogger("topotrain")


def keep_report(command: str, text: str, artifact: str, tracking_uri: str | None) -> None:
    """Keep what a command printed, under ``mlflow run``; otherwise do nothing.

    Args:
        command: the topotrain command; runs so tagged are no training runs.
        text: what it printed.
        artifact: file name to keep it under.
        tracking_uri: of the command line.
    """
    run_id = adopted_run()
    if not run_id:
        return
    from topotrain.tracking.address import resolve_tracking_uri
    from topotrain.tracking.store import Store

    try:
        client = Store.open(resolve_tracking_uri(tracking_uri, None, log.info))._client
        client.set_tag(run_id, TAG_COMMAND, command)
        client.log_text(run_id, mask_credentials(text), artifact)
    except Exception as error:  # noqa: BLE001 (what was printed is printed; keeping it is a courtesy)
        log.warning("what was printed could not be kept with the run (%s)", one_line(error))
