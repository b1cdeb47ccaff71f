"""What a build writes beside its graphs: the sidecar and the summary."""

from __future__ import annotations

import contextlib
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from topotrain.errors import DataError
from topotrain.features.graph import CHAINS, FORMAT_VERSION, READER, STAGES, GraphOutcome
from topotrain.features.module_set import ModuleSet, describe_set
from topotrain.features.structure import READER_VERSION
from topotrain.fields import SIDECAR_NAME, SUMMARY_NAME
from topotrain.files import write_whole
from topotrain.reading.json_stream import members
from topotrain.schema.values import canonical, difference, specification

MODULE_REGISTRY = "_module_registry"
LIBRARIES = ("gemmi", "gudhi", "mdtraj", "biotite", "numpy", "torch", "torch-geometric")
FILE_NAMES = "backslashreplace"  # what in them is no UTF-8 then is as JSON writes it
LOG_TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"


def write_sidecar(out: Path, modules: ModuleSet, outcomes: list[GraphOutcome]) -> list[str]:
    """``graph_metadata.json``: this build's graphs, and those of earlier builds that are still there.

    Returns:
        Their keys.
    """
    path = out / SIDECAR_NAME
    failed = {item.key for item in outcomes if item.status == "failed"}
    entries = {
        key: entry for key, entry in _read_sidecar(path).items() if key not in failed and (out / f"{key}.pt").is_file()
    }
    node_columns, edge_columns = list(modules.node_columns), list(modules.edge_columns)
    for item in outcomes:
        if item.status != "failed":
            entries[item.key] = {
                "edge_module": item.metadata["edge_module"],
                "edge_params": item.metadata["edge_params"],
                "edge_metadata": item.metadata["edge_info"],
                "node_feature_columns": node_columns,
                "edge_feature_columns": edge_columns,
            }
    described = describe_set(modules)
    head = {
        "_builder": {
            "id": "topotrain build-graphs",
            "format_version": FORMAT_VERSION,
            "reader_version": READER_VERSION,
            "version": described["edge"]["package_version"],
        },
        MODULE_REGISTRY: described,
        "_edge_schema": {
            "dim": len(edge_columns),
            "columns": edge_columns,
            "module": modules.edge.module_id(),
            "variant": modules.edge.variant,
            "module_params": modules.edge.params,
            "bands": modules.edge.bands,
            "scaling": modules.edge.scaling,
        },
        "_node_schema": {"dim": len(node_columns), "columns": node_columns},
        "_topology_schema": {
            "vector_dim": len(modules.topology_columns),
            "columns": list(modules.topology_columns),
        },
    }
    text = json.dumps(head | entries, indent=1, ensure_ascii=False, sort_keys=True)
    write_whole(path, text.encode("utf-8", FILE_NAMES))
    return list(entries)


def claim(out: Path, modules: ModuleSet, *, replace: bool) -> None:
    """See that a folder holds graphs of these modules alone.

    Args:
        out: the graph folder.
        modules: what is to be built there.
        replace: whether graphs of other modules give way; those of structures that are not built again go, too.

    Raises:
        DataError: it holds graphs of other modules, or they can't be removed.
    """
    entries = _read_sidecar(out / SIDECAR_NAME)
    graphs = [path for key in entries if (path := out / f"{key}.pt").is_file()]
    there, mine = _specification_there(out / SIDECAR_NAME), modules.specification()
    if not graphs or not there or canonical(there) == canonical(mine):
        return
    if not replace:
        kinds = [kind for kind in mine if canonical(there.get(kind)) != canonical(mine[kind])]
        parted = "; ".join(difference(f"{kind} module", there.get(kind), mine[kind]) for kind in kinds)
        raise DataError(
            f"{out} holds {len(graphs)} graphs of other modules ({parted})",
            "graphs of one set of modules in a folder",
            "give another --out, or --replace to build them again",
        )
    for path in graphs:
        path.unlink(missing_ok=True)
    (out / SIDECAR_NAME).unlink(missing_ok=True)


