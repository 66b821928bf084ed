"""The one door to HTTP, with limits on time, bytes and addresses.

Enters: an origin (scheme, host and port), and the URLs that its server hands out. Leaves: `Reply`,
one parsed JSON document with its hash. A `Client` contacts its own origin only and sends its
credentials nowhere else. Waiting time, reply size and retries are limited, whatever the server
does. This module does not know OPTIMADE, pages or crystals.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_plus

import numpy as np

from assay.sources.checks.importing import one_at_a_time
from assay.sources.databases.pace import Clock, HostPace, Pace
from assay.sources.databases.trust import (
    MAX_BYTES,
    MAX_RATIO,
    MAX_RETRY_AFTER,
    UNREADABLE,
    Passing,
    ReplyTooLarge,
    SourceDown,
    SourceError,
    SourceRefused,
    UnsafeReply,
    detail,
    gunzip,
    is_public,
    parse,
    printable,
    retry_after,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["Client", "Reply", "ReplyTooLarge", "SourceDown", "SourceError", "SourceRefused", "UnsafeReply", "shown"]

log = logging.getLogger(__name__)

USER_AGENT = "assay (crystal screening; OPTIMADE client)"
MEDIA_TYPES = "application/vnd.api+json, application/json"
_COUNTS = re.compile(r" \(received \d+ bytes, expected \d+\)")
"""How far a body came before it broke off; it differs from try to try, and records must not."""
NAP_S = 60.0
"""s; a longer wait is slept in pieces, because another client may find the host recovered."""
MAX_ASKED = 300
"""Longest text of `asked`, in characters."""
_DEFAULT_PORT = {"http": 80, "https": 443}
_SECRET_KEYS = ("key", "token", "secret", "password", "auth")


@dataclass(frozen=True)
class Reply:
    """One JSON document as the server sent it."""

    json: Any
    """Parsed body; see `assay.sources.databases.trust` for entries that cannot be read."""
    url: str
    """Address it came from, secrets removed."""
    sha256: str
    """Hex digest of the decompressed body."""
    n_bytes: int
    """Length of the decompressed body."""


class Client:
    """A polite HTTP client bound to one origin; make one per provider and use it from one thread.

    Clients of one host share a `pace`; without one, a client keeps its own. Credentials in
    `headers` go to that origin only and appear in no repr, log line or exception. Private and
    loopback addresses are refused unless `local`. The check looks at the address of the open
    connection, so a misleading host name does not pass.

    Raises:
        ValueError: when the base URL or a header is not acceptable.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        local: bool = False,
        max_bytes: int = MAX_BYTES,
        max_ratio: int = MAX_RATIO,
        retries: int = 4,
        deadline_s: float = 900.0,
        timeout_s: float = 120.0,
        min_interval_s: float = 0.0,
        backoff_s: float = 1.0,
        user_agent: str = USER_AGENT,
        pace: Pace | None = None,
        clock: Clock = time,
    ) -> None:
        """Set the limits of a request.

        A request is tried up to `retries` more times, for at most `deadline_s` in all. An attempt
        fails after `timeout_s` without a byte.
        """
        self._url = _checked_base(base_url, local)
        self.base_url, self.local = base_url.rstrip("/"), local
        self.max_bytes, self.max_ratio = max_bytes, max_ratio
        self.retries, self.deadline_s, self.timeout_s = retries, deadline_s, timeout_s
        self.backoff_s = backoff_s
        self.pace: Pace = pace or HostPace(clock=clock)
        self.pace.slow_down(min_interval_s)
        self._clock = clock
        self._rng = np.random.default_rng()
        self._stream: Any = None  # network stream of the open connection, for the watchdog
        if headers and self._url.scheme != "https" and not local:
            raise ValueError(f"credentials would travel unencrypted to {base_url!r}; use https")
        proxy = None if local else _system_proxy(self._url)
        self._direct = proxy is None
        library = _httpx2()
        self._http: httpx2.Client = library.Client(
            auth=_bound_credentials(self._url, headers or {}),
            headers={"User-Agent": user_agent, "Accept": MEDIA_TYPES, "Accept-Encoding": "gzip"},
            follow_redirects=False,
            limits=library.Limits(max_connections=1, max_keepalive_connections=1),
            proxy=proxy,
            timeout=timeout_s,
            trust_env=False,  # the environment may hold .netrc passwords for this host
        )

    def __repr__(self) -> str:
        return f"Client({self.base_url!r}, local={self.local})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get_json(self, url: str, params: Mapping[str, Any] | None = None, *, retries: int | None = None) -> Reply:
        """Fetch the JSON document at a URL of this origin.

        A relative URL is joined to the base URL. `retries` replaces the client's own number for
        this request.

        Raises:
            SourceDown: retries or deadline exhausted; `status` is that of the last answer.
            SourceRefused: a final status such as 400, 401, 403, 404, 501.
            UnsafeReply: another origin, a redirect, a private address, too many bytes or values.
        """
        target = self.same_origin(url)
        if params:
            target = target.copy_merge_params(dict(params))
        retries = self.retries if retries is None else retries
        deadline = self._clock.monotonic() + self.deadline_s
        failure = Passing("no time left")
        for attempt in range(retries + 1):
            while (pause := self.pace.wait()) > 0:
                self._sleep(pause, deadline, target, failure)
            try:
                reply = self._attempt(target, deadline)
            except Passing as passing:
                failure = passing
                self.pace.bad(min(passing.pause, MAX_RETRY_AFTER))
                log.info("attempt %d at %s: %s", attempt + 1, shown(target), failure)
                if attempt < retries:
                    jitter = self._rng.uniform(0, min(60.0, self.backoff_s * 2**attempt))
                    self._sleep(jitter, deadline, target, failure)
            except SourceError:
                self.pace.good()
                raise
            else:
                self.pace.good()
                return reply
        raise SourceDown(f"{asked(target)} failed {retries + 1} times; last: {failure}", failure.status)

    def same_origin(self, url: str) -> httpx2.URL:
        """Resolve the absolute URL to contact, its scheme upgraded to that of the base URL.

        Raises:
            UnsafeReply: when the URL leads to another host or port, or down from https to http.
        """
        try:
            target = self._url.join(url)
        except (_httpx2().InvalidURL, ValueError, TypeError) as error:
            raise UnsafeReply(f"{url!r:.200} is not a URL: {error}") from None
        if target.scheme == "http" and self._url.scheme == "https" and _port(target) in (80, _port(self._url)):
            target = target.copy_with(scheme="https", port=self._url.port)
        if target.userinfo or _origin(target) not in _origins(self._url):
            raise UnsafeReply(f"link to {shown(target)} leaves the origin {shown(self._url)}; not followed")
        return target.copy_with(fragment=None)

    def _sleep(self, seconds: float, deadline: float, target: httpx2.URL, failure: Passing) -> None:
        if self._clock.monotonic() + seconds >= deadline:
            message = f"{asked(target)} gave no answer within {self.deadline_s:g} s; last: {failure}"
            raise SourceDown(message, failure.status)
        self._clock.sleep(min(seconds, NAP_S))

    def _attempt(self, target: httpx2.URL, deadline: float) -> Reply:
        left = deadline - self._clock.monotonic()
        # A server that drips one byte per silence limit never times out by itself: the watchdog
        # closes its socket.
        late = threading.Event()
        watchdog = threading.Timer(left, self._hang_up, (late,))
        watchdog.daemon = True
        watchdog.start()
        status = 0
        try:
            with self._http.stream(
                "GET", target, timeout=min(self.timeout_s, left), extensions={"trace": self._on_event}
            ) as response:
                status = response.status_code
                body = self._read(response, deadline)
                return self._judge(response, body, target)
        except Passing:
            self._check(late)
            raise
        except (_httpx2().RequestError, OSError) as error:
            if isinstance(error, SourceError):
                raise
            self._check(late)
            cut = status == 200 and isinstance(error, _httpx2().RemoteProtocolError)
            unreached = isinstance(error, (_httpx2().ConnectError, _httpx2().ConnectTimeout))
            said = _COUNTS.sub("", str(error))
            cause = f"{type(error).__name__}: {said}{'; no network?' if unreached else ''}"
            raise Passing(cause, status=UNREADABLE if cut else 0) from None
        finally:
            watchdog.cancel()

    def _on_event(self, name: str, info: Mapping[str, Any]) -> None:
        if not name.endswith("connect_tcp.complete"):
            return
        self._stream = info["return_value"]
        if self.local or not self._direct:
            return  # through a proxy the far address is the proxy's business
        address = self._stream.get_extra_info("server_addr")
        if address and not is_public(str(address[0])):
            self._stream.close()
            raise UnsafeReply(
                f"{self._url.host} is the private address {address[0]}; mark the source as local to allow it"
            )

    def _check(self, late: threading.Event) -> None:
        """Call an attempt late that the watchdog ended, although it looks like a cut body."""
        if late.is_set():
            raise Passing(f"body incomplete after {self.deadline_s:g} s") from None

    def _hang_up(self, late: threading.Event) -> None:
        late.set()
        held = self._stream.get_extra_info("socket") if self._stream is not None else None
        if held is not None:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("connection was already closed")

    def _read(self, response: httpx2.Response, deadline: float) -> bytes:
        """Decompressed body, cut off the moment it breaks a limit."""
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("gzip", "x-gzip", "identity", ""):
            raise UnsafeReply(f"content-encoding {coding!r:.40}; gzip or none accepted")
        pieces = response.iter_raw()
        if "gzip" in coding:
            pieces = gunzip(pieces, self.max_bytes, self.max_ratio)
        body = bytearray()
        for piece in pieces:
            body += piece
            if len(body) > self.max_bytes:
                raise ReplyTooLarge(f"body above {self.max_bytes} bytes; ask for smaller pages")
            if self._clock.monotonic() > deadline:
                raise Passing(f"body incomplete after {self.deadline_s:g} s")
        return bytes(body)

    def _judge(self, response: httpx2.Response, body: bytes, target: httpx2.URL) -> Reply:
        status = response.status_code
        where = shown(target)
        if 300 <= status < 400:
            goal = response.headers.get("location", "nowhere")
            raise UnsafeReply(f"{where} redirects ({status}) to {printable(goal)}; redirects are not followed")
        if status != 200:
            answer = f"status {status}{detail(body)}"
            if status in (408, 425, 429) or (status >= 500 and status not in (501, 505, 553)):
                raise Passing(answer, retry_after(response.headers.get("retry-after", "")), status)
            raise SourceRefused(f"{asked(target)} refused: {answer}", status)
        try:
            document = parse(body)
        except ValueError as error:
            kind = "a web page" if body.lstrip()[:1] == b"<" else f"broken JSON ({error})"
            raise Passing(f"{kind} of {len(body)} bytes instead of JSON", status=UNREADABLE) from None
        return Reply(document, where, hashlib.sha256(body).hexdigest(), len(body))


