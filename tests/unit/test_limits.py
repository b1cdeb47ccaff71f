"""docs/limits.md holds every limit, with its value and its variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from topotrain import limits
from topotrain.errors import ConfigError
from topotrain.limits import Limit

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text()
LIMITS = [value for value in vars(limits).values() if isinstance(value, Limit)]
ROW = re.compile(r"\| (?P<what>[^|]+) \| [^|]+ \| (?P<value>[0-9,]+) \| `(?P<variable>TOPOTRAIN_MAX_[A-Z_]+)` \|")


def test_every_limit_is_in_the_page_with_its_value() -> None:
    written = {row["variable"]: (row["what"], int(row["value"].replace(",", ""))) for row in ROW.finditer(PAGE)}
    assert written == {limit.variable: (limit.what, limit.default) for limit in LIMITS}


def test_the_page_is_linked() -> None:
    assert "docs/limits.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", "1.5", "9" * 40])
def test_a_variable_that_holds_no_whole_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = limits.GRAPH_BYTES
    monkeypatch.setenv(limit.variable, text)
    with pytest.raises(ConfigError, match=limit.variable):
        _ = limit.value
    monkeypatch.setenv(limit.variable, " 12 ")
    assert limit.value == 12
