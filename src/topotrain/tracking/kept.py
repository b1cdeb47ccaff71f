"""Which checkpoints a run keeps, as it recorded beside them."""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from topotrain.fields import CHECKPOINT_DIR, KEPT_INDEX
from topotrain.tracking.artifacts import Artifacts

WHOLE = Annotated[int, Field(strict=True, ge=0)]


class KeptCheckpoint(BaseModel):
    """One of them; its metrics stand beside the fields that are named."""

    model_config = ConfigDict(frozen=True, extra="allow")

    rank: WHOLE
    epoch: WHOLE
    file: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=200)]

    @property
    def metrics(self) -> dict[str, float]:
        """Of its epoch."""
        return {name: value for name, value in (self.model_extra or {}).items() if isinstance(value, float | int)}


KEPT = TypeAdapter(list[KeptCheckpoint])


def kept_checkpoints(artifacts: Artifacts, run_id: str, *, listed: Set[str] | None = None) -> list[KeptCheckpoint]:
    """The checkpoints that a run keeps, best first; none where the index is not there, or is not one.

    Args:
        artifacts: of the store.
        run_id: of the run.
        listed: names beside the checkpoints, where somebody has asked for them already.
    """
    content = artifacts.json(run_id, f"{CHECKPOINT_DIR}/{KEPT_INDEX}", listed=listed)
    try:
        return KEPT.validate_python(content or [])
    except ValidationError:
        return []
