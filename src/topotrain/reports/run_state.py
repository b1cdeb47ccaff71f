"""Where a run stands: best checkpoint, what learned it, progress, warnings. Asked of the tracking server alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from topotrain.credentials import mask_values
from topotrain.fields import (
    BEST_SELECTION_METRIC,
    BEST_VAL_LOSS,
    CONFIG_ARTIFACT,
    EPOCH_SECONDS,
    LEARNING_RATE,
    TAG_BEST_CHECKPOINT,
    TAG_CONTINUED_BY,
    TAG_MEMBERS,
    TAG_PARAM_DRIFT,
)
from topotrain.reading.json_file import parse_json
from topotrain.reading.yaml_file import parse_yaml

if TYPE_CHECKING:
    from topotrain.tracking.records import RunRecord
    from topotrain.tracking.store import Store

History = Mapping[int, Mapping[str, float]]
TEXT_SECTIONS = ("mlflow", "paths")  # whose values are texts, whatever they look like
NUMBERS = ("mlflow.connect_timeout", "mlflow.flush_timeout")  # in a section of texts


def run_state(
    store: Store, run: RunRecord, history: History, config: Mapping[str, Any], *, alive: bool
) -> dict[str, Any]:
    """Where a run stands, as plain values for JSON; what is not known is ``None``.

    Args:
        store: that the run is on.
        run: as the server has it.
        history: metrics of each epoch.
        config: the resolved configuration, by ``config_of``.
        alive: whether a process still works on it.
    """
    from topotrain.tracking.artifacts import local_artifact

    config = _sound(config)
    metrics, checkpoint, best_epoch = run.metrics, run.best_checkpoint, run.best_epoch
    best = history.get(best_epoch) if best_epoch is not None else None
    lost = store.artifacts.lost(run)
    state = {
        "run_id": run.run_id,
        "run_name": run.name,
        "status": run.status,
        "alive": alive,
        "selection_primary_metric": _section(config, "selection").get("primary_metric"),
        "best_val_loss": metrics.get(BEST_VAL_LOSS),
        "best_selection_metric": metrics.get(BEST_SELECTION_METRIC),
        "best_epoch": best_epoch,
        "best_metrics": dict(best) if best else None,
        "best_checkpoint": {
            "uri": checkpoint.uri,
            "local_path": local_artifact(run, checkpoint.path),
        }
        if checkpoint
        else None,
        "learning_parameters": _learning_parameters(_as_of(best_epoch, config, drift_of(run)), best or {}),
        "progress": _progress(run.status, history, config, alive),
        "latest_metrics": dict(metrics),
        "warnings": [*_warnings(run, len(history), alive), *([str(lost)] if lost else [])],
    }
    return plain(mask_values(state))  # type: ignore[no-any-return]


def config_of(store: Store, run: RunRecord) -> dict[str, Any]:
    """The resolved configuration: the artifact, or what the parameters say the parameters where it can't be read."""
    text = store.artifacts.text(run.run_id, CONFIG_ARTIFACT)
    try:
        config = parse_yaml(text) if text else None
    except ValueError:
        config = None
    return config if isinstance(config, dict) else _config_of_params(run.params)


def drift_of(run: RunRecord) -> list[dict[str, Any]]:
    """Settings that resuming the run changed: from which epoch on, key, old and new value as text."""
    try:
        entries = parse_json(run.tags.get(TAG_PARAM_DRIFT, "[]"))
    except ValueError:  # a tag too long for the server is cut
        return []
    return [entry for entry in entries if _is_change(entry)] if isinstance(entries, list) else []


def _is_change(entry: Any) -> bool:
    texts = isinstance(entry, Mapping) and all(isinstance(entry.get(name), str) for name in ("key", "from", "to"))
    return texts and type(entry.get("epoch")) is int


