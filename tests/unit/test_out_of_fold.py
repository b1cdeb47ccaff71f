"""What members of an ensemble did on targets that only they had not learned from, put together."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.members import Member, learned_together
from topotrain.scoring.out_of_fold import out_of_fold
from topotrain.tracking.records import VersionRecord


def recipe(train: str, val: str, num_val: int, loss: float, within: float, choice: tuple[int, int]) -> dict[str, Any]:
    ranges = {"low": [-float(num_val)], "high": [1.0], "deviation": [loss]}
    return {
        "data": {
            "train": {"num_graphs": 7, "targets": list(train), "digest": train, "column_ranges": {"node": ranges}},
            "val": {"num_graphs": num_val, "targets": list(val), "digest": val},
        },
        "metrics": {"val_loss": loss, "val_ranking_loss": 10 * loss},
        "first_choice": {"acceptable": choice[0], "targets": choice[1]},
        "within_target_error": within,
    }


@pytest.fixture
def recipes() -> list[dict[str, Any]]:
    """Of three folds; of the last every target has one graph."""
    return [
        recipe("BCDEF", "A", 4, 0.01, 0.1, (1, 1)),
        recipe("ADEF", "BC", 8, 0.04, 0.2, (1, 2)),
        recipe("ABC", "DEF", 3, 0.02, 0.5, (0, 0)),
    ]


def of(*recipes: dict[str, Any]) -> list[Member]:
    schema = FeatureSchema(node_dim=1, edge_dim=1)
    versions = [VersionRecord("topoqa", str(one), "0" * 32, None, datetime.now(UTC)) for one in range(len(recipes))]
    return [Member(one, Path("none"), schema, recipe) for one, recipe in zip(versions, recipes, strict=True)]


def test_graphs_weigh_errors_and_targets_weigh_ranking(recipes):
    found = out_of_fold(of(*recipes))
    assert found == {
        "targets": 6,
        "graphs": 15,
        "metrics": {
            "val_loss": pytest.approx((4 * 0.01 + 8 * 0.04 + 3 * 0.02) / 15),
            "val_ranking_loss": pytest.approx((0.1 + 2 * 0.4 + 3 * 0.2) / 6),
        },
        "first_choice": {"acceptable": 2, "targets": 3},
        "within_target_error": pytest.approx(math.sqrt((3 * 0.1**2 + 6 * 0.2**2) / 9)),
    }
    assert out_of_fold(of(*recipes[::-1])) == found


def without(path: tuple[str, ...], recipe: dict[str, Any], value: Any = None) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    *outer, last = path
    part = changed
    for name in outer:
        part = part[name]
    part.pop(last)
    if value is not None:
        part[last] = value
    return changed


@pytest.mark.parametrize(
    "path",
    [("metrics", "val_loss"), ("metrics", "val_ranking_loss"), ("first_choice",), ("within_target_error",)],
)
def test_what_a_member_lacks_is_left_out_and_nothing_else(recipes, path):
    whole = out_of_fold(of(*recipes))
    assert whole is not None
    first, *others = recipes
    assert out_of_fold(of(*others, without(path, first))) == without(path, whole)
    undefined = copy.deepcopy(first)
    (undefined["metrics"] if len(path) > 1 else undefined)[path[-1]] = None
    assert out_of_fold(of(undefined, *others)) == without(path, whole)


def test_targets_of_one_graph_each_have_no_error_within(recipes):
    found = out_of_fold(of(recipes[2], recipe("DEF", "A", 1, 0.01, 0.1, (1, 1))))
    assert found is not None and "within_target_error" not in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "val", "targets"), ["A", "B"]),  # which the second was validated on, too
        (("data", "train", "targets"), ["A", "B", "C"]),  # which it was validated on itself
        (("data", "val"), None),
        (("data", "train"), None),
        (("data",), None),
    ],
)
def test_members_that_were_not_each_validated_on_targets_of_their_own_have_none(recipes, path, value):
    first, *others = recipes
    assert out_of_fold(of(without(path, first, value), *others)) is None


def test_what_members_learned_from_together(recipes):
    assert learned_together(of(*recipes)) == {
        "train_targets": ["A", "B", "C", "D", "E", "F"],
        "column_ranges": {"node": {"low": [-8.0], "high": [1.0], "deviation": [0.04]}},
    }
    older = without(("data", "train", "column_ranges"), recipes[0])
    assert learned_together(of(older, *recipes[1:])) == {"train_targets": ["A", "B", "C", "D", "E", "F"]}
    assert learned_together(of(*recipes, {"run": {"id": "0" * 32, "name": "imported"}})) == {}
