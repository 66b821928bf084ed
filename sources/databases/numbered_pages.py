"""A walk through numbered pages of a list that a server keeps.

Page k of size s holds the rows (k - 1) s + 1 to k s of the list.

Enters: a function that fetches one page, and one that turns its rows into crystals. Leaves:
`Page`s; a `Resume` continues the walk after any of them. A page too large to read is fetched again
as smaller pages, the first of which starts at the same row. This module does not know HTTP or the
meaning of a row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from assay.sources.crystals import Crystals
from assay.sources.databases.client import Reply, ReplyTooLarge
from assay.sources.databases.paging import CursorExpired, Page, Resume, Walk
from assay.sources.quarantine import Quarantined

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """The rows that one request asks for."""

    page: int
    """Number of the page, from 1."""
    size: int
    """Rows per page, at least 1."""

    def following(self) -> Window:
        """The page behind this one."""
        return Window(self.page + 1, self.size)

    def smaller(self) -> Window | None:
        """A page of at most half the rows, from the same row on; None for a page of one row."""
        start = (self.page - 1) * self.size
        size = next((size for size in range(self.size // 2, 0, -1) if start % size == 0), None)
        return None if size is None else Window(start // size + 1, size)


@dataclass(frozen=True)
class PageContent:
    """The content of one page."""

    rows: list[Any]
    announced: int | None
    """Rows that the server says the list holds. None when it does not say; the first empty page
    then ends the walk."""
    reply: Reply


Fetch: TypeAlias = Callable[[Window], PageContent]
"""Asks for a page."""
Convert: TypeAlias = Callable[[list[Any], str], tuple[Crystals, list[Quarantined], list[str]]]
"""Rows and their address, to crystals, refused rows, and the id of every row in order."""


def walk(
    name: str,
    fetch: Fetch,
    convert: Convert,
    *,
    address: Callable[[Window], str],
    size: int,
    max_entries: int | None = None,
    announced: int | None = None,
    resume: Resume | None = None,
    state: Mapping[str, Any] | None = None,
) -> Iterator[Page]:
    """Yield every page, or those behind `resume`; warnings quote `name`.

    `address` gives each page an address of its own. `announced` is the number of rows that should
    come, where it is known beforehand. `state`, plain JSON, describes the list, for example by the
    release of the database; a cursor with another state belongs to another list.

    Raises:
        CursorExpired: when the cursor to go on from is unreadable, or of another list.
        SourceError: what `fetch` raises; pages yielded before stay good.
    """
    own = Walk(name, max_entries, resume)
    window: Window | None = Window(1, size) if resume is None else _cursor(name, resume, address, state or {})
    while window is not None:
        own.visit(address(window))
        content, window = _fetch(name, fetch, window)
        rows = content.rows if own.room is None else content.rows[: own.room]
        crystals, quarantined, names = convert(rows, content.reply.url)
        counted = content.announced is not None and own.taken + len(content.rows) >= content.announced
        following = None if counted or not content.rows else window.following()
        page = own.page(
            crystals,
            quarantined,
            names,
            url=content.reply.url,
            sha256=content.reply.sha256,
            following=None if following is None else address(following),
            announced=max((count for count in (announced, content.announced) if count is not None), default=None),
            state={**(state or {}), "window": [window.page + 1, window.size]},
        )
        yield page
        window = None if page.end else following


def _fetch(name: str, fetch: Fetch, window: Window) -> tuple[PageContent, Window]:
    while True:
        try:
            return fetch(window), window
        except ReplyTooLarge as error:
            smaller = window.smaller()
            if smaller is None:
                raise
            log.warning("%s: %s; asking for %d rows at a time", name, error, smaller.size)
            window = smaller


def _cursor(name: str, resume: Resume, address: Callable[[Window], str], state: Mapping[str, Any]) -> Window:
    try:
        page, size = (int(number) for number in resume.cursor["window"])
        window = Window(page, size)
    except (KeyError, TypeError, ValueError) as error:
        raise CursorExpired(f"the cursor of {name} cannot be read: {error!r:.200}") from None
    if min(page, size) < 1 or resume.cursor["next"] != address(window):
        raise CursorExpired(f"the cursor of {name} belongs to another query")
    for key, value in state.items():
        if resume.cursor.get(key) != value:
            change = f"{key} was {resume.cursor.get(key)!r:.80} and is now {value!r:.80}"
            raise CursorExpired(f"{name} changed since the pages kept were pulled: {change}")
    return window
