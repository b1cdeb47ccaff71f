"""Legacy configurations (those of the older training stack), read into today's sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topotrain.errors import ConfigError

# A legacy flat file: one key, no sections.
FLAT_KEYS = {
    "graph_dir": "paths.graph",
    "train_label_file": "paths.train_labels",
    "val_label_file": "paths.val_labels",
    "pooling_type": "model.pooling_type",
    "attention_head": "model.attention_head",
    "hidden_dim": "model.hidden_dim",
    "dropout": "model.dropout",
    "use_layer_norm": "edge_schema.use_layer_norm",
    "batch_size": "dataloader.batch_size",
    "num_workers": "dataloader.num_workers",
    "accelerator": "trainer.accelerator",
    "devices": "trainer.devices",
    "precision": "trainer.precision",
    "num_epochs": "trainer.num_epochs",
    "accumulate_grad_batches": "trainer.accumulate_grad_batches",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "lr_scheduler_type": "scheduler.type",
    "lr_scheduler_factor": "scheduler.factor",
    "lr_scheduler_patience": "scheduler.patience",
    "early_stopping_patience": "early_stopping.patience",
    "primary_metric": "selection.primary_metric",
    "use_val_spearman_as_secondary": "selection.use_val_spearman",
    "spearman_secondary_weight": "selection.spearman_weight",
    "spearman_secondary_min_delta": "selection.spearman_min_delta",
    "progress_bar_refresh_rate": "logging.progress_bar_refresh_rate",
    "log_every_n_steps": "logging.log_every_n_steps",
}

# Other names of today's keys, in both forms.
ALIASES = {
    "seed": "dataloader.seed",
    "metadata_path": "paths.metadata",
    "summary_path": "paths.summary",
    "trainer.use_val_spearman_as_secondary": "selection.use_val_spearman",
    "trainer.spearman_secondary_weight": "selection.spearman_weight",
    "trainer.spearman_secondary_min_delta": "selection.spearman_min_delta",
}

# Accepted, and without effect: a run's files live on the tracking server, widths are computed, and graphs are held in
# memory as a whole.
UNUSED = (
    "save_dir",
    "paths.save_dir",
    "topology_schema",
    "cache",
    "profiling",
    "mlflow.enabled",
    "mlflow.log_artifacts",
    "edge_schema.source",
    "edge_schema.alias",
    "edge_schema.jobs",
    "edge_schema.summary",
)


def translate(raw: Mapping[str, Any], where: str, notices: list[str], *, is_override: bool = False) -> dict[str, Any]:
    """Move legacy names to today's and drop what has no effect, with one notice for each kind.

    Args:
        raw: nested values as they were written.
        where: file or override, for messages.
        notices: lines for the user are appended here.
        is_override: whether the values go on top of a file; a legacy key among them needs no notice.

    Raises:
        ConfigError: a legacy name and today's are both given, with different values.
    """
    result: dict[str, Any] = _copy(raw)
    flat = [key for key in result if key in FLAT_KEYS]
    if flat and "paths" not in result:
        for key in flat:
            _move(result, key, FLAT_KEYS[key], where)
        if not is_override:
            notices.append(f"{where}: a legacy flat configuration; read into sections ({', '.join(flat[:3])}, ...)")
    for old, new in ALIASES.items():
        _move(result, old, new, where)
    unused = [dotted for dotted in UNUSED if _pop(result, dotted)]
    coverage, leaf = _parent(result, "coverage.minimum_percent")
    percent = coverage.get(leaf) if coverage else None
    if isinstance(percent, float) and 0 < percent < 1:  # a fraction in the older stack
        notices.append(f"{where}: coverage.minimum_percent {percent:g} means {percent:g} %, not {100 * percent:g} %")
    if unused:
        notices.append(f"{where}: {', '.join(unused)}: accepted, without effect")
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _parent(nested: dict[str, Any], dotted: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping that holds a dotted key, and the key's last part."""
    *sections, leaf = dotted.split(".")
    node: Any = nested
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    return (node if isinstance(node, dict) else None), leaf


def _pop(nested: dict[str, Any], dotted: str) -> bool:
    parent, leaf = _parent(nested, dotted)
    if parent is None or leaf not in parent:
        return False
    del parent[leaf]
    return True


def _move(nested: dict[str, Any], old: str, new: str, where: str) -> None:
    parent, leaf = _parent(nested, old)
    if parent is None or leaf not in parent:
        return
    value = parent.pop(leaf)
    section, key = new.split(".")
    target = nested.setdefault(section, {})
    if not isinstance(target, dict):
        raise ConfigError(f"{where}: {section} holds {target!r}", "a section of keys and values")
    if key in target and target[key] != value:
        raise ConfigError(
            f"{where}: {old} is {value!r} and {new} is {target[key]!r}", "the same value for both", f"keep {new} alone"
        )
    target[key] = value
