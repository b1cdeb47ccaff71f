"""Small disks of their own, that fill up or become read-only at a chosen moment of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

CANT_MOUNT = "no file system can be mounted here"
SIZE = "12m"

# Runs the program, and at a moment of the run fills a folder's disk, makes it read-only, or takes a database away.
DRIVER = """
import os, subprocess, sys
place, how, moment = sys.argv[1:4]

def strike():
    if how == "gone":
        for end in ("", "-wal", "-shm"):
            if os.path.exists(place + end):
                os.rename(place + end, place + ".away" + end)
        return
    if how == "read-only":
        subprocess.run(["mount", "--bind", place, place], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        return
    file = os.open(os.path.join(place, "filler"), os.O_WRONLY | os.O_CREAT, 0o600)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(file, bytes(size))
        except OSError:
            pass
    os.close(file)

def strike_at(name, chosen):
    from topotrain.tracking.recorder import Recorder
    real, done = getattr(Recorder, name), []
    def method(self, *args, **kwargs):
        if not done and chosen(kwargs):
            done.append(True)
            strike()
        return real(self, *args, **kwargs)
    setattr(Recorder, name, method)

if moment == "before":
    strike()
elif moment == "training":
    strike_at("epoch", lambda given: given["step"] == 1)
elif moment == "registering":
    strike_at("version", lambda given: True)
elif moment == "end":
    strike_at("end", lambda given: True)
from topotrain.cli.program import main
main(sys.argv[4:])
"""


class SmallDisk:
    """A disk of some megabytes at a folder; use it in a ``with`` block.

    Args:
        folder: which, made where it is not there; what it holds is hidden meanwhile.
        size: as ``mount`` writes it.
    """

    def __init__(self, folder: Path, size: str = SIZE) -> None:
        self.folder, self.size = folder, size

    def __enter__(self) -> SmallDisk:
        if not can_mount():
            pytest.skip(CANT_MOUNT)
        self.folder.mkdir(parents=True, exist_ok=True)
        _mount(self.folder, self.size)
        return self

    def __exit__(self, *_: object) -> None:
        while self._unmount():
            pass

    def make_room(self) -> None:
        """What a user does about it."""
        if _options(self.folder) == "ro":
            self._unmount()
        (self.folder / "filler").unlink(missing_ok=True)

    def _unmount(self) -> bool:
        if not self.folder.is_mount():
            return False
        return subprocess.run(["umount", "-l", str(self.folder)], check=False).returncode == 0


@lru_cache
def can_mount() -> bool:
    """Whether this user may, on this machine."""
    with TemporaryDirectory() as folder:
        try:
            _mount(Path(folder), "64k")
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def driven(python: str, place: Path, how: str, moment: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a program whose disk fails it.

    Args:
        python: the interpreter.
        place: the folder of the disk, or the database that goes.
        how: ``full``, ``read-only`` or ``gone``.
        moment: ``before``, ``training``, ``registering`` or ``end``.
        arguments: of the program.
    """
    return [python, "-c", DRIVER, str(place), how, moment, *arguments]


def _mount(folder: Path, size: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True, capture_output=True
    )


def _options(folder: Path) -> str:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [options.split(",")[0] for _, place, _, options, *_ in lines if place == str(folder)]
    return found[-1] if found else ""
