"""Files of a journal: whole records or none, whatever cut them off, and nothing but clear errors of damaged ones."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topotrain.errors import TrackingError
from topotrain.tracking import checked_lines
from topotrain.tracking.backlog import Backlog
from topotrain.tracking.checked_lines import DamagedLineError, LineReader, LineWriter
from topotrain.tracking.entries import (
    Alias,
    End,
    File,
    Origin,
    Params,
    Point,
    Points,
    Removal,
    Tags,
    Version,
    entry_of,
)
from topotrain.tracking.journal import RECORDS, Journal, JournalError, origin_of
from topotrain.tracking.sync import deliver

ORIGIN = Origin(
    run_id="0" * 32, offline=True, writer="w", uri="sqlite:///x.db", experiment="e", run_name="r", tags={}, started=1
)
ENTRIES = [
    Params(values={"a.b": "1", "ä": "\u2028 \U0001f9ec"}),
    Points(points=[Point(key="loss", value=0.5, time=1, step=0), Point(key="loss", value="nan", time=1, step=1)]),
    Tags(values={"t": "x" * 9000}),
    File(kept="0123456789abcdef", artifact="checkpoints/last.ckpt"),
    Removal(artifact="checkpoints/epoch_0001.ckpt"),
    Version(kept="f", name="topoqa", title="topoqa-epoch-1", step=1, tags={}),
    Alias(name="topoqa", alias="candidate", title="topoqa-epoch-1"),
    End(status="KILLED", time=2),
]


@pytest.fixture
def journal() -> Journal:
    one = Journal.create()
    one.begin(ORIGIN)
    return one


def test_what_is_written_is_read(journal: Journal) -> None:
    for entry in ENTRIES:
        journal.append(entry)
    again, origin = Journal.open(journal.folder)
    assert origin == ORIGIN
    assert [one.entry for one in again.new()] == ENTRIES
    assert again.new() == []
    journal.append(ENTRIES[0])
    assert [one.number for one in again.new()] == [len(ENTRIES)]
    again.mark([0, 3])
    assert [one.number for one in Journal.open(journal.folder)[0].new()] == [1, 2, *range(4, len(ENTRIES) + 1)]


def test_a_file_cut_off_anywhere_holds_the_records_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(path)
    records = [{"n": n, "text": "é" * n} for n in range(4)]
    ends = [0]
    for record in records:
        writer.append(record)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        count = sum(end <= length for end in ends[1:])
        assert LineReader(path).new() == records[:count]
        later = LineWriter(path)  # who goes on writing begins after the last whole record
        later.append({"n": "more"})
        assert LineReader(path).new() == [*records[:count], {"n": "more"}]
        later.close()


def test_every_changed_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(path)
    for n in range(3):
        writer.append({"n": n})
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        if whole[place : place + 1] == b"\n":
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedLineError):
            LineReader(path).new()


def test_a_full_disk_leaves_the_file_as_it_was(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(ENTRIES[0])
    before = (journal.folder / RECORDS).read_bytes()
    real = os.write

    def half(file: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content[:10])

    with monkeypatch.context() as patch:
        patch.setattr(checked_lines.os, "write", half)
        with pytest.raises(JournalError, match=r"No space left.*XDG_STATE_HOME"):
            journal.append(ENTRIES[1])
    assert (journal.folder / RECORDS).read_bytes() == before
    journal.append(ENTRIES[1])
    assert [one.entry for one in journal.new()] == ENTRIES[:2]


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "file", "kept": "../../x", "artifact": "a"},
        {"kind": "file", "kept": "x", "artifact": "../a"},
        {"kind": "file", "kept": "x", "artifact": "/etc/passwd"},
        {"kind": "removal", "artifact": "a/../../b"},
        {"kind": "version", "kept": "a/b", "name": "n", "title": "t", "step": 0, "tags": {}},
        {"kind": "end", "status": "RUNNING", "time": 1},
        {"kind": "points", "points": [{"key": "a", "value": "1", "time": 1, "step": 1}]},
        {"kind": "no such kind"},
        {},
    ],
)
def test_entries_that_a_journal_may_not_hold(journal: Journal, record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no entry"):
        entry_of(record)
    journal._writer.append(record)
    with pytest.raises(TrackingError, match=r"can't be read"):
        Journal.open(journal.folder)[0].new()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4),
    sound=st.lists(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8)), max_size=2),
)
def test_damaged_journals_are_told_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, edits: Any, sound: list[dict[str, Any]]
) -> None:
    """Bytes changed at random, and records of any content with a right checksum."""
    folder = tmp_path_factory.mktemp("journal")
    writer = LineWriter(folder / RECORDS)
    writer.append(ORIGIN.model_dump())
    for record in [*(entry.model_dump() for entry in ENTRIES), *sound]:
        writer.append(record)
    writer.close()
    content = bytearray((folder / RECORDS).read_bytes())
    for place, new in edits:
        at = int(place * len(content))
        content[at : at + len(new)] = new
    (folder / RECORDS).write_bytes(content)
    try:
        assert origin_of(folder).format == 1
        journal, _ = Journal.open(folder)
        Backlog(journal).take_in()
    except TrackingError as error:
        assert "\n" not in str(error)


def test_no_journal_at_all(tmp_path: Path) -> None:
    for content in (None, b"", b"\0" * 100, json.dumps({"a": 1}).encode()):
        if content is not None:
            (tmp_path / RECORDS).write_bytes(content)
        with pytest.raises(TrackingError, match=r"journal"):
            deliver(tmp_path)


def test_a_long_outage_keeps_no_more_than_the_last_files(journal: Journal, tmp_path: Path) -> None:
    backlog = Backlog(journal)
    for step in range(20):
        last, kept = tmp_path / "last.ckpt", tmp_path / f"epoch_{step:04d}.ckpt"
        for path in (last, kept):
            path.unlink(missing_ok=True)
            path.write_text(str(step))
            journal.append(File(kept=journal.keep(path), artifact=f"checkpoints/{path.name}"))
        journal.append(Points(points=[Point(key="loss", value=float(step), time=step, step=step)]))
        if step:
            journal.append(Removal(artifact=f"checkpoints/epoch_{step - 1:04d}.ckpt"))
        backlog.take_in()
    assert len(list((journal.folder / "files").iterdir())) == 2
    order = []
    while group := backlog.next():
        order.append([type(one.entry).__name__ for one in group])
        backlog.done(group)
    assert order == [["File"], ["File"], ["Points"] * 20, *[["Removal"]] * 19]
    assert Journal.open(journal.folder)[0].new() == []


def test_a_file_that_was_removed_and_is_written_again_stays(journal: Journal, tmp_path: Path) -> None:
    """A run was stopped within two epochs, and the server was away meanwhile."""
    backlog, name = Backlog(journal), "checkpoints/mid_epoch.ckpt"
    path = tmp_path / "mid_epoch.ckpt"
    path.write_text("of the second")
    journal.append(Removal(artifact=name))
    journal.append(File(kept=journal.keep(path), artifact=name))
    backlog.take_in()
    backlog.done(waiting := backlog.next())
    assert [type(one.entry) for one in waiting] == [File]
    assert backlog.next() == []
    assert Journal.open(journal.folder)[0].new() == []
