"""Search spaces: which settings a tuning varies, and within which bounds; checked as a whole before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from topotrain.batches.manifest import decisive
from topotrain.config import (
    Draft,
    Layer,
    TrainConfig,
    check_sizes,
    draft_config,
    known_dotted_keys,
    merge,
    read_yaml,
    shown,
    validate,
)
from topotrain.credentials import mask_settings
from topotrain.errors import ConfigError
from topotrain.limits import GRID_POINTS
from topotrain.reading.numbers import number
from topotrain.reading.yaml_file import key_lines
from topotrain.text import did_you_mean

Kind = Literal["float", "log", "int", "choice"]
KINDS: tuple[Kind, ...] = ("float", "log", "int", "choice")
FORMS = "{float: [LOW, HIGH]}, {log: [LOW, HIGH]}, {int: [LOW, HIGH], step: N} or {choice: [A, B, ...]}"
PLAIN = (bool, int, float, str, type(None))
WHOLE_STEPS = 1e-9  # of a step, that a range may be off a multiple of it

# What makes trials incomparable, and what to do instead.
NOT_TUNED = {
    "dataloader.seed": "--seeds trains each trial with several",
    "paths.train_labels": "values on other labels can't be compared",
    "paths.val_labels": "values on other labels can't be compared",
    "labels.column": "values of another quality can't be compared",
    "selection.": "it decides what trials are compared by; --metric names another",
    "coverage.": "values on other labels can't be compared",
    "mlflow.": "it decides nothing of the result",
    "logging.": "it decides nothing of the result",
}


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied.

    Attributes:
        key: dotted, of the configuration.
        kind: how its values lie; ``log`` are numbers on a logarithmic scale.
        line: of the file, from 1.
        low: smallest value; of numbers alone.
        high: largest.
        step: between two values, where they are not any; of whole numbers 1 by default.
        choices: the values of ``choice``, as they are written.
    """

    key: str
    kind: Kind
    line: int
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def tried_first(self) -> list[Any]:
        """Values to check before anything runs: all choices, or both ends and one that is no round number."""
        if self.kind == "choice":
            return list(self.choices)
        inner = self.low + (self.step if self.step is not None else 0.377 * (self.high - self.low))
        values = [self.low, inner, self.high]
        return [int(value) for value in values] if self.kind == "int" else values

    @property
    def points(self) -> list[Any] | None:
        """All its values, where they are finitely many."""
        if self.kind == "choice":
            return list(self.choices)
        if self.step is None:
            return None
        count = min(round((self.high - self.low) / self.step), GRID_POINTS.value) + 1
        values = [self.low + place * self.step for place in range(count)]
        return [int(value) for value in values] if self.kind == "int" else values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of its own."""
        if self.kind == "choice":
            return any(value == one and type(value) is type(one) for one in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_multiple(value - self.low, self.step)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        if self.kind == "choice":
            return {"choice": list(self.choices)}
        return {self.kind: [self.low, self.high], **({} if self.step is None else {"step": self.step})}


@dataclass(frozen=True)
class Space:
    """A search space on top of a recipe.

    Attributes:
        path: of the file.
        text: as it was given, credentials masked.
        dimensions: in the order of the file.
        base: the recipe that they vary, not yet validated.
        notices: one line for each thing that was read in another sense than written.
    """

    path: Path
    text: str
    dimensions: tuple[Dimension, ...]
    base: Draft
    notices: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """What is varied."""
        return [dimension.key for dimension in self.dimensions]

    @property
    def recipe(self) -> TrainConfig:
        """What is varied, as it is without."""
        return validate(self.base.raw, self.base.where)

    def config(self, values: Mapping[str, Any], where: str = "trial") -> TrainConfig:
        """The recipe with other values.

        Args:
            values: by dotted key, as the file writes them.
            where: what messages call their source.

        Raises:
            ConfigError: a value that can't be.
        """
        nested: dict[str, Any] = {}
        for key, value in values.items():
            nested = merge(nested, _nested(key, value))
        ours = draft_config(None, [Layer(nested, where, self.path.parent)])
        return validate(merge(self.base.raw, ours.raw), where)

    def defaults(self) -> dict[str, Any] | None:
        """The values that the recipe itself has, if the space holds them all."""
        recipe, found = self.recipe, {}
        for dimension in self.dimensions:
            mine = _get(recipe, dimension.key)
            options = dimension.choices if dimension.kind == "choice" else (mine,)
            same = [one for one in options if _get(self.config({dimension.key: one}), dimension.key) == mine]
            if not same or not dimension.holds(same[0]):
                return None
            found[dimension.key] = same[0]
        return found

    def grid(self) -> list[dict[str, Any]]:
        """Every combination, where they are finitely many.

        Raises:
            ConfigError: they are not, or too many.
        """
        points = []
        for dimension in self.dimensions:
            of_one = dimension.points
            if of_one is None:
                where = f"{self.path}: line {dimension.line}: {dimension.key}"
                raise ConfigError(f"{where} has any number of values", "a choice, or a step, for --sampler grid")
            points.append(of_one)
        count = math.prod(map(len, points))
        if count > GRID_POINTS.value:
            raise ConfigError(
                f"{self.path}: the grid has {count} points", f"at most {GRID_POINTS.value}", GRID_POINTS.raise_it
            )
        return [dict(zip(self.keys, point, strict=True)) for point in product(*points)]

    def to_dict(self) -> dict[str, Any]:
        """What decides which trials there may be, the same wherever the project lies."""
        dimensions = [[dimension.key, dimension.to_dict()] for dimension in self.dimensions]
        return {"space": dimensions, "recipe": decisive(self.recipe, self.path.parent)}


def load_space(
    path: str | os.PathLike[str], config: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()
) -> Space:
    """Read a search space and the recipe that it varies, and check both.

    Args:
        path: YAML file: keys of the configuration, nested or dotted, each with a range or with choices.
        config: YAML file of the recipe; by default the defaults.
        overrides: ``dotted.key=value``, on top of it.

    Raises:
        ConfigError: an unknown key, or a value that the configuration refuses; with the line of the file.
    """
    source = Path(path).absolute()
    text, raw = read_yaml(source, "a YAML search space", "keys of the configuration, each with a range", "--space")
    lines = key_lines(text)
    dimensions = [_dimension(source, key, given, lines[place]) for key, given, place in _leaves(raw)]
    if not dimensions:
        raise ConfigError(f"{source}: holds no setting", f"keys of the configuration, such as {FORMS}")
    for one in dimensions:
        same = [other.line for other in dimensions if other.key == one.key]
        if len(same) > 1:
            raise ConfigError(f"{source}: lines {same[0]} and {same[1]}: both are {one.key}", "each setting once")
    base = draft_config(config, overrides)
    space = Space(source, mask_settings(text), tuple(dimensions), base, base.notices)
    assert space.recipe  # noqa: S101 (it is in order by itself)
    for one in dimensions:
        for value in one.tried_first:
            space.config({one.key: value}, f"{source}: line {one.line}")
    counts = {one.key: [v for v in one.tried_first if type(v) is int] for one in dimensions}
    try:
        check_sizes(space.config({key: max(values) for key, values in counts.items() if values}))
    except ConfigError as error:
        raise ConfigError(f"{source}: the largest values: {error.what}", error.expected, error.do) from None
    return space


def _leaves(
    raw: Mapping[str, Any], above: str = "", place: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Dotted keys with what is written for them, and the keys of the file that lead there."""
    known = known_dotted_keys()
    for key, value in raw.items():
        dotted, here = f"{above}{key}", (*place, str(key))
        is_range = isinstance(value, Mapping) and bool(set(KINDS) & set(value))
        if isinstance(value, Mapping) and value and not is_range and dotted not in known:
            yield from _leaves(value, f"{dotted}.", here)
        else:
            yield dotted, value, here


