"""Whether a model version's files are those that were registered."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from topotrain.errors import TrackingError

if TYPE_CHECKING:
    from topotrain.tracking.file_digests import Verified

WHAT = "models:/NAME@alias or models:/NAME/VERSION"


def verify(model: str, tracking_uri: str | None = None) -> Verified:
    """Fetch a version's files, without running any of them, and hold them against what was recorded of it.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION`` or ``models:/ID``.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: they are others, nothing was recorded, or there is no such model.
    """
    from topotrain.tracking.store import fetch_checked, find_store, model_folder

    if model_folder(model):
        raise TrackingError(f"{model}: a folder, of which nothing was recorded", WHAT)
    with tempfile.TemporaryDirectory() as folder:
        _, verified = fetch_checked(model, find_store(tracking_uri), Path(folder), compiled=True)
    if verified is None:
        raise TrackingError(
            f"{model}: no digest of its files was recorded, so that nobody can tell whether they were changed",
            "a version that this or a later topotrain registered",
        )
    return verified
