"""Delivering journals that a run left behind: later, by another process, from another machine that has the files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from topotrain.credentials import MASK, mask_uri
from topotrain.errors import OutageError, TrackingError
from topotrain.fields import TAG_COMMAND, TAG_OFFLINE_ID
from topotrain.invocation import environment_uri
from topotrain.tracking.address import resolve_tracking_uri
from topotrain.tracking.delivery import Delivery
from topotrain.tracking.entries import Origin
from topotrain.tracking.heartbeat import claims, lives
from topotrain.tracking.journal import Journal, clear_hollow, given_up, journal_folders, origin_of, remove_journal
from topotrain.tracking.lease import ASK_SECONDS, HeldError, Lease, lock_here
from topotrain.tracking.outages import asking
from topotrain.tracking.records import RunRecord
from topotrain.tracking.runs import LATEST
from topotrain.tracking.shipping import Shipper
from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class Delivered:
    """What became of a journal.

    Attributes:
        run_id: of the run, as the server knows it.
        run_name: its name.
        uri: of the store.
        records: how many were delivered.
        refused: what the server refused for good.
        superseded: whether nothing was delivered, since another process has gone on with the run.
    """

    run_id: str
    run_name: str
    uri: str
    records: int
    refused: tuple[str, ...] = ()
    superseded: bool = False


@dataclass(frozen=True)
class Left:
    """A journal on this machine.

    Attributes:
        folder: of the journal.
        run_id: of the run; where ``offline``, an id that stands for it.
        run_name: its name.
        uri: of the store it is for.
        offline: whether no server knows the run.
        waiting: records that are not delivered.
        under_way: whether a process of this machine still writes it.
    """

    folder: Path
    run_id: str
    run_name: str
    uri: str
    offline: bool
    waiting: int
    under_way: bool


def journals() -> list[Left]:
    """The journals of this machine that can be read, the oldest first."""
    clear_hollow()
    found = []
    for folder in journal_folders():
        try:
            journal, origin = Journal.open(folder)
            waiting = len(journal.new())
            journal.close()
        except TrackingError as error:
            log.warning("%s", error)
            continue
        try:
            lock = lock_here(origin.run_id)
        except TrackingError:
            under_way = True
        else:
            under_way = False
            if lock is not None:
                lock.release()
        found.append(Left(folder, origin.run_id, origin.run_name, origin.uri, origin.offline, waiting, under_way))
    return found


def deliver(folder: Path, tracking_uri: str | None = None) -> Delivered:
    """Deliver a journal to the server and remove it.

    Done twice, or cut off and done again, it leaves what it leaves when done once.

    Args:
        folder: of the journal.
        tracking_uri: of the store; by default the one that the run was for.

    Raises:
        OutageError: the store does not answer; what is delivered already is noted in the journal.
        TrackingError: no journal, a damaged one, one that is still written, or a store that can't be used.
    """
    origin = origin_of(folder)
    with _alone(origin):
        store = Store.open(_uri(origin, tracking_uri), create=origin.offline)
        with asking(store.uri):
            lease = _lease(store, origin, over=given_up(folder))
            if lease is None:
                remove_journal(folder)
                return Delivered(origin.run_id, origin.run_name, store.uri, 0, superseded=True)
            try:
                return _deliver(Journal.open(folder)[0], origin, store, lease)
            finally:
                lease.release()


def deliver_first(store: Store, run: str, *, force: bool = False) -> None:
    """Before a run goes on: deliver what its earlier processes left on this machine.

    Args:
        store: that the run is on.
        run: as the user wrote it; with ``latest``, all that are for this store.
        force: go on without what can't be delivered, since another process seems to record it.

    Raises:
        OutageError: the store does not answer.
        HeldError: another process records the run.
    """
    for folder in journal_folders():
        try:
            origin = origin_of(folder)
            if origin.uri != mask_uri(store.uri) or not _is_of(store, origin, run):
                continue
            done = deliver(folder, store.uri)
            if not done.superseded:
                log.info("delivered %d records of run %s, left in %s", done.records, done.run_id, folder)
        except OutageError:
            raise
        except HeldError as error:
            if run != LATEST and not force:  # that process may be gone in a moment, and its journal not be delivered
                raise
            log.debug("%s", error)
        except TrackingError as error:
            if folder.is_dir():  # else another process has delivered it meanwhile
                log.warning("%s", error)


def _is_of(store: Store, origin: Origin, run: str) -> bool:
    """Whether a journal is of a run, as the user wrote it; one that no server knew has another id in its journal."""
    if run in (LATEST, origin.run_name) or origin.run_id.startswith(run):
        return True
    return origin.offline and any(made.run_id.startswith(run) for made in _made_for(store, origin))


def _uri(origin: Origin, asked: str | None) -> str:
    """The store of a journal, which keeps no password."""
    if MASK in origin.uri and not asked:
        variable = environment_uri()
        if variable is None or mask_uri(variable) != origin.uri:
            raise TrackingError(
                f"the journal is for {origin.uri}, whose password it does not keep",
                "the store's address",
                "give --tracking-uri, or set MLFLOW_TRACKING_URI",
            )
        asked = variable
    return resolve_tracking_uri(asked, origin.uri, log.info)


@contextmanager
def _alone(origin: Origin) -> Iterator[None]:
    """Of a run that no server knows, one process of this machine delivers; others' leases are on the server."""
    lock = lock_here(origin.run_id) if origin.offline else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lease(store: Store, origin: Origin, *, over: bool) -> Lease | None:
    """The lease of the journal's run, which is made where no server knows it; ``None``: another has gone on with it."""
    if origin.offline:
        return _lease_of_made(store, origin, over=over)
    run = store.runs.known(origin.run_id)
    if run is None or run.deleted:
        raise TrackingError(f"run {origin.run_id} is not on {mask_uri(store.uri)}", "the store that it was made on")
    return _lease_of(store, origin, run, over=over)