@cache
def _httpx2() -> ModuleType:
    """The library, imported on first use: the filter grammar works without it."""
    with one_at_a_time():
        import httpx2

    return httpx2


def shown(url: httpx2.URL | str) -> str:
    """Make a URL fit for logs and tables: hide the password and parameters named like secrets."""
    parsed: httpx2.URL = _httpx2().URL(url) if isinstance(url, str) else url
    bare = parsed.copy_with(userinfo=b"") if parsed.userinfo else parsed
    for name in list(bare.params):
        if any(word in name.lower() for word in _SECRET_KEYS):
            bare = bare.copy_set_param(name, "...")
    return printable(str(bare), 2000)


def asked(url: httpx2.URL) -> str:
    """Tell people what a server was asked: host, path and, decoded, the filter or the search.

    >>> asked(_httpx2().URL("https://oqmd.org/v1/structures?filter=elements%20HAS%20%22Mg%22&page_limit=50"))
    'oqmd.org/v1/structures (filter: elements HAS "Mg")'
    """
    whole: httpx2.URL = _httpx2().URL(shown(url))
    words = whole.params.get("filter", "") if "page_limit" in whole.params else unquote_plus(whole.query.decode())
    host = whole.host if whole.port is None else f"{whole.host}:{whole.port}"
    return printable(f"{host}{unquote_plus(whole.path)}{f' (filter: {words})' if words else ''}", MAX_ASKED)


