"""What a run says of itself while it trains, where there is no terminal."""

from __future__ import annotations

import pytest

import topotrain


@pytest.mark.parametrize(
    ("accumulate", "every", "steps"),
    [
        (1, 2, ["2/6", "4/6"]),  # after the last step comes the epoch's own line
        (1, 6, []),
        (2, 1, ["1/3", "2/3"]),  # steps of the optimiser, not batches
        (4, 1, ["1/2"]),
    ],
)
def test_a_long_epoch_gives_signs_of_life(graph_set, store_uri, caplog, accumulate, every, steps):
    settings = [f"trainer.accumulate_grad_batches={accumulate}", f"logging.log_every_n_steps={every}"]
    settings += ["dataloader.batches=random", "dataloader.batch_size=2", "mlflow.register=none"]
    overrides = [*graph_set.overrides, *settings]
    with caplog.at_level("INFO", logger="topotrain"):
        topotrain.fit(overrides=overrides, tracking_uri=store_uri)
    shown = [message.split("  ")[:3] for message in caplog.messages if message.startswith("epoch ")]
    expected = []
    for epoch in ("epoch 0/1", "epoch 1/1"):
        expected += [(epoch, f"step {step}") for step in steps] + [(epoch, "train_mse")]
    assert [(epoch, what if what.startswith("step") else what.split()[0]) for epoch, what, _ in shown] == expected
    so_far = [last for _, what, last in shown if what.startswith("step")]
    assert all(0 < float(text.removeprefix("train_mse ").removesuffix(" so far")) < 1 for text in so_far)


def test_an_epoch_of_few_steps_has_one_line(graph_set, store_uri, caplog):
    """As by default: 100 steps."""
    with caplog.at_level("INFO", logger="topotrain"):
        topotrain.fit(overrides=[*graph_set.overrides, "mlflow.register=none"], tracking_uri=store_uri)
    assert len([message for message in caplog.messages if message.startswith("epoch ")]) == 2
