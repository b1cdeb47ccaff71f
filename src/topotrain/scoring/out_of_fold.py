"""How the members of an ensemble of folds do, each alone, on targets that it had not learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS
from topotrain.scoring.members import Member


def out_of_fold(members: Sequence[Member]) -> dict[str, Any] | None:
    """The validation of all members together, where each was validated on targets of its own.

    It is what single networks do on complexes that they had not learned from, not what their mean does: of every target
    one member alone knows nothing.

    Args:
        members: of the ensemble.

    Returns:
        ``targets`` and ``graphs``: how many they were validated on together; ``metrics``: ``val_loss`` (mean over all
        graphs) and ``val_ranking_loss`` (mean over all targets); ``first_choice``: summed over the members;
        ``within_target_error``: pooled over all targets. What a member lacks is left out. ``None`` where a member does
        not say what it learned from and was validated on, where two share a validation target, or where one learned
        from a target of its own validation.
    """
    splits = [(member.split("train"), member.split("val")) for member in members]
    known = [(train, val) for train, val in splits if train and val]
    targets = [target for _, val in known for target in val["targets"]]
    learned = any(not set(train["targets"]).isdisjoint(val["targets"]) for train, val in known)
    if len(known) < len(members) or len(set(targets)) < len(targets) or learned:
        return None
    recipes = [member.recipe for member in members]
    graphs = [int(val["num_graphs"]) for _, val in known]
    weights = [len(val["targets"]) for _, val in known]
    metrics = {
        VAL_LOSS: _mean([_metric(recipe, VAL_LOSS) for recipe in recipes], graphs),
        VAL_RANKING_LOSS: _mean([_metric(recipe, VAL_RANKING_LOSS) for recipe in recipes], weights),
    }
    errors = [recipe.get("within_target_error") for recipe in recipes]
    squares = [error**2 if error is not None else None for error in errors]
    square = _mean(squares, [of - less for of, less in zip(graphs, weights, strict=True)])
    found = {
        "first_choice": _summed([recipe.get("first_choice") for recipe in recipes]),
        "within_target_error": math.sqrt(square) if square is not None else None,
    }
    return {
        "targets": len(targets),
        "graphs": sum(graphs),
        "metrics": {name: value for name, value in metrics.items() if value is not None},
        **{name: value for name, value in found.items() if value is not None},
    }


def _metric(recipe: Mapping[str, Any], name: str) -> float | None:
    return (recipe.get("metrics") or {}).get(name)


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    """Weighted; ``None`` where a value is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not sum(weights):
        return None
    return math.fsum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights)


def _summed(choices: Sequence[Mapping[str, int] | None]) -> dict[str, int] | None:
    known = [choice for choice in choices if choice is not None]
    if len(known) < len(choices):
        return None
    return {name: sum(choice[name] for choice in known) for name in ("acceptable", "targets")}
