"""A run that makes one model version, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from topotrain.errors import UndeliveredError
from topotrain.invocation import sync_advice
from topotrain.tracking.opening import open_run
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import NewVersion, Recorder
from topotrain.tracking.store import Store


@contextmanager
def version_run(
    store: Store,
    experiment: str,
    *,
    command: str,
    run_name: str | None,
    default_name: str,
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
) -> Iterator[Recorder]:
    """Open the run, and end it as what is done with it ends.

    Args:
        store: where it is recorded.
        experiment: its name.
        command: the topotrain command.
        run_name: as the user called it.
        default_name: what it is called otherwise.
        tags: beside those that say where the code is from.
        parent_run_id: of a run that it is part of.

    Raises:
        TrackingError: the store can't be used.
    """
    recorder = open_run(
        store,
        experiment,
        command=command,
        run_name=run_name,
        default_name=default_name,
        tags={**provenance_tags(), **tags},
        parent_run_id=parent_run_id,
    )
    try:
        yield recorder
        recorder.flush()
        recorder.end("FINISHED")
    except BaseException as error:
        recorder.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    finally:
        recorder.close()


def uri_of(version: NewVersion, name: str, recorder: Recorder) -> str:
    """``models:/NAME/VERSION`` of what a run made, once it is closed.

    Raises:
        UndeliveredError: the server does not have all of it yet.
    """
    if recorder.journal is not None or version.number is None:
        journal = recorder.journal or Path()
        raise UndeliveredError(journal, sync_advice(journal))
    return f"models:/{name}/{version.number}"
