"""Recipes that were complete before some keys were there: what they leave unsaid means what it meant then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A recipe that gives all of these is complete: one that a run recorded, or a copy of the defaults of then.
COMPLETE = (
    *("model.pooling_type", "model.attention_head", "model.hidden_dim", "model.dropout"),
    *("dataloader.batch_size", "trainer.num_epochs", "optimizer.learning_rate", "optimizer.weight_decay"),
    *("scheduler.factor", "scheduler.patience", "early_stopping.patience"),
)
# What those did that had none of these keys; the network as it was published, trained on squared errors alone.
SINCE: Mapping[str, Mapping[str, Any]] = {
    "model": {
        "contact_potential": False,
        "contact_term": False,
        "derived_inputs": False,
        "pooled_inputs": 0,
        "pooled_inputs_dropout": 0.0,
        "embedding_dropout": 0.0,
        "head_dropout": 0.0,
        "input_clamp": None,
    },
    "dataloader": {"batches": "random"},
    "loss": {"rank_weight": 0.0},
    "optimizer": {"type": "adam"},
    "scheduler": {"warmup_steps": 0},
}
THEN: Mapping[str, Mapping[str, Any]] = {
    "model": {"num_layers": 2, "input_scaling": "standard"},
    "scheduler": {"type": "reduce_on_plateau"},
}


def completed(raw: Mapping[str, Any], where: str, notices: list[str]) -> dict[str, Any]:
    """A recipe with what it meant, if it was complete once; any other as it is.

    Args:
        raw: nested values under today's names.
        where: file, for messages.
        notices: a line for the user is appended here.
    """
    sections = {name: values for name, values in raw.items() if isinstance(values, Mapping)}
    given = {f"{name}.{key}" for name, values in sections.items() for key in values}
    since = {f"{name}.{key}" for name, values in SINCE.items() for key in values}
    if not given.issuperset(COMPLETE) or given & since:
        return dict(raw)
    notices.append(f"{where}: complete before {', '.join(sorted(SINCE))} had more keys: those mean what they did then")
    full = dict(raw)
    for name in {*SINCE, *THEN}:
        if name in sections or name not in raw:
            full[name] = {**SINCE.get(name, {}), **THEN.get(name, {}), **sections.get(name, {})}
    return full
