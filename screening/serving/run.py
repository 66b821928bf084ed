"""Opens a port and serves until it is told to stop.

Enters: campaign folders, a predictor, an address, the limits. Leaves: a server, and lines that say
where it answers. Beyond loopback a client must know a token. This module knows uvicorn.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from assay.screening.serving import shelf
from assay.screening.serving.app import Limits, make
from assay.screening.serving.optimade import server as optimade
from assay.screening.serving.predicting.predictor import Predictor
from assay.screening.serving.store import Store
from assay.screening.settings.exits import Exit, Failure

TOKEN = "ASSAY_SERVE_TOKEN"  # noqa: S105 (the name of a variable)
"""Environment variable that holds the token."""
SHORTEST = 16
"""Fewest characters of a token."""


@dataclass(frozen=True)
class Address:
    """Where the server listens, and how others call it."""

    host: str = "127.0.0.1"
    port: int = 8000
    url: str | None = None
    """Begin of the URLs that clients see, behind a proxy; None: `http://host:port`."""

    @property
    def local(self) -> bool:
        """Whether no other machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def serve(
    folders: Sequence[Path],
    predictor: Callable[[], AbstractContextManager[Predictor]],
    address: Address,
    store: Path,
    say: Callable[[str], None],
    *,
    most_bytes: int,
    waiting: int,
) -> None:
    """Serve until SIGTERM or Ctrl-C; `most_bytes` and `waiting` are those of `Limits`.

    `predictor` starts when the port is open and the campaigns are read; it ends with the server.

    Raises:
        Failure: when a folder or the model cannot be served, the token is too short, or the port is
            taken.
    """
    limits = Limits(most_bytes, waiting, token=token(address), local=address.local)
    with tempfile.TemporaryDirectory(prefix="assay-index-") as place, bound(address) as listening:
        port = listening.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = address.url or f"http://{host}:{port}"
        campaigns = shelf.serve(folders, Path(place))
        database = optimade.make(campaigns, f"{url}/optimade", Path(place))
        with predictor() as ready:
            app = make(campaigns, ready, Store(store), limits, database)
            shown = f"{url}/?token={limits.token}" if limits.token else f"{url}/"
            say(f"{len(campaigns)} campaigns and the model {ready.model['name']} at {shown}")
            if limits.token:
                say("other machines can reach it: a client sends Authorization: Bearer TOKEN, or opens that URL")
            _run(app, listening)
    say("stopped")


def _run(app: ASGIApp, listening: socket.socket) -> None:
    """Answer requests until a signal asks for the end, which is no failure."""
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=2**16,
    )
    server = uvicorn.Server(config)
    with _handled(server.handle_exit):  # uvicorn ends, and then sends the signal again
        server.run([listening])


@contextmanager
def _handled(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Another handler of SIGTERM and Ctrl-C for the length of a block."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def token(address: Address) -> str | None:
    """The token that a client must know: that of the environment, else a new one; none on loopback.

    Raises:
        Failure: USAGE, for a token that is too short.
    """
    given = os.environ.get(TOKEN, "")
    if given and (len(given) < SHORTEST or not given.isascii() or not given.isprintable()):
        raise Failure(Exit.USAGE, f"{TOKEN} needs at least {SHORTEST} printable ASCII characters")
    return given or (None if address.local else secrets.token_urlsafe(24))


def bound(address: Address) -> socket.socket:
    """A socket that listens.

    Raises:
        Failure: USAGE, when the address is taken or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        raise Failure(Exit.USAGE, f"cannot listen on {address.host}:{address.port}: {error.strerror}") from None
    return listening
