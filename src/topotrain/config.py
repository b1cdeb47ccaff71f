"""YAML and overrides to one frozen, validated ``TrainConfig``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from topotrain import old_config
from topotrain.credentials import mask_credentials
from topotrain.errors import ConfigError
from topotrain.fields import DEMO, SELECTION_METRIC, VAL_LOSS
from topotrain.text import nearest

SHOWN_CHARACTERS = 300  # of a value, in messages
MAX_VALUES = 100_000  # in one file or override, aliases written out


def _not_bool(value: Any) -> Any:
    """Refuse ``true`` where a number is meant: Python would read it as 1."""
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]


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


class ModelConfig(_Section):
    """Shape of the network, apart from the widths, which come from the graphs."""

    pooling_type: Literal["mean", "add", "max"] = "mean"
    attention_head: PositiveInt = 8
    hidden_dim: Annotated[Int, Field(ge=2, multiple_of=2)] = 32
    num_layers: PositiveInt = 2
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.25
    input_scaling: Literal["standard", "none"] = "standard"


class EdgeSchemaConfig(_Section):
    """Behaviour of the edge encoder; the other keys are expectations held against the graphs."""

    use_layer_norm: bool = True
    dim: PositiveInt | None = None
    module: str | None = None
    variant: str | None = None
    columns: tuple[str, ...] | None = None
    module_params: dict[str, Any] | None = None
    bands: tuple[Any, ...] | None = None

    def expectations(self) -> dict[str, Any]:
        """What the user says of the graphs, to be held against them; empty when nothing was said."""
        return self.model_dump(exclude={"use_layer_norm"}, exclude_none=True)


class DataloaderConfig(_Section):
    """How graphs are drawn; ``seed`` decides weights, order and dropout."""

    batch_size: PositiveInt = 16
    num_workers: NonNegativeInt = 0
    seed: Annotated[Int, Field(ge=0, lt=2**32)] = 222


class TrainerConfig(_Section):
    """Passed to Lightning's ``Trainer``."""

    accelerator: str = "cpu"
    devices: PositiveInt | str = 1
    precision: Int | str = 32
    num_epochs: PositiveInt = 100
    accumulate_grad_batches: PositiveInt = 1


class OptimizerConfig(_Section):
    """Adam."""

    learning_rate: PositiveFloat = 0.0005
    weight_decay: NonNegativeFloat = 0.0003


class SchedulerConfig(_Section):
    """ReduceLROnPlateau on ``val_loss``; patience in epochs."""

    type: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    factor: Annotated[Float, Field(gt=0, lt=1)] = 0.4
    patience: NonNegativeInt = 12


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
        """``selection_metric`` of one epoch, from that epoch's own figures."""
        if not self.use_val_spearman:
            return val_loss
        return val_loss - self.spearman_weight * max(0.0, val_spearman_corr - self.spearman_min_delta)

    def primary(self, figures: Mapping[str, float]) -> float:
        """The figure that ranks an epoch."""
        return figures[SELECTION_METRIC if self.primary_metric == SELECTION_METRIC else VAL_LOSS]


class CheckpointsConfig(_Section):
    """How many of the best checkpoints are kept."""

    keep: PositiveInt = 3


class CoverageConfig(_Section):
    """What to do about labels without a usable graph."""

    minimum_percent: Annotated[Float, Field(ge=0, le=100)] = 0.0
    fail_on_missing: bool = True


class LoggingConfig(_Section):
    """What is shown while training; a refresh rate of 0 means no bar, one line for each epoch."""

    progress_bar_refresh_rate: NonNegativeInt = 1
    log_every_n_steps: PositiveInt = 100


class MlflowConfig(_Section):
    """Where and how the run is tracked."""

    tracking_uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "dynamic_topoqa"
    run_name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")] = "topoqa"
    register_: Literal["all", "best", "none"] = Field("all", alias="register")
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True, coerce_numbers_to_str=True
    )


class TrainConfig(_Section):
    """The whole recipe of a training run; every key is described in ``docs/configuration.md``."""

    paths: PathsConfig = PathsConfig()
    model: ModelConfig = ModelConfig()
    edge_schema: EdgeSchemaConfig = EdgeSchemaConfig()
    dataloader: DataloaderConfig = DataloaderConfig()
    trainer: TrainerConfig = TrainerConfig()
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
        masked: dict[str, Any] = _masked(nested)
        return masked

    def to_yaml(self) -> str:
        """The resolved configuration as it is recorded with the run."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, str]:
        """Dotted keys and text values, as logged to the tracking server."""
        return {key: _as_text(value) for key, value in _flatten(self.to_dict())}


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration with where it came from.

    Attributes:
        config: the validated recipe.
        original_text: the file as it was given (credentials masked), or a line that says there was none.
        notices: one line for each thing that was read in another sense than written.
    """

    config: TrainConfig
    original_text: str = "# no configuration file: the defaults\n"
    notices: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Layer:
    """Values that go on top of a file.

    Attributes:
        values: nested, under the names of the YAML file or those of old.
        where: what messages call it; begins with "override".
        base: the folder that its paths are relative to.
    """

    values: Mapping[str, Any]
    where: str
    base: Path


