"""Walking folders with links, and writing whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from topotrain.errors import DataError
from topotrain.files import make_new, walk_files, write_whole


def test_links_are_followed_each_under_its_own_name_and_never_round_and_round(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (real / "m.pt").touch()
    (real / ".hidden").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "one").symlink_to(real)
    (root / "two").symlink_to(real)
    (real / "back").symlink_to(root)
    found = [path.relative_to(root).as_posix() for path in walk_files(root)]
    assert found == ["one/m.pt", "two/m.pt"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_whole(target, b"old")
    monkeypatch.setattr(Path, "replace", lambda self, other: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        write_whole(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    """As a superuser, who may, `--out /dev/null` would else make a file of it for everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_an_open_file_is_written_to_by_its_other_name(tmp_path: Path) -> None:
    with (tmp_path / "there").open("w+b") as file:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        write_whole(link, b"content")
        assert file.read() == b"content"
    assert link.is_symlink()


def test_a_folder_that_can_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no room")

    with pytest.raises(DataError, match="no room"):
        make_new(tmp_path / "out", fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists"):
        make_new(tmp_path / "out", fail)