def _specification_there(path: Path) -> dict[str, Any]:
    """{kind: {id, params}} of the modules that an earlier build used."""
    try:
        registry: Any = next((entry for key, entry in members(path) if key == MODULE_REGISTRY), {})
    except (OSError, ValueError):
        return {}
    return specification(registry) if isinstance(registry, dict) else {}


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Graph entries of an earlier sidecar; {} where there is none or it is no sidecar."""
    try:
        return {key: entry for key, entry in members(path) if isinstance(entry, dict) and "edge_module" in entry}
    except (OSError, ValueError):
        return {}


def write_summary(
    out: Path, structures: Path, modules: ModuleSet, outcomes: list[GraphOutcome], jobs: int, seconds: float
) -> Path:
    """``graph_builder_summary.json`` in a log folder of its own: modules, counts, failures, changes, times.

    Args:
        out: the graph folder.
        structures: what it was built from.
        modules: the modules used.
        outcomes: one per structure.
        jobs: processes.
        seconds: wall-clock time.

    Returns:
        The file's path; paths within it are relative to it, so that the graph folder can be moved.
    """
    folder = _new_log_folder(out)
    stages = total_stage_seconds(outcomes)
    failures = [
        {"model": item.key, "path": item.source, "stage": item.stage, "error": item.error}
        for item in outcomes
        if item.status == "failed"
    ]
    num_built = sum(item.status == "built" for item in outcomes)
    summary: dict[str, Any] = {
        "graph_dir": "../..",
        "log_dir": ".",
        "dataset_dir": str(structures.absolute()),
        "metadata_path": f"../../{SIDECAR_NAME}",
        "structures": len(outcomes),
        "built": num_built,
        "kept": sum(item.status == "kept" for item in outcomes),
        "failed": len(failures),
        "failures": failures,
        READER: _reading(outcomes),
        "jobs": jobs,
        "elapsed": round(seconds, 3),
        "stage_seconds": {stage: round(stages[stage], 3) for stage in STAGES},
        "seconds_per_structure": round(sum(stages.values()) / max(num_built, 1), 4),
        "packages": package_versions(),
        "modules": describe_set(modules, jobs),
    }
    for kind in ("interface", "topology", "node", "edge"):
        mine = [item for item in failures if item["stage"] == kind]
        summary[kind] = {
            "elapsed": round(stages[kind], 3),
            "processed": num_built + len(mine),
            "success": num_built,
            "failures": mine,
        }
    summary["edge"] |= {
        "output_dir": "../..",
        "edge_feature_dim": len(modules.edge_columns),
        "metadata_path": f"../../{SIDECAR_NAME}",
        "processed": len(outcomes),
        "success": len(outcomes) - len(failures),
    }
    path = folder / SUMMARY_NAME
    write_whole(path, json.dumps(summary, indent=1, ensure_ascii=False).encode("utf-8", FILE_NAMES))
    return path


def _reading(outcomes: list[GraphOutcome]) -> dict[str, Any]:
    """The reader's version, and what it left out or changed, file by file."""
    changed = [{"model": item.key, "path": item.source, "changes": item.changes} for item in outcomes if item.changes]
    chains = next((item.chains for item in outcomes), "")  # the same of all
    return {"version": READER_VERSION, "changed": changed, **({CHAINS: chains} if chains else {})}


def package_versions() -> dict[str, str]:
    """Versions of the libraries the numbers come from."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _new_log_folder(out: Path) -> Path:
    stem = out / "logs" / f"graph_builder.{time.strftime(LOG_TIME_FORMAT)}"
    for number in range(1, 1000):
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number:03d}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise DataError(f"{stem} exists a thousand times", "room for a log folder", "remove old logs")


def total_stage_seconds(outcomes: list[GraphOutcome]) -> dict[str, float]:
    """{stage: seconds}, added over structures and processes."""
    return {stage: sum(item.seconds.get(stage, 0.0) for item in outcomes) for stage in STAGES}
