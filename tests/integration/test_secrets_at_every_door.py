"""Secrets go in by every door; none comes out, on a stream, on the server, or in a file that is recorded."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.commands import exit_status
from kit.recorded import mlflow_client

SECRET = "hunter2hunter"
URI = f"postgresql://me:{SECRET}/x@db.example.org/d"
SIGNED = f"https://b.s3.amazonaws.com/k?X-Amz-Signature={SECRET}&X-Amz-Expires=9"


def said(capsys: Any, *arguments: str) -> tuple[int, str]:
    """Exit status and both streams."""
    capsys.readouterr()
    status = exit_status(*arguments)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def nothing_of(secret: str, folder: Path) -> None:
    """No file below a folder, the database's included, holds a secret."""
    connection = sqlite3.connect(folder / "mlflow.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [str(path) for path in files if secret.encode() in path.read_bytes()]


def test_a_run_records_none(graph_set: Any, store_uri: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    token = "tok/" + SECRET[::-1]
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    config = tmp_path / "c.yaml"
    tags = {"origin": URI, "signed": SIGNED, "token": SECRET, "env": f"made with {token}"}
    config.write_text(f"# {URI}\n" + yaml.safe_dump({"mlflow": {"tags": tags}}))
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"remote": f"https://{SECRET}@host/x"}))
    status, text = said(
        capsys,
        *("run", "-c", str(config), "--tracking-uri", store_uri, "--run-name", f"at {URI}", "--notes", SIGNED),
        *("--trial-label", f"password={SECRET}", "-o", "trainer.num_epochs=1", "-o", f"mlflow.tags.api_key={SECRET}"),
        *(part for override in graph_set.overrides for part in ("-o", override)),
    )
    assert status == 0, text
    assert SECRET not in text
    assert token not in text
    run_id = text.split()[0]
    run = mlflow_client(store_uri).get_run(run_id)
    assert run.data.tags["origin"] == "postgresql://***@db.example.org/d"
    assert run.data.tags["signed"].endswith("X-Amz-Signature=***&X-Amz-Expires=9")
    assert run.data.tags["token"] == run.data.tags["api_key"] == "***"
    assert run.data.tags["remote"] == "https://***@host/x"
    assert run.data.tags["env"] == "made with ***"
    assert run.info.run_name == "at postgresql://***@db.example.org/d"
    for secret in (SECRET, token):
        nothing_of(secret, tmp_path / "store")
    for command in ("summarise", "monitor", "leaderboard"):
        assert SECRET not in said(capsys, command, "--tracking-uri", store_uri)[1]


def test_a_run_that_fails_and_a_fault_show_none(
    graph_set: Any, store_uri: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    import topotrain.training.training_run as module

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"no answer from {URI} ({SIGNED})")

    monkeypatch.setattr(module, "prepare_data", fail)
    overrides = [part for override in graph_set.overrides for part in ("-o", override)]
    status, text = said(capsys, "run", "--tracking-uri", store_uri, "--run-name", "bad", *overrides)
    assert status == 1
    assert "Traceback" in text
    assert SECRET not in text
    (run,) = mlflow_client(store_uri).search_runs(["1"])
    assert "no answer from postgresql://***@db.example.org/d" in run.data.tags["topotrain.status_note"]
    connection = sqlite3.connect(tmp_path / "store" / "mlflow.db")
    assert SECRET not in "\n".join(connection.iterdump())
    connection.close()


