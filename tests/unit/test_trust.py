"""What is said of a ranking, in plain words: from the version's recipe, the scores and their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from topotrain.data.column_ranges import Beyond, ColumnRanges, joined_ranges, read_ranges
from topotrain.metrics.report import ranking_report
from topotrain.scoring.score_table import Scored, rank_by_target
from topotrain.scoring.trust import APART, FAR, Trust

RECIPE: dict[str, Any] = {
    "config": {"paths": {"graph": "demo"}},
    "data": {"train": {"num_graphs": 440, "targets": ["A", "B"]}},
    "metrics": {"val_loss": 0.04},
    "first_choice": {"acceptable": 2, "targets": 4},
    "within_target_error": 0.1,
    "against_baselines": {"number of edges": {"ranking_loss": {"difference": -0.1, "verdict": "better"}}},
}


def rows(scores: Sequence[float], target: str = "T", spread: float | None = None) -> list[Scored]:
    return rank_by_target(
        Scored(f"{target}/m{place}", target, score, spread=spread) for place, score in enumerate(scores)
    )


def trust(scores: Sequence[float] | list[Scored], recipe: dict[str, Any] | None = None, **more: Any) -> Trust:
    table = [one if isinstance(one, Scored) else rows([one])[0] for one in scores]
    table = table if isinstance(scores[0], Scored) else rows(scores)  # type: ignore[arg-type]
    return Trust("topoqa version 3 (champion)", RECIPE if recipe is None else recipe, table, **more)


SPREAD_OUT = [0.9, 0.7, 0.5, 0.3, 0.1, 0.05]


def test_which_model_what_it_learned_from_and_how_often_its_first_choice_was_right() -> None:
    assert trust(SPREAD_OUT).sentences[0] == (
        "topoqa version 3 (champion) learned from 440 structures of 2 complexes of the demo data set; of 4 complexes "
        "that it had not learned from and that had an acceptable structure (DockQ of at least 0.23), it put "
        "one first for 2."
    )
    other = {**RECIPE, "config": {"paths": {"graph": "/data/graphs"}}, "first_choice": None}
    first = trust(SPREAD_OUT, other).sentences[0]
    assert "of 2 complexes; how often its first choice is acceptable on complexes it has not seen is not recor" in first
    assert (
        trust(SPREAD_OUT, {}).sentences[0].startswith("What topoqa version 3 (champion) learned from is not recorded;")
    )
    folds = {"members": [{"train_graphs": 352}, {"train_graphs": 360}]}
    assert (
        trust(SPREAD_OUT, folds)
        .sentences[0]
        .startswith(
            "topoqa version 3 (champion) is 2 networks, which learned from 352 to 360 structures each, not all the same"
        )
    )
    none = {**RECIPE, "first_choice": {"acceptable": 0, "targets": 0}}
    assert "no other complex that it was tried on had an acceptable structure" in trust(SPREAD_OUT, none).sentences[0]


def test_an_error_tells_scores_apart_that_are_two_deviations_of_their_difference_away() -> None:
    margin = APART * math.sqrt(2) * 0.1
    one = trust([0.9, 0.9 - margin + 0.001, 0.9 - margin - 0.001, 0.1])
    assert one.tied == {"T": (2, 4)}
    assert one.sentences[1] == (
        "The first 2 of 4 can't be told apart: on complexes that it had not learned from, scores were off by 0.10, so "
        "that differences under 0.28 may be chance."
    )
    assert trust([0.9, 0.8, 0.7, 0.63]).sentences[1].startswith("None of the 4 can be told apart: on complexes")
    assert trust([0.9, 0.1, 0.1]).sentences[1] == "The first of 3 stands apart."
    assert trust([0.9]).sentences[1].startswith("One structure alone can't be ranked; scores were off by 0.10")


def test_an_older_version_has_the_error_of_its_validation() -> None:
    older = {name: value for name, value in RECIPE.items() if name != "within_target_error"}
    assert trust(SPREAD_OUT, older).error == pytest.approx(0.2)
    imported = {name: value for name, value in older.items() if name != "metrics"}
    assert trust(SPREAD_OUT, imported).error is None
    assert trust(SPREAD_OUT, imported).sentences[1] == (
        "How far its scores are off is not recorded: topotrain evaluate measures it."
    )


def test_an_ensemble_tells_apart_what_its_networks_agree_on() -> None:
    one = trust(rows([0.9, 0.85, 0.8, 0.1], spread=0.02), num_networks=5)
    assert one.tied == {"T": (2, 4)}  # 2 * sqrt(2) * 0.02 = 0.057
    assert one.sentences[1] == (
        "The first 2 of 4 can't be told apart: its 5 networks disagree by more than these scores differ."
    )
    mixed = [*rows([0.9], spread=0.2), *rows([0.0, 0.7], "T", spread=0.01)[:1]]
    assert trust(rank_by_target(mixed), num_networks=5).tied == {"T": (2, 2)}


def test_an_ensemble_whose_errors_are_larger_than_its_spread_tells_less_apart() -> None:
    recipe = {**RECIPE, "spread": {"error_ratio": 4.0}}  # errors of 0.2, 0.1 of it within complexes: a spread of 0.05
    one = trust(rows([0.9, 0.85, 0.8, 0.1], spread=0.02), recipe, num_networks=5)
    assert one.tied == {"T": (3, 4)}  # 2 * 2 * sqrt(2) * 0.02 = 0.113
    assert one.sentences[1] == (
        "The first 3 of 4 can't be told apart: on complexes that they had not learned from, its 5 networks were off by "
        "2.0 times what they disagree by, which is more than these scores differ."
    )
    for small in ({"error_ratio": 1.0}, {"error_ratio": None}, {}):
        assert trust(rows([0.9, 0.85, 0.8, 0.1], spread=0.02), {**RECIPE, "spread": small}).tied == {"T": (2, 4)}


FOLDS: dict[str, Any] = {
    "members": [{"train_graphs": 352}, {"train_graphs": 360}],
    "data": {"train_targets": ["A", "B", "C"]},
    "out_of_fold": {
        "metrics": {"val_loss": 0.04},
        "first_choice": {"acceptable": 15, "targets": 18},
        "within_target_error": 0.1,
    },
}


def test_an_ensemble_of_folds_tells_apart_by_the_errors_of_its_networks() -> None:
    table = rows([0.9, 0.65, 0.61, 0.1], spread=0.001)
    one = trust(table, FOLDS, num_networks=2)
    assert one.sentences == (
        "topoqa version 3 (champion) is 2 networks, which learned from 352 to 360 structures each, not all the same: "
        "of 3 complexes together; each of its 2 networks was tried on complexes that it had not learned from: of 18 "
        "with an acceptable structure (DockQ of at least 0.23), it put one first for 15.",
        "The first 2 of 4 can't be told apart: on complexes that they had not learned from, its 2 networks, each "
        "alone, were off by 0.10, so that differences under 0.28 may be chance.",
    )
    assert trust(rows([0.9], spread=0.001), FOLDS, num_networks=2).sentences[1] == (
        "One structure alone can't be ranked; its 2 networks, each alone, were off by 0.10 on complexes that they had "
        "not learned from."
    )
    demo = trust(table, {**FOLDS, "config": {"paths": {"graph": "demo"}}}, num_networks=2)
    assert "not all the same: of 3 complexes of the demo data set together; each" in demo.sentences[0]


def test_what_folds_did_not_record_is_not_claimed() -> None:
    table = rows([0.9, 0.88, 0.1], spread=0.02)
    alone = {name: value for name, value in FOLDS["out_of_fold"].items() if name != "within_target_error"}
    assert trust(table, {**FOLDS, "out_of_fold": alone}, num_networks=2).error == pytest.approx(0.2)
    none = trust(table, {**FOLDS, "out_of_fold": {"metrics": {}}}, num_networks=2)
    assert "how often its first choice is acceptable on complexes it has not seen is not recorded" in none.sentences[0]
    assert none.sentences[1].endswith("its 2 networks disagree by more than these scores differ.")
    no_such = {**alone, "first_choice": {"acceptable": 0, "targets": 0}}
    assert (
        trust(table, {**FOLDS, "out_of_fold": no_such}, num_networks=2)
        .sentences[0]
        .endswith("no other complex that it was tried on had an acceptable structure.")
    )


def test_an_ensemble_that_was_judged_itself_tells_apart_by_that() -> None:
    judged = {**RECIPE, "spread": {"error_ratio": 4.0}, "out_of_fold": {"within_target_error": 0.5}}
    one = trust(rows([0.9, 0.85, 0.8, 0.1], spread=0.02), judged, num_networks=5)
    assert (one.error, one.tied) == (0.1, {"T": (3, 4)})


def test_several_complexes_are_told_one_by_one() -> None:
    several = [*rows(SPREAD_OUT, "A"), *rows([0.5, 0.4, 0.39], "B"), *rows([0.9, 0.1], "C"), *rows([0.3], "D")]
    assert (
        trust(several)
        .sentences[1]
        .startswith("What can't be told apart: the first 2 of the 6 of A, all 3 of B: on complexes")
    )
    many = [row for name in "ABCDEF" for row in rows([0.5, 0.4, 0.39], name)]
    assert "all 3 of C and those of 3 other complexes: " in trust(many).sentences[1]
    clear = [*rows([0.9, 0.1], "A"), *rows([0.9, 0.1], "B")]
    assert trust(clear).sentences[1] == "In each of the 2 complexes the first choice stands apart."


def test_a_structure_without_a_score_counts_for_nothing() -> None:
    failed = rank_by_target([*rows([0.9, 0.1]), Scored.failed("T/bad", "T", "why")])
    assert trust(failed).tied == {"T": (1, 2)}


def test_no_warning_without_a_cause() -> None:
    assert len(trust(SPREAD_OUT).sentences) == 2


def test_scores_that_hardly_vary() -> None:
    flat = [0.405, 0.404, 0.403, 0.402, 0.40]
    assert trust(flat).sentences[2:] == (
        "Beware: the scores hardly vary (from 0.400 to 0.405), so that their order says little.",
    )
    assert len(trust(flat[:4]).sentences) == 2  # few
    both = [*rows(flat, "A"), *rows(SPREAD_OUT, "B")]
    assert trust(both).sentences[2].startswith("Beware: the scores of A hardly vary")


def test_columns_beyond_the_training_are_named_the_worst_first() -> None:
    beyond = {
        "T/m0": [Beyond("sum", 90.0, 0.0, 10.0, 8.0), Beyond("mean", 2.0, 0.0, 1.0, FAR - 0.1)],
        "T/m1": [Beyond("min", -3.0, 0.0, 1.0, math.inf), Beyond("sum", 20.0, 0.0, 10.0, 4.0)],
        "T/m2": [Beyond("mean", 2.0, 0.0, 1.0, FAR - 0.1)],
    }
    assert trust(SPREAD_OUT, beyond=beyond).sentences[2] == (
        "Beware: 2 of 6 structures lie outside what it learned from (min is -3 where it saw 0 to 1, sum is 90 where it "
        "saw 0 to 10)."
    )
    two = trust([*rows(SPREAD_OUT, "T"), *rows(SPREAD_OUT, "U")], beyond=beyond)
    assert "2 of 12 structures (of T) lie outside" in two.sentences[2]


def test_a_model_that_chooses_no_better_than_what_costs_nothing() -> None:
    against = {
        "training mean": {"ranking_loss": {"difference": 0.0}},
        "number of edges": {"ranking_loss": {"difference": 0.05, "verdict": "undecided"}},
        "trees": {"ranking_loss": {"difference": -0.05}},
    }
    assert trust(SPREAD_OUT, {**RECIPE, "against_baselines": against}).sentences[2] == (
        "Beware: on complexes that it had not learned from it chose no better than a guess and the number of contacts "
        "alone."
    )


@pytest.mark.parametrize(
    "recipe",
    [
        {"data": None, "metrics": 3, "first_choice": 4, "against_baselines": []},
        {"data": {"train": {"num_graphs": "many", "targets": 3}}, "metrics": {"val_loss": "nan"}},
        {"against_baselines": {"trees": None, "training mean": {"ranking_loss": {"difference": None}}}},
        {"members": 3},
        {"members": [{"train_graphs": None}, 4]},
        {"within_target_error": math.nan, "metrics": {"val_loss": -1.0}},
        {"out_of_fold": 3},
        {"out_of_fold": {"first_choice": 3, "metrics": [], "within_target_error": "large"}},
        {"members": [{"train_graphs": 4}], "data": {"train_targets": 3}},
    ],
)
def test_a_recipe_of_another_kind_says_nothing(recipe: dict[str, Any]) -> None:
    assert len(trust(SPREAD_OUT, recipe).sentences) == 2


def test_the_error_within_targets_leaves_out_what_all_of_a_target_share() -> None:
    true = torch.tensor([0.1, 0.3, 0.5, 0.2, 0.9]).double().numpy()
    targets = ["A", "A", "A", "B", "C"]
    shared = true + [0.2, 0.2, 0.2, -0.1, 0.3]
    assert ranking_report(shared, true, targets).within_target_error == pytest.approx(0.0, abs=1e-12)
    off = true + [0.1, 0.0, -0.1, 0.3, 0.3]
    assert ranking_report(off, true, targets).within_target_error == pytest.approx(0.1)
    assert ranking_report(off[3:], true[3:], targets[3:]).within_target_error is None


def test_how_far_beyond_a_range() -> None:
    ranges = ColumnRanges.from_dict({"low": [0.0, -1.0, 5.0], "high": [2.0, 1.0, 5.0], "deviation": [0.5, 0.5, 0.0]})
    inside = torch.tensor([[0.0, 1.0, 5.0], [2.0, -1.0, 5.0]])
    assert ranges.beyond(inside, "abc") == []
    assert ranges.beyond(inside[:0], "abc") == []
    rows = torch.tensor([[3.1, -2.0, 5.0], [1.0, 1.5, 5.1]])
    found = ranges.beyond(rows, "abc")
    assert [(one.column, round(one.value, 4), one.deviations) for one in found] == [
        ("c", 5.1, math.inf), ("a", 3.1, pytest.approx(2.2, rel=1e-4)), ("b", -2.0, pytest.approx(2.0, rel=1e-4)),
    ]  # fmt: skip
    assert ColumnRanges.from_dict(ranges.to_dict()).beyond(rows, "abc") == found
    for broken in ({}, {"low": 3, "high": 3, "deviation": 3}, {"low": [1.0], "high": [], "deviation": [1.0]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            ColumnRanges.from_dict(broken)


LOW = {"low": [0.0, -1.0], "high": [1.0, 2.0], "deviation": [0.5, 0.0]}
HIGH = {"low": [-2.0, 0.0], "high": [0.5, 3.0], "deviation": [0.1, 0.2]}


def test_ranges_of_several_are_those_of_all_their_graphs() -> None:
    several = [read_ranges({"node": LOW, "edge": LOW, "num_graphs": 3}), read_ranges({"node": HIGH, "edge": HIGH})]
    both = {"low": [-2.0, -1.0], "high": [1.0, 3.0], "deviation": [0.5, 0.2]}
    assert joined_ranges(several) == joined_ranges(several[::-1]) == {"node": both, "edge": both}
    assert joined_ranges(several[:1]) == {"node": LOW, "edge": LOW}


def test_ranges_that_not_all_know_are_left_out() -> None:
    known = read_ranges({"node": LOW, "edge": LOW})
    assert joined_ranges([known, read_ranges({"node": HIGH})]).keys() == {"node"}
    wide = {name: [*values, 1.0] for name, values in HIGH.items()}
    assert joined_ranges([known, read_ranges({"node": HIGH, "edge": wide})]).keys() == {"node"}
    for other in (None, 3, {}, {"node": 3}, {"node": {"low": [1.0]}}, {"node": {**LOW, "high": [1.0]}}):
        assert read_ranges(other) == {}
        assert joined_ranges([known, read_ranges(other)]) == {}
