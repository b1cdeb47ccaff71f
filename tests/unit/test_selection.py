"""Which epochs are kept and when training stops, as tables of epochs."""

from __future__ import annotations

import json

import pytest

from topotrain.config import validate
from topotrain.fields import BEST_SELECTION_METRIC, BEST_VAL_LOSS, SELECTION_METRIC, VAL_LOSS
from topotrain.training.selection import EpochOutcome, Selection


def make_selection(*, keep: int = 3, patience: int = 25, primary: str = "val_loss") -> Selection:
    return Selection(
        validate(
            {
                "checkpoints": {"keep": keep},
                "early_stopping": {"patience": patience},
                "selection": {"primary_metric": primary},
            }
        )
    )


def feed(selection: Selection, *losses: float, start: int = 0) -> list[EpochOutcome]:
    """One epoch for each ``val_loss``; ``selection_metric`` runs the other way."""
    return [
        selection.update(epoch, {VAL_LOSS: loss, SELECTION_METRIC: -loss}) for epoch, loss in enumerate(losses, start)
    ]


def kept(selection: Selection) -> list[int]:
    return [one.epoch for one in selection.kept]


@pytest.mark.parametrize(
    ("losses", "keep", "expected"),
    [
        ([0.3], 3, [0]),
        ([0.3, 0.2, 0.1], 3, [2, 1, 0]),
        ([0.1, 0.2, 0.3, 0.4], 3, [0, 1, 2]),
        ([0.4, 0.3, 0.2, 0.1], 2, [3, 2]),
        ([0.2, 0.2, 0.2, 0.2], 3, [0, 1, 2]),  # ties go to the earlier epoch
        ([0.3, 0.2, 0.2, 0.1, 0.2], 2, [3, 1]),
        ([0.3, 0.1, 0.2, 0.1], 1, [1]),
        ([0.5, -0.5, 0.0], 1, [1]),
        ([0.3, 0.2], 99, [1, 0]),
    ],
)
def test_which_epochs_are_kept(losses, keep, expected):
    selection = make_selection(keep=keep)
    feed(selection, *losses)
    assert kept(selection) == expected
    assert selection.best.epoch == expected[0]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_files_kept_are_those_kept_and_not_dropped(keep):
    """Whoever follows the outcomes alone ends with the files that ``kept`` names."""
    selection = make_selection(keep=keep)
    files: set[str] = set()
    for outcome in feed(selection, 0.5, 0.4, 0.4, 0.6, 0.3, 0.3, 0.9, 0.1, 0.4):
        if outcome.keep:
            files.add(outcome.keep.file_name)
        for old in outcome.dropped:
            assert old.file_name in files
            files.discard(old.file_name)
    assert files == {one.file_name for one in selection.kept}
    assert len(files) == keep


def test_an_epoch_that_ties_with_the_worst_kept_is_not_kept():
    selection = make_selection(keep=1)
    first, second = feed(selection, 0.2, 0.2)
    assert first.is_best
    assert not second.is_best
    assert second.keep is None
    assert second.dropped == []


def test_the_primary_metric_decides():
    losses = [0.2, 0.3, 0.1]
    by_loss, by_selection = make_selection(keep=1), make_selection(keep=1, primary="selection_metric")
    feed(by_loss, *losses)
    feed(by_selection, *losses)
    assert (kept(by_loss), kept(by_selection)) == ([2], [1])
    assert by_selection.best.value == -0.3
    assert (by_loss.waited, by_selection.waited) == (0, 1)


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after"),
    [
        ([0.5, 0.4, 0.3], 0, None),
        ([0.5, 0.5], 0, 1),  # no patience: the first epoch without improvement is the last
        ([0.5, 0.5, 0.5], 1, 1),
        ([0.5, 0.6, 0.4, 0.5, 0.5], 2, 4),
        ([0.5, 0.6, 0.7, 0.8], 3, 3),
        ([0.5, 0.6, 0.7], 3, None),
    ],
)
def test_when_training_stops(losses, patience, stops_after):
    selection = make_selection(patience=patience)
    stopped = None
    assert not selection.should_stop
    for epoch, loss in enumerate(losses):
        feed(selection, loss, start=epoch)
        if selection.should_stop and stopped is None:
            stopped = epoch
    assert stopped == stops_after


def test_patience_follows_the_primary_metric():
    falling_loss = [0.5, 0.4, 0.3]  # selection_metric rises
    selection = make_selection(patience=2, primary="selection_metric")
    feed(selection, *falling_loss)
    assert selection.should_stop


def test_best_figures_improve_each_by_itself():
    selection = make_selection(keep=1)
    outcomes = [
        selection.update(epoch, {VAL_LOSS: loss, SELECTION_METRIC: metric})
        for epoch, (loss, metric) in enumerate([(0.5, 0.5), (0.6, 0.1), (0.4, 0.3), (0.4, 0.1), (0.3, 0.0)])
    ]
    assert [outcome.improved_metrics for outcome in outcomes] == [
        {BEST_VAL_LOSS: 0.5, BEST_SELECTION_METRIC: 0.5},
        {BEST_SELECTION_METRIC: 0.1},
        {BEST_VAL_LOSS: 0.4},
        {},
        {BEST_VAL_LOSS: 0.3, BEST_SELECTION_METRIC: 0.0},
    ]


def test_the_state_round_trips_and_the_configuration_wins():
    first = make_selection(keep=3, patience=25)
    feed(first, 0.5, 0.3, 0.4, 0.6)
    state = json.loads(json.dumps(first.state_dict()))  # epoch numbers become text on the way
    second = make_selection(keep=3, patience=3)
    second.load_state_dict(state)
    assert second.kept == first.kept
    assert second.history == first.history
    assert second.waited == 2
    assert not second.should_stop
    feed(second, 0.7, start=4)
    assert second.should_stop  # today's patience of 3, yesterday's 2 epochs of waiting
    feed(first, 0.7, start=4)
    assert not first.should_stop


def test_a_smaller_keep_after_restart_drops_the_worst():
    first = make_selection(keep=3)
    feed(first, 0.5, 0.3, 0.4)
    second = make_selection(keep=1)
    second.load_state_dict(first.state_dict())
    (outcome,) = feed(second, 0.6, start=3)
    assert kept(second) == [1]
    assert sorted(old.epoch for old in outcome.dropped) == [0, 2]


def test_another_primary_metric_after_restart_ranks_by_that_one():
    first = make_selection(keep=3)
    feed(first, 0.5, 0.3, 0.4)
    second = make_selection(keep=3, primary="selection_metric")
    second.load_state_dict(first.state_dict())
    assert kept(second) == [0, 2, 1]
    assert second.best.value == -0.5


def test_the_state_is_a_copy_in_effect():
    first = make_selection()
    feed(first, 0.5)
    state = json.dumps(first.state_dict())
    second = make_selection()
    second.load_state_dict(json.loads(state))
    feed(second, 0.1, start=1)
    assert kept(first) == [0]
    assert json.dumps(first.state_dict()) == state
