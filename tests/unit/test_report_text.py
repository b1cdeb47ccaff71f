"""How numbers, durations and tables are written."""

from __future__ import annotations

import math

import pytest

from topotrain.reports.run_state import plain
from topotrain.reports.text import number, short, status
from topotrain.text import aligned, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0 s"),
        (1.24, "1.2 s"),
        (42.4, "42 s"),
        (59.7, "60 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (3725, "1 h 2 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_missing_is_a_dash_and_zero_is_zero():
    assert (number(None), number(0.0), number(-0.25, 2)) == ("-", "0.0000", "-0.25")
    assert (short(None), short(0), short(0.0005), short("a")) == ("-", "0", "0.0005", "a")


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([["a", "bbb"], ["long", "x"], ["y", ""]]) == ["a     bbb", "long  x", "y"]


def test_status():
    assert status({"status": "RUNNING", "alive": True}) == "RUNNING"
    assert status({"status": "RUNNING", "alive": False}) == "RUNNING (no sign of life)"
    assert status({"status": "KILLED", "alive": False}) == "KILLED"


def test_plain_values_are_strict_json_and_nothing_else_changes():
    value = {"a": [1, True, None, "nan", (math.nan, -math.inf)], "b": {"c": 0.1, "d": math.inf}}
    assert plain(value) == {"a": [1, True, None, "nan", [None, None]], "b": {"c": 0.1, "d": None}}
