"""The few exceptions a user can meet, each with the exit status it stands for."""

from __future__ import annotations

import signal
from pathlib import Path

from topotrain.credentials import mask_credentials

EXIT_FAULT = 1
EXIT_USER = 2
EXIT_GATE_REFUSED = 3
EXIT_UNDELIVERED = 4
EXIT_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


MOST_SAID = 1000  # characters of each part of a message


def shortened(text: str) -> str:
    """A text whose middle is left out where it is long: what was found may be a number of a million digits."""
    half = MOST_SAID // 2
    return text if len(text) <= MOST_SAID else f"{text[:half]} ... {text[-half:]}"


class TopotrainError(Exception):
    """Base of everything topotrain raises on purpose; shown as one line, without a traceback."""

    exit_code = EXIT_USER


class UserInputError(TopotrainError):
    """Something the user gave cannot be used; credentials in what is said are masked.

    Args:
        what: what was found, with the place (absolute path, key, line number).
        expected: what would have been right.
        do: the next step.
    """

    def __init__(self, what: str, expected: str = "", do: str = "") -> None:
        self.what, self.expected, self.do = (shortened(mask_credentials(part)) for part in (what, expected, do))
        parts = [self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.do:
            parts.append(self.do)
        super().__init__(" ".join("; ".join(parts).split()))


class ConfigError(UserInputError):
    """A configuration file, a manifest or an override is wrong."""


class DataError(UserInputError):
    """A graph, a label file or a metadata file is missing or malformed."""


class DiskError(DataError):
    """A folder of this machine takes nothing more."""


class SchemaError(UserInputError):
    """Graphs disagree with each other, with their metadata, or with a model's feature schema."""


class TrackingError(UserInputError):
    """The tracking store cannot be used, or it does not hold what was asked for."""


class OutageError(TrackingError):
    """The tracking store does not answer; it may, later."""


class TrainingError(UserInputError):
    """Training cannot go on: the loss is not finite, or one of its processes is gone."""


class GateRefusedError(TopotrainError):
    """A promotion gate did not hold."""

    exit_code = EXIT_GATE_REFUSED


class UndeliveredError(TopotrainError):
    """Everything is done and on this machine's disk, and the tracking server does not have all of it yet.

    Args:
        journal: folder that holds what it lacks.
        advice: what to do about it.
    """

    exit_code = EXIT_UNDELIVERED

    def __init__(self, journal: Path, advice: str) -> None:
        self.journal = journal
        super().__init__(
            f"complete, but not yet delivered to the tracking server: {journal} keeps what it lacks; {advice}"
        )


class UnfinishedBatchError(TopotrainError):
    """Jobs of a batch failed or were skipped.

    Args:
        what: which, and why.
        exit_code: of a job that failed.
    """

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


class InterruptedRunError(BaseException):
    """A signal asked the program to stop; not an ``Exception``, so that nothing swallows it.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"interrupted by signal {signum}")

    @property
    def exit_code(self) -> int:
        """The shell's convention, 130 for SIGINT and 143 for SIGTERM; of a warning, that to be started again helps."""
        return 128 + self.signum if self.signum in (signal.SIGINT, signal.SIGTERM) else EXIT_AGAIN
