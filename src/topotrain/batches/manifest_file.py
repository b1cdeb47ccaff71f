"""What a batch manifest may hold, as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from topotrain.batches.resources import size_in_bytes
from topotrain.config import (
    Float,
    PositiveInt,
    as_config_error,
    merge,
    parse_override,
    shown,
)
from topotrain.errors import ConfigError
from topotrain.text import did_you_mean

# Keys of the older stack's manifests that are accepted, and have no effect.
UNUSED = ("log_lr", "output_root", "trainer_args")
OPAQUE = ("edge_schema.module_params",)  # a mapping whose keys are not ours
Kind = Literal["interface", "topology", "node", "edge"]
Batches = PositiveInt | Annotated[Float, Field(gt=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, coerce_numbers_to_str=True)


class BuildPart(_Part):
    """``build``: graphs that are made before the job trains on them."""

    structures: str = Field(min_length=1)
    modules: dict[Kind, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict, alias="set")


def _size(text: str) -> str:
    size_in_bytes(text)
    return text


class ResourcesPart(_Part):
    """``resources``: what a job takes of a machine while it runs."""

    cpus: PositiveInt | None = None
    gpus: Annotated[int, Field(ge=0, strict=True)] | None = None
    memory: Annotated[str, AfterValidator(_size)] | None = None


class SharedPart(_Part):
    """What jobs have in common; a job's own key wins, but mappings and overrides are merged."""

    config: str | None = None
    overrides: dict[str, Any] | list[str] | None = None
    notes: str | None = None
    trial_label: str | None = None
    resume_from: str | None = None
    build: dict[str, Any] | None = None
    resources: dict[str, Any] | None = None
    fast_dev_run: bool = False
    limit_train_batches: Batches | None = None
    limit_val_batches: Batches | None = None


class JobPart(SharedPart):
    """One job."""

    # A name is written inside best-of(A, B), and it is part of file names.
    name: str = Field(pattern=r"^[^,()/\\\s]([^,()/\\\n]*[^,()/\\\s])?$", max_length=100)
    run_name: str | None = None


class EnsemblePart(_Part):
    """``ensemble``: the best versions of jobs as one, once these have finished."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")] | None = None
    jobs: list[str] | None = None


class ManifestPart(_Part):
    """The outermost keys."""

    jobs: list[dict[str, Any]] = Field(min_length=1)
    ensemble: dict[str, Any] | None = None
    shared: dict[str, Any] = Field(default_factory=dict)
    continue_on_error: bool = False


P = TypeVar("P", bound=_Part)


def read_part(model: type[P], raw: Mapping[str, Any], where: str, notices: list[str]) -> P:
    """Check one mapping of a manifest.

    Args:
        model: what it may hold.
        raw: what it holds.
        where: what messages call it.
        notices: a line for legacy keys that have no effect is appended here.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a value of the wrong kind.
    """
    unused = [key for key in UNUSED if key in raw]
    if unused and issubclass(model, SharedPart):
        notices.append(f"{where}: {', '.join(unused)}: accepted, without effect")
        raw = {key: value for key, value in raw.items() if key not in unused}
    known = [info.alias or name for name, info in model.model_fields.items()]
    for key in raw:
        if key not in known:
            hint = did_you_mean(str(key), known) or "see docs/batch.md"
            raise ConfigError(f"{where}: unknown key {key!r}", f"one of {', '.join(known)}", hint)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise as_config_error(error, where) from None


def undotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of a mapping whose keys may be dotted: ``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    result: dict[str, Any] = {}
    for dotted, value in _leaves(values):
        nested = _with_leaf(parse_override(f"{dotted}=null"), value)
        if _clashes(result, nested):
            raise ConfigError(f"overrides: {dotted} is given as a value and as a section", "one of them")
        result = merge(result, nested)
    return result


def _clashes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the same key holds a mapping in one, and a plain value in the other."""
    both = [(one[key], other[key]) for key in other if key in one]
    mappings = [(isinstance(mine, Mapping), isinstance(theirs, Mapping)) for mine, theirs in both]
    deeper = (_clashes(mine, theirs) for (mine, theirs), kinds in zip(both, mappings, strict=True) if all(kinds))
    return any(mine != theirs for mine, theirs in mappings) or any(deeper)


def flat_settings(given: Any, where: str) -> dict[str, Any]:
    """``set`` as {KIND.PARAMETER: value}, from a mapping, nested or dotted, or from a list of texts.

    Raises:
        ConfigError: neither.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        pairs = {str(key): value for key, value in given.items()}
        nested = {key: value for key, value in pairs.items() if "." not in key and isinstance(value, Mapping)}
        inner = {f"{kind}.{name}": value for kind, params in nested.items() for name, value in params.items()}
        return {key: value for key, value in pairs.items() if key not in nested} | inner
    if isinstance(given, list) and all(isinstance(text, str) and "=" in text for text in given):
        return {key.strip(): value for key, _, value in (text.partition("=") for text in given)}
    raise ConfigError(
        f"{where}: set holds {shown(given)}", "a mapping, or a list of KIND.PARAMETER=VALUE", "see docs/batch.md"
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted not in OPAQUE:
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def _with_leaf(nested: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """A chain of mappings with another value at its end."""
    return {key: _with_leaf(inner, value) if isinstance(inner, Mapping) else value for key, inner in nested.items()}
