"""YAML read safely: plain values, no key twice, no file that grows without end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError

from topotrain.errors import ConfigError
from topotrain.limits import DEPTH, DIGITS, YAML_BYTES, YAML_VALUES
from topotrain.reading.content import content_of, text_of
from topotrain.text import is_utf8, one_line

TAG = "tag:yaml.org,2002:"
PLAIN = frozenset(TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge"))
# As people write numbers. YAML 1.1 knows more: 0_0.7, 0x1F, 1:30 (ninety), 010 (eight), and dates, which here are
# texts. What a writer of YAML 1.1 would quote is a text here, too, so that what is written reads back as it was.
INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
FLOAT = re.compile(
    r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
NUMBERS = {TAG + "int": INT, TAG + "float": FLOAT}
OTHERS = ("timestamp", "int", "float", "value")

if yaml.__with_libyaml__:

    class _Events(Composer, yaml.CSafeLoader):
        """Reads with libyaml, which is ten times as fast, but makes nodes here.

        Its own maker of nodes ends the whole process where they are nested a hundred thousand deep.
        """

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Composer.__init__(self)

else:

    class _Events(yaml.SafeLoader):  # type: ignore[no-redef]
        """Reads in Python."""


class _Loader(_Events):
    """Counts what it reads while it reads, so that it stops in time."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name)
        first: [(tag, pattern) for tag, pattern in known if tag.removeprefix(TAG) not in OTHERS]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count, self._depth = 0, 0
        self._most, self._deepest, self._digits = YAML_VALUES.value, DEPTH.value, DIGITS.value

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node; refused where it is one too many, too deep, or of a kind that no configuration holds."""
        self._count += 1
        self._depth += 1
        here = getattr(self.peek_event(), "start_mark", None)
        if self._count > self._most:
            raise _too_many(here)
        if self._depth > self._deepest:
            raise _too_deep(here)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if node.tag not in PLAIN:
            raise ComposerError(None, None, f"tag {node.tag.replace(TAG, '!!')[:80]!r} is not read", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        return node

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        pattern = NUMBERS.get(node.tag)
        if pattern is not None:
            if len(node.value) > self._digits:
                problem = f"a number of more than {self._digits} digits; {DIGITS.raise_it}"
                raise ComposerError(None, None, problem, node.start_mark)
            if not pattern.fullmatch(node.value):
                raise ComposerError(None, None, f"{node.value!r} is no number", node.start_mark)
        elif not node.value.isascii() or "\0" in node.value:
            if "\0" in node.value or not is_utf8(node.value):
                raise ComposerError(None, None, "a null character, or one that is no Unicode", node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key given twice is refused, where YAML would keep the last in silence."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == TAG + "merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
        return super().construct_mapping(node, deep)


for _first, _tag, _pattern in (("-+0123456789", "int", INT), ("-+0123456789.", "float", FLOAT)):
    for _character in _first:
        _Loader.yaml_implicit_resolvers.setdefault(_character, []).append(
            (TAG + _tag, re.compile(rf"(?:{_pattern.pattern})$"))
        )


def parse_yaml(text: str) -> Any:
    """Plain values; a date is a text.

    Raises:
        ValueError: not YAML, a key given twice, a tag beyond plain values, a number of absurd length, or values that
            grow without end, are nested too deep or in themselves; the message is one line.
    """
    if len(text) > YAML_BYTES.value:
        raise ValueError(f"more than {YAML_BYTES.value} characters; {YAML_BYTES.raise_it}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_endless(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except Exception as error:  # noqa: BLE001 (an explicit tag on a wrong value can make PyYAML raise anything)
        raise ValueError(_problem(error, text)) from None


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line, counted from 1, of each key of a text that ``parse_yaml`` reads, by the keys that lead to it."""
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node, above: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = (*above, str(key.value))
            lines[here] = key.start_mark.line + 1
            walk(value, here)

    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            walk(node, ())
    finally:
        loader.dispose()
    return lines


def _refuse_endless(root: yaml.Node) -> None:
    """Measure a document with its aliases written out, before that is done: merges of merges grow without end."""
    most, deepest = YAML_VALUES.value, DEPTH.value
    measured: dict[int, tuple[int, int] | None] = {}  # None: being measured

    def measure(node: yaml.Node, depth: int) -> tuple[int, int]:
        if depth > deepest:
            raise _too_deep(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return 1, 1
        if id(node) in measured:
            known = measured[id(node)]
            if known is None:
                raise ComposerError(None, None, "a value nested in itself", node.start_mark)
            if depth + known[1] > deepest + 1:
                raise _too_deep(node.start_mark)
            return known
        measured[id(node)] = None
        pairs = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        count, height = 1, 1
        for part in pairs:
            inner, below = measure(part, depth + 1)
            count, height = count + inner, max(height, below + 1)
            if count > most:
                raise _too_many(node.start_mark)
        measured[id(node)] = count, height
        return count, height

    measure(root, 1)


def _too_many(mark: Any) -> ComposerError:
    return ComposerError(
        None, None, f"more than {YAML_VALUES.value} values, aliases written out; {YAML_VALUES.raise_it}", mark
    )


def _too_deep(mark: Any) -> ComposerError:
    return ComposerError(None, None, f"values nested deeper than {DEPTH.value}; {DEPTH.raise_it}", mark)


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
        text = text_of(content_of(path, YAML_BYTES))
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


def _problem(error: Exception, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        line = min(mark.line, text.count("\n")) + 1  # libyaml counts one more where the last does not end
        return f"line {line}, column {mark.column + 1}: {one_line(ValueError(error.problem))}"
    return one_line(error)
