"""Typed parameters of feature modules: declared once, read from text, refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from topotrain.errors import UserInputError
from topotrain.text import did_you_mean

ParameterType = Literal["float", "bool", "choice", "numbers", "bands"]
BAND_KEYS = ("label", "min_distance", "max_distance")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a feature module.

    Attributes:
        name: its name.
        default: the value where none is given.
        summary: what it does, with its unit.
        type: ``float``; ``bool``; ``choice`` (one of ``choices``); ``numbers`` (ascending list);
            ``bands`` (list of {label, min_distance, max_distance}).
        choices: what a ``choice`` may be.
        minimum: the least value of a ``float``.
    """

    name: str
    default: Any
    summary: str
    type: ParameterType = "float"
    choices: tuple[str, ...] = ()
    minimum: float = -math.inf

    def read(self, value: Any, owner: str) -> Any:
        """Check a value, given as such or as YAML text, and bring it to plain types.

        Args:
            value: the value.
            owner: the module's id; named in errors.

        Raises:
            UserInputError: the value is not of the parameter's type.
        """
        try:
            return getattr(self, f"_read_{self.type}")(_from_yaml(value))
        except (TypeError, ValueError, KeyError) as error:
            raise UserInputError(
                f"{owner}: parameter {self.name} is {value!r} ({error})",
                self._expectation(),
                f"the default is {self.default!r}",
            ) from error

    def _expectation(self) -> str:
        if self.type == "choice":
            return "one of " + ", ".join(self.choices)
        if self.type == "float" and math.isfinite(self.minimum):
            return f"a number of at least {self.minimum:g}"
        return {
            "float": "a number",
            "bool": "true or false",
            "numbers": "an ascending list of numbers",
            "bands": f"a list of mappings with {', '.join(BAND_KEYS)}",
        }[self.type]

    def _read_float(self, value: Any) -> float:
        number = _number(value)
        if number < self.minimum:
            raise ValueError(f"below {self.minimum:g}")
        return number

    def _read_bool(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError("not true or false")
        return value

    def _read_choice(self, value: Any) -> str:
        # YAML reads a bare word such as none as text, but null, yes and no as something else.
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError("not among the choices")
        return value

    def _read_numbers(self, value: Any) -> list[float]:
        if not isinstance(value, list | tuple) or len(value) < 2:
            raise TypeError("not a list of two numbers or more")
        numbers = [_number(item) for item in value]
        if any(after <= before for before, after in pairwise(numbers)):
            raise ValueError("not ascending")
        # Recorded parameters are compared as JSON, where 1 and 1.0 differ: keep the kind the default has.
        if all(isinstance(item, int) for item in self.default) and all(item.is_integer() for item in numbers):
            return [int(item) for item in numbers]
        return numbers

    def _read_bands(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            raise TypeError("not a list")
        bands = []
        for item in value:
            if not isinstance(item, Mapping) or set(item) != set(BAND_KEYS):
                raise TypeError("not a band")
            low, high = _number(item["min_distance"]), _number(item["max_distance"])
            if not 0 <= low < high:
                raise ValueError("a band's min_distance must be under its max_distance")
            bands.append({"label": str(item["label"]), "max_distance": high, "min_distance": low})
        return bands


def read_parameters(declared: Iterable[Parameter], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Defaults, overlaid with what was given.

    Args:
        declared: the module's parameters.
        given: values by name.
        owner: the module's id; named in errors.

    Returns:
        Every declared parameter with its value, in plain types.

    Raises:
        UserInputError: an unknown parameter (the nearest name is given), or a value of another type.
    """
    known = {parameter.name: parameter for parameter in declared}
    for name in given:
        if name not in known:
            raise UserInputError(
                f"{owner} has no parameter {name!r}",
                "one of " + ", ".join(known) if known else "none, for it takes no parameters",
                did_you_mean(name, list(known)),
            )
    return {name: parameter.read(given.get(name, parameter.default), owner) for name, parameter in known.items()}


def _from_yaml(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a number")
    return float(value)
