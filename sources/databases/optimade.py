"""Crystals from an OPTIMADE server, page by page.

Enters: a `Client` bound to a provider, and a `Query`. Leaves: `Page`s of crystals and quarantined
rows; each row is judged against the filter again. A server may page wrongly, count wrongly or
ignore the filter. The walk ends all the same, and its last page says how many entries are missing.
This module does not know how pages are stored, nor HTTP beyond the client.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

from assay.sources.crystals import Crystals
from assay.sources.databases.client import (
    Client,
    Reply,
    ReplyTooLarge,
    SourceDown,
    SourceError,
    SourceRefused,
    UnsafeReply,
    shown,
)
from assay.sources.databases.filters.checker import MAX_MISSES, Checker, contradictions
from assay.sources.databases.filters.grammar import check_dialect, validate_filter
from assay.sources.databases.optimade_entries import (
    NEWER_FIELDS,
    STRUCTURE_FIELDS,
    entries_to_crystals,
    entry_id,
)
from assay.sources.databases.optimade_query import (
    Query,
    announced,
    announced_count,
    brief,
    check_answer,
    connect,
    first_url,
    meta_number,
    says_more,
    with_parameter,
)
from assay.sources.databases.paging import CursorExpired, End, Page, Resume, Walk
from assay.sources.databases.providers import Provider, resolve
from assay.sources.databases.salvage import MAX_LOST, Fragment, salvage
from assay.sources.databases.trust import MAX_OVERFULL
from assay.sources.quarantine import Quarantined, Reason, Stage

__all__ = ["CursorExpired", "End", "FilterIgnored", "Page", "Query", "Resume", "announced", "connect", "pages"]

log = logging.getLogger(__name__)

FEW_MISSES = 2
"""Contradicting rows accepted on a first page of any size, unless they are more than half of it."""
_WINDOWS = frozenset({"page_offset", "page_number", "page_above", "page_below"})
"""Parameters that name a part of the list that the other parameters select; a link with another
one may stand for the whole query."""


_OF_THE_KEY = frozenset({401, 402, 403, 407})
"""Refusals that concern the one who asks and not the page; the way to the page stays good."""


class FilterIgnored(SourceRefused):
    """The server sends rows that its filter excludes, so its answer may lack others."""


def pages(
    client: Client, query: Query, provider: Provider | None = None, resume: Resume | None = None
) -> Iterator[Page]:
    """Yield every page of a query as it arrives; the last has `end`, `missing` and `complete`.

    With `resume`, only the pages behind those already kept; they are the pages that an unbroken
    walk would have yielded. An entry that the server cannot deliver is quarantined, provided that
    the server pages by offset.

    Raises:
        ValueError: for a filter that this provider is known to answer wrongly.
        FilterIgnored: when more than 1 % of the first page, and more than two rows, contradict the
            filter.
        CursorExpired: when the server refuses to go on after `resume`; start again without it.
        SourceError: what `Client.get_json` raises; pages yielded before stay good.
    """
    pull = _Pull(client, query, provider or resolve(client.base_url), resume)
    url = pull.begin()
    while url:
        page = pull.page(url)
        yield page
        url = page.next_url or ""


class _Pull:
    """The state of one walk: fields asked for, page size, entries lost so far."""

    def __init__(self, client: Client, query: Query, provider: Provider, resume: Resume | None) -> None:
        check_dialect(provider, query.filter)
        self.client, self.query, self.provider = client, query, provider
        self.checker = Checker(validate_filter(query.filter), provider.unjudged)
        self.walk = Walk(provider.id, query.max_entries, resume)
        state = resume.cursor if resume else {}
        self.older = not state.get("newer", True)  # whether the server is too old for NEWER_FIELDS
        self.fields = self._asked_fields()
        limit = query.page_limit or provider.page_limit
        self.limit = int(state.get("limit") or min(limit, query.max_entries or limit))
        self.full = int(state.get("full") or self.limit)  # the limit, were no entry too large
        self.n_lost = int(state.get("lost") or 0)
        self.announced: int | None = None
        self.more = False  # whether the server says that entries follow its latest reply
        self.resumed = resume is not None  # until the first page is there
        self.led_away = str(state.get("led_away") or "")
        self.url = self.first = first_url(client, query.shard_filter or query.filter, self.fields, self.limit)

    def begin(self) -> str:
        """Address to start from, or to go on from."""
        kept = self.walk.next
        if kept is None:
            return self.first
        return self._mended() if self._leaves(kept) else kept

    def page(self, url: str) -> Page:
        """Fetch one page and decide whether it is the last."""
        try:
            reply = self._fetch(url)
        except (SourceDown, ReplyTooLarge) as error:
            window = self._window(error)
            if not window:
                raise
            self.limit = self.full  # it was halved for the sake of one entry
            return self._salvaged(window, error)
        except SourceRefused as error:
            raise self._refusal(error) from None
        entries = self._entries(reply)
        following = self._next(reply.json, self.url)
        most = max(self.limit, MAX_OVERFULL)
        if len(entries) > most:
            log.warning("%s: %d entries came, %d asked for; the rest is refused", reply.url, len(entries), self.limit)
            self.announced = max(self.announced or 0, self.walk.taken + len(entries))
            following = None
        return self._page(entries[:most][: self.walk.room], reply.url, reply.sha256, following)

    def _refusal(self, error: SourceRefused) -> SourceRefused:
        """The refusal, or that the way to the page is no longer good."""
        if not self.resumed or not 400 <= error.status < 500 or error.status in _OF_THE_KEY:
            return error
        return CursorExpired(f"{self.provider.id} does not go on where the walk broke off: {error}", error.status)

    def _leaves(self, url: str) -> bool:
        """Whether an address is none of this origin; a request to it would be refused."""
        try:
            self.client.same_origin(url)
        except UnsafeReply:
            return True
        return False

    def _mended(self) -> str:
        """Ask the last page kept, which led to another host, where the next page is by now."""
        if not self.led_away:
            raise CursorExpired(f"{self.provider.id}: the kept link leads to another host; the walk starts again")
        try:
            reply = self.client.get_json(self.led_away)
        except SourceRefused as error:
            raise self._refusal(error) from None
        names = self._names(self._entries(reply), brief(reply.url))
        following = self._next(reply.json, self.led_away)
        if not following or not self.walk.seen.issuperset(names):
            raise CursorExpired(
                f"{self.provider.id}: the last page led to another host, and is another page now; the walk starts again"
            )
        return following

    def _page(
        self,
        entries: list[Any],
        url: str,
        sha256: str,
        following: str | None,
        lost: Mapping[int, str] | None = None,
    ) -> Page:
        origin = brief(url)
        crystals, quarantined = self._convert(entries, origin)
        undelivered = [
            Quarantined(f"{self.provider.id}/?{offset}@{origin}", origin, Stage.PULL, Reason.SERVER_ERROR, brief(why))
            for offset, why in (lost or {}).items()
        ]
        self.resumed = False
        self.led_away = self.url if following and self._leaves(following) else ""
        state = {"limit": self.limit, "full": self.full, "newer": not self.older, "lost": self.n_lost}
        return self.walk.page(
            crystals,
            quarantined + undelivered,
            self._names(entries, origin) + [row.id for row in undelivered],
            url=url,
            sha256=sha256,
            following=following,
            announced=self.announced,
            more=self.more,
            state=state | ({"led_away": self.led_away} if self.led_away else {}),
        )

    def _names(self, entries: Sequence[Any], origin: str) -> list[str]:
        return [entry_id(entry, self.provider, origin, place) for place, entry in enumerate(entries)]

    def _entries(self, reply: Reply) -> list[Any]:
        """Entries of a reply; its `meta` is taken note of."""
        entries = check_answer(reply, self.query.filter, self.provider)
        self.client.pace.slow_down(meta_number(reply.json, "request_delay") or 0.0)
        self.announced = announced_count(reply.json, "data_returned")
        self.more = says_more(reply.json)
        return entries

    def _window(self, error: SourceDown | ReplyTooLarge) -> range:
        """Offsets of the entries on a page that failed; empty where they are not known."""
        asked = dict(parse_qsl(urlsplit(self.url).query))
        offset = asked.get("page_offset", "" if self.walk.n_pages else "0")
        broken = isinstance(error, ReplyTooLarge) or error.answered
        if not broken or not offset.isdecimal():
            return range(0)
        return range(int(offset), int(offset) + min(self.limit, self.walk.room or self.limit))

    def _salvaged(self, window: range, error: SourceError) -> Page:
        """Put a page together from the entries that the server can deliver."""
        saved = salvage(self._fragment, window, error, self.walk.seen, MAX_LOST - self.n_lost)
        self.n_lost += len(saved.lost)
        url = with_parameter(with_parameter(self.url, "page_offset", window.start), "page_limit", len(window))
        behind = with_parameter(with_parameter(self.url, "page_offset", window.stop), "page_limit", self.limit)
        entries = [entry for fragment in saved.fragments for entry in fragment.entries]
        digest = hashlib.sha256("".join(fragment.sha256 for fragment in saved.fragments).encode()).hexdigest()
        return self._page(entries, shown(url), digest, None if saved.ended else behind, saved.lost)

    def _fragment(self, offset: int, limit: int, retries: int | None) -> Fragment:
        url = with_parameter(with_parameter(self.url, "page_offset", offset), "page_limit", limit)
        reply = self.client.get_json(url, retries=retries)
        entries = self._entries(reply)
        more = self._next(reply.json, url) is not None
        return Fragment(entries, self._names(entries, brief(reply.url)), reply.sha256, more=more)

    def _fetch(self, url: str) -> Reply:
        """Get a page, asking for less where the server or the size limit refuses."""
        while True:
            self.walk.visit(url)
            self.url = url
            try:
                return self.client.get_json(url)
            except (ReplyTooLarge, SourceRefused) as error:
                if self._drop_newer_fields(error):
                    url = self.first
                    continue
                floor = 1 if isinstance(error, ReplyTooLarge) else 10
                if self.limit <= floor or (isinstance(error, SourceRefused) and error.status != 403):
                    raise
                self.limit //= 2
                self.full = self.limit if isinstance(error, SourceRefused) else self.full
                log.warning("%s; trying page_limit %d", error, self.limit)
                url = with_parameter(url, "page_limit", self.limit)

    def _drop_newer_fields(self, error: Exception) -> bool:
        """Stop asking for OPTIMADE 1.3 properties where the server refuses them; True if it did."""
        newer = set(NEWER_FIELDS) & set(self.fields) - set(self.checker.properties)
        if self.walk.n_pages or not newer or not isinstance(error, SourceRefused) or error.status != 400:
            return False
        self.older = True
        self.fields = self._asked_fields()
        self.first = first_url(self.client, self.query.shard_filter or self.query.filter, self.fields, self.limit)
        return True

    def _asked_fields(self) -> tuple[str, ...]:
        own = [path[0] for known in self.provider.properties for path in known.paths]
        newer = () if self.older else NEWER_FIELDS
        asked = (*STRUCTURE_FIELDS, *newer, *own, *self.checker.properties, *self.query.response_fields)
        return tuple(dict.fromkeys(name for name in asked if name not in ("id", "type")))

    def _next(self, document: Any, url: str) -> str | None:
        """Absolute address of the next page; the client checks its origin before the request."""
        links = document.get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not isinstance(link, str) or not link:
            return None
        try:
            target = urljoin(url, link)
            sent = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        except ValueError:
            raise UnsafeReply(f"next page {link!r:.200} is not a URL") from None
        # Some servers forget parameters from the second page on. Without the fields they send no
        # sites, without the limit pages of another size, without the filter the whole database.
        asked: dict[str, Any] = {"response_fields": ",".join(self.fields), "page_limit": self.limit}
        text = self.query.shard_filter or self.query.filter
        if text.strip() and _WINDOWS & sent.keys():
            asked["filter"] = text
        forgotten = {name: value for name, value in asked.items() if not sent.get(name)}
        if forgotten:
            target += ("&" if "?" in target else "?") + urlencode(forgotten, quote_via=quote)
        return target

    def _convert(self, entries: list[Any], origin: str) -> tuple[Crystals, list[Quarantined]]:
        crystals, quarantined = entries_to_crystals(
            entries,
            self.provider,
            origin,
            extra=self.query.response_fields,
            max_sites=self.query.max_sites,
        )
        attributes = {
            name: entry["attributes"]
            for name, entry in zip(self._names(entries, origin), entries, strict=True)
            if isinstance(entry, dict) and isinstance(entry.get("attributes"), dict)
        }
        contradictory = contradictions(self.checker, crystals, attributes)
        if not self.walk.n_pages:
            n = len(crystals)
            if contradictory.sum() > min(max(MAX_MISSES * n, FEW_MISSES), n / 2):
                example = crystals.ids[contradictory][0]
                raise FilterIgnored(
                    f"{self.provider.id} ignores the filter {self.query.filter!r:.200}: {contradictory.sum()} of "
                    f"{len(crystals)} rows on its first page contradict it, for example {example}"
                )
            if self.checker.unjudged:
                log.warning("not checked again on arrival: %s", ", ".join(sorted(self.checker.unjudged)))
        message = f"the row contradicts the filter {self.query.filter!r:.200} that the server was asked"
        quarantined += [
            Quarantined(str(name), origin, Stage.PULL, Reason.FILTER_MISMATCH, message)
            for name in crystals.ids[contradictory]
        ]
        return (crystals.select(~contradictory) if contradictory.any() else crystals), quarantined
