"""Commands start and end without searching for garbage."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from topotrain.cli import startup


@pytest.fixture
def first_command(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As in a process that has imported nothing yet; what was frozen, instead of freezing it."""
    frozen: list[str] = []
    monkeypatch.setattr(startup, "HEAVY", ("not imported yet",))
    monkeypatch.setattr(startup.gc, "freeze", lambda: frozen.append("frozen"))
    return frozen


def test_nothing_is_searched_while_a_command_imports(first_command: list[str]) -> None:
    with startup.heavy_imports():
        assert not gc.isenabled()
        assert not first_command
    assert gc.isenabled()
    assert first_command == ["frozen"]


def test_an_import_that_fails_leaves_the_collector_on(first_command: list[str]) -> None:
    with pytest.raises(ImportError), startup.heavy_imports():
        raise ImportError
    assert gc.isenabled()
    assert not first_command


def test_a_process_that_has_imported_them_is_left_alone(
    first_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "HEAVY", ("sys",))
    with startup.heavy_imports():
        assert gc.isenabled()
    assert not first_command


def test_who_has_switched_the_collector_off_finds_it_off(first_command: list[str]) -> None:
    gc.disable()
    try:
        with startup.heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_program_that_ends_goes_through_nothing_again() -> None:
    """What runs at exit before ours sees the objects that there are; what runs after it sees none."""
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < 1000))\n"
        "from topotrain.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(len(gc.get_objects()) < 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["False", "True"]
