"""Graphs kept for another call: whole or not at all, those not used for longest first to go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from topotrain.data.cache import clear_cache, list_cache
from topotrain.data.graph_cache import FOLDER, LEFT_SECONDS, GraphCache
from topotrain.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from topotrain.limits import GRAPH_CACHE_BYTES

KEYS = [f"{number:02x}" for number in range(10)]


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / FOLDER)


def test_what_is_put_is_got(cache: GraphCache) -> None:
    assert cache.get("ab") is None
    cache.put("ab", b"a graph")
    assert GraphCache(cache.folder).get("ab") == b"a graph"
    cache.drop("ab")
    assert cache.get("ab") is None


@pytest.mark.parametrize("harm", [lambda content: content[:-1], lambda content: content[:10], lambda content: b""])
def test_half_a_file_is_none_and_is_put_again(cache: GraphCache, harm) -> None:
    cache.put("ab", b"a graph")
    (path,) = cache.folder.iterdir()
    path.write_bytes(harm(path.read_bytes()))
    assert cache.get("ab") is None
    assert not path.exists()
    cache.put("ab", b"a graph")
    assert cache.get("ab") == b"a graph"


def test_a_changed_byte_is_seen(cache: GraphCache) -> None:
    cache.put("ab", bytes(1000))
    (path,) = cache.folder.iterdir()
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    assert cache.get("ab") is None


def test_what_was_not_used_for_longest_goes_first(cache: GraphCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, key in enumerate(KEYS):
        cache.put(key, bytes(968))  # and 32 of the checksum
        os.utime(cache.folder / f"{key}.graph", (1000 + place, 1000 + place))
    assert cache.get(KEYS[0]) is not None  # used now
    monkeypatch.setenv(GRAPH_CACHE_BYTES.variable, "5000")
    cache.trim()
    assert [key for key in KEYS if (cache.folder / f"{key}.graph").exists()] == [KEYS[0], *KEYS[-3:]]


def test_it_stays_within_its_limit_while_it_is_filled(cache: GraphCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRAPH_CACHE_BYTES.variable, "5000")
    for key in KEYS:
        cache.put(key, bytes(968))
        assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 6000


def test_what_a_killed_process_left_goes_once_it_is_old(cache: GraphCache) -> None:
    cache.put("ab", b"a graph")
    old, new = (cache.folder / f"{TEMPORARY_PREFIX}{name}{TEMPORARY_SUFFIX}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    long_ago = time.time() - LEFT_SECONDS - 10
    os.utime(old, (long_ago, long_ago))
    cache.trim()
    assert (old.exists(), new.exists(), cache.get("ab")) == (False, True, b"a graph")


def test_where_nothing_can_be_written_one_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = GraphCache(tmp_path / "file" / FOLDER)
    for key in KEYS:
        cache.put(key, b"a graph")
    assert cache.get("ab") is None
    cache.trim()
    assert len([line for line in caplog.messages if "not kept for another call" in line]) == 1


def test_the_cache_command_knows_it(tmp_path: Path) -> None:
    for key in KEYS:
        GraphCache(tmp_path / FOLDER).put(key, b"a graph")
    (entry,) = list_cache(tmp_path)
    assert (entry.kind, entry.num_graphs, entry.num_bytes) == ("scored graphs", 10, 10 * (32 + 7))
    clear_cache([FOLDER], cache=tmp_path)
    assert list_cache(tmp_path) == []