PLACES = [
    ("leaderboard", "--tracking-uri", "{}"),
    ("run", "--tracking-uri", "{}"),
    ("run", "-o", "mlflow.tracking_uri={}"),
    ("run", "-o", "mlflow.tracking_ur={}"),
    ("run", "-o", "trainer.num_epochs={}"),
    ("run", "-c", "{}"),
    ("run", "--resume-from", "{}", "-o", "paths.graph={}"),
    ("resume", "--run-id", "{}"),
    ("resume", "--checkpoint", "{}"),
    ("batch", "-m", "{}"),
    ("tune", "-s", "{}", "-n", "1"),
    ("tune", "-s", "{}", "-n", "1", "-c", "{}", "--out", "{}"),
    ("summarise", "--run-id", "{}", "--experiment", "{}"),
    ("describe", "{}"),
    ("describe", "models:/a@{}"),
    ("evaluate", "--model", "{}"),
    ("predict", "--model", "{}", "--out", "{}.csv"),
    ("score", "{}", "--model", "{}"),
    ("promote", "--model", "{}", "--gate", "{}"),
    ("import-checkpoint", "{}", "--model-name", "x"),
    ("build-graphs", "{}", "--out", "x", "--edge-module", "{}"),
    ("metrics", "--predictions", "{}"),
    ("schema", "{}"),
    ("{}",),
    ("leaderboard", "{}"),
    ("leaderboard", "--{}"),
    ("leaderboard", "--format", "{}"),
]
FORMS = [
    URI,
    f"postgresql://me:it's{SECRET}@127.0.0.1:1/db",
    f"postgresql://127.0.0.1:1/db?user=me&password={SECRET}",
    f"http://me:{SECRET}@127.0.0.1:1",
    f"http://me:pa/{SECRET}@127.0.0.1:1",
    f"http://me:pa {SECRET}@127.0.0.1:1",
    f"postgresql://me:p@{SECRET}@host/db",
    f"me:{SECRET}@localhost:5000",
    f"odd://me:{SECRET}@host",
    SIGNED,
]


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_no_message_of_a_command_shows_one(
    place: tuple[str, ...], store_uri: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for form in FORMS:
        status, text = said(capsys, *(part.format(form) for part in place))
        assert status != 0, (form, text)
        assert "hunter" not in text, text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.long
def test_no_message_about_the_store_of_the_environment_shows_one(form: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", form)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for command in ("leaderboard", "resume", "run", "ui"):
        status, text = said(capsys, command)
        if command == "ui" and status == 0:
            assert "its page is http" in text
        assert "hunter" not in text


def test_the_log_of_a_batch_and_its_manifest_show_none(
    graph_set: Any, store_uri: str, tmp_path: Path, capsys: Any
) -> None:
    paths = dict(override.split("=", 1) for override in graph_set.overrides)
    manifest = tmp_path / "m.yaml"
    job = {
        "name": "a",
        "notes": SIGNED,
        "overrides": {**paths, "trainer.num_epochs": 1, "mlflow.tags.token": SECRET, "mlflow.tags.origin": URI},
    }
    manifest.write_text(f"# {URI}\n" + yaml.safe_dump({"jobs": [job]}))
    status, text = said(capsys, "batch", "-m", str(manifest), "--tracking-uri", store_uri)
    assert status == 0, text
    assert SECRET not in text
    nothing_of(SECRET, tmp_path / "store")


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "myhost:5000/path", "[::1]:5000", "localhost"])
def test_a_host_without_a_scheme_asks_for_one_and_makes_nothing(
    host: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    before = sorted(tmp_path.rglob("*"))
    doors = [
        ("run", "--fast-dev-run", "--tracking-uri", host),
        ("run", "-o", f"mlflow.tracking_uri='{host}'"),
        ("leaderboard", "--tracking-uri", host),
        ("ui", "--tracking-uri", host),
    ]
    for door in doors:
        status, text = said(capsys, *door)
        assert status == 2
        assert f"expected http://{host}" in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", host)
    assert f"expected http://{host}" in said(capsys, "leaderboard")[1]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_may_still_be_called_like_a_host(tmp_path: Path, capsys: Any) -> None:
    status, text = said(capsys, "leaderboard", "--tracking-uri", "./localhost:5000")
    assert status == 2
    assert str(tmp_path / "localhost:5000" / "mlflow.db") in text


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgres://host/db", "did you mean 'postgresql'?"),
        ("htpp://host", "did you mean 'http'?"),
        ("odd://host", "unknown scheme"),
        ("http:localhost:5000", "has no // after http:"),
        ("sqlite:x.db", "expected sqlite:///..."),
        ("sqlite:///", "is a folder"),
        ("sqlite:////", "is a folder"),
        ("sqlite:///store", "is a folder"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "names no file"),
        ("sqlite:///pipe.db", "pipe.db is no regular file"),
        ("pipe.db", "pipe.db is no regular file"),
        ("sqlite:////dev/null", "/dev/null is no regular file"),
        ("sqlite:///loop.db", "symbolic links"),
        ("sqlite:///pipe.db/x.db", "Not a directory"),
        (f"sqlite:///{'a' * 300}", "File name too long"),
        ("x" * 100_000, "has 100000 characters"),
        (f"file:{'a' * 300}", "File name too long"),
        ("sqlite+pysqlite:///x.db", "names a driver or a host; expected sqlite:///FILE"),
        ("SQLITE:///x.db", "names a driver or a host; expected sqlite:///FILE"),
        ("sqlite://host/x.db", "names a driver or a host"),
        ("http://host:99999", "can't be parsed"),
        ("http://host\udcff", "no UTF-8"),
        ("http://host:80a", "can't be parsed"),
        ("http://", "can't be parsed"),
        ("postgresql://me:p@ss@host/db", "an @ too many"),
    ],
)
def test_an_address_that_can_not_be_is_one_line(uri: str, words: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "loop.db").symlink_to("loop.db")
    os.mkfifo(tmp_path / "pipe.db")
    status, text = said(capsys, "leaderboard", "--tracking-uri", uri)
    assert status == 2
    assert len(text) < 4000
    (line,) = [line for line in text.splitlines() if "the legacy file store" not in line]
    assert words in line
