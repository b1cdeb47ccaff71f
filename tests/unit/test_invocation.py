"""What the environment says of this process, and what it passes on to those that work for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from topotrain import invocation

RUN = "a" * 32


@pytest.mark.parametrize("value", [None, ""])
def test_without_mlflow_run_no_run_is_adopted(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("MLFLOW_RUN_ID", value)
    assert invocation.adopted_run() is None
    assert invocation.take_adopted_run() is None


def test_the_adopted_run_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", RUN)
    assert invocation.adopted_run() == RUN
    assert invocation.adopted_run() == RUN, "looking takes nothing"
    assert invocation.take_adopted_run() == RUN
    assert invocation.take_adopted_run() is None
    assert "MLFLOW_RUN_ID" not in os.environ, "MLflow's own calls must not see it either"


def test_only_the_adopted_run_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", RUN)
    invocation.release_adopted_run("b" * 32)
    assert invocation.adopted_run() == RUN
    invocation.release_adopted_run(RUN)
    assert invocation.adopted_run() is None
    invocation.release_adopted_run(RUN)


def test_the_uri_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invocation.environment_uri() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert invocation.environment_uri() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert invocation.environment_uri() == "http://host"


def test_the_user_s_timeout_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    invocation.wait_at_most(10)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    invocation.wait_at_most(10)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"


@pytest.mark.parametrize(("value", "parent"), [("42", 42), ("", None), ("no number", None), ("-1", None)])
def test_the_parent_that_is_served(monkeypatch: pytest.MonkeyPatch, value: str, parent: int | None) -> None:
    monkeypatch.setenv("TOPOTRAIN_SERVES", value)
    assert invocation.serving_parent() == parent
    monkeypatch.delenv("TOPOTRAIN_SERVES")
    assert invocation.serving_parent() is None


def test_a_process_that_works_for_this_one_adopts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "of the batch")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    before = dict(os.environ)
    given = invocation.serving_environment()
    assert "of the batch" not in given.values()
    assert given["SOMETHING_ELSE"] == "kept"
    assert given["TOPOTRAIN_SERVES"] == str(os.getpid())
    assert dict(os.environ) == before
    monkeypatch.setenv("TOPOTRAIN_SERVES", given["TOPOTRAIN_SERVES"])
    assert invocation.serving_parent() == os.getpid()


def test_the_program_is_called_as_the_shell_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert invocation.program() == "topotrain", "there is no such script"
    script = tmp_path / ".venv" / "bin" / "topotrain"
    script.parent.mkdir(parents=True)
    script.touch()
    assert invocation.program() == ".venv/bin/topotrain"
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / ".venv"))
    assert invocation.program() == "topotrain"


def test_the_resume_command_shows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "active")
    shown = invocation.resume_command(RUN, "http://user:s3cret@host/a b")
    assert shown == f"topotrain resume --run-id {RUN} --tracking-uri 'http://***@host/a b'"
