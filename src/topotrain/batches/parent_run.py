"""The run that many others are children of: opened, closed however they end, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from topotrain.batches.scheduler import answered
from topotrain.errors import EXIT_UNDELIVERED, InterruptedRunError
from topotrain.fields import INTERRUPTED_NOTE, TAG_CONTINUED_BY, TAG_RESUMED_FROM
from topotrain.invocation import adopted_run
from topotrain.signals import release
from topotrain.tracking.journal import journals_dir
from topotrain.tracking.lease import Lease
from topotrain.tracking.opening import hold_run, open_run, reopen_run
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.records import RunRecord
from topotrain.tracking.store import Store
from topotrain.tracking.versions import CANDIDATE


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


@dataclass(frozen=True, kw_only=True)
class ParentResult:
    """What a run with children left.

    Attributes:
        run_id: of the run.
        run_name: its name.
        tracking_uri: of the store it is on.
        candidates: {registered model: version that is the candidate now}.
        interrupted: whether a signal ended it.
        journal: folder that holds what the server does not have yet of the run itself.
    """

    run_id: str
    run_name: str
    tracking_uri: str = field(repr=False)  # it may hold a password
    candidates: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    journal: Path | None = None

    @property
    def child_statuses(self) -> list[int]:
        """Exit statuses of the children's processes."""
        raise NotImplementedError

    @property
    def undelivered(self) -> Path | None:
        """Folder that holds what the server does not have yet, of the run itself or of its children."""
        return journals_dir() if EXIT_UNDELIVERED in self.child_statuses else self.journal


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


@contextmanager
def closing(recorder: Recorder, interrupted: Callable[[], None]) -> Iterator[None]:
    """While the run has children at work; at the end of this it is closed, whoever ends it.

    Args:
        recorder: of the run.
        interrupted: records what there is where a signal ends it.
    """
    try:
        yield
    except InterruptedRunError as stop:
        release(stop)
        interrupted()
        recorder.end("KILLED", f"{INTERRUPTED_NOTE} {stop.signum}")
        raise
    except BaseException as error:
        recorder.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    finally:
        recorder.close(0)


def point_candidates(recorder: Recorder, numbers: Mapping[str, str], *, take: bool) -> dict[str, str]:
    """Move the alias ``candidate`` of registered models, as far as a version is better, and ask who has it then.

    Args:
        recorder: of the run.
        numbers: of the version that each model's is to be.
        take: whether it becomes the candidate in any case.
    """
    for name, number in numbers.items():
        recorder.alias(name, CANDIDATE, number, if_better=not take)

    def holders() -> dict[str, str]:
        recorder.flush()
        versions = recorder.store.versions
        return {name: it.number for name in numbers if (it := versions.with_alias(name, CANDIDATE)) is not None}

    return answered(holders) if numbers else {}
