"""Parses the body of a reply within bounds, and sets broken entries apart.

Enters: the bytes of a body. Leaves: the parsed document. An entry that cannot be parsed (an invalid
byte, a number of thousands of digits, a deep nesting) becomes a `BrokenEntry`; the others are
whole. This module does not know HTTP, pages or crystals.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from assay.sources.databases.trust import ReplyTooLarge, printable

MAX_VALUES = 1_000_000
"""Most values (numbers, texts, lists, objects) in one body; each takes some 100 bytes of memory."""
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""A text or a mark of JSON; a text without an end reaches to the end of the body."""


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

    Raises:
        ValueError: with `reason`, where the entries cannot be told apart.
    """
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
