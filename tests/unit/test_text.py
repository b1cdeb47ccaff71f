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


def test_a_server_that_has_users_refuses_in_plain_words() -> None:
    call = "API request to endpoint /api/2.0/mlflow/{} failed with error code {} != 200. Response body: '{}'"
    unknown = "You are not authenticated. Please see ..."
    for said in (call.format("runs/create", 401, unknown), "401 Client Error: UNAUTHORIZED for url: http://h/x"):
        assert one_line(ValueError(said)).startswith("the server does not know this user")
    said = call.format("model-versions/create", 403, "Permission denied")
    assert one_line(ValueError(said)) == "this user has no permission for model-versions/create (403)"
    artifact = (
        "403 Client Error: Forbidden for url: http://h/api/2.0/mlflow-artifacts/artifacts/1/2/a.png. Response text: "
    )
    assert one_line(ValueError(artifact + "Permission denied")) == "this user has no permission for artifacts (403)"
    other = call.format("runs/create", 403, "Invalid Host header - possible DNS rebinding attack detected")
    assert "Invalid Host header" in one_line(ValueError(other))


def test_of_advice_the_first_line_is_kept() -> None:
    assert first_line(" what is wrong\nset weights_only=False", "") == "what is wrong"
    assert first_line(" \n ", "EOFError") == "EOFError"
    assert len(first_line("x" * 1000, "")) == 200


def test_a_document_with_a_name_that_is_no_utf8_can_be_printed() -> None:
    assert as_json({"\udcff": "é"}) == '{\n  "\\udcff": "\\u00e9"\n}\n'
    assert as_json({"a": "é"}) == '{\n  "a": "é"\n}\n'