@dataclass(frozen=True)
class Draft:
    """A file with everything on top of it, not yet validated.

    Attributes:
        raw: nested plain values; the paths in them are absolute.
        where: what messages call it.
        text: the file as it was given.
        notices: one line for each thing that was read in another sense than written.
    """

    raw: dict[str, Any]
    where: str
    text: str
    notices: tuple[str, ...]


def load_config(path: str | os.PathLike[str] | None = None, overrides: Iterable[str | Layer] = ()) -> LoadedConfig:
    """Read a configuration file, apply overrides, validate.

    Args:
        path: YAML file; ``None`` stands for the defaults.
        overrides: ``dotted.key=value``, the value read as YAML, or values that were read elsewhere.

    Raises:
        ConfigError: file missing or malformed, unknown key, value out of range.
    """
    draft = draft_config(path, overrides)
    return LoadedConfig(validate(draft.raw, draft.where), mask_credentials(draft.text), draft.notices)


def draft_config(path: str | os.PathLike[str] | None = None, overrides: Iterable[str | Layer] = ()) -> Draft:
    """The first half of :func:`load_config`: everything but the check of the values."""
    notices: list[str] = []
    raw: dict[str, Any] = {}
    text = LoadedConfig.original_text
    where = "configuration"
    if path is not None:
        source = Path(path).absolute()
        where = str(source)
        text, raw = read_yaml(source)
        raw = old_config.translate(raw, where, notices)
        _resolve_paths(raw, source.parent, where)
    for override in overrides:
        layer = override if isinstance(override, Layer) else layer_of(override)
        nested = old_config.translate(layer.values, layer.where, notices)
        _refuse_unknown(nested, TrainConfig, layer.where)
        _resolve_paths(nested, layer.base, layer.where)
        raw = merge(raw, nested)
    return Draft(raw, where, text, tuple(dict.fromkeys(notices)))


def layer_of(override: str, base: Path | None = None, place: str = "") -> Layer:
    """``dotted.key=value`` as a layer; its paths are relative to ``base``, by default the current directory."""
    return Layer(parse_override(override), f"{_shown(override)}{place}", base or Path.cwd())


def config_of_mapping(raw: Mapping[str, Any]) -> TrainConfig:
    """Nested plain values, as a file would hold them, to a configuration; paths are relative to the current directory.

    Raises:
        ConfigError: unknown key, or a value out of range.
    """
    nested = old_config.translate(raw, "configuration", [])
    _resolve_paths(nested, Path.cwd(), "configuration")
    return validate(nested)


def validate(raw: Mapping[str, Any], where: str = "configuration") -> TrainConfig:
    """Build the frozen configuration from nested plain values.

    Raises:
        ConfigError: unknown key (with the nearest known one), or a value out of range.
    """
    _refuse_unknown(raw, TrainConfig, where)
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise as_config_error(error, where) from None


def parse_override(text: str) -> dict[str, Any]:
    """``a.b=1`` to ``{"a": {"b": 1}}``; the value is read as YAML."""
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(
            f"{_shown(text)} is malformed", "dotted.key=value", "write e.g. optimizer.learning_rate=0.001"
        )
    try:
        parsed = _parse_yaml(value)
    except Exception as error:  # noqa: BLE001 (an explicit tag on a wrong value can make PyYAML raise anything)
        raise ConfigError(f"{_shown(text)}: the value is not YAML ({_yaml_problem(error)})", "a YAML value") from None
    if parts[:2] == ["mlflow", "tags"] and len(parts) > 3:
        parts = ["mlflow", "tags", ".".join(parts[2:])]  # a tag's own name may hold dots
    nested: dict[str, Any] = {parts[-1]: parsed}
    for part in reversed(parts[:-1]):
        nested = {part: nested}
    return nested


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``update`` merged in, mapping by mapping."""
    result = dict(base)
    for key, value in update.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _shown(override: str) -> str:
    """An override as messages show it."""
    return f"override {mask_credentials(override)[:SHOWN_CHARACTERS]!r}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    """Plain values; aliases that grow without end, and values nested in themselves, are refused."""
    parsed = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a subclass of SafeLoader)
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = MAX_VALUES + 1  # what a value nested in itself counts
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(item) for item in inner)
        return sizes[id(value)]

    if size(parsed) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values, or a value nested in itself")
    return parsed


def read_yaml(
    path: Path,
    what: str = "a YAML configuration",
    content: str = "themed sections of keys and values",
    option: str = "--config",
) -> tuple[str, dict[str, Any]]:
    """A YAML file of named values: its text and what it says.

    Args:
        path: of the file.
        what: the kind of file, for messages.
        content: what it should hold, for messages.
        option: where the path was given, for messages.

    Raises:
        ConfigError: missing, unreadable, not YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", what, f"check the path given to {option}") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null byte
        raise ConfigError(f"{path}: can't be read ({error})", f"{what} in UTF-8") from None
    try:
        raw = _parse_yaml(text)
    except Exception as error:  # noqa: BLE001 (an explicit tag on a wrong value can make PyYAML raise anything)
        raise ConfigError(f"{path}: not YAML ({_yaml_problem(error)})", content) from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}", content)
    return text, raw


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split()) or type(error).__name__