def _lease_of_made(store: Store, origin: Origin, *, over: bool) -> Lease | None:
    """That of the run that was made for a journal, or is made now; who made another just now takes that back."""
    while known := _made_for(store, origin):
        try:
            return _lease_of(store, origin, known[0], over=over)
        except MlflowException:
            run = store.runs.known(known[0].run_id)
            if run is not None and not run.deleted:
                raise
    return _made(store, origin)


def _lease_of(store: Store, origin: Origin, run: RunRecord, *, over: bool) -> Lease | None:
    if origin.writer not in claims(run):
        return None
    lease = Lease.take(store._client, run.run_id, over=origin.writer if over else None)
    if origin.writer in lease.after:
        return lease
    lease.release()  # another has delivered the journal, or a copy of it, meanwhile
    return None


def _made_for(store: Store, origin: Origin) -> list[RunRecord]:
    """Runs that were made for a journal: one, unless several processes make one just now; the one that counts first."""
    command = origin.tags.get(TAG_COMMAND, "")
    found = store.runs.tagged(TAG_OFFLINE_ID, origin.run_id, command)
    return sorted(found, key=lambda run: (origin.writer in claims(run), run.run_id))


def _made(store: Store, origin: Origin) -> Lease | None:
    """The lease of a run that is made for a journal.

    Copies of the journal may be delivered elsewhere at this moment. As with a lease (see ``lease``), each process
    writes first, a run, and reads afterwards; who sees another's gives way, save for the first by name, which waits
    for the others to withdraw.
    """
    client, writer = store._client, Lease.new_writer()
    asked = {**Lease.tags(writer, held=False, writes=False), **Lease.tags_of_one_gone(origin.writer)}
    made = client.create_run(
        store.runs.experiment_id(origin.experiment),
        start_time=origin.started,
        run_name=origin.run_name,
        tags={**origin.tags, TAG_OFFLINE_ID: origin.run_id, **asked},
    )
    run_id = str(made.info.run_id)
    while others := [run for run in _made_for(store, origin) if run.run_id != run_id]:
        if not all(run_id < run.run_id and _is_asked_for(run, origin) for run in others):
            client.delete_run(run_id)
            return _lease_of_made(store, origin, over=True)
        time.sleep(ASK_SECONDS)
    return Lease.take(client, run_id, over=origin.writer, writer=writer)


def _is_asked_for(run: RunRecord, origin: Origin) -> bool:
    """Whether a process has made a run for the journal, and looks for others just now."""
    signs = {writer: sign for writer, sign in claims(run).items() if writer != origin.writer}
    return any(lives(sign) for sign in signs.values()) and not any(sign.get("held") for sign in signs.values())


def _deliver(journal: Journal, origin: Origin, store: Store, lease: Lease) -> Delivered:
    run = store.runs.get(lease.run_id)
    delivery = Delivery(
        *(store._client, run, journal),
        stand_in=origin.run_id if origin.offline else None,
        again=True,
    )
    shipper = Shipper(journal, delivery, run.artifact_uri, store.uri, lambda _: store.check_there())
    try:
        records = shipper.deliver_all()
    except BaseException as error:
        journal.close()
        if isinstance(error, Exception) and (told := shipper.told(error)):
            raise told from None
        raise
    lease.withdraw(origin.writer)
    journal.discard()
    refused = tuple(str(error) for error in shipper.refusals)
    return Delivered(run.run_id, run.name, store.uri, records, refused)
