"""Everything that a run left on a server, to be held against what another left."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mlflow.tracking import MlflowClient

from kit.recorded import mlflow_client

# What no two runs share.
OWN_TAGS = ("mlflow.", "topotrain.heartbeat", "topotrain.lease.", "topotrain.offline_id", "topotrain.git_")
OWN_VERSION_TAGS = ("run_id", "topotrain.files", "topotrain.files_sha256")
OWN_METRICS = ("epoch_seconds",)
OWN_FILES = ("environment/system.json", "config/original_config.yaml")


def contents(uri: str, run_id: str) -> dict[str, Any]:
    """Status, parameters, tags, points, inputs, artifacts, models, versions and aliases of a run."""
    client = mlflow_client(uri)
    run = client.get_run(run_id)
    points = {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name) if point.model_id is None]
        for name in run.data.metrics
    }
    models = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return {
        "status": run.info.status,
        "params": {k: v for k, v in run.data.params.items() if not k.startswith("mlflow.")},
        "tags": {k: v for k, v in run.data.tags.items() if not k.startswith(OWN_TAGS)},
        "points": {k: sorted(v) if k not in OWN_METRICS else sorted(s for s, _ in v) for k, v in points.items()},
        "inputs": sorted((one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs),
        "artifacts": _artifacts(client, run_id),
        "models": sorted((one.name, str(one.status), len(one.metrics or [])) for one in models),
        "versions": _versions(client, run_id),
    }


def leases(uri: str, run_id: str) -> list[str]:
    """Writers that hold, or ask for, a run."""
    return [name for name in mlflow_client(uri).get_run(run_id).data.tags if name.startswith("topotrain.lease.")]


def weights(uri: str, run_id: str) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each checkpoint of a run, by file name."""
    client = mlflow_client(uri)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for entry in client.list_artifacts(run_id, "checkpoints"):
            if entry.path.endswith(".ckpt"):
                path = Path(client.download_artifacts(run_id, entry.path, folder))
                found[path.name] = torch.load(path, weights_only=True)["state_dict"]
    return found


def assert_alike(uri: str, one: str, other: str, other_uri: str | None = None) -> None:
    """Two runs of one recipe hold the same, to the last bit of their weights."""
    first, second = contents(uri, one), contents(other_uri or uri, other)
    for part, value in first.items():
        found = second[part]
        if isinstance(value, dict):
            differing = {key: (value.get(key), found.get(key)) for key in value.keys() | found.keys()}
            found, value = {key: pair for key, pair in differing.items() if pair[0] != pair[1]}, {}
        assert found == value, (part, found, value)
    left, right = weights(uri, one), weights(other_uri or uri, other)
    assert left.keys() == right.keys()
    for name, state in left.items():
        for key, tensor in state.items():
            assert torch.equal(tensor, right[name][key]), (name, key)


def _versions(client: MlflowClient, run_id: str) -> list[Any]:
    """In the order in which they were registered."""
    made = sorted(client.search_model_versions(f"run_id = '{run_id}'"), key=lambda one: int(one.version))
    found = []
    for one in made:
        aliases = client.get_registered_model(one.name).aliases
        names = sorted(alias for alias, number in aliases.items() if int(number) == int(one.version))
        tags = {key: value for key, value in one.tags.items() if key not in OWN_VERSION_TAGS}
        assert one.tags["run_id"] == run_id
        found.append((one.name, tags, one.status, [name for name in names if name != "candidate"]))
    return found


def _artifacts(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """Names, and of texts the contents."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(_paths(client, run_id)):
            found[path] = None
            if path.endswith((".json", ".yaml", ".txt")) and path not in OWN_FILES:
                text = Path(client.download_artifacts(run_id, path, folder)).read_text()
                found[path] = _without_times(json.loads(text)) if path.endswith(".json") else _without_patience(text)
    return found


def _without_patience(text: str) -> str:
    """How long a run waits for a server that is away changes nothing of what it leaves."""
    return re.sub(r"^  flush_timeout: .*\n", "", text, flags=re.M)


def _without_times(document: Any) -> Any:
    if isinstance(document, list):
        return [_without_times(one) for one in document]
    if isinstance(document, dict):
        return {key: _without_times(value) for key, value in document.items() if key not in OWN_METRICS}
    return document


def _paths(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _paths(client, run_id, entry.path)
        else:
            yield entry.path
