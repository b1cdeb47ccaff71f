"""The sections of a configuration: one frozen, validated ``TrainConfig``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from topotrain.credentials import mask_uri, mask_values
from topotrain.fields import DEMO, DOCKQ_COLUMN, SELECTION_METRIC, VAL_LOSS, VAL_SPEARMAN
from topotrain.limits import NUMBER
from topotrain.reading.numbers import reads_as_number

SINGLE_PRECISION = 1e38
MOST_POOLED = 1024
MOST_EPOCHS = 100  # where their number follows from the data


def _as_written(value: Any) -> Any:
    """Refuse what Python would take for a number and nobody means as one: ``true`` (1), the text ``1_0`` (10)."""
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    if isinstance(value, str) and any(map(str.isdigit, value)) and not reads_as_number(value.strip()):
        raise ValueError("a number in plain digits")
    return value


def _in_single_precision(value: float) -> float:
    """Refuse numbers that the network's arithmetic would take for infinity."""
    if abs(value) > SINGLE_PRECISION:
        raise ValueError(f"a number of at most {SINGLE_PRECISION:g}, which single precision holds")
    return value


def _in_bounds(value: int) -> int:
    """Refuse whole numbers that no setting has, before anything is made to their measure."""
    if abs(value) > NUMBER.value:
        raise ValueError(f"a number of at most {NUMBER.value}; {NUMBER.raise_it}")
    return value


def _finite(value: Any) -> Any:
    """Refuse numbers that JSON does not know at any depth of a free value."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("plain values, with finite numbers") from None
    return value


def _in_small_letters(value: Any) -> Any:
    """Columns are found in any case."""
    return value.strip().lower() if isinstance(value, str) else value


Int = Annotated[int, BeforeValidator(_as_written), AfterValidator(_in_bounds)]
Float = Annotated[float, BeforeValidator(_as_written), Field(allow_inf_nan=False), AfterValidator(_in_single_precision)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
Rate = Annotated[Float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class PathsConfig(_Section):
    """Where the input lies; ``demo`` stands for the data set that comes with the package."""

    graph: str = DEMO
    train_labels: str = DEMO
    val_labels: str = DEMO
    metadata: str | None = None
    summary: str | None = None
    cache: str | None = None

    @model_validator(mode="after")
    def _demo_is_whole(self) -> PathsConfig:
        given = {name: getattr(self, name) for name in ("graph", "train_labels", "val_labels")}
        missing = [f"paths.{name}" for name, value in given.items() if value == DEMO]
        if 0 < len(missing) < len(given):
            raise ValueError(f"{' and '.join(missing)} too, since the demo data set can't be mixed with other data")
        return self


class LabelsConfig(_Section):
    """What is learned of the label files."""

    column: Annotated[str, Field(min_length=1), BeforeValidator(_in_small_letters)] = DOCKQ_COLUMN


class ModelConfig(_Section):
    """Shape of the network, apart from the widths, which come from the graphs."""

    pooling_type: Literal["mean", "add", "max", "scaled_add"] = "scaled_add"
    attention_head: PositiveInt = 8
    hidden_dim: Annotated[Int, Field(ge=2, multiple_of=2)] = 32
    num_layers: PositiveInt = 1
    dropout: Rate = 0.25
    contact_potential: bool = True
    contact_term: bool = True
    derived_inputs: bool = True
    pooled_inputs: Annotated[Int, Field(ge=0, le=MOST_POOLED)] = 16
    pooled_inputs_dropout: Rate = 0.5
    embedding_dropout: Rate = 0.2
    head_dropout: Rate = 0.2
    input_scaling: Literal["standard", "decorrelated", "none"] = "decorrelated"
    input_clamp: PositiveFloat | None = 6.0


class EdgeSchemaConfig(_Section):
    """Behaviour of the edge encoder; the other keys are expectations held against the graphs."""

    use_layer_norm: bool = True
    dim: PositiveInt | None = None
    module: str | None = None
    variant: str | None = None
    columns: tuple[str, ...] | None = None
    module_params: Annotated[dict[str, Any], AfterValidator(_finite)] | None = None
    bands: Annotated[tuple[Any, ...], AfterValidator(_finite)] | None = None

    def expectations(self) -> dict[str, Any]:
        """What the user says of the graphs, to be held against them; empty when nothing was said."""
        return self.model_dump(exclude={"use_layer_norm"}, exclude_none=True)


class DataloaderConfig(_Section):
    """How graphs are drawn; ``seed`` decides weights, order and dropout."""

    batch_size: PositiveInt = 32
    batches: Literal["random", "by_target"] = "by_target"
    decoys_per_target: Annotated[Int, Field(gt=1)] = 8
    num_workers: NonNegativeInt = 0
    seed: Annotated[Int, Field(ge=0, lt=2**32)] = 222


class TrainerConfig(_Section):
    """Passed to Lightning's ``Trainer``; a number of epochs that is not given follows from the data."""

    accelerator: str = "cpu"
    devices: PositiveInt | str = 1
    precision: Int | str = 32
    num_epochs: PositiveInt | None = None
    accumulate_grad_batches: PositiveInt = 1
    num_nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp"] = "auto"


