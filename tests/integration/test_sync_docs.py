"""docs/sync.md: its commands run as they are written, and what it quotes is what is said."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from kit.commands import exit_status
from kit.recorded import mlflow_client
from kit.runs import HandMadeRun, epoch
from topotrain.tracking.journal import journal_folders, state_dir

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sync.md").read_text()


def test_its_commands_run_as_written(store_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The store is that of the environment; nothing is asked of it before it is delivered to."""
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    offline, listing, sync = block.strip().splitlines()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    command, _, said = offline.partition("  #")
    assert exit_status(*shlex.split(command)[1:]) == int(said.split()[-1]) == 4
    printed = capsys.readouterr()
    assert f"topotrain sync {journal_folders()[0]}" in printed.err
    assert journal_folders()[0].parent == state_dir() / "journals"
    assert exit_status(*shlex.split(listing)[1:]) == 0
    assert printed.out.strip() in capsys.readouterr().out
    assert exit_status(*shlex.split(sync)[1:]) == 4, "nobody answers"
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert exit_status(*shlex.split(sync)[1:], "--tracking-uri", store_uri) == 0
    run_id = capsys.readouterr().out.strip()
    run = mlflow_client(store_uri).get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("night", "FINISHED")
    assert run.data.tags["topotrain.offline_id"] == printed.out.strip()
    assert journal_folders() == []
    assert exit_status("sync") == 0
    assert "nothing to deliver" in capsys.readouterr().err


def test_what_it_says_of_a_run_that_is_another_s(store_uri: str, capsys: Any) -> None:
    run = HandMadeRun(store_uri, "night").epochs(epoch(0.1))
    assert exit_status("resume", "--run-id", "night", "--tracking-uri", store_uri) == 2
    (line,) = re.findall(r"^error: .*$", PAGE, flags=re.MULTILINE)
    assert capsys.readouterr().err == line.replace("1f0c9a2e", run.run_id) + "\n"


def test_the_lines_of_an_outage_are_those_of_the_program(root: Path) -> None:
    code = (root / "src" / "topotrain" / "tracking" / "shipping.py").read_text()
    lost, back = re.findall(r"^the tracking server .*$", PAGE, flags=re.MULTILINE)
    before, kept = re.split(r"metrics \(\.\.\.\)", lost)
    assert before in code
    assert kept in code
    assert back in code
