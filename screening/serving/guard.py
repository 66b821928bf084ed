"""The door of the server: who may ask, how much may be sent, and which headers every answer has.

Enters: requests as ASGI hands them over. Leaves: those that may pass, their bodies read within a
limit; the others are answered here, with the reason. This module does not know pages or models.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "assay_token"
PATIENCE_S = 30
"""Seconds in which a body must arrive."""
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names of this machine, the only ones that a server on loopback answers to."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # under no-referrer a form of our own pages would come from nowhere
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer: a page loads nothing from elsewhere, and no other site shows it."""


class Busy(Exception):
    """The queue is full; the client asks again after `wait_s` seconds."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many requests wait; ask again in {wait_s} s")
        self.wait_s = wait_s


class Gate:
    """Lets so many requests in at once, and refuses the others."""

    def __init__(self, most: int, wait_s: int) -> None:
        self.most, self.inside, self._wait_s = most, 0, wait_s

    def __enter__(self) -> None:
        if self.inside >= self.most:
            raise Busy(self._wait_s)
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


@dataclass(frozen=True)
class Rules:
    """What the door checks."""

    token: str | None
    """What a client must know; None: nothing."""
    local: bool
    """Whether requests must name this machine, so that no other name can be bent to it."""
    most_bytes: int
    """Longest body."""
    gate: Gate
    """How many requests with a body are answered at once."""


class _Refused(Exception):
    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers or {}


class Guard:
    """ASGI middleware that applies `Rules`.

    `noted` learns route, status and seconds of each answer.
    """

    def __init__(self, app: ASGIApp, rules: Rules, noted: Callable[[str, int, float], Any]) -> None:
        self._app, self._rules, self._noted = app, rules, noted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            await self._pass(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._noted(route, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        try:
            headers = Headers(scope=scope)
            self._check_place(headers)
            if (login := self._check_token(scope, headers)) is not None:
                await login(scope, receive, send)
                return
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self._app(scope, receive, send)
                return
            with self._rules.gate:
                await self._app(scope, await self._read(headers, receive), send)
        except _Refused as refused:
            answer = JSONResponse({"detail": str(refused)}, refused.status, refused.headers)
            await answer(scope, receive, send)
        except Busy as busy:
            answer = JSONResponse({"detail": str(busy)}, 429, {"Retry-After": str(busy.wait_s)})
            await answer(scope, receive, send)

    def _check_place(self, headers: Headers) -> None:
        """Refuse names that are not this machine's, and pages of other sites."""
        host = headers.get("host", "")
        if self._rules.local and host.rpartition(":")[0] not in LOCAL and host not in LOCAL:
            raise _Refused(421, f"this server answers to {', '.join(sorted(LOCAL))}, not to {host[:80]!r}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise _Refused(403, "a page of another site may not ask this server")

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Refuse clients without the token; who brings it in the URL gets a cookie in its place."""
        token = self._rules.token
        if token is None:
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(shown, token):
            return None
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            morsel = None
        if morsel is not None and _same(morsel.value, token):
            return None
        brought = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and _same(brought, token):
            response = RedirectResponse("/" + scope["path"].lstrip("/"), 303)
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
            return response
        told = "a token is needed: open the URL that `assay serve` printed, or send Authorization: Bearer TOKEN"
        raise _Refused(401, told, {"WWW-Authenticate": "Bearer"})

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """Read a body within the limits, and hand it on as one message."""
        most, told = self._rules.most_bytes, headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > most:
            raise _Refused(413, f"a body of {told[:20]} bytes, at most {most:,} are accepted")
        body = bytearray()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _Refused(400, "the client went away")
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _Refused(413, f"a body of more than {most:,} bytes")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _Refused(408, f"the body did not arrive within {PATIENCE_S} s") from None
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return again


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
