"""Values of a schema's properties: what of them counts, when two are equal, and where two part, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# How a module was executed, not what it computes: never part of the digest.
EXECUTION_SETTINGS = frozenset(
    {"jobs", "n_jobs", "num_workers", "workers", "threads", "verbose", "progress", "log_level"}
    | {"log_dir", "log_path", "output_dir", "work_dir", "metadata_path", "summary_path", "source"}
)
SHOWN_GRAPHS = 5
SHOWN_CHARACTERS = 400


def decisive(params: Any) -> Any:
    """Module parameters without execution settings, at every depth."""
    if isinstance(params, Mapping):
        return {str(key): decisive(value) for key, value in params.items() if str(key) not in EXECUTION_SETTINGS}
    if isinstance(params, list | tuple):
        return [decisive(value) for value in params]
    return params


def specification(registry: Mapping[str, Any]) -> dict[str, Any]:
    """{kind: {id, params}} of a module registry, for the modules that record the parameters in force."""
    return {
        str(kind): {"id": entry.get("id"), "params": entry["params"]}
        for kind, entry in registry.items()
        if isinstance(entry, Mapping) and entry.get("params") is not None
    }


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values: keys sorted, 10.0 written as 10."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def difference(name: str, mine: Any, theirs: Any) -> str:
    """One line that shows where two values of one property part."""
    if not (isinstance(mine, list) and isinstance(theirs, list)) or "columns" not in name:
        return f"{name}: {short(mine)} against {short(theirs)}"
    missing = [column for column in mine if column not in theirs]
    extra = [column for column in theirs if column not in mine]
    if not missing and not extra:
        at = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
        )
        return f"{name}: the same names in another order, from column {at} on"
    parts = [f"missing {short(missing)}"] if missing else []
    parts += [f"unexpected {short(extra)}"] if extra else []
    return f"{name}: {', '.join(parts)}"


def name_graphs(keys: Iterable[str]) -> str:
    """Up to five graphs by name, and how many more there are."""
    ordered = sorted(keys)
    more = f" and {len(ordered) - SHOWN_GRAPHS} more" if len(ordered) > SHOWN_GRAPHS else ""
    return ", ".join(ordered[:SHOWN_GRAPHS]) + more


def short(value: Any) -> str:
    """A value as text of bounded length."""
    text = json.dumps(value, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
