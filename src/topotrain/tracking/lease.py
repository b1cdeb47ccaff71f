"""One writer at a time: who records a run holds its lease, and two can't.

MLflow has no compare-and-set, but what is written is seen by whoever reads later. Each process that wants a run writes
a tag of its own first and reads all of them afterwards. Of two, at least the one that reads last sees both, and who
sees another gives way: so two never go on, whatever order the server took them in. Who is first among several that only
ask (by name) waits for the others to withdraw, so that one of them does go on.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from topotrain.errors import TrackingError
from topotrain.fields import TAG_HEARTBEAT, TAG_LEASE
from topotrain.tracking.heartbeat import Heartbeat, claims, is_alive, lives, sign_of_life
from topotrain.tracking.journal import state_dir
from topotrain.tracking.records import RunRecord
from topotrain.tracking.runs import run_record

log = logging.getLogger("topotrain")
RELEASES = 3  # attempts
OLD_SECONDS = 60 * 86_400
ASK_SECONDS = 0.2  # between two looks at whether those that only ask have withdrawn
FREE = "a run that ended or was cut off"
WAIT = "wait for it or stop it, or give --force if no process works on it"


class HeldError(TrackingError):
    """Another process records the run, or is about to."""


class Lease:
    """The right to record a run, renewed every 30 s; get one with ``take``, or by making the run with ``Lease.tags``.

    Args:
        client: of the store.
        run_id: the run.
        writer: of the process that records it, unlike any other's.
        lock: of this machine, held as long as the lease.

    Attributes:
        after: the writers that held it before and are no more; each may have left a journal somewhere.
        first: whether the run is new, so that nobody recorded anything of it before.
    """

    def __init__(self, client: MlflowClient, run_id: str, writer: str, lock: FileLock | None) -> None:
        self._client, self.run_id, self.writer, self._lock = client, run_id, writer, lock
        self.after: set[str] = set()
        self.first = False
        self._writes = False  # whether this process keeps a journal, which somebody may have to deliver later
        self._heartbeat = Heartbeat(self._renew)

    @staticmethod
    def new_writer() -> str:
        """A name unlike any other's."""
        return uuid4().hex[:12]

    @staticmethod
    def tags(writer: str, *, held: bool = True, writes: bool = True) -> dict[str, str]:
        """What a run that is made now carries from its first moment on.

        Args:
            writer: who makes it.
            held: whether nobody else can hold it; else the writer only asks for it.
            writes: whether the writer keeps a journal.
        """
        sign = sign_of_life()
        claim = {TAG_LEASE + writer: json.dumps({**sign, "held": held, "writes": writes})}
        return {TAG_HEARTBEAT: json.dumps({**sign, "writer": writer}), **claim} if held else claim

    @staticmethod
    def tags_of_one_gone(writer: str) -> dict[str, str]:
        """What stands for a writer that is no more, and whose journal is not delivered."""
        return {TAG_LEASE + writer: json.dumps({"held": True, "writes": True})}

    @classmethod
    def of_new_run(cls, client: MlflowClient, run_id: str, writer: str) -> Lease:
        """That of a run that was made with ``tags``."""
        lease = cls(client, run_id, writer, lock_here(run_id))
        lease._writes = lease.first = True
        lease._heartbeat.start()
        return lease

    @classmethod
    def take(
        cls,
        client: MlflowClient,
        run_id: str,
        *,
        force: bool = False,
        over: str | None = None,
        writer: str | None = None,
    ) -> Lease:
        """Take the lease of a run. Tags of writers that are no more, and may have left a journal, stay.

        Args:
            client: of the store.
            run_id: the run.
            force: take it even from one that seems alive.
            over: a writer that is known to be no more, whatever its process does.
            writer: by default a new one.

        Raises:
            HeldError: another process holds it or is taking it.
            MlflowException: the store does not answer.
        """
        lease = cls(client, run_id, writer or cls.new_writer(), lock_here(run_id, force=force))
        try:
            lease._claim(held=False)
            others = lease._outlast(force=force, over=over)
            lease.after = {other for other, sign in others.items() if force or sign.get("writes", True)}
            lease._claim(held=True)
            for other in others.keys() - lease.after:
                if not lives(others[other]):  # killed while it only asked, or delivered what another wrote
                    lease.withdraw(other)
            lease._heartbeat.start()
        except BaseException:
            lease.release()
            raise
        return lease

    @property
    def lost(self) -> bool:
        """Whether another process has taken it over, as far as is known."""
        return self._heartbeat.lost

    def check(self) -> bool:
        """Renew it; whether it is still held.

        Raises:
            MlflowException: the store does not answer.
        """
        return not self.lost and self._renew()

    def take_over(self) -> None:
        """Record from now on, in the place of the writers before: what they have not delivered is not needed."""
        self._writes = True
        self._claim(held=True)
        for other in self.after:
            self.withdraw(other)

    def release(self) -> bool:
        """Give it up. Where the store does not answer, others see by other signs that this process is no more.

        Returns:
            Whether the store has taken note.
        """
        self._heartbeat.stop()
        try:
            for _ in range(RELEASES):
                with suppress(Exception):
                    if self._writes:
                        self._withdraw_late()
                    self.withdraw(self.writer)
                    return True
            return False
        finally:
            self._unlock()

    def leave(self) -> None:
        """Do no more with the run, whose store does not answer: the tag stays, for who delivers later."""
        self._heartbeat.stop(wait=False)
        self._unlock()

    def withdraw(self, writer: str) -> None:
        """Remove the tag of a writer of the run, if it is there."""
        try:
            self._client.delete_tag(self.run_id, TAG_LEASE + writer)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def _withdraw_late(self) -> None:
        """Remove claims that a server wrote after their process was killed, and its run taken over."""
        for other, sign in claims(run_record(self._client.get_run(self.run_id))).items():
            if other != self.writer and not lives(sign):
                self.withdraw(other)

    def _renew(self) -> bool:
        """Renew the tag, unless it is gone or a later holder is there, who may have come while this wrote its own."""
        signs = claims(run_record(self._client.get_run(self.run_id)))
        later = signs.keys() - {self.writer} - self.after
        if self.writer not in signs or any(signs[other].get("held") and lives(signs[other]) for other in later):
            self.withdraw(self.writer)
            return False
        self._claim(held=True)
        return True

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _claim(self, *, held: bool) -> None:
        tags = self.tags(self.writer, held=held, writes=self._writes)
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _outlast(self, *, force: bool, over: str | None) -> dict[str, Mapping[str, Any]]:
        """Wait until no other asks for the lease; returns the last signs of life of those that are no more.

        Raises:
            HeldError: another holds it, or asked first.
        """
        while True:
            run = run_record(self._client.get_run(self.run_id))
            others = {writer: sign for writer, sign in claims(run).items() if writer != self.writer}
            alive = {writer: sign for writer, sign in others.items() if writer != over and lives(sign)}
            if force:
                return others
            if not alive:
                beat = run.tags.get(TAG_HEARTBEAT)
                if beat and '"writer"' not in beat and is_alive(run):  # by a topotrain that knew no lease
                    raise _taken(run, None)
                return others
            holder = next((sign for sign in alive.values() if sign.get("held")), None)
            if holder is not None or min(alive) < self.writer:
                raise _taken(run, holder or alive[min(alive)])
            time.sleep(ASK_SECONDS)


def lock_here(run_id: str, *, force: bool = False) -> FileLock | None:
    """Lock a run for this process among those of this machine; ``None`` where no lock can be written.

    Raises:
        HeldError: another process has it.
    """
    path = state_dir() / "locks" / f"{run_id}.lock"
    lock = FileLock(path, blocking=False, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_old(path.parent)
        lock.acquire()
    except Timeout:
        if force:
            return None
        raise HeldError(f"run {run_id} is still being recorded on this machine", FREE, WAIT) from None
    except OSError as error:
        log.debug("no lock: %s", error)
        return None
    return lock


@lru_cache(maxsize=8)
def _clear_old(folder: Path) -> None:
    """Remove locks of runs of long ago; once in a process. Whoever still holds one has the lease on the server."""
    for path in folder.glob("*.lock"):
        if time.time() - path.stat().st_mtime > OLD_SECONDS:
            path.unlink(missing_ok=True)


def _taken(run: RunRecord, holder: Mapping[str, Any] | None) -> HeldError:
    by = f" by process {holder.get('pid')} on {holder.get('host')}" if holder else ""
    return HeldError(f"run {run.run_id} ({run.name}) is still being trained{by}", FREE, WAIT)
