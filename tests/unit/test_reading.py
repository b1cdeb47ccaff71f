"""The readers of YAML, JSON, CSV and numbers: what anybody may have written is read, or refused in one line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topotrain import limits
from topotrain.batches.manifest import load_manifest
from topotrain.config import load_config
from topotrain.data.labels import read_labels
from topotrain.errors import ConfigError, UserInputError
from topotrain.evaluation.predictions_file import read_predictions
from topotrain.reading.content import content_of, text_of
from topotrain.reading.json_file import parse_json, read_json
from topotrain.reading.json_stream import members
from topotrain.reading.numbers import number, reads_as_number, whole
from topotrain.reading.yaml_file import parse_yaml
from topotrain.schema.metadata_files import read_sidecar, read_summary

ROOT = Path(__file__).resolve().parents[2]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SECONDS = 10.0  # far above what any of it takes, on a machine with other work


def problem_of(read: Callable[[Any], Any], given: Any) -> str:
    """What is said of what is refused, in one line and in time."""
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are the caller's)
        read(given)
    assert time.monotonic() - began < SECONDS
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


# YAML


BOMBS = {
    "merges": "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
    "list": "a: [" + "1," * 300_000 + "1]",
    "keys": "".join(f"k{i}: 1\n" for i in range(60_000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_that_grows_is_refused_at_once(bomb: str) -> None:
    assert "100000 values" in problem_of(parse_yaml, BOMBS[bomb])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 500_000, "nested deeper than 50"),
        ("- " * 300_000, "nested deeper than 50"),
        ("{a: " * 200_000, "nested deeper than 50"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)), "nested deeper than 50"),
        ("a: &a {b: *a}", "a value nested in itself"),
        ("a: &a\n  <<: *a\n", "a value nested in itself"),
        ("? &a [*a]\n: 1", "a value nested in itself"),
        ("a: " + "9" * 100_000, "more than 400 digits"),
        ("a: 0." + "1" * 100_000, "more than 400 digits"),
        ("a: !!int " + "1:" * 1000 + "1", "more than 400 digits"),
        ("a: !!int 0x1F", "'0x1F' is no number"),
        ("a: !!float 1_0.5", "'1_0.5' is no number"),
        ("a: !!binary aGVsbG8=", "tag '!!binary' is not read"),
        ("a: !!timestamp 2024-01-01", "tag '!!timestamp' is not read"),
        ("a: !!set {b}", "tag '!!set' is not read"),
        ("a: !!python/object/apply:os.system ['true']", "is not read"),
        ("a: !own 1", "tag '!own' is not read"),
        ('a: "\\0"', "a null character"),
        ('a: "\\ud800"', "line 1"),
        ("a: \udcff", "surrogates not allowed"),
        ("a: 1\na: 2", "line 2, column 1: key 'a' is given twice"),
        ("a: [1, 2", "line 1"),
        (" " * 2_000_000, "more than 1048576 characters; TOPOTRAIN_MAX_YAML_BYTES raises the limit"),
    ],
)
def test_yaml_beyond_plain_values_is_refused(text: str, words: str) -> None:
    assert words in problem_of(parse_yaml, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, text) for text in ("0_0.7", "1_0", "0x1F", "010", "1:30", "2024-01-01", "1e-3", "٣", "=")],
        *[("-7", -7), ("0", 0), ("+3", 3), ("1.5", 1.5), (".5", 0.5), ("2.5e+3", 2500.0), ("-.inf", -math.inf)],
        *[
            ("yes", True),
            ("~", None),
            ("", None),
            ("'7'", "7"),
            ("a: &x {b: 1}\nc: {<<: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        ],
    ],
)
def test_what_yaml_means(text: str, value: Any) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@QUICK
@given(PLAIN)
def test_what_is_written_reads_back(value: Any) -> None:
    try:
        assert parse_yaml(yaml.safe_dump(value)) == value
    except ValueError as error:
        assert "null character" in str(error) or "control characters" in str(error)  # noqa: PT017


@QUICK
@given(st.text(st.sampled_from("ab:-[]{}&*!<'\"#%|>? \n\t0.1_~,"), max_size=60))
def test_any_text_as_yaml(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


# JSON


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested deeper than 50"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than 50"),
        ("[" * 60 + "]" * 60, "nested deeper than 50"),
        ("NaN", "NaN is no number of JSON"),
        ("[1, -Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1e400}', "a number is too large"),
        ("[" + "9" * 4000 + "]", "more than 400 digits"),
        ("[" + "9" * 100_000 + "]", "digits"),
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' is given twice"),
        ('{"a": "\0"}', "Invalid control character"),
        ('{} "x"', "Extra data"),
        (b'{"a": "\xe9"}', "line 1: byte 0xe9 is no UTF-8"),
        (b'\n{"a": "\0"}', "line 2: it holds null characters"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_none_is_refused(text: str | bytes, words: str, tmp_path: Path) -> None:
    assert words in problem_of(parse_json, text)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserInputError, match="not readable as JSON"):
        read_json(path, "an object")
    problem_of(lambda one: list(members(one)), path)


def test_json_with_a_byte_order_mark_is_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": ["\xc3\xa9"]}')
    assert read_json(path, "an object") == {"a": ["é"]}
    assert list(members(path)) == [("a", ["é"])]


def test_a_member_without_end_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph_metadata.json"
    path.write_text('{"a": 1, "b": "' + "x" * 3_000_000)
    monkeypatch.setenv("TOPOTRAIN_MAX_JSON_BYTES", "1000")
    assert "a member of more than 1000 characters" in problem_of(lambda one: list(members(one)), path)
    monkeypatch.setenv("TOPOTRAIN_MAX_SIDECAR_BYTES", "2000000")
    monkeypatch.delenv("TOPOTRAIN_MAX_JSON_BYTES")
    assert "TOPOTRAIN_MAX_SIDECAR_BYTES raises the limit" in problem_of(lambda one: list(members(one)), path)


# Numbers


@pytest.mark.parametrize(
    "text",
    [
        *[
            "0_0.7",
            "1_0",
            "_1",
            "0x1",
            "0b1",
            "1e400",
            "-1e400",
            "nan",
            "inf",
            "٣",
            "０.５",
            "1,5",
            "--1",
            "1e",
            ".",
            "",
            " 1",
        ],
        *["0.7f", "²", "1 0", "1\n", "9" * 401, "0." + "1" * 100_000],
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert math.isnan(number(text))


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-.5", -0.5), ("+5.", 5.0), ("1E-3", 0.001), ("1e-999", 0.0), ("007", 7.0)]
)
def test_what_is_a_number(text: str, value: float) -> None:
    assert number(text) == value
    assert reads_as_number(text) is (text != "007")


def test_whole_numbers_of_tags() -> None:
    assert whole("12") == 12
    assert [whole(text) for text in (None, "", "-1", "1.0", "٣", "²", "9" * 5000, "1_0")] == [None] * 8


# Files


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "loop").symlink_to("loop")
    for path, words in ((pipe, "no regular file"), (Path("/dev/zero"), "no regular file"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=words):
            content_of(path, limits.CSV_BYTES)
        for read in (read_labels, read_predictions, load_config, load_manifest, read_summary):
            with pytest.raises(UserInputError, match=str(path)):
                read(path)  # type: ignore[operator]
    with pytest.raises(UserInputError, match="loop"):
        read_labels(tmp_path / "loop")


def test_where_a_text_is_none() -> None:
    assert text_of(b"\xef\xbb\xbfa") == "a"
    assert text_of("é".encode("utf-16"), wide=True) == "é"
    for content in (b"a\nb\n\xff", b"\n\na\0"):
        assert "line 3" in problem_of(text_of, content)


# Every reader takes any bytes


CSV_LIKE = st.text(st.sampled_from('MODELdockq,;\t"\n\r 0.57T/_-#=s\0é'), max_size=80).map(str.encode)
JSON_LIKE = st.text(st.sampled_from('{}[]":,0.1e-9naN\\ud8 \n'), max_size=80).map(str.encode)
NAMES = ("edge_module", "edge_params", "edge_metadata", "node_feature_columns", "_edge_schema", "edge_feature_dim")
SIDECARS = st.dictionaries(st.sampled_from(("T/m0", *NAMES)), st.dictionaries(st.sampled_from(NAMES), PLAIN) | PLAIN)
CONFIGS = st.dictionaries(
    st.sampled_from(["paths", "model", "trainer", "mlflow", "edge_schema", "dataloader", "seed", "jobs", "shared"]),
    PLAIN
    | st.dictionaries(
        st.sampled_from(["devices", "hidden_dim", "tags", "bands", "seed", "graph", "tracking_uri", "num_epochs"]),
        PLAIN,
    ),
    max_size=4,
)
ANYTHING = st.one_of(
    st.binary(max_size=60),
    CSV_LIKE.map(lambda rest: b"MODEL,dockq\n" + rest),
    CSV_LIKE,
    JSON_LIKE,
    SIDECARS.map(lambda value: json.dumps(value).encode()),
    CONFIGS.map(lambda value: yaml.safe_dump(value).encode()),
)


@settings(QUICK, max_examples=150)
@given(content=ANYTHING)
def test_only_documented_errors_come_out(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(content)
    readers: tuple[Callable[[], Any], ...] = (
        lambda: read_labels(path),
        lambda: read_predictions(path),
        lambda: load_config(path),
        lambda: load_manifest(path),
        lambda: read_sidecar(path, required=True),
        lambda: read_summary(path),
        lambda: load_config(None, [content.decode("utf-8", "surrogateescape")]),
    )
    for read in readers:
        try:
            read()
        except UserInputError as error:
            assert "\n" not in str(error)  # noqa: PT017


# Limits


DECLARED = [value for value in vars(limits).values() if isinstance(value, limits.Limit)]


@pytest.mark.parametrize("limit", DECLARED, ids=lambda limit: limit.name)
def test_every_limit_can_be_set_and_is_documented(limit: limits.Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limit.variable, "12")
    assert limit.value == 12
    monkeypatch.setenv(limit.variable, "")
    assert limit.value == limit.default
    for text in ("0", "-1", "1_0", "much", "1.5", "9" * 19):
        monkeypatch.setenv(limit.variable, text)
        with pytest.raises(ConfigError, match=limit.variable):
            _ = limit.value
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("limits*.md"))
    assert f"| {limit.default:,} | `{limit.variable}` |" in pages


def test_a_limit_that_is_raised_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("MODEL,dockq\n" + "a" * 2000 + ",0.5\n")
    with pytest.raises(UserInputError, match="line 2: MODEL has 2000 characters.*TOPOTRAIN_MAX_NAME raises the limit"):
        read_labels(path)
    monkeypatch.setenv("TOPOTRAIN_MAX_NAME", "2000")
    assert len(read_labels(path)) == 1
    monkeypatch.setenv("TOPOTRAIN_MAX_CSV_LINE", "100")
    with pytest.raises(UserInputError, match="line 2: it has more than 100 characters"):
        read_labels(path)
