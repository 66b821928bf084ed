"""A walk through the pages of a server: it finds the last page, and can be resumed.

Enters: the content of each page, and the address of the next one. Leaves: `Page`s, each with a
cursor. A `Resume` made of the cursors kept so far continues the walk, also in another process, with
the same pages. This module does not know HTTP or any protocol, nor how pages are stored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from assay.sources.crystals import Crystals
from assay.sources.databases.trust import SourceRefused
from assay.sources.quarantine import Quarantined

log = logging.getLogger(__name__)

MAX_PAGES = 100_000
"""Most pages of one walk; a server that sends more would send pages for ever."""
SPARE_PAGES = 5
"""Pages accepted beyond what the announced count needs."""


class End(StrEnum):
    """Why a page was the last one."""

    NO_NEXT = "no next page"
    EMPTY = "empty page"
    NOTHING_NEW = "page without new ids"
    VISITED = "next page was visited before"
    TOO_MANY = "more pages than announced"
    ASKED = "max_entries reached"


class CursorExpired(SourceRefused):
    """The server does not know the next page any more; the walk must start again."""


@dataclass(frozen=True)
class Shard:
    """A disjoint part of a source, to be pulled as a query of its own."""

    filter: str
    """The query in the language of the source (OPTIMADE filter, AFLUX matchbook); it excludes the
    entries of every other shard."""
    expected: int | None
    """Entries the server announced for it; None where it does not count."""


@dataclass(frozen=True)
class Page:
    """One reply of a server: each entry is either in `crystals` or in `quarantined`."""

    crystals: Crystals
    quarantined: list[Quarantined]
    url: str
    """Address of the page, secrets removed."""
    sha256: str
    """Hex digest of the body; for a page made of several replies, the digest of their digests."""
    n_entries: int
    """Entries taken from the page; repeated ids count."""
    next_url: str | None
    """Where the next page is; None on the last page of this pull."""
    data_returned: int | None
    """Entries the server says match, if it says so: the largest count on the pages so far."""
    end: End | None = None
    """Why this page is the last one; None while more follow."""
    missing: int = 0
    """On the last page: entries announced but never sent."""
    complete: bool = False
    """On the last page: everything announced, or asked for, was received."""
    cursor: dict[str, Any] | None = None
    """State of the walk after this page, plain JSON, for `Resume`; None on the last page."""


@dataclass(frozen=True)
class Resume:
    """The state from which a walk goes on after the pages kept; `after` makes it."""

    cursor: Mapping[str, Any]
    """`Page.cursor` of the last page kept."""
    seen: Collection[str] = field(repr=False)
    """Ids (`provider/entry`) of every row, good or quarantined, on the pages kept."""
    visited: Collection[str] = field(default=(), repr=False)
    """Addresses of the pages kept."""

    @classmethod
    def after(cls, cursors: Sequence[Mapping[str, Any]], seen: Collection[str]) -> Self:
        """Make a `Resume` from the cursors of all pages kept, first to last.

        Raises:
            ValueError: for no cursor.
        """
        if not cursors:
            raise ValueError("no page was kept: start the walk without a resume")
        visited = {address for cursor in cursors for address in (cursor.get("next"), *cursor.get("asked", ()))}
        return cls(dict(cursors[-1]), seen, {address for address in visited if isinstance(address, str)})


class Walk:
    """The state of one walk, which decides whether a page is the last one.

    Call `visit` with each address before the request, then `page` with the content of the reply.

    Raises:
        CursorExpired: when the cursor to go on from cannot be read.
    """

    def __init__(self, name: str, max_entries: int | None = None, resume: Resume | None = None) -> None:
        """Warnings quote `name`; the walk ends after `max_entries`, None takes all."""
        self.name, self.max_entries = name, max_entries
        self.n_pages = self.taken = self.size = 0
        self.announced: int | None = None
        self.next: str | None = None
        self.seen: set[str] = set()
        self._visited: set[str] = set()
        self._asked: list[str] = []
        if resume is not None:
            self._go_on(resume)

    def _go_on(self, resume: Resume) -> None:
        cursor = resume.cursor
        try:
            self.next = str(cursor["next"])
            self.n_pages, self.taken, self.size = (int(cursor[key]) for key in ("pages", "taken", "size"))
            self.announced = None if cursor["announced"] is None else int(cursor["announced"])
        except (KeyError, TypeError, ValueError) as error:
            raise CursorExpired(f"the cursor of {self.name} cannot be read: {error!r:.200}") from None
        self.seen.update(resume.seen)
        self._visited.update(map(_bare, resume.visited))

    @property
    def room(self) -> int | None:
        """Entries still wanted; None when all are."""
        return None if self.max_entries is None else max(0, self.max_entries - self.taken)

    def visit(self, address: str) -> None:
        """Remember an address before its request; a next page with this address ends the walk."""
        self._visited.add(_bare(address))
        if address != self.next:  # the next address of the page before is in its cursor already
            self._asked.append(address)

    def shrink(self, size: int) -> None:
        """Expect pages of at most this many entries from now on, and more of them."""
        self.size = min(self.size, size) if self.n_pages else self.size

    def page(
        self,
        crystals: Crystals,
        quarantined: list[Quarantined],
        names: Sequence[str],
        *,
        url: str,
        sha256: str,
        following: str | None,
        announced: int | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Page:
        """Count one page, and decide whether it is the last.

        `names` holds the id of every entry taken, repeats included. `following` is the address of
        the next page. `announced` is the total that this page announces. `state`, plain JSON, is
        added to the cursor.
        """
        self.n_pages += 1
        self.taken += len(names)
        self.size = self.size or len(names)
        if announced is not None:
            self.announced = max(announced, self.announced or 0)
        fresh = len(set(names) - self.seen)
        self.seen.update(names)
        end = self._end(len(names), fresh, following)
        missing, complete = (0, False) if end is None else self._close(end)
        cursor = self._cursor(following, state or {}) if end is None else None
        self.next, self._asked = following, []
        return Page(
            crystals,
            quarantined,
            url,
            sha256,
            len(names),
            None if end else following,
            self.announced,
            end,
            missing,
            complete,
            cursor,
        )

    def _cursor(self, following: str | None, state: Mapping[str, Any]) -> dict[str, Any]:
        own = {"next": following, "asked": self._asked, "pages": self.n_pages, "taken": self.taken}
        return {**state, **own, "size": self.size, "announced": self.announced}

    def _end(self, count: int, fresh: int, following: str | None) -> End | None:
        if self.room == 0:
            return End.ASKED
        if following is None:
            return End.NO_NEXT
        if count == 0:
            return End.EMPTY
        if fresh == 0:
            return End.NOTHING_NEW
        if _bare(following) in self._visited:
            return End.VISITED
        return End.TOO_MANY if self.n_pages >= self._most_pages() else None

    def _most_pages(self) -> int:
        if self.announced is None or not self.size:
            return MAX_PAGES
        return min(MAX_PAGES, math.ceil(self.announced / self.size) + SPARE_PAGES)

    def _close(self, end: End) -> tuple[int, bool]:
        """Entries missing at the end of the walk, and whether everything came."""
        if end is End.ASKED:
            return 0, True
        missing = max(0, (self.announced or 0) - len(self.seen))
        counted = self.announced is not None and missing == 0 and end is not End.TOO_MANY
        complete = counted or (end is End.NO_NEXT and missing == 0)
        if not complete:
            shortfall = f"{missing} of {self.announced} announced entries missing" if missing else "the end is unsure"
            log.warning("%s ended after %d entries (%s): %s", self.name, len(self.seen), end, shortfall)
        return missing, complete


def ids_of(pages: Iterable[Page]) -> set[str]:
    """Ids of every row on these pages, good or quarantined: the `seen` of a `Resume`."""
    return {name for page in pages for name in (*page.crystals.ids.tolist(), *(row.id for row in page.quarantined))}


def check_limits(max_page: int | None = None, **limits: int | None) -> None:
    """Check that each limit of a query is at least 1, and `page_limit` at most `max_page`.

    None stands for no limit.

    Raises:
        ValueError: with the name of the wrong limit.
    """
    for name, value in limits.items():
        if name == "page_limit" and max_page is not None and value is not None and not 1 <= value <= max_page:
            raise ValueError(f"page_limit is {value}, 1 to {max_page} accepted")
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, at least 1 accepted")


def _bare(address: str) -> str:
    return address.partition("://")[2].partition("#")[0] or address
