"""Limits on a remote server: the size of its replies, the waits it asks for, and its failures.

Enters: raw bytes, header values, addresses. Leaves: checked values and parsed documents, or one of
the errors below. An entry that cannot be parsed (an invalid byte, a number of thousands of digits,
a deep nesting) becomes a `BrokenEntry` of its document; the others are whole.
This module does not know how a request is made (`assay.sources.databases.client`) or the content
of a page (`assay.sources.databases.optimade`).
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 64 * 2**20
"""Largest accepted body, after decompression."""
MAX_RATIO = 100
"""Largest accepted ratio of decompressed to received bytes, for a body above 1 MiB."""
UNREADABLE = 200
"""Status of a server that answered, but with a body that cannot be read."""
MAX_OVERFULL = 1000
"""Most entries taken from a page, or the page limit if that is more: some servers ignore the limit.
A walk ends at a page with more entries."""
MAX_RETRY_AFTER = 600.0
"""s; a server that asks for a longer pause gets this one."""


MAX_VALUES = 1_000_000
"""Most values (numbers, texts, lists, objects) in one body; each takes some 100 bytes of memory."""
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""A text or a mark of JSON; a text without an end reaches to the end of the body."""
_NUMBERED_MEMBER = re.compile(r'\s*"(\d{1,9} of \d{1,9})"\s*:', re.ASCII)
_NUMBERED = re.compile(r"\s*\{" + _NUMBERED_MEMBER.pattern, re.ASCII)
"""The start of an object whose keys number its members: a page of AFLUX."""


class SourceError(ConnectionError):
    """A source cannot be used; the message is one line for the user."""


class SourceDown(SourceError):
    """The server could not be reached, or kept failing until retries or the deadline ran out."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the last answer; `UNREADABLE` for a broken body, 0 for no answer."""

    @property
    def answered(self) -> bool:
        """Whether the server answered, with a failure that may be that of a single entry."""
        return self.status >= 500 or self.status == UNREADABLE


class SourceRefused(SourceError):
    """The server refused the request; the same request would be refused again."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, 0 when the refusal came inside a good reply."""


class UnsafeReply(SourceError):
    """The reply or link breaks a safety rule and was not followed or not read."""


class ReplyTooLarge(UnsafeReply):
    """The body is above a limit on bytes, compression or values; a smaller page may pass."""


class Passing(Exception):
    """A failure worth another attempt.

    `pause` is the wait in s that the server asked for, `status` its HTTP status or 0.
    """

    def __init__(self, message: str, pause: float = 0.0, status: int = 0) -> None:
        super().__init__(message)
        self.pause, self.status = pause, status


def is_public(address: str) -> bool:
    """Whether an IP address is public: not private, loopback, link-local or multicast."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_global and not parsed.is_multicast


def gunzip(chunks: Iterator[bytes], max_bytes: int, max_ratio: int) -> Iterator[bytes]:
    """Unpack a gzip stream piece by piece, and stop as soon as it breaks a limit."""
    stream = zlib.decompressobj(wbits=31)
    taken = given = 0
    for chunk in chunks:
        taken += len(chunk)
        rest, piece = chunk, b"-"
        while (rest or piece) and not stream.eof:  # output may remain when the input is used up
            try:
                piece = stream.decompress(rest, 2**20)
            except zlib.error as error:
                raise Passing(f"broken gzip body: {error}", status=UNREADABLE) from None
            rest = stream.unconsumed_tail
            given += len(piece)
            if given > max_bytes or given > max(2**20, max_ratio * taken):
                message = f"it unpacks to more than {max_bytes} bytes or {max_ratio} times its size"
                raise ReplyTooLarge(message)
            yield piece
    if taken and not stream.eof:
        raise Passing(f"gzip body cut off after {taken} bytes", status=UNREADABLE)


def retry_after(value: str) -> float:
    """Read the seconds of a Retry-After header, a number or an HTTP date; 0 when unreadable."""
    try:
        seconds = float(value) if value.strip().replace(".", "", 1).isdigit() else _seconds_until(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def detail(body: bytes) -> str:
    """Quote the errors in an OPTIMADE error body, or its first words."""
    try:
        errors = json.loads(body)["errors"]
        text = "; ".join(str(error.get("detail") or error.get("title")) for error in errors[:3])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        text = "" if body.lstrip()[:1] == b"<" else body[:200].decode("utf-8", "replace")
    return f" ({printable(text)})" if text.strip() else ""


def printable(text: str, length: int = 300) -> str:
    """One line of foreign text, fit for a log or a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:length].strip()


