"""Questions about the artifacts of runs."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from topotrain.errors import TrackingError
from topotrain.limits import JSON_BYTES
from topotrain.reading.content import content_of, text_of
from topotrain.reading.json_file import parse_json
from topotrain.text import one_line
from topotrain.tracking.address import local_folder
from topotrain.tracking.moved import absent, check_there
from topotrain.tracking.outages import Asker, asks, full_here
from topotrain.tracking.records import Checkpoint, RunRecord

READS = 3  # of an artifact that may be in the middle of being replaced


class Artifacts(Asker):
    """The artifacts of a store's runs.

    Reading raises ``OutageError`` where the store does not answer, ``TrackingError`` where it refuses.
    """

    @asks
    def names(self, run: RunRecord, folder: str) -> set[str]:
        """Names of the artifacts in one folder of a run.

        Raises:
            TrackingError: the run recorded a checkpoint, and its artifacts are not where the store says.
        """
        try:
            found = {Path(item.path).name for item in self._client.list_artifacts(run.run_id, folder)}
        except (MlflowException, OSError):
            raise
        except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
            raise TrackingError(
                f"artifacts of run {run.run_id} at {run.artifact_uri} can't be listed ({one_line(error)})",
                "artifacts that can be read",
            ) from None
        if not found and (lost := self.lost(run)):
            raise lost
        return found

    def lost(self, run: RunRecord) -> TrackingError | None:
        """What to say of a run that left checkpoints in a folder of this machine which is not there."""
        root = local_folder(run.artifact_uri)
        if run.best_checkpoint is None or root is None or root.exists():
            return None
        return absent(root, self.uri)

    @asks
    def text(self, run_id: str, artifact: str, *, listed: Set[str] | None = None) -> str | None:
        """A text artifact of a run, or ``None`` when the run has none of that name that can be read here.

        Args:
            run_id: of the run.
            artifact: below the run's artifacts.
            listed: names in its folder, where somebody has asked for them already.
        """
        folder, _, name = artifact.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            try:
                # Listed first: a failed download does not tell a file that is not there from a server that is away.
                if listed is None:
                    listed = {Path(item.path).name for item in self._client.list_artifacts(run_id, folder or None)}
                if name not in listed:
                    return None
                return text_of(content_of(self._download(run_id, artifact, Path(scratch)), JSON_BYTES))
            except (PermissionError, FileNotFoundError, ValueError):  # ValueError: no text, or too long a one
                return None

    def json(self, run_id: str, artifact: str, *, listed: Set[str] | None = None) -> Any | None:
        """A JSON artifact of a run, or ``None`` when the run has none of that name that can be read; see ``text``."""
        for attempt in range(READS):
            text = self.text(run_id, artifact, listed=listed)
            try:
                return None if text is None else parse_json(text)
            except ValueError:
                time.sleep(0.2 * (attempt + 1))
        return None

    def fetch(self, checkpoint: Checkpoint, folder: Path) -> Path:
        """Download one artifact of a run.

        Args:
            checkpoint: which.
            folder: where to put it.

        Raises:
            TrackingError: the run has none of that name, or it can't be fetched.
        """
        try:
            return self._download(checkpoint.run_id, checkpoint.path, folder)
        except (MlflowException, OSError) as error:
            if told := full_here(self.uri, error):
                raise told from None
            self._check_there(checkpoint.run_id)
            raise TrackingError(
                f"{checkpoint.uri} can't be fetched ({one_line(error)})", "an artifact of a run on this store"
            ) from None

    def _check_there(self, run_id: str) -> None:
        """Name the folder of a run's artifacts where that is why they can't be fetched."""
        with suppress(MlflowException):
            check_there(str(self._client.get_run(run_id).info.artifact_uri), self.uri)

    def _download(self, run_id: str, artifact: str, folder: Path) -> Path:
        uri = self.uri
        return Path(
            mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=artifact, dst_path=str(folder), tracking_uri=uri, registry_uri=uri
            )
        )


def checkpoint_of_uri(uri: str) -> Checkpoint:
    """``runs:/ID/PATH`` as a checkpoint.

    Raises:
        TrackingError: it is not of that form.
    """
    match = re.fullmatch(r"runs:/([0-9a-zA-Z_-]+)/(.+)", uri)
    if match is None:
        raise TrackingError(f"{uri!r} is malformed", "runs:/RUN_ID/checkpoints/NAME")
    return Checkpoint(match[1], match[2])


def local_artifact(run: RunRecord, artifact: str) -> str | None:
    """Path of an artifact, where the artifact store is a folder of this machine and the file is there."""
    root = local_folder(run.artifact_uri)
    path = root / artifact if root else None
    return str(path) if path and path.exists() else None
