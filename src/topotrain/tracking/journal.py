"""A run's journal: everything it records, on this machine's disk in order, before any server has it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import platformdirs
from filelock import FileLock
from pydantic import ValidationError

from topotrain.disk import EXPECTED, disk_fault, unwritable
from topotrain.errors import TrackingError
from topotrain.text import one_line
from topotrain.tracking.checked_lines import DamagedLineError, LineReader, LineWriter
from topotrain.tracking.entries import Entry, Origin, entry_of

RECORDS, DELIVERED, FILES = "records.log", "delivered.log", "files"
SETTABLE = "make room, or set XDG_STATE_HOME to another"
HOLLOW_SECONDS = 3600.0  # after which a journal without a record is nobody's: a run takes moments to begin


def state_dir() -> Path:
    """Where the user keeps what must outlive the process: journals, and who holds which run."""
    return Path(platformdirs.user_state_dir("topotrain"))


def journals_dir() -> Path:
    """Where the journals of this machine are."""
    return state_dir() / "journals"


def journal_folders() -> list[Path]:
    """The journals of this machine, the oldest first; without those that hold nothing yet."""
    with suppress(OSError):
        found = [path.parent for path in journals_dir().glob(f"*/{RECORDS}") if not _is_hollow(path.parent)]
        return sorted(found, key=lambda folder: (folder.stat().st_mtime, folder.name))
    return []


def clear_hollow() -> None:
    """Remove journals of processes that were killed before their first record, once they are old."""
    with suppress(OSError):
        for folder in journals_dir().iterdir():
            if time.time() - folder.stat().st_mtime > HOLLOW_SECONDS and _is_hollow(folder):
                remove_journal(folder)


def remove_journal(folder: Path) -> None:
    """Remove a journal that nobody needs."""
    shutil.rmtree(folder, ignore_errors=True)


def given_up(folder: Path) -> bool:
    """Whether who wrote a journal has noted that it does nothing more with the run.

    Raises:
        TrackingError: it is damaged.
    """
    try:
        return any("given_up" in fact for fact in LineReader(folder / DELIVERED).new())
    except (OSError, DamagedLineError) as error:
        raise _unusable(folder, error) from None


@dataclass(frozen=True)
class Numbered:
    """An entry and its place in the journal, from 0."""

    number: int
    entry: Entry


class JournalError(TrackingError):
    """The journal can't be written: what is recorded from now on is on no disk."""


