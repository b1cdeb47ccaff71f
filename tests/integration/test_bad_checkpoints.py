"""A checkpoint that was tampered with, or damaged, is one clear line, whatever in it is wrong."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import topotrain
from kit.graphs import PUBLISHED
from topotrain.errors import DataError, TopotrainError
from topotrain.model.checkpoint import load_network
from topotrain.tracking.artifacts import checkpoint_of_uri
from topotrain.tracking.store import Store
from topotrain.training.resume import resume

GONE = object()
WORDS: tuple[Any, ...] = (GONE, None, "text", -1, 10**9, {}, math.nan)

# Dotted places in a checkpoint; a number is an index.
PLACES = (
    *("state_dict", "feature_metadata", "model_hyperparameters", "config", "limits", "data_digest", "run_id"),
    *("epoch", "global_step", "step", "topotrain_version", "pytorch-lightning_version", "callbacks"),
    *("selection", "selection.kept", "selection.waited", "selection.history", "selection.history.0"),
    *("selection.kept.0", "selection.kept.0.epoch", "selection.kept.0.figures", "selection.history.0.val_loss"),
    *("loops", "loops.fit_loop", "loops.fit_loop.epoch_progress", "loops.fit_loop.epoch_progress.current.ready"),
    *("loops.fit_loop.epoch_loop\\.batch_progress", "loops.fit_loop.epoch_loop\\.batch_progress.current.ready"),
    *("optimizer_states", "optimizer_states.0", "optimizer_states.0.param_groups", "optimizer_states.0.state"),
    *("optimizer_states.0.param_groups.0.lr", "optimizer_states.0.state.0", "optimizer_states.0.state.0.exp_avg"),
    *("lr_schedulers", "lr_schedulers.0", "lr_schedulers.0.best", "lr_schedulers.0.num_bad_epochs"),
    *("config.optimizer", "config.optimizer.learning_rate", "limits.fast_dev_run", "limits.train_batches"),
    *(f"model_hyperparameters.{name}" for name in ("node_dim", "edge_dim", "hidden_dim", "num_layers")),
    *(f"model_hyperparameters.{name}" for name in ("attention_head", "dropout", "pooling_type", "use_layer_norm")),
    *("feature_metadata.edge_schema", "feature_metadata.node_schema.dim"),
    *("state_dict.network\\.node_embedding\\.weight", "state_dict.network\\.layers\\.0\\.conv\\.att"),
)


LIGHTNING_S = ("optimizer_states", "lr_schedulers", "loops")  # read by Lightning and torch


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(content)
    *parts, last = (part.replace("\0", ".") for part in place.replace("\\.", "\0").split("."))
    inner: Any = content
    for part in parts:
        inner = inner[int(part) if isinstance(inner, list) or (isinstance(inner, dict) and 0 in inner) else part]
    key = int(last) if isinstance(inner, list) or (isinstance(inner, dict) and 0 in inner) else last
    if value is GONE:
        del inner[key]
    else:
        inner[key] = value
    return content


@pytest.fixture(scope="module")
def cut(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Any]]:
    """A run that has an epoch to go, its store's address, and what its last checkpoint holds."""
    folder = tmp_path_factory.mktemp("cut")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    overrides = [*finished.graph_set.overrides, *PUBLISHED, "trainer.num_epochs=2", "mlflow.register=none"]
    result = topotrain.fit(overrides=overrides, tracking_uri=uri, progress=False)
    path = Store.open(uri).artifacts.fetch(checkpoint_of_uri(f"runs:/{result.run_id}/checkpoints/last.ckpt"), folder)
    return result.run_id, uri, torch.load(path, weights_only=True)


@pytest.mark.parametrize("place", PLACES)
def test_one_clear_line(place: str, cut: Any, tmp_path: Path) -> None:
    """What is no ``TopotrainError`` fails; a value that does no harm may be taken."""
    run_id, uri, content = cut
    words = WORDS if place.startswith(LIGHTNING_S) else WORDS[:4]
    for number, word in enumerate(words):
        path = tmp_path / f"{number}.ckpt"
        torch.save(changed(content, place, word), path)
        for use in (load_network, lambda path: go_on(run_id, uri, path)):
            try:
                use(path)
            except TopotrainError as error:
                assert "\n" not in str(error)  # noqa: PT017


def go_on(run_id: str, uri: str, path: Path) -> None:
    resume(run_id, checkpoint=str(path), overrides=["trainer.num_epochs=3"], tracking_uri=uri, progress=False)


@pytest.mark.parametrize(
    ("place", "word", "words"),
    [
        ("model_hyperparameters.hidden_dim", 10**8, "weights are not those of its network"),
        ("model_hyperparameters.num_layers", 10**7, "10000000 layers"),
        ("model_hyperparameters.node_dim", -1, "model_hyperparameters.node_dim is -1"),
        ("state_dict.network\\.node_embedding\\.weight", "text", "state_dict.network.node_embedding.weight is 'text'"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_allocated_first(
    place: str, word: Any, words: str, cut: Any, tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    torch.save(changed(cut[2], place, word), path)
    with pytest.raises(DataError, match=words):
        load_network(path)


@pytest.mark.parametrize(
    ("place", "word", "words"),
    [
        ("epoch", 7, "its parts are of different epochs"),
        ("selection.history.0.val_loss", math.nan, "selection.history.0.val_loss is NaN"),
        ("lr_schedulers", [], "lr_schedulers is empty"),
        ("lr_schedulers.0.num_bad_epochs", None, "lr_schedulers.0.num_bad_epochs is null"),
        ("config.optimizer.learning_rate", "fast", "the checkpoint's configuration is malformed"),
        ("limits.train_batches", "many", "limits.train_batches"),
        ("optimizer_states.0.state.0.exp_avg", "text", "can't go on from its checkpoint .*--checkpoint best"),
    ],
)
def test_what_keeps_a_run_from_going_on_is_named(place: str, word: Any, words: str, cut: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    torch.save(changed(cut[2], place, word), path)
    with pytest.raises(DataError, match=words):
        go_on(*cut[:2], path)
