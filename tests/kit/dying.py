"""Recorders whose process is gone, though the test that plays it goes on."""

from __future__ import annotations

import json
import shutil
from typing import Any

from kit.recorded import mlflow_client
from topotrain.fields import TAG_HEARTBEAT, TAG_LEASE
from topotrain.tracking.recorder import Recorder

DEAD = {"host": "gone", "pid": 1, "process_start": 0, "time": "2020-01-01T00:00:00+00:00"}


def ended(recorder: Recorder, status: Any = "FINISHED", note: str = "") -> None:
    """End a run and give it up."""
    if not recorder._closed:
        recorder.end(status, note)
        recorder.close()


def die(recorder: Recorder, *, delivered: bool = True, with_disk: bool = False) -> None:
    """What a SIGKILL leaves: nothing more is delivered, and whoever looks sees a process that is no more.

    Args:
        recorder: of the run.
        delivered: whether the server has what was recorded so far.
        with_disk: whether the machine's disk, and the journal on it, is gone as well.
    """
    shipper, online = recorder._shipper, recorder._online
    assert shipper is not None
    assert online is not None
    if delivered:
        assert shipper.flush(30)
    shipper.stop()
    shipper._thread.join(30)
    online.lease.leave()
    recorder._closed = recorder._ended = True
    recorder._journal.close()
    if with_disk:
        shutil.rmtree(recorder._journal.folder)
    as_dead(recorder.uri, recorder.run_id)


def as_dead(uri: str, run_id: str) -> None:
    """Make whoever holds a run a process that is no more: that which plays it lives."""
    client = mlflow_client(uri)
    for name in client.get_run(run_id).data.tags:
        if name.startswith(TAG_LEASE):
            client.set_tag(run_id, name, json.dumps({**DEAD, "held": True}))
    client.set_tag(run_id, TAG_HEARTBEAT, json.dumps({**DEAD, "writer": "gone"}))
