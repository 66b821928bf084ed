"""A walk through the pages of a server: it finds the last page, and can be resumed.

Enters: the content of each page, and the address of the next one. Leaves: `Page`s, each with a
cursor. A `Resume` made of the cursors kept so far continues the walk, also in another process, with
the same pages. This module does not know HTTP or any protocol, nor how pages are stored.
"""

from __future__ import annotations

import logging
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
UNCOUNTED_PAGES = 1000
"""Most pages of a walk whose server does not say how many entries match; with `max_entries`, that
is the bound."""
SPARE_PAGES = 5
"""Pages accepted after the announced number of entries has come."""


class End(StrEnum):
    """Why a page was the last one."""

    NO_NEXT = "no next page"
    EMPTY = "empty page"
    NOTHING_NEW = "page without new ids"
    VISITED = "next page was visited before"
    TOO_MANY = "more pages than announced"
    UNCOUNTED = "most pages without a count"
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
    shortfall: str = ""
    """On the last page of an incomplete walk: one line that says why more entries may exist."""
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
        self.n_pages = self.taken = self.spare = 0
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
            numbers = (int(cursor[key]) for key in ("pages", "taken", "spare"))
            self.n_pages, self.taken, self.spare = numbers
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
        more: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> Page:
        """Count one page, and decide whether it is the last.

        `names` holds the id of every entry taken, repeats included. `following` is the address of
        the next page. `announced` is the total that this page announces. `more` is whether the
        server says that entries follow this page. `state`, plain JSON, is added to the cursor.
        """
        self.n_pages += 1
        self.taken += len(names)
        if announced is not None:
            self.announced = max(announced, self.announced or 0)
        fresh = len(set(names) - self.seen)
        self.seen.update(names)
        self.spare += self.announced is not None and len(self.seen) >= self.announced
        end = self._end(len(names), fresh, following)
        missing = max(0, (self.announced or 0) - len(self.seen)) if end not in (None, End.ASKED) else 0
        shortfall = "" if end is None else self._shortfall(end, missing, more=more)
        if end is None and self.n_pages == 1 and self.announced is None:
            self._warn_uncounted()
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
            end is not None and not shortfall,
            shortfall,
            cursor,
        )

    def _cursor(self, following: str | None, state: Mapping[str, Any]) -> dict[str, Any]:
        own = {"next": following, "asked": self._asked, "pages": self.n_pages, "taken": self.taken}
        return {**state, **own, "spare": self.spare, "announced": self.announced}

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
        if self.spare > SPARE_PAGES or self.n_pages >= MAX_PAGES:
            return End.TOO_MANY
        unbounded = self.max_entries is None and self.announced is None
        return End.UNCOUNTED if unbounded and self.n_pages >= UNCOUNTED_PAGES else None

    def _warn_uncounted(self) -> None:
        bound = f"{UNCOUNTED_PAGES} pages" if self.max_entries is None else f"{self.max_entries} entries"
        log.warning("%s does not say how many entries match; %s at most are pulled", self.name, bound)

    def _shortfall(self, end: End, missing: int, *, more: bool) -> str:
        """Say why entries may be missing at the end of the walk; empty where everything came."""
        if missing:
            again = self.taken - len(self.seen)
            repeated = f", and {again} came again" if again else ""
            text = f"{missing} of {self.announced} announced rows are missing{repeated} ({end})"
        elif end is End.TOO_MANY:
            text = f"rows beyond the {self.announced} announced kept coming; {len(self.seen)} were taken"
        elif end is End.UNCOUNTED:
            text = (
                f"the server does not say how many rows match, and new ones kept coming for {self.n_pages} pages; "
                "max_entries sets another bound"
            )
        elif end is End.ASKED or len(self.seen) == self.announced or (end is End.NO_NEXT and not more):
            return ""
        elif end is End.NO_NEXT:
            text = "the server says that more rows match, but not rightly how many, nor where they are"
        else:
            text = f"the server does not say rightly how many rows match, and the end is unsure ({end})"
        log.warning("%s ended after %d entries: %s", self.name, len(self.seen), text)
        return text


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