@dataclass(frozen=True)
class BrokenEntry:
    """An entry that cannot be parsed."""

    message: str
    """What is wrong with it, in one line."""


def parse(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """Parse a JSON document; the tokens NaN and Infinity are tolerated and come out as floats.

    Raises:
        ReplyTooLarge: for more than `max_values` values; nothing was built of them.
        ValueError: for a body that is no JSON document, broken entries aside.
    """
    count = sum(map(body.count, (b",", b"[", b"{")))  # marks inside texts count too
    if count > max_values:
        raise ReplyTooLarge(f"body of about {count} values, {max_values} accepted; ask for smaller pages")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return _apart(body.decode(errors="surrogateescape"), _reason(error))


def _apart(text: str, reason: str) -> Any:
    """Parse each entry of the list `data`, or of a list that is the whole document, alone.

    So are the members of an object whose keys number them, as in `1 of 912`.

    Raises:
        ValueError: with `reason`, where the entries cannot be told apart.
    """
    if _NUMBERED.match(text):
        return _members(text, reason)
    places = _entry_places(text) if text.count('"') <= 4 * MAX_VALUES else []  # a key and a text per value
    try:
        envelope = json.loads(_sound(text[: places[0].start] + text[places[-1].stop :])) if places else None
    except (ValueError, RecursionError):
        envelope = None
    if envelope is None:
        raise ValueError(reason)
    entries = [_entry(text[place.start : place.stop]) for place in places]
    return {**envelope, "data": entries} if isinstance(envelope, dict) else entries


def _entry_places(text: str) -> list[range]:
    """Places of the items of the list of entries; empty where the list has no end."""
    depth = start = listed = 0  # `listed` is the depth inside the list, 0 outside
    places: list[range] = []
    for token in _TOKEN.finditer(text):
        mark, here = token[0][0], token.start()
        if mark in "[{":
            depth += 1
            before = text[max(0, here - 40) : here] if depth <= 2 else ""
            if mark == "[" and not listed and (depth == 1 or re.search(r'"data"\s*:\s*\Z', before)):
                listed, start = depth, here + 1
        elif mark == "," and listed and depth == listed:
            places.append(range(start, here))
            start = here + 1
        elif mark in "]}":
            if listed and depth == listed:
                return [*places, range(start, here)]
            depth -= 1
    return []


def _members(text: str, reason: str) -> dict[str, Any]:
    """The members of an object whose keys number them, each parsed alone."""
    found: dict[str, Any] = {}
    for place in _member_places(text):
        member = _NUMBERED_MEMBER.match(text, place.start, place.stop)
        if member is None:
            raise ValueError(reason)
        found[member[1]] = _entry(text[member.end() : place.stop])
    if not found:
        raise ValueError(reason)
    return found


def _member_places(text: str) -> list[range]:
    """Places of the members of the object that is the whole text; empty where it has no end."""
    depth = start = 0
    places: list[range] = []
    for token in _TOKEN.finditer(text):
        mark, here = token[0][0], token.start()
        if mark in "[{":
            depth += 1
            start = here + 1 if depth == 1 else start
        elif mark == "," and depth == 1:
            places.append(range(start, here))
            start = here + 1
        elif mark in "]}":
            depth -= 1
            if depth == 0:
                whole = mark == "}" and not text[here + 1 :].strip()
                return [*places, range(start, here)] if whole else []
    return []


def _entry(text: str) -> Any:
    try:
        return json.loads(_sound(text))
    except (ValueError, RecursionError) as error:
        return BrokenEntry(f"the entry cannot be read: {_reason(error)}")


def _sound(text: str) -> str:
    """Return the text, if it holds no invalid byte."""
    return text.encode(errors="surrogateescape").decode()


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#x} is no UTF-8"
    return printable(str(error).partition(";")[0], 200)
