"""deploy/server/server.py where it can't start: one line, and nothing is made or left running."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kit.group_server import load_script


@pytest.fixture
def script() -> ModuleType:
    return load_script()


@pytest.fixture
def server(script: ModuleType, tmp_path: Path) -> Any:
    return script.Server(tmp_path / "data", 1, 2, "postgres")


def ends(call: Any, *arguments: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    line = str(stop.value)
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def test_without_postgresql(script, server, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(script, "DEBIAN", tmp_path)
    assert "apt-get install postgresql" in ends(script.start, server)
    assert not server.cluster.exists()


def test_the_newest_postgresql_of_debian(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(script, "DEBIAN", tmp_path)
    for version in ("9.6", "15", "16"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "pg_ctl").touch()
    assert script.programs() == tmp_path / "16" / "bin"


def test_without_its_packages(script, server, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "programs", lambda: tmp_path)
    monkeypatch.setattr(script, "NEEDED", {"no_such_module": "mlflow[auth]"})
    assert "pip install mlflow[auth]" in ends(script.start, server)


def test_root_needs_another_user(script, server, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "programs", lambda: tmp_path)
    monkeypatch.setattr(script, "NEEDED", {})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    nobody = script.Server(server.data, 1, 2, "no-such-user")
    assert "no user no-such-user" in ends(script.start, nobody)
    assert not server.cluster.exists()


def test_a_port_that_is_taken(script, monkeypatch):
    monkeypatch.setattr(script.time, "monotonic", iter(range(0, 100, 10)).__next__)
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "give another by --port" in ends(script.require_free, other.getsockname()[1], "--port")


def test_stopping_what_is_not_there_changes_nothing(script, server, capsys):
    script.stop(server)
    assert not server.data.exists()


def test_a_process_that_took_the_number_is_not_ours(script, server):
    server.data.mkdir()
    server.pid_file.write_text(f"{os.getpid()} 12.5 {server.address}\n")
    assert script.mlflow_process(server) is None
    script.stop_mlflow(server)  # this process goes on


def test_secrets_are_kept_from_the_first_start_on(script, server, monkeypatch):
    server.data.mkdir()
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD", raising=False)
    first = script.user_settings(server)
    assert script.user_settings(server) == first
    assert len(first["MLFLOW_AUTH_ADMIN_PASSWORD"]) > 20
    assert {path.stat().st_mode & 0o777 for path in server.data.iterdir()} == {0o600}
    assert server.database_uri in (server.data / "basic_auth.ini").read_text()


def test_a_password_of_the_environment_is_not_kept(script, server, monkeypatch):
    server.data.mkdir()
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "given-by-hand")
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" not in script.user_settings(server)  # MLflow takes it from the environment
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD")
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" not in script.user_settings(server)  # and needs it no more
    assert not [path for path in server.data.iterdir() if "given-by-hand" in path.read_text()]
