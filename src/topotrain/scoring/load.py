"""A model version to a scorer."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from topotrain.errors import DataError
from topotrain.fields import MODEL_FILES, SCHEMA_ARTIFACT, WEIGHTS_ARTIFACT
from topotrain.scoring.scorer import Scorer
from topotrain.tracking.store import Store, fetch_checked

log = logging.getLogger("topotrain")


def load_scorer(model: str, store: Store | None) -> Scorer:
    """Load a model version's network and schema; nothing is unpickled.

    A version whose files are not those that were registered is refused; one that was registered without their digest
    is taken, and a line says so.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID`` or a local folder.
        store: that the model is on; a local folder needs none.

    Raises:
        TrackingError: no such model, or its files were changed since.
        DataError: it is no model of topotrain.
    """
    with tempfile.TemporaryDirectory() as folder:
        files, verified = fetch_checked(model, store, Path(folder))
        if verified is None and store is not None:
            log.info("%s was registered without a digest of its files: whether they are the same is not known", model)
        weights, schema = (files / MODEL_FILES / name for name in (WEIGHTS_ARTIFACT, SCHEMA_ARTIFACT))
        for path in (weights, schema):
            if not path.is_file():
                raise DataError(f"model {model!r} has no {path.name}", "a model version made by topotrain")
        return Scorer.load(weights, schema)