class LossConfig(_Section):
    """Squared error, and beside it how wrongly the decoys of each target are ordered."""

    rank_weight: NonNegativeFloat = 0.1
    rank_temperature: PositiveFloat = 4.0
    rank_margin: Annotated[Float, Field(ge=0, lt=1)] = 0.05


class OptimizerConfig(_Section):
    """Adam, or AdamW with a decay of matrices alone."""

    type: Literal["adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.001
    weight_decay: NonNegativeFloat = 0.01


class SchedulerConfig(_Section):
    """ReduceLROnPlateau on ``val_loss``, patience in epochs; or a cosine over all steps, that has neither."""

    type: Literal["reduce_on_plateau", "cosine"] = "cosine"
    factor: Annotated[Float, Field(gt=0, lt=1)] = 0.4
    patience: NonNegativeInt = 12
    warmup_steps: NonNegativeInt = 50


class EarlyStoppingConfig(_Section):
    """Stops when the primary metric has not improved for ``patience`` epochs."""

    patience: NonNegativeInt = 25


class SelectionConfig(_Section):
    """What ranks checkpoints; lower is better."""

    primary_metric: Literal["val_loss", "selection_metric"] = "val_loss"
    use_val_spearman: bool = True
    spearman_weight: NonNegativeFloat = 1.0
    spearman_min_delta: Float = 0.0

    def metric(self, val_loss: float, val_spearman_corr: float) -> float:
        """``selection_metric`` of one epoch, from that epoch's own metrics."""
        if not self.use_val_spearman:
            return val_loss
        return val_loss - self.spearman_weight * max(0.0, val_spearman_corr - self.spearman_min_delta)

    @property
    def scale(self) -> str:
        """What ``primary`` is measured on; primary metrics of different scales can't be compared."""
        if self.primary_metric == VAL_LOSS or not self.use_val_spearman:
            return str(self.primary_metric)
        least = f" - {self.spearman_min_delta:g}" if self.spearman_min_delta else ""
        return f"{SELECTION_METRIC} ({VAL_LOSS} - {self.spearman_weight:g} max(0, {VAL_SPEARMAN}{least}))"

    def primary(self, metrics: Mapping[str, float]) -> float:
        """The metric that ranks an epoch."""
        return metrics[SELECTION_METRIC if self.primary_metric == SELECTION_METRIC else VAL_LOSS]


class CheckpointsConfig(_Section):
    """How many of the best checkpoints are kept."""

    keep: PositiveInt = 3


class CoverageConfig(_Section):
    """What to do about labels without a usable graph."""

    minimum_percent: Annotated[Float, Field(ge=0, le=100)] = 0.0
    fail_on_missing: bool = True


class LoggingConfig(_Section):
    """What is shown while training.

    A refresh rate of 0 means lines instead of a bar: one for each epoch, and within an epoch one after every
    ``log_every_n_steps`` optimiser steps.
    """

    progress_bar_refresh_rate: NonNegativeInt = 1
    log_every_n_steps: PositiveInt = 100


class MlflowConfig(_Section):
    """Where and how the run is tracked; how long a server is waited for at the start and at the end, in seconds."""

    tracking_uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "dynamic_topoqa"
    run_name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")] = "topoqa"
    register_: Literal["all", "best", "none"] = Field("all", alias="register")
    connect_timeout: PositiveFloat = 30.0
    flush_timeout: NonNegativeFloat = 30.0
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True, coerce_numbers_to_str=True
    )


class TrainConfig(_Section):
    """The whole recipe of a training run; every key is described in ``docs/configuration.md``."""

    paths: PathsConfig = PathsConfig()
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig()
    edge_schema: EdgeSchemaConfig = EdgeSchemaConfig()
    dataloader: DataloaderConfig = DataloaderConfig()
    trainer: TrainerConfig = TrainerConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    selection: SelectionConfig = SelectionConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    coverage: CoverageConfig = CoverageConfig()
    logging: LoggingConfig = LoggingConfig()
    mlflow: MlflowConfig = Field(default_factory=MlflowConfig)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values under the names of the YAML file; credentials in a URI are masked."""
        nested: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        nested["edge_schema"] = {k: v for k, v in nested["edge_schema"].items() if v is not None}
        masked: dict[str, Any] = mask_values(nested, names=True)
        if self.mlflow.tracking_uri:
            masked["mlflow"]["tracking_uri"] = mask_uri(self.mlflow.tracking_uri)
        return masked

    def to_yaml(self) -> str:
        """The resolved configuration as it is recorded with the run."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, str]:
        """Dotted keys and text values, as logged to the tracking server."""
        return flat_values(self.to_dict())


def flat_values(nested: Mapping[str, Any]) -> dict[str, str]:
    """Sections of a configuration, or some of them, by dotted keys, as text."""
    return {key: _as_text(value) for key, value in _flatten(nested)}


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in nested.items():
        if isinstance(value, Mapping) and (prefix == "" or value):
            flat.extend(_flatten(value, f"{prefix}{key}."))
        elif not isinstance(value, Mapping):
            flat.append((f"{prefix}{key}", value))
    return flat


def _as_text(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)
