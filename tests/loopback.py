"""A small HTTP server on a free port of 127.0.0.1 that remembers every request; what it answers is up to a subclass."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

Answer = tuple[int, Any]
"""Status and document; bytes are sent as they are."""


class Loopback:
    """Serves `answer`. `script` lists one fault per request in order ("ok" for none), the last one is repeated.

    Faults: a status such as 503, 429-after:S, truncated, html, null, big:N, redirect:URL, close.
    """

    def __init__(self, script: Sequence[str] = ("ok",)) -> None:
        self.script = list(script)
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path with query and headers (lower-case names) of every request so far."""
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """What a sound server would say."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def note(self, path: str, headers: dict[str, str]) -> str:
        """Remember a request and say which fault it meets."""
        with self._lock:
            self.requests.append((path, headers))
            return self.script[min(len(self.requests), len(self.script)) - 1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: Loopback

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        owner = cast("_Server", self.server).owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        kind, _, detail = owner.note(self.path, headers).partition(":")
        with contextlib.suppress(ConnectionError):
            if kind == "redirect":
                self.send(302, b"", {"Location": detail})
            elif kind == "429-after":
                self.send(429, b"slow down", {"Retry-After": detail})
            elif kind.isdigit():
                self.send(int(kind), json.dumps({"detail": f"scripted {kind}"}).encode())
            else:
                status, document = owner.answer(self.path, headers)
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.spoil(kind, detail, status, body)

    def spoil(self, kind: str, detail: str, status: int, body: bytes) -> None:
        if kind == "close":
            self.send(status, body[:10], length=len(body))
            self.close_connection = True
            return
        if kind == "big" and len(body) > int(detail):
            body += b" " * 2**20
        body = {"truncated": body[: len(body) // 2], "html": b"<html>maintenance</html>", "null": b"null"}.get(
            kind, body
        )
        self.send(status, body)

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int = 0) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""
