"""``topotrain sync``: runs that the tracking server does not have yet."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from topotrain.cli.options import TRACKING_URI
from topotrain.cli.output import deliver, say
from topotrain.cli.startup import heavy_imports
from topotrain.errors import OutageError, TopotrainError, TrackingError, UndeliveredError
from topotrain.invocation import sync_advice


@click.command()
@click.argument("journal", required=False, default=None, metavar="[JOURNAL]")
@click.option("--all", "everything", is_flag=True, help="Every journal of this machine (the default).")
@click.option("--list", "listing", is_flag=True, help="Only show which there are.")
@TRACKING_URI
def sync(journal: str | None, everything: bool, listing: bool, tracking_uri: str | None) -> None:
    """Deliver what the tracking server does not have yet. Prints the ids of the runs.

    JOURNAL is the folder that a run named at its end, copied from another machine perhaps, or that run's id or name.

    \b
    topotrain sync
    topotrain sync --list
    topotrain sync ~/.local/state/topotrain/journals/1f0c9a2e77b3
    topotrain sync my_run --tracking-uri http://127.0.0.1:5000
    """
    if journal and everything:
        raise click.UsageError("JOURNAL and --all can't go together")
    with heavy_imports():
        from topotrain.scratch import clear_left
        from topotrain.tracking.sync import journals

    clear_left()
    if listing:
        deliver("\n".join(_table()))
        return
    if journal:
        _deliver(_meant(journal), tracking_uri)
        return
    left = journals()
    if not left:
        say("nothing to deliver: the tracking servers have everything")
    failed: list[TopotrainError] = []
    for one in left:
        if one.under_way:
            say(f"run {one.run_name} ({one.run_id}) is still being recorded; it delivers its journal itself")
            continue
        try:
            _deliver(one.folder, tracking_uri)
        except TopotrainError as error:
            failed.append(error)
    for told in failed[:-1]:
        say(str(told))
    if failed:
        raise failed[-1]  # which says itself


def _deliver(folder: Path, tracking_uri: str | None) -> None:
    from topotrain.credentials import mask_uri
    from topotrain.tracking.sync import deliver as deliver_journal

    try:
        done = deliver_journal(folder, tracking_uri)
    except OutageError as error:
        say(str(error))
        raise UndeliveredError(folder, sync_advice(folder)) from None
    for refused in done.refused:
        say(f"refused: {refused}")
    if done.superseded:
        say(f"run {done.run_name} ({done.run_id}) has been gone on with since: nothing of the journal is needed")
    else:
        say(f"delivered {done.records} records of run {done.run_name} ({done.run_id}) to {mask_uri(done.uri)}")
    click.echo(done.run_id)


def _meant(journal: str) -> Path:
    """The folder that is meant: a path, or a run's id or name.

    Raises:
        TrackingError: there is none, or several.
    """
    from topotrain.tracking.sync import journals

    if Path(journal).is_dir():
        return Path(journal).resolve()
    found = [one.folder for one in journals() if journal in (one.run_name, one.run_id, one.folder.name)]
    if len(found) != 1:
        what = f"{len(found)} journals" if found else "no journal"
        raise TrackingError(f"{shlex.quote(journal)} means {what} of this machine", "one", "see: topotrain sync --list")
    return found[0]


def _table() -> list[str]:
    from topotrain.text import aligned
    from topotrain.tracking.sync import journals

    rows = [
        [
            one.run_name,
            one.run_id,
            str(one.waiting),
            "still written" if one.under_way else "offline" if one.offline else "left",
            one.uri,
            str(one.folder),
        ]
        for one in journals()
    ]
    return aligned([["run", "run id", "records", "state", "for", "journal"], *rows])
