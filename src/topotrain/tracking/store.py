"""One tracking store, opened from one URI: its runs, their artifacts, model versions, verdicts and batches."""

from __future__ import annotations

import logging
import os
from functools import cached_property
from pathlib import Path

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import read_mlflow_creds

from topotrain.credentials import mask_uri, remember_secret, remember_uri
from topotrain.disk import disk_fault
from topotrain.errors import OutageError, TrackingError
from topotrain.fields import STARTER
from topotrain.invocation import RETRIES_VARIABLE, answering_within, environment_uri, wait_at_most
from topotrain.text import did_you_mean, one_line
from topotrain.tracking.address import DATABASE_NAME, Say, database_path, is_server, resolve_tracking_uri
from topotrain.tracking.artifacts import Artifacts
from topotrain.tracking.batches import Batches
from topotrain.tracking.database import create_once, keep_statistics
from topotrain.tracking.file_digests import Verified, check_files
from topotrain.tracking.outages import ROOM, Asker, advice
from topotrain.tracking.runs import Runs
from topotrain.tracking.verdicts import Verdicts
from topotrain.tracking.versions import Versions

log = logging.getLogger("topotrain")
STARTER_DIR = Path(__file__).parents[1] / STARTER  # as a version's folder
CONNECT_SECONDS = 30.0  # that a server may take to answer at all, where no configuration says
CALL_SECONDS = 30  # that a call of a process that records may take
OFFLINE = ", or train without a server by --offline and deliver the run later by: topotrain sync"
RUNNING = ("a running MLflow server, or sqlite:///FILE", "start it, or give another --tracking-uri")


class Store(Asker):
    """A tracking store that answered when it was opened; open one with ``Store.open``."""

    def __init__(self, client: MlflowClient) -> None:
        super().__init__(client)
        self._file = _identity(database_path(self.uri))

    @classmethod
    def open(cls, uri: str, *, create: bool = True, patience: float | None = None) -> Store:
        """Open a store.

        Args:
            uri: of the store, absolute.
            create: whether a local database that does not exist yet is made.
            patience: for a process that records: seconds that a server may take to answer at all.

        Raises:
            OutageError: the server does not answer.
            TrackingError: the store is not there, or can't be used.
        """
        database = database_path(uri)
        if database is not None and not create and not database.exists():
            raise TrackingError(
                f"{database}: no such tracking store", "a store with runs", "train first, or give --tracking-uri"
            )
        settle_mlflow()
        remember_uri(uri)
        remember_secret(read_mlflow_creds().password)  # of the file ~/.mlflow/credentials, too
        try:
            if database is not None:
                create_once(database)
                keep_statistics(database)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            if patience is not None:
                wait_at_most(CALL_SECONDS)
            with answering_within(patience):
                client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=1)
        except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
            what = f"tracking store {mask_uri(uri)} can't be used ({one_line(error)})"
            if database is not None and (fault := disk_fault(error)):
                raise OutageError(f"tracking store {database} can't be used ({fault})", *ROOM) from None
            refused = advice(error)
            expected, do = refused or RUNNING
            without = OFFLINE if patience is not None and is_server(uri) else ""
            kind = OutageError if is_server(uri) and not refused else TrackingError
            raise kind(what, expected, do + without) from None
        return cls(client)

    def check_there(self) -> None:
        """See that a local database is still the file that was opened; one that was deleted could be written to.

        Raises:
            OutageError: it is gone, or another.
        """
        database = database_path(self.uri)
        if database is not None and _identity(database) != self._file:
            raise OutageError(f"{database} is gone", "the store that was opened", "bring it back")

    @cached_property
    def runs(self) -> Runs:
        """Its runs."""
        return Runs(self._client)

    @cached_property
    def artifacts(self) -> Artifacts:
        """The artifacts of its runs."""
        return Artifacts(self._client)

    @cached_property
    def versions(self) -> Versions:
        """The versions of its registered models."""
        return Versions(self._client, self.runs)

    @cached_property
    def verdicts(self) -> Verdicts:
        """Where evaluations are kept."""
        return Verdicts(self._client, self.runs)

    @cached_property
    def batches(self) -> Batches:
        """Its batches."""
        return Batches(self._client, self.runs, self.artifacts)


