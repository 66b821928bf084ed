"""The answers of a server that misbehaves, as bytes on a socket.

Enters: a fault by name, and the documents of a `FaultServer`. Leaves: HTTP, right or wrong.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

RAW = {"bad-byte": b'"\xff"', "digits": b"7" * 5000, "nested": b"[" * 5000 + b"]" * 5000}
"""Values that no JSON library writes; they stand in the entry's attributes."""


class Owner(Protocol):
    """A server as its answers see it."""

    stopped: threading.Event
    gzipped: bool
    raw: dict[int, bytes]
    rewrite: Callable[[str, bytes], bytes]

    def note(self, path: str, headers: dict[str, str]) -> str:
        """Which fault a request meets."""

    def document(self, path: str) -> tuple[int, Any]:
        """Status and body of a request."""


@cache
def bomb() -> bytes:
    """200 MiB of zeros in 200 kB, packed once: a reply that waits for the packer meets the timeout of the client."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()


class FaultHTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    owner: Owner

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def owner(self) -> Owner:
        return cast("FaultHTTPServer", self.server).owner

    def do_GET(self) -> None:
        fault = self.owner.note(self.path, {name.lower(): value for name, value in self.headers.items()})
        with contextlib.suppress(ConnectionError):
            self._answer(fault)

    def _answer(self, fault: str) -> None:
        kind, _, detail = fault.partition(":")
        special = getattr(self, "fault_" + kind.replace("-", "_"), None)
        if special is not None:
            special(detail)
        elif kind.startswith("429"):
            pause = formatdate(time.time() + float(detail), usegmt=True) if kind == "429-date" else detail
            self.send(429, b"slow down", {"Retry-After": pause} if pause else {})
        elif kind.isdigit():
            self.send(int(kind), json.dumps({"errors": [{"detail": f"scripted {kind}"}]}).encode())
        else:
            status, document = self.owner.document(self.path)
            body = self.owner.rewrite(self.path, self._body(document))
            if self.owner.gzipped:
                self.send(status, gzip.compress(body, 1), {"Content-Encoding": "gzip"})
            else:
                self.send(status, body)

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/vnd.api+json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _body(self, document: Any) -> bytes:
        body = json.dumps(document).encode()
        for name, value in RAW.items():
            body = body.replace(f'"<{name}>"'.encode(), value)
        for place, value in self.owner.raw.items():
            body = body.replace(f'"<entry {place}>"'.encode(), value)
        return body

    def _whole(self) -> bytes:
        return self._body(self.owner.document(self.path)[1])

    def fault_hang(self, _: str) -> None:
        self.owner.stopped.wait(60)
        self.close_connection = True

    def fault_drip(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.owner.stopped.wait(0.05):
            self.wfile.write(b"a")
            self.wfile.flush()

    def fault_truncated(self, _: str) -> None:
        whole = self._whole()
        self.send(200, whole[: len(whole) // 2])

    def fault_short_gzip(self, _: str) -> None:
        whole = gzip.compress(self._whole())
        self.send(200, whole[: len(whole) // 2], {"Content-Encoding": "gzip"})

    def fault_close(self, _: str) -> None:
        self.send(200, self._whole()[:10], length=10_000)
        self.close_connection = True

    def fault_reset(self, _: str) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def fault_bomb(self, _: str) -> None:
        self.send(200, bomb(), {"Content-Encoding": "gzip"})

    def fault_big(self, size: str) -> None:
        self.send(200, b'{"data": []}' + b" " * int(size))

    def fault_junk(self, count: str) -> None:
        self.send(200, b'{"data":[' + b"[]," * (int(count) - 1) + b'[]],"meta":{},"links":{"next":null}}')

    def fault_html(self, _: str) -> None:
        self.send(200, b"<html>maintenance</html>")

    def fault_deep(self, _: str) -> None:
        self.send(200, b"[" * 200_000)

    def fault_redirect(self, url: str) -> None:
        self.send(302, b"", {"Location": url})

    def fault_text_type(self, _: str) -> None:
        self.send(200, self._whole(), {"Content-Type": "text/html; charset=latin-1"})

    def fault_no_body(self, _: str) -> None:
        self.send(200, b"")

    def fault_not_gzip(self, _: str) -> None:
        self.send(200, self._whole(), {"Content-Encoding": "gzip"})

    def fault_twice_gzip(self, _: str) -> None:
        self.send(200, gzip.compress(gzip.compress(self._whole())), {"Content-Encoding": "gzip"})

    def fault_gzip_tail(self, _: str) -> None:
        self.send(200, gzip.compress(self._whole()) + b"trailing rubbish", {"Content-Encoding": "gzip"})

    def fault_brotli(self, _: str) -> None:
        self.send(200, self._whole(), {"Content-Encoding": "br"})

    def fault_half_chunk(self, _: str) -> None:
        whole = self._whole()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.wfile.write(b"%x\r\n" % len(whole) + whole[: len(whole) // 2])
        self.close_connection = True

    def fault_headers(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            for number in range(100_000):
                self.wfile.write(b"X-%d: more\r\n" % number)
        self.close_connection = True

    def fault_trickle(self, _: str) -> None:
        whole = self._whole()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole))
        for place in range(len(whole)):
            if self.owner.stopped.wait(0.05):
                break
            self.wfile.write(whole[place : place + 1])
            self.wfile.flush()
        self.close_connection = True