class Journal:
    """One folder: the records, copies of the files that they name, and what of it the server has.

    One process writes; a thread of it, or a later process, reads and delivers.

    Args:
        folder: of the journal.

    Raises:
        OSError: it can't be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / FILES).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock: FileLock | None = None  # of a run that no server knows, whose lease there is not
        self._writer, self._delivered = LineWriter(folder / RECORDS), LineWriter(folder / DELIVERED)
        self._reader = LineReader(folder / RECORDS)
        self._guard = threading.Lock()
        self.known: dict[int, dict[str, Any]] = defaultdict(dict)  # how far the delivery of an entry is
        self._done: set[int] = set()
        self.progress = 0  # grows as the server takes one thing after another
        self._numbers = -1  # of the last entry that was read; the origin comes first

    @classmethod
    def create(cls) -> Journal:
        """An empty one, on a disk that has room for some records.

        Raises:
            JournalError: it can't be written.
        """
        folder = journals_dir() / uuid4().hex[:12]
        clear_hollow()
        try:
            folder.mkdir(parents=True, mode=0o700)
            full = unwritable(folder)
            if full is None:
                return cls(folder)
        except OSError as error:
            full = error.strerror or one_line(error)
        shutil.rmtree(folder, ignore_errors=True)
        raise JournalError(f"journal {folder} can't be written ({full})", EXPECTED, SETTABLE)

    @classmethod
    def open(cls, folder: Path) -> tuple[Journal, Origin]:
        """One that an earlier process left.

        Raises:
            TrackingError: it is none, or damaged, or can't be read.
        """
        origin = origin_of(folder)
        try:
            journal = cls(folder)
            for fact in LineReader(folder / DELIVERED).new():
                journal._learn(fact)
        except (OSError, DamagedLineError, KeyError, TypeError, ValueError) as error:
            raise _unusable(folder, error) from None
        return journal, origin

    def begin(self, origin: Origin) -> None:
        """Write the first record."""
        self._append(origin.model_dump())

    def append(self, entry: Entry) -> None:
        """Add an entry; it survives this process from now on.

        Raises:
            JournalError: it can't be written.
        """
        self._append(entry.model_dump())

    def keep(self, local: Path) -> str:
        """Keep a file or a folder as it is now, for an entry that names what is returned.

        A file is linked where the disk can: whoever changes it later must write a new one.

        Raises:
            JournalError: it can't be written.
        """
        name = uuid4().hex[:16]
        target = self.folder / FILES / name
        try:
            if local.is_dir():
                shutil.move(local, target)
            else:
                _link(local, target)
        except OSError as error:
            raise self.full(error) from None
        return name

    def keep_text(self, content: str) -> str:
        """As ``keep``, a text.

        Raises:
            JournalError: it can't be written.
        """
        name = uuid4().hex[:16]
        try:
            (self.folder / FILES / name).write_bytes(content.encode("utf-8", "replace"))
        except OSError as error:
            raise self.full(error) from None
        return name

    @contextmanager
    def named(self, kept: str, name: str) -> Iterator[Path]:
        """A file that was kept, for a moment under another name.

        Raises:
            OSError: it can't be written.
        """
        folder = self.folder / FILES / f"{kept}-named"
        folder.mkdir(exist_ok=True)
        try:
            (folder / name).unlink(missing_ok=True)
            _link(self.path(kept), folder / name)
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, kept: str) -> Path:
        """Where something is that was kept."""
        return self.folder / FILES / kept

    def new(self) -> list[Numbered]:
        """Entries that were added since this was last asked, and that are not delivered.

        Raises:
            TrackingError: the journal is damaged.
        """
        try:
            records = self._reader.new()
            found = []
            for record in records:
                if self._numbers >= 0 and self._numbers not in self._done:
                    found.append(Numbered(self._numbers, entry_of(record)))
                self._numbers += 1
        except (OSError, DamagedLineError, ValueError) as error:
            raise _unusable(self.folder, error) from None
        return found

    def mark(self, numbers: Sequence[int]) -> None:
        """Note that entries are delivered, or need not be."""
        self._note({"done": list(numbers)})

    def note(self, place: int, **facts: Any) -> None:
        """Note how far the delivery of an entry is."""
        self._note({"of": place, **facts})

    def drop(self, kept: str) -> None:
        """Remove something that was kept, and is needed no longer."""
        target = self.path(kept)
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            with suppress(OSError):
                target.unlink()

    def close(self) -> None:
        """Close its files."""
        if self.lock is not None:
            self.lock.release()
        self._writer.close()
        self._delivered.close()

    def give_up(self) -> None:
        """Note that who wrote it does nothing more with the run, whether or not its process lives."""
        self._note({"given_up": True})

    def discard(self) -> None:
        """Remove it: the server has everything."""
        self.close()
        remove_journal(self.folder)

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._guard:
            try:
                self._writer.append(record)
            except OSError as error:
                raise self.full(error) from None

    def _note(self, fact: Mapping[str, Any]) -> None:
        self.progress += 1
        self._learn(fact)
        with suppress(OSError):  # on a full disk: delivered once more, to the same end
            self._delivered.append(fact)

    def _learn(self, fact: Mapping[str, Any]) -> None:
        if "done" in fact:
            self._done.update(int(number) for number in fact["done"])
        elif "of" in fact:
            self.known[int(fact["of"])].update({key: value for key, value in fact.items() if key != "of"})

    def full(self, error: Exception) -> JournalError:
        """What to say where it can't be written."""
        reason = disk_fault(error) or (isinstance(error, OSError) and error.strerror) or one_line(error)
        return JournalError(f"journal {self.folder} can't be written ({reason})", EXPECTED, SETTABLE)


def origin_of(folder: Path) -> Origin:
    """Whose journal a folder is.

    Raises:
        TrackingError: it is none, or damaged, or can't be read.
    """
    if not (folder / RECORDS).is_file():
        raise TrackingError(f"{folder}: no journal", f"a folder with {RECORDS}", "see: topotrain sync --list")
    try:
        first = next(iter(LineReader(folder / RECORDS).new()), None)
        if first is None:
            raise ValueError("nothing was recorded")
        return Origin.model_validate(first)
    except (OSError, DamagedLineError, ValidationError, ValueError) as error:
        raise _unusable(folder, error) from None


def _is_hollow(folder: Path) -> bool:
    try:
        with (folder / RECORDS).open("rb") as file:
            return not file.readline().endswith(b"\n")
    except FileNotFoundError:
        return True


def _unusable(folder: Path, error: Exception) -> TrackingError:
    reason = "its first record is malformed" if isinstance(error, ValidationError) else one_line(error)
    return TrackingError(f"journal {folder} can't be read ({reason})", "a journal as topotrain writes it")


def _link(local: Path, target: Path) -> None:
    try:
        os.link(local, target)
    except OSError:
        try:
            shutil.copyfile(local, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
