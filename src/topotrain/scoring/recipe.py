"""What every model version says of its making."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from topotrain.tracking.provenance import installed_packages, provenance_tags, system_facts
from topotrain.tracking.recorder import Recorder
from topotrain.version import __version__


def recorded(recipe: Any, *path: str) -> Any:
    """What a recipe holds at a place; ``None`` where it holds nothing, or is no recipe."""
    found = recipe
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def base_recipe(recorder: Recorder, model_name: str) -> dict[str, Any]:
    """What every model version says of its making.

    Args:
        recorder: of the run that makes it.
        model_name: of the registered model.
    """
    return {
        "model_name": model_name,
        "topotrain": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {"id": recorder.run_id, "name": recorder.run_name},
        "code": provenance_tags(),
        "system": system_facts(),
        "packages": installed_packages().split(),
    }
