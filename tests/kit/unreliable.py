"""A proxy on loopback before an MLflow server, which fails in the ways in which servers and networks do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, cast
from urllib.parse import urlsplit

Mode = Literal["pass", "refuse", "silent", "busy", "broken", "deaf", "slow"]
SLOW_SECONDS = 0.3


class Unreliable:
    """Passes requests on, or fails.

    Modes: ``pass``; ``refuse`` drops each connection at once, as a dead server does; ``silent`` accepts and never
    answers; ``busy`` answers 429; ``broken`` answers 503; ``deaf`` passes the request on and drops the answer, so that
    the caller can't know what was done; ``slow`` takes its time.

    Args:
        address: of the server.
        mode: to begin with.
    """

    def __init__(self, address: str, mode: Mode = "pass") -> None:
        self.behind, self.mode = urlsplit(address), mode
        self.requests = 0
        self._gone = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @contextmanager
    def failing(self, mode: Mode) -> Iterator[None]:
        """Fail for a while."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "pass"

    def stop(self) -> None:
        """End it."""
        self._gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that was killed is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as the base class has it)
        """Say nothing."""

    def _answer(self) -> None:
        proxy = cast(Unreliable, self.server.proxy)  # type: ignore[attr-defined]
        proxy.requests += 1
        mode = proxy.mode
        if mode == "refuse":
            self.close_connection = True
            return
        if mode == "silent":
            while proxy.mode == "silent" and not proxy._gone.wait(0.05):
                pass
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if mode in ("busy", "broken"):
            self._send(429 if mode == "busy" else 503, b"not now", {})
            return
        if mode == "slow":
            proxy._gone.wait(SLOW_SECONDS)
        status, content, headers = self._pass_on(proxy, body)
        if mode == "deaf":
            self.close_connection = True
            return
        self._send(status, content, headers)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815 (names of the base class)

    def _pass_on(self, proxy: Unreliable, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(str(proxy.behind.hostname), proxy.behind.port, timeout=60)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() in ("content-type", "content-disposition")}
            return answer.status, answer.read(), kept
        except OSError:
            return 502, b"no server", {}
        finally:
            connection.close()

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
