"""What the documents of this room have in common: the kinds of their fields, and a malformed one in one line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from topotrain.schema.values import short

# Checked, not copied or converted: a text may hold what is no Unicode (a file name), a list may be long.
Text = InstanceOf[str]
List = InstanceOf[list[Any]]
Object = InstanceOf[Mapping[str, Any]]
Width = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
WORDS = {"str": "a text", "list": "a list", "tuple": "a list", "Mapping": "a mapping"}


def _different_names(columns: list[Any]) -> list[Any]:
    at = next((i for i, name in enumerate(columns) if type(name) is not str), None)
    wrong = _fault_of_names(tuple(columns)) if at is None else f"column {at} is a {type(columns[at]).__name__}"
    if wrong:
        raise ValueError(wrong)
    return columns


@lru_cache(maxsize=16)  # every graph has the same
def _fault_of_names(columns: tuple[str, ...]) -> str:
    first: dict[str, int] = {}
    for at, name in enumerate(columns):
        if not name.strip():
            return f"column {at} has no name"
        if first.setdefault(name, at) != at:
            return f"columns {first[name]} and {at} are both called {short(name)}"
    return ""


Columns = Annotated[List, AfterValidator(_different_names)]  # names of columns


class Section(BaseModel):
    """A part of a document; what it holds beside the fields named is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def fault(error: ValidationError) -> tuple[tuple[str | int, ...], str, str]:
    """The first fault of a document: where it is, what is wrong there (``is a int``), and what was expected."""
    first = error.errors(include_url=False)[0]
    found, kind = first["input"], first["type"]
    expected = "a mapping" if kind in ("model_type", "dict_type") else WORDS.get(first.get("ctx", {}).get("class", ""))
    if expected:
        return first["loc"], "is null" if found is None else f"is a {type(found).__name__}", expected
    if kind == "value_error":
        return first["loc"], f"are wrong: {first['ctx']['error']}", "a name for each column, none twice"
    if kind == "greater_than_equal":
        return first["loc"], f"is {short(found)}", "a whole number, 0 or more"
    # What is no text, list or mapping is a number, and nothing else is required.
    return first["loc"], "is missing" if kind == "missing" else f"is {short(found)}", "a whole number"
