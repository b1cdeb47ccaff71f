"""The life of a process that helps rank 0 to train: it is told what, trains its share, and records nothing."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl
import torch

from topotrain.config import TrainConfig
from topotrain.data.prepare import prepare_data
from topotrain.errors import EXIT_FAULT, EXIT_USER, DataError, TopotrainError
from topotrain.fields import LAST_CHECKPOINT
from topotrain.invocation import serving_parent
from topotrain.model.network import TopoQANetwork
from topotrain.scratch import scratch
from topotrain.signals import stopping
from topotrain.training.callbacks import EpochEndBeside
from topotrain.training.loop import Limits, Loop, limit_threads
from topotrain.training.network_shape import network_spec
from topotrain.training.ranks import BRIEF, CHECKPOINT, NOTHING, Meeting, Place, launched_place, outer_place

log = logging.getLogger("topotrain")
WATCH_SECONDS = 0.5


def main() -> None:
    """Of a process that rank 0 started."""
    logging.getLogger("topotrain").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(follow(launched_place()))


def follow_outer() -> int | None:
    """The exit status of a process that ``torchrun`` or ``srun`` started as another rank than 0, at its end."""
    place = outer_place()
    return follow(place) if place is not None and place.rank else None


def follow(place: Place) -> int:
    """Train as rank 0 says.

    Signals are left to rank 0, which closes the run; its end is the end of this.

    Returns:
        The exit status.
    """
    for each in stopping():
        signal.signal(each, signal.SIG_IGN)
    meeting: Meeting | None = None
    try:
        meeting = Meeting(place)
        _train(meeting)
    except Exception as error:  # noqa: BLE001 (rank 0 says what there is to say)
        if meeting is not None:
            meeting.failed(error)
        log.debug("rank %d: %s", place.rank, error)
        return EXIT_USER if isinstance(error, TopotrainError) else EXIT_FAULT
    finally:
        Meeting.leave()
    return 0


def _train(meeting: Meeting) -> None:
    told = meeting.take(BRIEF)
    if told == NOTHING.encode():
        meeting.wait_for_all(lambda: None)
        return
    brief: dict[str, Any] = torch.load(io.BytesIO(told), weights_only=True)
    config = TrainConfig.model_validate(brief["config"])
    data = prepare_data(config)
    if data.digest != brief["data_digest"]:
        raise DataError(
            f"{data.graph_dir}: graphs and labels have data.digest {data.digest[:12]} here, and "
            f"{brief['data_digest'][:12]} for rank 0",
            "the same on every machine",
        )
    pl.seed_everything(config.dataloader.seed, workers=True, verbose=False)
    limit_threads()
    network = TopoQANetwork(network_spec(data.schema, config))
    network.load_state_dict(brief["weights"])
    data.module.first_epoch = brief["first_epoch"]
    with scratch("rank") as folder:
        last = None
        if meeting.there(CHECKPOINT):
            last = folder / LAST_CHECKPOINT
            last.write_bytes(meeting.take(CHECKPOINT))
        meeting.form(lambda: None)
        limits = Limits(**brief["limits"])
        loop = Loop(config, limits, folder, meeting.place, last, brief["new_learning_rate"])
        loop.run(network, data.module, [EpochEndBeside()])


def _end_with_parent() -> None:
    """End this process when rank 0 was killed, whatever it is waiting for."""
    parent = serving_parent()
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(EXIT_FAULT)