def _checked_base(base_url: str, local: bool) -> httpx2.URL:
    library = _httpx2()
    try:
        url: httpx2.URL = library.URL(base_url.rstrip("/") + "/")
    except library.InvalidURL as error:
        raise ValueError(f"base URL {base_url!r:.200}: {error}") from None
    if url.scheme not in _DEFAULT_PORT or not url.host:
        raise ValueError(f"base URL {base_url!r:.200} must start with http:// or https:// and name a host")
    if url.userinfo or url.query:
        raise ValueError(f"base URL for {url.host!r} must hold no password and no query; pass credentials as headers")
    literal = url.host.replace(".", "").isdigit() or ":" in url.host
    if not local and (url.host == "localhost" or (literal and not is_public(url.host))):
        raise ValueError(f"base URL names the private address {url.host!r}; mark the source as local to allow it")
    return url


def _bound_credentials(origin: httpx2.URL, headers: Mapping[str, str]) -> Callable[[httpx2.Request], httpx2.Request]:
    """Add the headers to requests for one origin and to no other."""
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise ValueError(f"header {name!r:.60} must hold printable ASCII only")  # the value stays unsaid
    bound = dict(headers)

    def attach(request: httpx2.Request) -> httpx2.Request:
        if _origin(request.url) in _origins(origin):
            request.headers.update(bound)
        return request

    return attach


def _port(url: httpx2.URL) -> int:
    return url.port or _DEFAULT_PORT.get(url.scheme, 0)


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower().rstrip("."), _port(url)


def _origins(base: httpx2.URL) -> set[tuple[str, str, int]]:
    """Return the origin, and its https form when it is http on the usual port."""
    own = _origin(base)
    return {own, ("https", own[1], 443)} if own[::2] == ("http", 80) else {own}


def _system_proxy(url: httpx2.URL) -> str | None:
    if urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)
