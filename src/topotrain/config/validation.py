"""Plain values to a ``TrainConfig``, or to one line that says what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from topotrain.config.sections import TrainConfig
from topotrain.credentials import mask_credentials
from topotrain.errors import ConfigError
from topotrain.text import SHOWN_CHARACTERS, nearest

# How pydantic begins a complaint, and how it goes on after "expected"; the first that fits.
PYDANTIC_WORDS = (
    ("Value error, ", ""),
    ("Input should be greater", "a value greater"),
    ("Input should be less", "a value less"),
    ("Input should be ", ""),
    ("Input should have ", ""),
    ("String should ", "text that should "),
)


def validate(raw: Mapping[str, Any], where: str = "configuration") -> TrainConfig:
    """Build the frozen configuration from nested plain values.

    Raises:
        ConfigError: unknown key (with the nearest known one), or a value out of range.
    """
    refuse_unknown(raw, TrainConfig, where)
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise as_config_error(error, where) from None


def _known_keys(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Names of a section as the file writes them, with the section each holds, if any."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, info in model.model_fields.items():
        inner = info.annotation
        keys[info.alias or name] = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return keys


def refuse_unknown(raw: Mapping[str, Any], model: type[BaseModel], where: str, prefix: str = "") -> None:
    """Hold the keys of nested values against those of a section.

    Args:
        raw: nested plain values.
        model: the section that they are for.
        where: what messages call their source.
        prefix: the dotted name of the section, with a dot at its end.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a plain value where a section belongs.
    """
    known = _known_keys(model)
    for key, value in raw.items():
        if key not in known:
            dotted = f"{prefix}{key}"
            raise ConfigError(f"{where}: unknown key {dotted!r}", *_nearest(dotted))
        inner = known[key]
        if inner is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{where}: {prefix}{key} holds {shown(value)}",
                f"a section with keys {', '.join(_known_keys(inner))}",
            )
        if inner is not None:
            refuse_unknown(value, inner, where, f"{prefix}{key}.")


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


def shown(value: Any, write: Callable[[Any], str] = repr) -> str:
    """A value as messages show it."""
    try:
        return mask_credentials(write(value))[:SHOWN_CHARACTERS]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__} too long to be shown"


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
    plain = first["input"] is None or isinstance(first["input"], str | int | float)
    got = shown(first["input"], json.dumps if plain else repr)
    found = "incomplete" if first["type"] == "value_error" and isinstance(first["input"], Mapping) else f"got {got}"
    more = f"({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(f"{where}: {key}: {found}", _expected(first["msg"]), more)


def _expected(message: str) -> str:
    """What pydantic says should be, as the end of "expected ..."."""
    for start, ours in PYDANTIC_WORDS:
        if message.startswith(start):
            return ours + message.removeprefix(start)
    return message
