"""What a run, and the tags of a model version, say in numbers, by the names of today."""

from __future__ import annotations

import math
from collections.abc import Mapping

from topotrain.fields import EVAL_PREFIX, TAG_EVAL_HIT_RATES, evaluation_name
from topotrain.reading.json_file import parse_json
from topotrain.tracking.records import RunRecord, VersionRecord


def of_run(run: RunRecord) -> Mapping[str, float]:
    """Its metrics; of one that was logged by an earlier name and by that of today, the latter."""
    return {evaluation_name(key): run.metrics[key] for key in sorted(run.metrics, reverse=True)}  # "/" is before "_"


def of_tags(version: VersionRecord) -> Mapping[str, float]:
    """Tags that are numbers, and the hit rates of its last evaluation."""
    numbers = {key: value for key, text in version.tags.items() if (value := _number(text)) is not None}
    try:
        rates = parse_json(version.tags.get(TAG_EVAL_HIT_RATES, "{}"))
        return numbers | {f"{EVAL_PREFIX}{name}": float(value) for name, value in rates.items()}
    except (AttributeError, TypeError, ValueError):  # somebody changed the tag
        return numbers


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