def _identity(database: Path | None) -> tuple[int, int] | None:
    try:
        found = database.stat() if database else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def find_store(tracking_uri: str | None, say: Say = log.info, *, patience: float | None = None) -> Store:
    """The store that is meant, which must be there.

    Args:
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        say: takes one line where the choice may surprise.
        patience: as in ``Store.open``.

    Raises:
        TrackingError: the store is not there, or can't be used.
    """
    return Store.open(resolve_tracking_uri(tracking_uri, None, say), create=False, patience=patience)


def store_of_model(model: str | None, tracking_uri: str | None) -> Store | None:
    """The store that a model is on; a local folder needs none.

    Args:
        model: its URI; ``None`` stands for the store's own choice, if there is a store: where none was named, there
            need be none.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: what is given names no model, or the store is not there, or can't be used.
    """
    if model is not None and "/" not in model and not model_folder(model):
        where = "models:/NAME@alias, models:/NAME/VERSION, a model's folder, or starter"
        raise TrackingError(f"there is no model {model!r}", where, did_you_mean(model, [STARTER]))
    named = tracking_uri or environment_uri()
    if model_folder(model) or (model is None and not named and not Path(DATABASE_NAME).exists()):
        return None
    return find_store(tracking_uri)


def model_folder(model: str | None) -> Path | None:
    """The local folder of a model, ``starter`` of the one that comes with topotrain; ``None`` for one on a store."""
    if model == STARTER:
        return STARTER_DIR
    return Path(model) if model is not None and Path(model).is_dir() else None


def fetch_model(model: str, store: Store | None, folder: Path) -> Path:
    """The files of a model version, without running any of them.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID``, ``starter`` or a local folder.
        store: that the model is on; a local folder needs none.
        folder: where to put what is fetched.

    Raises:
        TrackingError: there is no such model.
    """
    if (local := model_folder(model)) is not None:
        return local
    if store is None:
        raise TrackingError(f"{model}: no such folder", "a model's folder, models:/NAME@alias or models:/NAME/VERSION")
    return store.versions.download(model, folder)


def fetch_checked(
    model: str, store: Store | None, folder: Path, *, compiled: bool = False
) -> tuple[Path, Verified | None]:
    """As ``fetch_model``, and held against what was recorded when the version was registered.

    Args:
        model: as there.
        store: as there.
        folder: as there.
        compiled: whether what Python compiled beside a version's code counts.

    Returns:
        Where the files are, and that they are those; ``None`` where nothing was recorded.

    Raises:
        TrackingError: there is no such model, or its files are not those that were registered.
    """
    version = None if store is None or model_folder(model) else store.versions.loaded(model)
    if version is None:
        return fetch_model(model, store, folder), None
    # By its number: an alias may move meanwhile, and a logged model is that of the version.
    files = fetch_model(version.uri, store, folder)
    return files, check_files(version, files, compiled=compiled)


def prepare_store(uri: str, experiment: str) -> None:
    """Create a store and an experiment before ``mlflow run`` does, which would choose another artifact folder."""
    Store.open(uri).runs.experiment_id(experiment)


def settle_mlflow() -> None:
    """Settings of MLflow that the user may have set otherwise."""
    # MLflow cuts long values in silence unless asked not to; its usage reporting changes the environment offline;
    # and its default of 246 s for a dead server is too long a wait for a first answer.
    os.environ.setdefault("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(RETRIES_VARIABLE, "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is for documents
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_not_told_by_us)


def _is_not_told_by_us(record: logging.LogRecord) -> bool:
    """MLflow shows a traceback where a database fails (its disk is full, say), and raises what we say in one line."""
    return not record.getMessage().startswith("SQLAlchemy database error")
