"""The run that many others are children of: a new one, that of ``mlflow run``, or an earlier one that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from topotrain.fields import TAG_CONTINUED_BY, TAG_RESUMED_FROM
from topotrain.invocation import adopted_run
from topotrain.tracking.lease import Lease
from topotrain.tracking.opening import hold_run, open_run, reopen_run
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import Store


@dataclass(frozen=True)
class Parent:
    """What the run is to be.

    Attributes:
        experiment: its name; an adopted run stays in the experiment it was made in.
        command: the topotrain command.
        run_name: by default ``default_name``.
        default_name: what an adopted run that the user named is not called.
        tags: that an earlier run of the same work is found by.
    """

    experiment: str
    command: str
    run_name: str | None
    default_name: str
    tags: Mapping[str, str]


@contextmanager
def held(store: Store, earlier: RunRecord | None) -> Iterator[Lease | None]:
    """While an earlier run is looked at, no other process goes on with it; the lease is a recorder's afterwards."""
    lease = hold_run(store, earlier.run_id) if earlier is not None else None
    try:
        yield lease
    except BaseException:
        if lease is not None:
            lease.release()
        raise


def open_parent(store: Store, parent: Parent, earlier: RunRecord | None, lease: Lease | None) -> Recorder:
    """The earlier run again, else that of ``mlflow run``, else a new one."""
    tags = dict(parent.tags)
    if earlier is not None and lease is not None:
        if adopted_run() in (None, earlier.run_id):
            return reopen_run(store, lease, tags)
        tags[TAG_RESUMED_FROM] = earlier.run_id
    recorder = open_run(
        store,
        parent.experiment,
        command=parent.command,
        run_name=parent.run_name,
        default_name=parent.default_name,
        tags={**provenance_tags(), **tags},
    )
    if earlier is not None:
        store.runs.set_tag(earlier.run_id, TAG_CONTINUED_BY, recorder.run_id)
    if lease is not None:
        lease.release()
    return recorder
