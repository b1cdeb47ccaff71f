"""The decision to promote, as a table: it needs no server."""

from __future__ import annotations

import pytest

from topotrain.errors import ConfigError
from topotrain.evaluation.gate import Gate, VersionMetrics, decide, parse_gate
from topotrain.fields import EVAL_RANKING_LOSS, EVAL_SPEARMAN


def version_metrics(version, loss=None, rank=None, digest="D", targets="folder; label DockQ", **metrics):
    values = {EVAL_RANKING_LOSS: loss, EVAL_SPEARMAN: rank, **metrics}
    return VersionMetrics(
        version, {name: value for name, value in values.items() if value is not None}, digest, targets
    )


CHAMPION = version_metrics("1", 0.10, 0.50, val_loss=0.05)
NOT_WORSE_LOSS = "mean ranking loss not higher than the champion's"
NOT_WORSE_RANK = "mean Spearman not lower than the champion's"
SAME_DATA, SAME_TARGETS = "evaluated on the same data (digest)", "with the same targets and labels"
BETTER = "one of the two better"


@pytest.mark.parametrize(
    ("candidate", "failing"),
    [
        (version_metrics("2", 0.09, 0.51), []),
        (version_metrics("2", 0.09, 0.50), []),
        (version_metrics("2", 0.10, 0.51), []),
        (version_metrics("2", 0.10, 0.50), [BETTER]),
        (version_metrics("2", 0.11, 0.60), [NOT_WORSE_LOSS]),
        (version_metrics("2", 0.05, 0.49), [NOT_WORSE_RANK]),
        (version_metrics("2", 0.11, 0.49), [NOT_WORSE_LOSS, NOT_WORSE_RANK, BETTER]),
        (version_metrics("2", 0.05, 0.60, digest="E"), [SAME_DATA]),
        (version_metrics("2", 0.05, 0.60, targets="label column; label DockQ"), [SAME_TARGETS]),
        (version_metrics("2", 0.05, None), [NOT_WORSE_RANK]),  # undefined is not good enough
        (
            version_metrics("2", digest=None, targets=None),
            ["was evaluated", SAME_DATA, SAME_TARGETS, NOT_WORSE_LOSS, NOT_WORSE_RANK, BETTER],
        ),
    ],
)
def test_the_default_gate(candidate, failing):
    decision = decide(candidate, CHAMPION)
    assert [line.condition for line in decision.failing] == failing
    assert decision.holds == (not failing)
    assert len(decision.lines) == 6


def test_a_champion_promoted_by_hand_was_never_evaluated():
    decision = decide(version_metrics("2", 0.05, 0.6), version_metrics("1", digest=None, targets=None))
    assert [line.condition for line in decision.failing][:2] == [SAME_DATA, SAME_TARGETS]
    assert decision.failing[0].champion == "not evaluated"


def test_without_a_champion_the_candidate_must_have_been_evaluated():
    assert decide(version_metrics("2", 0.9, -1.0), None).holds
    refused = decide(version_metrics("2", digest=None), None)
    assert [line.condition for line in refused.lines] == ["was evaluated"]
    assert not refused.holds


@pytest.mark.parametrize(
    ("gates", "failing"),
    [
        (["val_loss<0.06"], []),
        (["val_loss<0.04"], ["val_loss<0.04"]),
        (["val_loss<=0.05", "val_loss>=0.05", "val_loss==0.05"], []),
        (["val_loss>0.01", "val_loss<0.02"], ["val_loss<0.02"]),
    ],
)
def test_further_gates(gates, failing):
    decision = decide(version_metrics("2", 0.09, 0.51, val_loss=0.05), CHAMPION, [parse_gate(gate) for gate in gates])
    assert [line.condition for line in decision.failing] == failing
    assert len(decision.lines) == 6 + len(gates)
    assert decision.lines[-1].champion == "0.05"


def test_a_gate_on_a_metric_of_the_default_gate_stands_in_its_place():
    worse = version_metrics("2", 0.11, 0.60)
    decision = decide(worse, CHAMPION, [parse_gate(f"{EVAL_RANKING_LOSS}<0.2")])
    assert decision.holds
    assert NOT_WORSE_LOSS not in [line.condition for line in decision.lines]
    assert SAME_DATA in [line.condition for line in decision.lines]
    neither = decide(version_metrics("2", 0.11, 0.5), CHAMPION, [parse_gate(f"{EVAL_RANKING_LOSS}<0.2")])
    assert [line.condition for line in neither.failing] == [BETTER]


def test_with_both_replaced_nothing_is_compared():
    gates = [parse_gate(f"{EVAL_RANKING_LOSS}<0.2"), parse_gate(f"{EVAL_SPEARMAN}>0")]
    decision = decide(version_metrics("2", 0.15, 0.1, digest="E"), CHAMPION, gates)
    assert [line.condition for line in decision.lines] == ["was evaluated", *map(str, gates)]
    assert decision.holds


def test_an_unknown_metric_lists_those_that_are_known():
    with pytest.raises(ConfigError, match=r"'val_los'.*version 2.*val_loss"):
        decide(version_metrics("2", 0.1, 0.5, val_loss=0.05), CHAMPION, [parse_gate("val_los<1")])


def test_a_figure_of_an_evaluation_that_was_not_made_is_a_refusal():
    decision = decide(version_metrics("2", digest=None), None, [parse_gate("eval_mse<1")])
    assert [line.condition for line in decision.failing] == ["was evaluated", "eval/mse<1"]


def test_the_numbers_that_were_looked_at():
    decision = decide(version_metrics("2", 0.09, 0.51, val_loss=0.05), CHAMPION, [parse_gate("val_loss<1")])
    assert decision.numbers == {
        EVAL_RANKING_LOSS: {"candidate": 0.09, "champion": 0.10},
        EVAL_SPEARMAN: {"candidate": 0.51, "champion": 0.50},
        "val_loss": {"candidate": 0.05, "champion": 0.05},
    }


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("val_loss<0.06", Gate("val_loss", "<", 0.06)),
        (" val_loss <= 6e-2 ", Gate("val_loss", "<=", 0.06)),
        ("eval/x y-1.z>=-1", Gate("eval/x y-1.z", ">=", -1.0)),
        ("rank==1", Gate("rank", "==", 1.0)),
    ],
)
def test_gates_are_read(text, gate):
    assert parse_gate(text) == gate


@pytest.mark.parametrize(
    "text", ["", "val_loss", "val_loss<", "<0.1", "val_loss=0.1", "a<b", "a<0.1<b", "a<>1", "a<nan"]
)
def test_malformed_gates(text):
    with pytest.raises(ConfigError, match="NAME OP NUMBER"):
        parse_gate(text)