def _dimension(source: Path, key: str, given: Any, line: int) -> Dimension:
    where = f"{source}: line {line}"
    if key not in known_dotted_keys():
        validate(_nested(key, given), where)  # says so, and names the nearest
    for prefix, instead in NOT_TUNED.items():
        if key == prefix or (prefix.endswith(".") and key.startswith(prefix)):
            raise ConfigError(f"{where}: {key} can't be tuned", "a setting of the training or of the network", instead)
    kinds = [kind for kind in KINDS if isinstance(given, Mapping) and kind in given]
    if len(kinds) != 1:
        raise ConfigError(f"{where}: {key} holds {shown(given)}", FORMS)
    kind = kinds[0]
    for other in given:
        if other != kind and (other != "step" or kind not in ("float", "int")):
            allowed = [kind, "step"] if kind in ("float", "int") else [kind]
            hint = did_you_mean(str(other), allowed)
            raise ConfigError(f"{where}: {key}: unknown key {other!r} beside {kind}", " and ".join(allowed), hint)
    if kind == "choice":
        return Dimension(key, kind, line, choices=_choices(f"{where}: {key}", given[kind]))
    return _range(f"{where}: {key}", key, kind, line, given)


def _choices(where: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(one, PLAIN) for one in given):
        raise ConfigError(f"{where}: choice holds {shown(given)}", "a list of plain values")
    if len({(type(one), one) for one in given}) < len(given):
        raise ConfigError(f"{where}: choice holds {shown(given)}", "each value once")
    return tuple(given)


def _range(where: str, key: str, kind: Kind, line: int, given: Mapping[str, Any]) -> Dimension:
    ends = given[kind] if isinstance(given[kind], list) else []
    low, high = ([_number(one) for one in ends] + [math.nan] * 2)[:2]
    whole = kind == "int"
    if len(ends) != 2 or not low < high or (kind == "log" and low <= 0) or (whole and (low % 1 or high % 1)):
        numbers = "two whole numbers" if whole else "two numbers above 0" if kind == "log" else "two numbers"
        raise ConfigError(f"{where}: {kind} holds {shown(given[kind])}", f"{numbers}, the smaller first")
    step = _number(given["step"]) if "step" in given else 1.0 if whole else None
    if step is not None:
        if not step > 0 or (whole and step % 1):
            raise ConfigError(
                f"{where}: step is {shown(given['step'])}", f"a {'whole ' if whole else ''}number above 0"
            )
        if not _is_multiple(high - low, step):
            raise ConfigError(f"{where}: {high:g} is no whole number of steps of {step:g} above {low:g}", "one that is")
    return Dimension(key, kind, line, low, high, step)


def _number(given: Any) -> float:
    """A number, which YAML 1.1 may take for a text (``1e-4``); NaN for anything else."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return math.nan
    value = number(given) if isinstance(given, str) else float(given)
    return value if math.isfinite(value) else math.nan


def _is_multiple(span: float, step: float) -> bool:
    return abs(span / step - round(span / step)) < WHOLE_STEPS


def _nested(key: str, value: Any) -> dict[str, Any]:
    section, _, leaf = key.partition(".")
    return {section: _nested(leaf, value) if leaf else value}


def _get(config: TrainConfig, key: str) -> Any:
    value: Any = config.model_dump(by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value