def _resolve_paths(raw: dict[str, Any], base: Path, where: str) -> None:
    """Make the file names of one source absolute, relative to where that source stands."""
    paths = raw.get("paths")
    if isinstance(paths, dict):
        for key, value in paths.items():
            if isinstance(value, str) and value != DEMO:
                if not value.strip() or "\0" in value:
                    raise ConfigError(f"{where}: paths.{key}: got {value!r}", "the path of a file or directory")
                paths[key] = absolute_path(value, base)
    mlflow = raw.get("mlflow")
    if isinstance(mlflow, dict) and isinstance(mlflow.get("tracking_uri"), str):
        mlflow["tracking_uri"] = absolute_uri(mlflow["tracking_uri"], base)


def absolute_path(path: str, base: Path) -> str:
    """A normalised absolute path; ``~`` is the home directory, unless it names a user there is not."""
    return os.path.normpath(base / os.path.expanduser(path))


def absolute_uri(uri: str, base: Path) -> str:
    """A tracking URI whose local part does not depend on the current directory."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and ":memory:" not in uri:
        return f"sqlite:///{os.path.normpath(base / uri.removeprefix('sqlite:///'))}"
    if "://" not in uri and not uri.startswith(("file:", "databricks")):
        return absolute_path(uri, base)
    return uri


def _known_keys(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Names of a section as the file writes them, with the section each holds, if any."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, info in model.model_fields.items():
        inner = info.annotation
        keys[info.alias or name] = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return keys


def _refuse_unknown(raw: Mapping[str, Any], model: type[BaseModel], where: str, prefix: str = "") -> None:
    known = _known_keys(model)
    for key, value in raw.items():
        if key not in known:
            dotted = f"{prefix}{key}"
            raise ConfigError(f"{where}: unknown key {dotted!r}", *_nearest(dotted))
        inner = known[key]
        if inner is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{where}: {prefix}{key} holds {mask_credentials(repr(value))[:SHOWN_CHARACTERS]}",
                f"a section with keys {', '.join(_known_keys(inner))}",
            )
        if inner is not None:
            _refuse_unknown(value, inner, where, f"{prefix}{key}.")


def _nearest(key: str) -> tuple[str, str]:
    """What was expected and what to do, for a key that is not known."""
    every = known_dotted_keys()
    sections = list(_known_keys(TrainConfig))
    section, _, leaf = key.rpartition(".")
    near = nearest(key, every if section else sections)
    if near is None:
        same_leaf = nearest(leaf, [name.rsplit(".", 1)[-1] for name in every])
        near = next((name for name in every if name.endswith(f".{same_leaf}")), None)
    siblings = [name for name in every if name.startswith(f"{section}.")] if section else []
    expected = "one of " + ", ".join(siblings or sections)
    return expected, f"did you mean {near!r}?" if near else "see docs/configuration.md"


def known_dotted_keys() -> list[str]:
    """Every key a configuration may hold, dotted."""
    return [
        f"{section}.{key}"
        for section, model in _known_keys(TrainConfig).items()
        if model is not None
        for key in _known_keys(model)
    ]


def as_config_error(error: ValidationError, where: str) -> ConfigError:
    """The first of pydantic's complaints, in our words."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained-")))
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    plain = first["input"] is None or isinstance(first["input"], str | int | float)
    got = json.dumps(first["input"]) if plain else repr(first["input"])
    got = mask_credentials(got)[:SHOWN_CHARACTERS]
    shown = "incomplete" if first["type"] == "value_error" and isinstance(first["input"], Mapping) else f"got {got}"
    more = f"({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(f"{where}: {key}: {shown}", message, more)


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


def _masked(value: Any) -> Any:
    """A copy with the credentials of every URI hidden."""
    if isinstance(value, Mapping):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return mask_credentials(value) if isinstance(value, str) else value
