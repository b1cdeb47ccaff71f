"""YAML read safely: plain values, no key twice, no file that grows without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from topotrain.errors import ConfigError
from topotrain.text import one_line

MAX_VALUES = 100_000  # in one file or override, aliases written out


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would keep the last in silence.

    Merged mappings (``<<``) are written out while they are read: merges of merges grow without end before anybody
    could look at what they come to.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MAX_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MAX_VALUES} values in merges", node.start_mark
            )

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


def parse_yaml(text: str) -> Any:
    """Plain values.

    Raises:
        ValueError: not YAML, a key given twice, aliases that grow without end, or a value nested in itself; the
            message is one line.
    """
    try:
        parsed = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a subclass of SafeLoader)
        _refuse_endless(parsed)
    except Exception as error:  # noqa: BLE001 (an explicit tag on a wrong value can make PyYAML raise anything)
        raise ValueError(_problem(error)) from None
    return parsed


def _refuse_endless(parsed: Any) -> None:
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
        raise ConfigError(f"{path}: can't be read ({one_line(error)})", f"{what} in UTF-8") from None
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML ({error})", content) from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}", content)
    return text, raw


def _problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return one_line(error)