def plain(value: Any) -> Any:
    """A copy without numbers that strict JSON does not know: not a number and infinity become ``None``."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _config_of_params(params: Mapping[str, str]) -> dict[str, Any]:
    """Dotted parameters as sections; those of the schema and the data are no part of the configuration."""
    from topotrain.config import known_dotted_keys

    config: dict[str, dict[str, Any]] = {}
    for key in known_dotted_keys():
        section, _, rest = key.partition(".")
        if key in params:
            config.setdefault(section, {})[rest] = _value(params[key], section in TEXT_SECTIONS and key not in NUMBERS)
    return config


def _as_of(epoch: int | None, config: Mapping[str, Any], drift: list[dict[str, Any]]) -> dict[str, Any]:
    """The configuration as it was in an epoch: what a resume changed after it, changed back."""
    sections = {name: dict(values) if isinstance(values, Mapping) else values for name, values in config.items()}
    for entry in reversed(drift):
        section, _, key = entry["key"].partition(".")
        if epoch is not None and entry["epoch"] > epoch and isinstance(sections.get(section), dict):
            sections[section][key] = _value(entry["from"], section in TEXT_SECTIONS)
    return sections


def _value(text: str, is_text: bool) -> Any:
    if text == "null" or not is_text:
        try:
            return parse_json(text)
        except ValueError:
            pass
    return text


def _sound(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections without what no configuration holds under its name: somebody has changed the artifact."""
    from topotrain.config import TrainConfig

    sections: dict[str, Any] = {}
    for name, info in TrainConfig.model_fields.items():
        model: Any = info.annotation
        known = {key: value for key, value in _section(config, name).items() if isinstance(key, str)}
        sections[name] = {key: value for key, value in known.items() if _fits(model, key, value)}
    return sections


def _fits(model: type[BaseModel], key: str, value: Any) -> bool:
    if key not in model.model_fields:
        return True
    try:
        return bool(getattr(model.model_validate({key: value}), key) == value)  # a text is no number
    except ValidationError:
        return False


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _learning_parameters(config: Mapping[str, Any], best: Mapping[str, float]) -> dict[str, Any]:
    """What learned the best checkpoint; the scheduler may have lowered the learning rate by then."""
    optimizer, loader, trainer = (_section(config, name) for name in ("optimizer", "dataloader", "trainer"))
    return {
        "learning_rate": optimizer.get("learning_rate"),
        "learning_rate_at_best_epoch": best.get(LEARNING_RATE),
        "weight_decay": optimizer.get("weight_decay"),
        "batch_size": loader.get("batch_size"),
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches"),
        "num_epochs": trainer.get("num_epochs"),
        "seed": loader.get("seed"),
        "dropout": _section(config, "model").get("dropout"),
        "scheduler": dict(_section(config, "scheduler")) or None,
        "early_stopping": dict(_section(config, "early_stopping")) or None,
    }


def _progress(status: str, history: History, config: Mapping[str, Any], alive: bool) -> dict[str, Any]:
    """Epochs and time; a finished run is complete, though it stopped early."""
    done, total = len(history), _section(config, "trainer").get("num_epochs")
    seconds = [metrics[EPOCH_SECONDS] for metrics in history.values() if EPOCH_SECONDS in metrics]
    average = sum(seconds) / len(seconds) if seconds else None
    percent = min(100.0, 100.0 * done / total) if total else None
    eta = average * max(0, total - done) if alive and average is not None and total else None
    finished = status == "FINISHED"
    return {
        "epochs_completed": done,
        "epochs_total": total,
        "percent": 100.0 if finished else percent,
        "average_epoch_seconds": average,
        "eta_seconds": 0.0 if finished else eta,
    }


def _warnings(run: RunRecord, num_epochs: int, alive: bool) -> list[str]:
    tags, status, note = run.tags, run.status, run.note
    advice = f"resume with: topotrain resume --run-id {run.run_id}" if num_epochs else "no epoch to resume from"
    warnings = [] if tags.keys() & {TAG_BEST_CHECKPOINT, TAG_MEMBERS} else ["no checkpoint yet"]  # an ensemble has none
    if status == "FINISHED":
        return warnings
    if alive:
        return [*warnings, "run in progress"]
    if TAG_CONTINUED_BY in tags:
        return [*warnings, f"continued by run {tags[TAG_CONTINUED_BY]}"]
    if status == "FAILED" and not run.interrupted:
        return [*warnings, f"failed: {note}" if note else "failed", *([advice] if num_epochs else [])]
    return [*warnings, f"interrupted; {advice}"]
