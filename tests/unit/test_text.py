"""One way each: reading JSON, and relaying what other libraries say."""

from __future__ import annotations

from pathlib import Path

import pytest

from topotrain.errors import DataError, SchemaError
from topotrain.reading.json_file import read_json
from topotrain.text import as_json, first_line, one_line


def test_json_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"é": [1]}', encoding="utf-8")
    assert read_json(path, "anything") == {"é": [1]}
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_json(path, "a list")
        assert str(caught.value).startswith(f"{path}: not readable as JSON (")
        assert str(caught.value).endswith("); expected a list")
        assert "\n" not in str(caught.value)
    with pytest.raises(SchemaError, match=r"^it: gone; expected a list$"):
        read_json(tmp_path / "b.json", "a list", SchemaError, name="it", absent="gone")
    with pytest.raises(DataError, match=r"b\.json: not readable as JSON \(.*No such file"):
        read_json(tmp_path / "b.json", "a list")


def test_what_another_library_says_is_short_and_without_credentials() -> None:
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError("two\n lines")) == "two lines"
    assert "secret" not in one_line(OSError("no http://me:secret@host/"))
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_of_advice_the_first_line_is_kept() -> None:
    assert first_line(" what is wrong\nset weights_only=False", "") == "what is wrong"
    assert first_line(" \n ", "EOFError") == "EOFError"
    assert len(first_line("x" * 1000, "")) == 200


def test_a_document_with_a_name_that_is_no_utf8_can_be_printed() -> None:
    assert as_json({"\udcff": "é"}) == '{\n  "\\udcff": "\\u00e9"\n}\n'
    assert as_json({"a": "é"}) == '{\n  "a": "é"\n}\n'
