"""One run, one recorder: everything a run leaves on the tracking server goes through here."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from topotrain.credentials import mask_credentials, mask_values
from topotrain.disk import file_fault, unwritable
from topotrain.errors import TrackingError
from topotrain.fields import CHECKPOINT_DIR, TAG_STATUS_NOTE
from topotrain.scratch import temporary_fault
from topotrain.text import as_json
from topotrain.tracking.address import is_server, web_address
from topotrain.tracking.delivery import Delivery
from topotrain.tracking.entries import (
    Alias,
    DatasetFacts,
    End,
    Entry,
    File,
    Inputs,
    Origin,
    Params,
    Point,
    Points,
    Removal,
    Status,
    Tags,
    Version,
    VersionTags,
)
from topotrain.tracking.journal import Journal, JournalError
from topotrain.tracking.lease import Lease
from topotrain.tracking.logged_models import ModelFiles, model_title
from topotrain.tracking.notes import note_of
from topotrain.tracking.records import RunRecord
from topotrain.tracking.shipping import SECONDS_APART, Shipper
from topotrain.tracking.store import Store

__all__ = ["DatasetFacts", "NewVersion", "Recorder", "Status"]
log = logging.getLogger("topotrain")

MAX_PARAMS_PER_CALL = 90
MAX_TAG_LENGTH: int = MAX_TAG_VAL_LENGTH
CUT = " ... (cut)"
FLUSH_SECONDS = 30.0
# To wait for a sign of progress where somebody wants to go on, or to stop: of a server that is known to be away, of one
# that may be (a call takes half a minute to fail where nobody answers), and of a database on this machine.
AWAY_SECONDS, SILENT_SECONDS, STOP_SECONDS = 0.5, 1.1, 10.0


@dataclass(frozen=True)
class Online:
    """What a recorder needs of a run that a server knows.

    Attributes:
        store: where it is recorded.
        lease: of the run, held by this process.
        run: as the server knows it.
    """

    store: Store
    lease: Lease
    run: RunRecord


class NewVersion:
    """A version that was recorded.

    Attributes:
        title: of its logged model.
    """

    def __init__(self, title: str, numbers: Callable[[], Mapping[str, str]]) -> None:
        self.title, self._numbers = title, numbers

    @property
    def number(self) -> str | None:
        """Its number, as text, once the server has given it one."""
        return self._numbers().get(self.title)


class Recorder:
    """Records one run: parameters, metrics, tags, artifacts, data sets, model versions, status.

    Everything is written to a journal on this machine first, and brought to the server by a thread: whoever records
    waits for the disk alone, and an outage of the server costs nothing. Open one with ``topotrain.tracking.opening``;
    end it with ``close``.

    Every method raises ``JournalError`` where the journal can't be written, and ``TrackingError`` for what the server
    refused since the last call. Credentials in texts (parameters, tags, text and JSON artifacts) are masked.

    Args:
        journal: of the run; its origin is written.
        origin: of the journal.
        online: ``None`` for a run that no server knows yet.

    Attributes:
        notes: the user's own words on the run's page, above its summary.
    """

    def __init__(self, journal: Journal, origin: Origin, online: Online | None) -> None:
        self._journal, self.origin, self._online = journal, origin, online
        self.run_id, self.run_name, self.uri = origin.run_id, origin.run_name, origin.uri
        self.notes = ""
        self._failed: JournalError | None = None
        self._ended = self._closed = False
        self._shipper: Shipper | None = None
        if online is not None:
            self.uri = online.store.uri
            self._delivery = Delivery(*(online.store._client, online.run, journal), adopt=not online.lease.first)
            self._shipper = Shipper(journal, self._delivery, online.run.artifact_uri, self.uri, self._ready)
            self._shipper.start()

    @property
    def store(self) -> Store:
        """Where it is recorded.

        Raises:
            TrackingError: no server knows the run yet.
        """
        if self._online is None:
            raise TrackingError("there is no tracking store without a server", "a run that is not --offline")
        return self._online.store

    @property
    def experiment_id(self) -> str:
        """Of its experiment; empty where no server knows the run yet."""
        return self._online.run.experiment_id if self._online else ""

    @property
    def page(self) -> str | None:
        """Address of the run's page, where the store is a server."""
        return web_address(self.uri, self.experiment_id, self.run_id) if self._online else None

    @property
    def journal(self) -> Path | None:
        """The journal's folder, where it holds what is not delivered."""
        return None if self.complete else self._journal.folder

    @property
    def complete(self) -> bool:
        """Whether everything was delivered."""
        return self._shipper is not None and self._shipper.complete

    def params(self, values: Mapping[str, str], see: str) -> None:
        """Log parameters; one too long for the server says which artifact holds it.

        Args:
            values: by dotted name.
            see: artifact that holds the values in full.
        """
        values = mask_values(values, names=True)
        short = [(k, v if len(v) <= MAX_PARAM_VAL_LENGTH else f"(too long: see {see})") for k, v in values.items()]
        for start in range(0, len(short), MAX_PARAMS_PER_CALL):
            self._add(Params(values=dict(short[start : start + MAX_PARAMS_PER_CALL])))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log one point for each metric."""
        now = _now()
        points = [Point(key=key, value=_written(value), time=now, step=step) for key, value in values.items()]
        self._add(Points(points=points))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; one too long for the server is cut, and ends by saying so."""
        masked = mask_values(values, names=True)
        limit = MAX_TAG_LENGTH
        if masked:
            self._add(
                Tags(values={k: v if len(v) <= limit else v[: limit - len(CUT)] + CUT for k, v in masked.items()})
            )

    def summary(self, text: str) -> None:
        """What the run's page says of it, Markdown, below the user's own notes."""
        self.tags({MLFLOW_RUN_NOTE: note_of(self.notes, text)})

    def epoch(
        self, values: Mapping[str, float], step: int, tags: Mapping[str, str] | None = None, removed: Sequence[str] = ()
    ) -> None:
        """Log what an epoch leaves beside its checkpoints.

        Args:
            values: its metrics.
            step: its number.
            tags: to set.
            removed: artifacts to remove.
        """
        self.metrics(values, step)
        self.tags(tags or {})
        for artifact in removed:
            self.remove(artifact)

    def text(self, content: str, artifact: str) -> None:
        """Write a small text artifact."""
        self._add(lambda: File(kept=self._journal.keep_text(mask_credentials(content)), artifact=artifact))

    def json(self, content: Any, artifact: str) -> None:
        """Write a JSON artifact."""
        self.text(as_json(content), artifact)

    def file(self, local: Path, directory: str = "") -> None:
        """Write a file, as it is now, as an artifact under its own name, replacing one that is there.

        Whoever changes the file later must write a new one in its place.
        """
        artifact = f"{directory}/{local.name}" if directory else local.name
        self._add(lambda: File(kept=self._journal.keep(local), artifact=artifact))

    def checkpoint(self, local: Path) -> None:
        """Write a file of an epoch among the checkpoints."""
        self.file(local, CHECKPOINT_DIR)

    def remove(self, artifact: str) -> None:
        """Remove an artifact that this run wrote, where the store can."""
        self._add(Removal(artifact=artifact))

    def version(self, files: ModelFiles, name: str, *, title: str, step: int, tags: Mapping[str, str]) -> NewVersion:
        """Make a logged model of this run and register it as the next version.

        Args:
            files: what it is made of.
            name: of the registered model.
            title: of the logged model, for the page; no other of the run has it.
            step: epoch; MLflow links the run's metrics of that step to the model.
            tags: of the logged model and of the version.
        """
        title = model_title(title)

        def entry() -> Version:
            folder = self._journal.path("")
            try:
                folder = Path(mkdtemp(dir=folder, prefix="model-")) / "model"
                files.save(folder)
            except Exception as error:
                # MLflow says it in words of its own, and writes to the folder for temporary files as well.
                if file_fault(error) and (unwritable(folder) or not unwritable(Path(gettempdir()))):
                    raise self._journal.full(error) from None
                if told := temporary_fault(error):
                    raise told from None
                raise
            return Version(
                kept=self._journal.keep(folder), name=name, title=title, step=step, tags=dict(mask_values(tags))
            )

        self._add(entry)
        return NewVersion(title, lambda: self._delivery.numbers if self._shipper else {})

    def version_tags(self, name: str, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version that is registered already."""
        self._add(VersionTags(name=name, number=number, tags=dict(tags)))

    def alias(self, name: str, alias: str, version: NewVersion | str, *, if_better: bool = False) -> None:
        """Point an alias at a version.

        Args:
            name: of the registered model.
            alias: which.
            version: given by its number where it is registered already.
            if_better: leave the alias where it is unless this version is better on the same scale.
        """
        number, title = (version, None) if isinstance(version, str) else (None, version.title)
        self._add(Alias(name=name, alias=alias, number=number, title=title, if_better=if_better))

    def datasets(self, facts: Sequence[DatasetFacts]) -> None:
        """Log the run's inputs."""
        self._add(Inputs(datasets=list(facts)))

    def end(self, status: Status, note: str = "") -> None:
        """Say how the run ended; more may be recorded, of its models say.

        Args:
            status: how; under ``mlflow run`` the exit status of the process has the last word.
            note: why, for ``topotrain.status_note``.
        """
        if self._ended:  # it was interrupted afterwards
            return
        self._ended = True
        if note:
            self.tags({TAG_STATUS_NOTE: note})
        self._add(End(status=status, time=_now()))
        self._failed = None  # the journal takes records again, and how the run ended is among them

    def flush(self, patience: float = FLUSH_SECONDS, *, away: float | None = None) -> bool:
        """Wait until everything is delivered.

        Args:
            patience: seconds without progress after which this gives up.
            away: the same, where the server is known not to answer; by default as long.

        Returns:
            Whether it is.
        """
        if self._shipper is None:
            return False
        done = self._shipper.flush(patience, away)
        self._shipper.check()
        return done

    def check(self) -> None:
        """See that the server took everything that it was given.

        Raises:
            TrackingError: it refused something.
        """
        if self._shipper is not None:
            self._shipper.check()

    def close(self, patience: float = FLUSH_SECONDS) -> None:
        """Deliver what waits, and give the run up; what can't be delivered stays in the journal.

        Args:
            patience: seconds without progress after which this gives up; 0 waits no longer than whoever wants to stop.
        """
        if self._closed:
            return
        self._closed = True
        shipper, online = self._shipper, self._online
        if shipper is None or online is None:
            self._journal.give_up()
            self._journal.close()
            return
        if shipper.away and patience:
            log.info("waiting for the tracking server, %g s at most", patience)
        shipper.flush(patience or self._stopping_patience(), None if patience else AWAY_SECONDS)
        complete = shipper.complete
        shipper.stop(SECONDS_APART if complete else 0)
        if self._failed is not None and not shipper.away:
            self._end_directly(online)
        if complete and online.lease.release():  # else the journal stays, so that a later process gives the run up
            self._journal.discard()
            return
        self._journal.give_up()
        online.lease.leave()

    def _add(self, entry: Entry | Callable[[], Entry]) -> None:
        """Write an entry to the journal, made now if it is to be made.

        Raises:
            JournalError: it can't be written.
            TrackingError: the server refused an earlier one.
        """
        try:
            self._journal.append(entry() if callable(entry) else entry)
        except JournalError as error:
            self._failed = self._failed or error
            raise
        if self._shipper is not None:
            self._shipper.notify()
            if not self._ended:
                self._shipper.check()

    def _ready(self, after_outage: bool) -> None:
        """See that the store is there and the run still this process's.

        Raises:
            OutageError: the store is gone.
            TrackingError: another process has taken over the run.
        """
        online = self._online
        if online is None:
            return
        online.store.check_there()
        if online.lease.lost or (after_outage and not online.lease.check()):
            raise TrackingError(
                f"another process has taken over run {self.run_id}", "to be its only writer", "see: topotrain monitor"
            )

    def _stopping_patience(self) -> float:
        return SILENT_SECONDS if is_server(self.uri) else STOP_SECONDS

    def _end_directly(self, online: Online) -> None:
        """Where the journal could not take it: how a run ended matters even if the rest is lost."""
        with suppress(Exception):
            client = online.store._client
            client.set_tag(self.run_id, TAG_STATUS_NOTE, mask_credentials(str(self._failed))[:MAX_TAG_LENGTH])
            client.set_terminated(self.run_id, status="FAILED")


def _written(value: float) -> Any:
    """A number as JSON knows it, or its name."""
    return float(value) if math.isfinite(value) else repr(float(value))


def _now() -> int:
    return int(time.time() * 1000)
