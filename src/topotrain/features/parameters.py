"""Parameters of feature modules: declared as a pydantic model, read from text, refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from topotrain.errors import UserInputError
from topotrain.reading.yaml_file import parse_yaml
from topotrain.text import did_you_mean


class Parameters(BaseModel):
    """Base of a module's parameters: each a field with a default and a description (with its unit).

    Values are taken strictly (no number from a text or from ``true``), except that a text that does not fit as it is
    is read as YAML.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a declaration that would fail later.

        Raises:
            TypeError: a field without default or description.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if field.is_required() or not field.description:
                raise TypeError(f"{cls.__name__}: parameter {name} needs a default and a description")

    @field_validator("*", mode="wrap")
    @classmethod
    def _from_yaml(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(value)
        except ValidationError:
            if not isinstance(value, str):
                raise
        try:
            value = parse_yaml(value)
        except ValueError:
            raise ValueError("not YAML") from None
        return read(value)


class Band(BaseModel):
    """A range of distances with a name; both ends in Angstrom, the second excluded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: Annotated[str, BeforeValidator(str)]
    max_distance: float = Field(strict=True)
    min_distance: float = Field(strict=True, ge=0)

    @model_validator(mode="after")
    def _not_empty(self) -> Band:
        if not self.min_distance < self.max_distance:
            raise ValueError("a band's min_distance must be under its max_distance")
        return self


def _ascending(numbers: list[Any]) -> list[Any]:
    if any(after <= before for before, after in pairwise(numbers)):
        raise ValueError("not ascending")
    return numbers


def _of_one_kind(numbers: list[int | float]) -> list[int] | list[float]:
    # Recorded parameters are compared as JSON, where 1 and 1.0 differ.
    kind = int if all(float(number).is_integer() for number in numbers) else float
    return [kind(number) for number in numbers]


ASCENDING = AfterValidator(_ascending)
# Lists as types of parameters: ascending numbers, the same recorded as integers where all are whole, and bands.
Numbers = Annotated[list[float], Field(min_length=2, strict=False), ASCENDING]
WholeNumbers = Annotated[list[int | float], Field(min_length=2, strict=False), ASCENDING, AfterValidator(_of_one_kind)]
Bands = Annotated[list[Band], Field(min_length=1)]

# pydantic's names of limits that the words below do not tell.
OTHER_LIMITS = ("greater_than", "less_than", "less_than_equal", "multiple_of")


def read_parameters(declared: type[Parameters], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Defaults, overlaid with what was given.

    Args:
        declared: the module's parameters.
        given: values by name, as such or as YAML text.
        owner: the module's id; named in errors.

    Returns:
        Every declared parameter with its value, in plain types.

    Raises:
        UserInputError: an unknown parameter (the nearest name is given), or a value of another type.
    """
    fields = declared.model_fields
    for name in given:
        if name not in fields:
            raise UserInputError(
                f"{owner} has no parameter {name!r}",
                "one of " + ", ".join(fields) if fields else "none, for it takes no parameters",
                did_you_mean(name, fields),
            )
    try:
        return declared.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        default = describe_parameters(declared)[name]["default"]
        reason = f" ({problem['ctx']['error']})" if problem["type"] == "value_error" else ""
        raise UserInputError(
            f"{owner}: parameter {name} is {given.get(name, default)!r}{reason}",
            _expected(fields[name], problem),
            f"the default is {default!r}",
        ) from error


def describe_parameters(declared: type[Parameters]) -> dict[str, dict[str, Any]]:
    """{name: {default, summary, type}}, in the order of declaration; plain types."""
    defaults = declared().model_dump(mode="json")
    return {
        name: {"default": defaults[name], "summary": field.description, "type": _type_name(field)}
        for name, field in declared.model_fields.items()
    }


def _type_name(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "choice"
    if field.annotation == list[Band]:
        return "bands"
    if ASCENDING in field.metadata:
        return "numbers"
    return field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)


def _expected(field: FieldInfo, problem: ErrorDetails) -> str:
    words = _words(field)
    if words and problem["type"] not in OTHER_LIMITS:
        return words
    return "" if problem["type"] == "value_error" else problem["msg"].removeprefix("Input should be ")


def _words(field: FieldInfo) -> str:
    """What values a field takes; "" for types that shipped modules do not use."""
    name = _type_name(field)
    if name == "choice":
        return "one of " + ", ".join(str(choice) for choice in get_args(field.annotation))
    least = next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)
    return {
        "float": "a number" if least is None else f"a number of at least {least:g}",
        "bool": "true or false",
        "numbers": "an ascending list of two or more numbers",
        "bands": f"a list of mappings with {', '.join(Band.model_fields)}",
    }.get(name, "")
