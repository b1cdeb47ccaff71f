"""How many epochs there are where the recipe leaves it to the data."""

from __future__ import annotations

import pytest

from topotrain.config import load_config
from topotrain.training.epochs import with_epochs


@pytest.mark.parametrize(
    ("num_batches", "accumulate", "epochs"),
    [(52, 1, 8), (500, 1, 8), (40, 1, 10), (16, 1, 25), (16, 2, 50), (5, 2, 100), (1, 1, 100), (0, 1, 100)],
)
def test_they_make_four_hundred_steps_within_bounds(num_batches: int, accumulate: int, epochs: int) -> None:
    config = load_config(None, [f"trainer.accumulate_grad_batches={accumulate}", "seed=3"]).config
    found = with_epochs(config, num_batches)
    assert found.trainer.num_epochs == epochs
    assert found.model_copy(update={"trainer": config.trainer}) == config, "nothing else is changed"


def test_a_number_that_is_given_is_obeyed() -> None:
    config = load_config(None, ["trainer.num_epochs=3"]).config
    assert with_epochs(config, 1) is config
