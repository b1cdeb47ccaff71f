"""Checkpoint files, read without running anything they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError
from torch import Tensor

from topotrain.data.torch_file import ExecutableError, load_tensors
from topotrain.errors import DataError, UserInputError
from topotrain.limits import CHECKPOINT_BYTES
from topotrain.model.network import NetworkSpec, TopoQANetwork, network_of_weights
from topotrain.schema.documents import Object, Section, Text, fault
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.text import first_line, one_line

NETWORK_PREFIX = "network."
WRITTEN = "a checkpoint written by topotrain"
Document = TypeVar("Document", bound=BaseModel)


def load_plain(path: Path, expected: str, do: str = "") -> Any:
    """Read a file of ``torch.save`` that holds tensors and plain values; nothing else in it is run.

    Args:
        path: the file.
        expected: what it should be, for messages.
        do: what to do with one that names anything else.

    Raises:
        DataError: missing, not such a file, or it names anything executable.
    """
    try:
        return load_tensors(path, CHECKPOINT_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", expected) from None
    except UserInputError:
        raise
    except ExecutableError as error:
        raise DataError(f"{path}: refused, it names {error}", "tensors and plain values", do) from None
    except Exception as error:  # noqa: BLE001 (a hostile file can make the reader raise anything)
        reason = first_line(str(error), type(error).__name__)
        raise DataError(f"{path}: not a readable checkpoint ({reason})", expected) from None


Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]


class _Weights(Section):
    """What every checkpoint holds."""

    state_dict: dict[str, InstanceOf[Tensor]]
    feature_metadata: Object
    model_hyperparameters: NetworkSpec
    run_id: Text | None = None
    topotrain_version: Text = ""
    step: Count = 1


class _Metrics(BaseModel):
    """Of an epoch; others than these may be there."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Finite]
    val_loss: Finite
    selection_metric: Finite


class _Kept(Section):
    epoch: Count
    figures: _Metrics


class _Selection(Section):
    kept: list[_Kept]
    waited: Count
    history: dict[Annotated[int, Field(ge=0)], _Metrics]


class _Progress(Section):
    ready: Count
    started: Count
    processed: Count
    completed: Count


class _Counted(Section):
    current: _Progress


class _FitLoop(Section):
    epoch_progress: _Counted
    batch_progress: Annotated[_Counted, Field(alias="epoch_loop.batch_progress")]


class _Loops(Section):
    fit_loop: _FitLoop


class _ParamGroup(Section):
    lr: Finite


class _Optimizer(Section):
    param_groups: Annotated[list[_ParamGroup], Field(min_length=1)]


class _Scheduler(Section):
    best: Annotated[float, Field(gt=float("-inf"))]  # infinite before the first epoch, never no number
    num_bad_epochs: Count
    last_epoch: Count


class _MidEpoch(Section):
    """Of the part of an epoch that was trained."""

    train_errors: InstanceOf[Tensor]
    random: InstanceOf[Tensor]
    cuda_random: InstanceOf[Tensor] | None = None
    seconds: Finite


class _Resumable(_Weights):
    """What a run goes on from."""

    epoch: Count
    global_step: Count
    selection: _Selection
    config: Object
    data_digest: Text
    loops: _Loops
    optimizer_states: Annotated[list[_Optimizer], Field(min_length=1)]
    lr_schedulers: list[_Scheduler]
    mid_epoch: _MidEpoch | None = None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of topotrain as plain values and tensors.

    Raises:
        DataError: missing, or not such a checkpoint.
    """
    content = load_plain(path, WRITTEN)
    needed = {"state_dict", "feature_metadata", "model_hyperparameters"}
    if not isinstance(content, dict) or not needed <= set(content):
        raise DataError(f"{path}: holds no {', '.join(sorted(needed))}", WRITTEN)
    _check(_Weights, content, str(path))
    return content


def check_resumable(content: Mapping[str, Any], name: str) -> None:
    """See that a checkpoint that was read holds all that a run needs to go on, in itself consistent.

    Args:
        content: of the checkpoint.
        name: of it, for messages.

    Raises:
        DataError: it does not.
    """
    found = _check(_Resumable, content, name)
    scheduler = found.config.get("scheduler")
    if not found.lr_schedulers and not (isinstance(scheduler, Mapping) and scheduler.get("type") == "cosine"):
        raise DataError(f"{name}: lr_schedulers is empty", WRITTEN)  # a cosine follows from the steps made
    begun, progress = found.epoch + 1, found.loops.fit_loop.epoch_progress.current
    ended = begun - 1 if found.mid_epoch else begun
    counted = {len(found.selection.history), max(found.selection.history, default=-1) + 1, progress.processed}
    if (
        counted != {ended}
        or {progress.ready, progress.started} != {begun}
        or progress.completed not in (found.epoch, ended)
    ):
        counted |= {progress.ready, progress.started}
        raise DataError(f"{name}: its parts are of different epochs ({', '.join(map(str, sorted(counted)))})", WRITTEN)
    of_batches = found.loops.fit_loop.batch_progress.current
    batches = {of_batches.ready, of_batches.started, of_batches.processed, of_batches.completed}
    if found.mid_epoch:  # saved before its last step counts as completed
        batches.discard(of_batches.ready - 1)
    if len(batches) > 1:
        raise DataError(f"{name}: its epoch has not ended ({' or '.join(map(str, sorted(batches)))} batches)", WRITTEN)


def _check(kind: type[Document], content: Mapping[str, Any], name: str) -> Document:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        at, found, _ = fault(error)
        raise DataError(f"{name}: {'.'.join(map(str, at))} {found}", WRITTEN) from None


def load_network(path: Path) -> tuple[TopoQANetwork, FeatureSchema]:
    """The network of a checkpoint, with the schema it was trained on.

    Raises:
        DataError: missing, or not a checkpoint of topotrain.
    """
    return network_of(read_checkpoint(path))


def network_of(content: Mapping[str, Any]) -> tuple[TopoQANetwork, FeatureSchema]:
    """The network of a checkpoint that was read, with the schema it was trained on.

    Raises:
        DataError: its weights are not those of its network.
        SchemaError: its schema is malformed.
    """
    weights = {
        name.removeprefix(NETWORK_PREFIX): value
        for name, value in content["state_dict"].items()
        if name.startswith(NETWORK_PREFIX)
    }
    try:
        odd = [name for name, value in weights.items() if not value.is_floating_point() or value.is_sparse]
        if odd:
            raise ValueError(f"{odd[0]} holds no floating point numbers")
        network = network_of_weights(NetworkSpec(**content["model_hyperparameters"]), weights)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise DataError(f"the checkpoint's weights are not those of its network ({one_line(error)})", WRITTEN) from None
    return network.float().eval(), FeatureSchema.from_dict(content["feature_metadata"])
