"""Members of a JSON object read one by one are those that the whole file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topotrain.reading import json_stream
from topotrain.reading.json_stream import members
from topotrain.schema.metadata_files import read_sidecar

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.dictionaries(st.text(), VALUES, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1, 4]),
    ascii_only=st.booleans(),
)
def test_any_object_cut_anywhere(content, chunk, indent, ascii_only, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "members.json"
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    path.write_text(f"\n {text}\t\n", encoding="utf-8", errors="surrogatepass" if ascii_only else "strict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        assert list(members(path)) == list(content.items())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "1",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,}',
        '{"a" 1}',
        "{1:2}",
        '{"a":1}x',
        '{"a":1}{}',
        "{,}",
    ],
)
def test_what_is_no_object_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the words)
        list(members(path))


def test_a_value_longer_than_a_chunk_costs_a_few_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"a": "x" * 100_000, "b": 12345}))
    decoded: list[int] = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, text: str, at: int = 0) -> Any:
            decoded.append(at)
            return super().raw_decode(text, at)

    monkeypatch.setattr(json_stream, "DECODER", Counting())
    assert dict(members(path)) == {"a": "x" * 100_000, "b": 12345}
    assert len(decoded) < 30


def test_what_entries_share_is_kept_once(tmp_path: Path) -> None:
    entry = {
        "edge_module": "edge/x",
        "edge_params": {"a": [1, 2]},
        "edge_feature_columns": ["a", "b"],
        "node_feature_columns": ["n"],
        "edge_metadata": {"edge_count": 3, "model_key": "long" * 10},
    }
    path = tmp_path / "graph_metadata.json"
    path.write_text(json.dumps({f"T/m{i}": entry for i in range(3)}))
    sidecar = read_sidecar(path, required=True)
    assert sidecar is not None
    one, other = sidecar.graphs["T/m0"], sidecar.graphs["T/m2"]
    for name in ("edge_params", "edge_feature_columns", "node_feature_columns"):
        assert one[name] == entry[name]  # type: ignore[literal-required]
        assert one[name] is other[name], name  # type: ignore[literal-required]
