"""Files and overrides, layer by layer, to a configuration."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topotrain.config.earlier import completed
from topotrain.config.legacy import ALIASES, translate
from topotrain.config.paths import resolve_paths
from topotrain.config.sections import TrainConfig
from topotrain.config.validation import known_dotted_keys, refuse_unknown, validate
from topotrain.credentials import mask_credentials, mask_settings
from topotrain.errors import ConfigError
from topotrain.limits import DEPTH
from topotrain.reading.yaml_file import parse_yaml, read_yaml
from topotrain.text import SHOWN_CHARACTERS, is_utf8

ASSIGNMENT = re.compile(r"[A-Za-z_][\w.-]*=")
FREE_TEXT = ("mlflow.", "paths.")  # sections whose values may be texts with spaces


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
        values: nested, under the names of the YAML file or legacy ones.
        where: what messages call it.
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
    return LoadedConfig(validate(draft.raw, draft.where), mask_settings(draft.text), draft.notices)


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
        raw = completed(translate(raw, where, notices), where, notices)
        resolve_paths(raw, source.parent, where)
    for override in overrides:
        layer = override if isinstance(override, Layer) else layer_of(override)
        nested = translate(layer.values, layer.where, notices, is_override=True)
        refuse_unknown(nested, TrainConfig, layer.where)
        resolve_paths(nested, layer.base, layer.where)
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
    nested = translate(raw, "configuration", [])
    resolve_paths(nested, Path.cwd(), "configuration")
    return validate(nested)


def parse_override(text: str) -> dict[str, Any]:
    """``a.b=1`` to ``{"a": {"b": 1}}``; the value is read as YAML."""
    key, separator, value = text.partition("=")
    if not is_utf8(text):
        raise ConfigError(f"{_shown(text)} holds bytes that are no UTF-8", "text in UTF-8")
    parts = key.strip().split(".")
    if not separator or not all(parts) or len(parts) > DEPTH.value:
        raise ConfigError(
            f"{_shown(text)} is malformed", "dotted.key=value", "write e.g. optimizer.learning_rate=0.001"
        )
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise ConfigError(f"{_shown(text)}: the value is not YAML ({error})", "a YAML value") from None
    if parts[:2] == ["mlflow", "tags"] and len(parts) > 3:
        parts = ["mlflow", "tags", ".".join(parts[2:])]  # a tag's own name may hold dots
    nested: dict[str, Any] = {parts[-1]: parsed}
    for part in reversed(parts[:-1]):
        nested = {part: nested}
    return nested


def separate(text: str) -> list[str]:
    """The overrides in one text: ``"a.b=1 c.d=2"`` holds two, ``"mlflow.tags.note='c=1 d=2'"`` one.

    Raises:
        ConfigError: it can be read as several, and as one whose value is a text with spaces.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return [text]
    if len(words) < 2 or not all(ASSIGNMENT.match(word) for word in words):
        return [text]
    first, value = words[0].split("=", 1)
    if value.startswith(("{", "[")) or first.strip() != first:
        return [text]
    if first.startswith(FREE_TEXT):
        known = (*known_dotted_keys(), *ALIASES)
        if not all(word.startswith(FREE_TEXT) or word.split("=", 1)[0] in known for word in words[1:]):
            return [text]
        raise ConfigError(
            f"{_shown(text)} is {len(words)} overrides or a text with spaces",
            "one meaning",
            f"give each an --override of its own, or quote the text: {first}='...'",
        )
    return words


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
