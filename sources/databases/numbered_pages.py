"""A walk through numbered pages of a list that a server keeps.

Page k of size s holds the rows (k - 1) s + 1 to k s of the list.

Enters: a function that fetches one page, and one that turns its rows into crystals. Leaves:
`Page`s; a `Resume` continues the walk after any of them. A page too large to read is fetched again
as smaller pages, the first of which starts at the same row; a row too large to read is set apart
as a `BrokenEntry`. This module does not know HTTP or the
meaning of a row.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from assay.sources.crystals import Crystals
from assay.sources.databases.client import Reply, ReplyTooLarge, SourceDown, shown
from assay.sources.databases.paging import CursorExpired, Page, Resume, Walk
from assay.sources.databases.salvage import MAX_LOST
from assay.sources.databases.trust import MAX_OVERFULL, BrokenEntry
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

    def larger(self, most: int) -> Window:
        """The largest page of at most `most` rows that begins at the same row."""
        start = (self.page - 1) * self.size
        size = next(size for size in range(max(most, self.size), 0, -1) if start % size == 0)
        return Window(start // size + 1, size)


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
    lost, most_rows = (int(resume.cursor[key]) for key in ("lost", "most")) if resume else (0, size)
    while window is not None:
        own.visit(address(window))
        content, got = _fetch(name, fetch, window, address)
        if got.size == 1 and content.rows and isinstance(content.rows[0], BrokenEntry):
            lost, most_rows = lost + 1, size  # the pages were small for the sake of this row
        elif got.size < window.size:
            most_rows = got.size
        window = got
        if lost > MAX_LOST:
            raise SourceDown(f"more than {MAX_LOST} rows of {name} cannot be had; last: {content.rows[0].message}")
        content, overfull = _bounded(name, content, max(window.size, MAX_OVERFULL), own.taken)
        rows = content.rows if own.room is None else content.rows[: own.room]
        crystals, quarantined, names = convert(rows, content.reply.url)
        counted = content.announced is not None and own.taken + len(content.rows) >= content.announced
        following = None if counted or not rows or overfull else window.following().larger(most_rows)
        page = own.page(
            crystals,
            quarantined,
            names,
            url=content.reply.url,
            sha256=content.reply.sha256,
            following=None if following is None else address(following),
            announced=max((count for count in (announced, content.announced) if count is not None), default=None),
            state={**(state or {}), "window": vars(following or window.following()), "most": most_rows, "lost": lost},
        )
        yield page
        window = None if page.end else following


def _bounded(name: str, content: PageContent, most: int, taken: int) -> tuple[PageContent, bool]:
    """Refuse the rows of a page beyond `most`; they count as announced, and so as missing."""
    came = len(content.rows)
    if came <= most:
        return content, False
    log.warning("%s: a page of %d rows, %d accepted; the rest is refused", name, came, most)
    return replace(content, rows=content.rows[:most], announced=max(content.announced or 0, taken + came)), True


def _fetch(name: str, fetch: Fetch, window: Window, address: Callable[[Window], str]) -> tuple[PageContent, Window]:
    while True:
        try:
            return fetch(window), window
        except ReplyTooLarge as error:
            smaller = window.smaller()
            if smaller is None:
                unread = Reply(None, shown(address(window)), hashlib.sha256().hexdigest(), 0)
                return PageContent([BrokenEntry(str(error))], None, unread), window
            log.warning("%s: %s; asking for %d rows at a time", name, error, smaller.size)
            window = smaller


def _cursor(name: str, resume: Resume, address: Callable[[Window], str], state: Mapping[str, Any]) -> Window:
    try:
        page, size = (int(resume.cursor["window"][key]) for key in ("page", "size"))
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
