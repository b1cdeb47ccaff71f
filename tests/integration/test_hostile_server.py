"""A tracking server that means harm: names that lead out of the folder, and redirects, give one line and no file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlparse

import pytest

from topotrain.errors import TrackingError
from topotrain.tracking.records import Checkpoint
from topotrain.tracking.store import Store

RUN = "r" * 32
SECRET = "secret-token"


class Hostile(BaseHTTPRequestHandler):
    """Answers as MLflow does, with the names and the redirect that a test wants."""

    names: ClassVar[list[str]] = []
    redirect: ClassVar[str] = ""
    authorised: ClassVar[list[str]] = []  # paths of requests that brought the token

    def log_message(self, *_: object) -> None:
        """Silent."""

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        if SECRET in str(self.headers):
            self.authorised.append(self.path)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def document(self, content: object) -> None:
        self.answer(json.dumps(content).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.document({"experiments": [{"experiment_id": "1", "name": "Default"}], "runs": []})

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path.endswith("/runs/get"):
            info = {"run_id": RUN, "run_uuid": RUN, "experiment_id": "1", "status": "FINISHED", "start_time": 1}
            where = {"artifact_uri": f"mlflow-artifacts:/1/{RUN}/artifacts", "lifecycle_stage": "active"}
            self.document({"run": {"info": info | where, "data": {}, "inputs": {}}})
        elif path.endswith("/artifacts"):
            self.document({"files": [{"path": name, "is_dir": False, "file_size": 4} for name in self.names]})
        elif self.redirect:
            self.answer(b"", 302, Location=self.redirect)
        else:
            self.answer(b"evil")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Addresses of two of them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setattr(Hostile, "names", [])
    monkeypatch.setattr(Hostile, "redirect", "")
    made = [ThreadingHTTPServer(("127.0.0.1", 0), Hostile) for _ in range(2)]
    for server in made:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in made]
    for server in made:
        server.shutdown()
        server.server_close()


def files_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "name", ["../../harm", "checkpoints/../../../harm", "{base}/harm", "checkpoints/%2e%2e/%2e%2e/harm"]
)
def test_names_that_lead_out(servers: list[str], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name.format(base=tmp_path)
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    monkeypatch.setattr(Hostile, "names", [name])
    naive = (folder / name.replace("%2e", ".")).resolve()
    assert folder not in naive.parents, "where a naive reader would write"
    with pytest.raises(TrackingError):
        Store.open(servers[0]).artifacts.fetch(Checkpoint(RUN, "checkpoints"), folder)
    assert files_below(tmp_path) == []


def test_the_server_is_one_that_files_are_fetched_from(servers: list[str], tmp_path: Path) -> None:
    fetched = Store.open(servers[0]).artifacts.fetch(Checkpoint(RUN, "checkpoints/last.ckpt"), tmp_path)
    assert fetched.read_bytes() == b"evil"


def test_a_redirect_to_a_file(servers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(Hostile, "redirect", secret.as_uri())
    with pytest.raises(TrackingError):
        Store.open(servers[0]).artifacts.fetch(Checkpoint(RUN, "checkpoints/last.ckpt"), folder)
    assert files_below(folder) == []


def test_a_redirect_to_another_server_does_not_bring_the_token(
    servers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hostile, "authorised", [])
    monkeypatch.setattr(Hostile, "redirect", f"{servers[1]}/mark/artifacts")
    Store.open(servers[0]).artifacts.fetch(Checkpoint(RUN, "checkpoints/last.ckpt"), tmp_path)
    assert Hostile.authorised
    assert not [path for path in Hostile.authorised if "mark" in path]
