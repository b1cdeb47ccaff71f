"""What of a journal waits to be delivered, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from topotrain.fields import CHECKPOINT_DIR, KEPT_INDEX, LAST_CHECKPOINT, MID_EPOCH_CHECKPOINT
from topotrain.tracking.entries import (
    Alias,
    End,
    Entry,
    File,
    Params,
    Points,
    Removal,
    Tags,
    Version,
    VersionTags,
    what,
)
from topotrain.tracking.journal import Journal

VALUES_A_CALL = 900  # metrics, parameters and tags; MLflow takes 1,000
NAMES_A_CALL = 90  # parameters or tags; MLflow takes 100
BEFORE_ALL = -1


@dataclass
class Waiting:
    """An entry that waits, with the numbers of those that it stands for."""

    numbers: list[int]
    entry: Entry


class Backlog:
    """The entries that wait.

    What was recorded before the first checkpoint, the recipe, comes first: a run that has a checkpoint can be gone on
    with anywhere, and nobody would record its recipe again. Then come checkpoints: a run whose points are ahead of its
    last checkpoint could not be gone on with in place. Of those, what a checkpoint names comes before it. A file that a
    later one replaces is not delivered at all, nor one that was removed meanwhile, so that a long outage costs no more
    than a short one.

    Args:
        journal: what is recorded.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[Waiting] = []
        self._first_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def names(self) -> list[str]:
        """What waits, each kind once."""
        return list(dict.fromkeys(what(one.entry) for one in self._waiting))

    def take_in(self) -> None:
        """Take in what was recorded since.

        Raises:
            TrackingError: the journal is damaged.
        """
        for new in self._journal.new():
            entry, numbers = new.entry, [new.number]
            if self._first_checkpoint is None and _is_checkpoint(entry):
                self._first_checkpoint = new.number
            if isinstance(entry, File | Removal):
                numbers = self._withdrawn(entry.artifact) + numbers
            self._waiting.append(Waiting(numbers, entry))

    def next(self) -> list[Waiting]:
        """What to deliver next, in one call; empty where nothing waits."""
        ordered = sorted(self._waiting, key=self._turn)
        if not ordered or not isinstance(ordered[0].entry, Params | Points | Tags):
            return ordered[:1]
        group: list[Waiting] = []
        params: dict[str, str] = {}
        values = names = 0
        for one in ordered:
            if not isinstance(one.entry, Params | Points | Tags):
                break
            if isinstance(one.entry, Params):  # another value of one is refused, and must not slip in here
                if any(params.get(key, value) != value for key, value in one.entry.values.items()):
                    break
                params |= one.entry.values
            size = len(one.entry.points if isinstance(one.entry, Points) else one.entry.values)
            values += size
            names += 0 if isinstance(one.entry, Points) else size
            if group and (values > VALUES_A_CALL or names > NAMES_A_CALL):
                break
            group.append(one)
        return group

    def done(self, group: list[Waiting]) -> None:
        """Strike out what was delivered, or refused for good."""
        self._waiting = [one for one in self._waiting if one not in group]
        self._journal.mark([number for one in group for number in one.numbers])
        for one in group:
            if isinstance(one.entry, File | Version):
                self._journal.drop(one.entry.kept)

    def _turn(self, one: Waiting) -> int:
        if self._first_checkpoint is None or one.numbers[-1] < self._first_checkpoint:
            return BEFORE_ALL
        return _turn(one.entry)

    def _withdrawn(self, artifact: str) -> list[int]:
        """Numbers of what waited to be done with a file, and need not be any more."""
        numbers = []
        for old in list(self._waiting):
            if isinstance(old.entry, File | Removal) and old.entry.artifact == artifact:
                self._waiting.remove(old)
                numbers += old.numbers
                if isinstance(old.entry, File):
                    self._journal.drop(old.entry.kept)
        return numbers


def _is_checkpoint(entry: Entry) -> bool:
    return isinstance(entry, File) and PurePosixPath(entry.artifact).parent.name == CHECKPOINT_DIR


def _turn(entry: Entry) -> int:
    match entry:
        case File(artifact=artifact) if _is_checkpoint(entry):
            return {LAST_CHECKPOINT: 1, KEPT_INDEX: 2, MID_EPOCH_CHECKPOINT: 2}.get(PurePosixPath(artifact).name, 0)
        case Removal():
            return 4
        case Version() | VersionTags() | Alias():
            return 5
        case End():
            return 6
    return 3
