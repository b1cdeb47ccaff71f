"""What a configuration asks of this machine, in one line where it is not there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils import deterministic

from topotrain.config import TrainConfig, TrainerConfig
from topotrain.errors import ConfigError
from topotrain.training.hardware import check_hardware, fitting, make_trainer


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_no_gpu_is_one_line(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        check_hardware(TrainConfig(trainer=TrainerConfig(accelerator=name)))
    assert str(caught.value) == (
        f"trainer.accelerator is '{name}', but PyTorch {torch.__version__} finds no GPU here; expected a GPU, its "
        "driver, and a build of PyTorch for it; set it to cpu or auto"
    )


def test_a_gpu_that_is_not_asked_for_is_not_mentioned(monkeypatch):
    from pytorch_lightning.accelerators import CUDAAccelerator

    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(TrainerConfig(), enable_progress_bar=False)


def test_too_little_memory_names_the_batch_size():
    with pytest.raises(ConfigError) as caught, fitting(TrainConfig()):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total of ...")
    assert str(caught.value) == (
        "the accelerator's memory is too small for a batch (CUDA out of memory); expected a batch that fits; "
        "lower dataloader.batch_size (now 32); trainer.accumulate_grad_batches makes up for it"
    )


def test_memory_is_filled_again_afterwards():
    before = deterministic.fill_uninitialized_memory
    with pytest.raises(ZeroDivisionError), fitting(TrainConfig()):
        assert not deterministic.fill_uninitialized_memory
        raise ZeroDivisionError
    assert deterministic.fill_uninitialized_memory is before is True
