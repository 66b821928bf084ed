"""Crystals from an OPTIMADE server, page by page.

Enters: a `Client` bound to a provider, and a `Query`. Leaves: `Page`s of crystals and quarantined rows, each row judged
against the filter again. A server may page wrongly, count wrongly or ignore the filter: pages end all the same, and
the last one says what is missing.
This module does not know how pages are stored, nor HTTP beyond the client.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from sources.client import Client, Reply, ReplyTooLarge, SourceRefused, UnsafeReply
from sources.crystals import Crystals
from sources.elements import SYMBOLS
from sources.optimade_entries import (
    MAX_SITES,
    NEWER_FIELDS,
    STRUCTURE_FIELDS,
    entries_of,
    entries_to_crystals,
    entry_id,
)
from sources.optimade_filter import Checker
from sources.providers import Provider, resolve
from sources.quarantine import Quarantined, Reason, Stage

log = logging.getLogger(__name__)

MAX_FILTER = 10_000
"""Longest accepted filter, in characters."""
MAX_PAGES = 100_000
"""Pages after which a server is taken to be endless, whatever it announces."""
SPARE_PAGES = 5
"""Pages accepted beyond what `data_returned` needs."""
MAX_MISSES = 0.01
"""Share of rows on the first page that may contradict the filter before the source is given up."""


class End(StrEnum):
    """Why a page was the last one."""

    NO_NEXT = "no next page"
    EMPTY = "empty page"
    NOTHING_NEW = "page without new ids"
    VISITED = "next page was visited before"
    TOO_MANY = "more pages than announced"
    ASKED = "max_entries reached"


class FilterIgnored(SourceRefused):
    """The server sends rows that its filter excludes: what else it sends cannot be trusted to be complete."""


@dataclass(frozen=True)
class Query:
    """What to ask a server for.

    Raises:
        ValueError: for an invalid filter (the message points at the character) or a limit below 1.
    """

    filter: str = ""
    """OPTIMADE filter; empty asks for everything."""
    response_fields: tuple[str, ...] = ()
    """Further numeric properties to carry as float columns of the same names."""
    page_limit: int | None = None
    """Entries per page; None takes the provider's."""
    max_entries: int | None = None
    """Stop after this many entries; None takes all."""
    max_sites: int = MAX_SITES
    """Larger cells go to quarantine."""

    def __post_init__(self) -> None:
        validate_filter(self.filter)
        for name in ("page_limit", "max_entries", "max_sites"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, at least 1 accepted")
        for name in self.response_fields:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(
                    f"response field {name!r:.80} is not a property name: letters, digits and '_' accepted"
                )


@dataclass(frozen=True)
class Page:
    """One page: every entry is in `crystals` or in `quarantined`, never in both or neither."""

    crystals: Crystals
    quarantined: list[Quarantined]
    url: str
    """Address of the page, secrets removed."""
    sha256: str
    """Hex digest of the body."""
    n_entries: int
    """Entries taken from the page; repeated ids count."""
    next_url: str | None
    """Where the next page is; None on the last page of this pull."""
    data_returned: int | None
    """Entries the server says match the filter, if it says so."""
    end: End | None = None
    """Why this page is the last one; None while more follow."""
    missing: int = 0
    """On the last page: entries announced but never sent."""
    complete: bool = False
    """On the last page: everything announced, or asked for, was received."""


def validate_filter(text: str) -> Any:
    """Parse an OPTIMADE filter and return its tree.

    Raises:
        ValueError: with the position of the first character that does not fit.
    """
    if not isinstance(text, str) or len(text) > MAX_FILTER or not text.isprintable():
        raise ValueError(f"filter {text!r:.80} must be printable text of at most {MAX_FILTER} characters")
    from lark.exceptions import LarkError

    try:
        tree = _parser().parse(text)
    except RecursionError:
        raise ValueError(f"filter {text!r:.80} is nested too deeply") from None
    except LarkError as error:
        column = getattr(error, "column", -1)
        place = f"at character {column}: {text[column - 1 :]!r:.40}" if column > 0 else "at its end: it is incomplete"
        raise ValueError(f'filter {text!r:.200} breaks off {place}. Example: elements HAS ALL "Nb","Sn"') from None
    if len(tree.children) > 1:
        raise ValueError(f"filter {text!r:.200} holds {len(tree.children)} expressions; join them with AND or OR")
    return tree


@cache
def _parser() -> Any:
    from optimade.filterparser import LarkParser  # type: ignore[import-untyped]

    return LarkParser().lark


def connect(provider: Provider, headers: Mapping[str, str] | None = None, **limits: Any) -> Client:
    """Open a client with the pace and patience the provider needs; `limits` go to `Client`."""
    pace = {"min_interval_s": provider.min_interval_s, "timeout_s": provider.timeout_s}
    return Client(provider.base_url, headers=headers, local=provider.local, **{**pace, **limits})


def announced(client: Client, query: Query, provider: Provider | None = None) -> int | None:
    """Ask how many entries match, without fetching them; None when the server does not say."""
    provider = provider or resolve(client.base_url)
    check_dialect(provider, query.filter)
    reply = client.get_json(_first_url(client, query.filter, ("nelements",), 1))
    _entries(reply)
    return _count(reply.json, "data_returned")


def pages(client: Client, query: Query, provider: Provider | None = None) -> Iterator[Page]:
    """Yield every page of a query, as it arrives; the last one carries `end`, `missing` and `complete`.

    Raises:
        ValueError: for a filter that this provider is known to answer wrongly.
        FilterIgnored: when more than 1 % of the first page contradicts the filter.
        SourceError: what `Client.get_json` raises; pages yielded before stay good.
    """
    pull = _Pull(client, query, provider or resolve(client.base_url))
    url: str | None = pull.first
    while url is not None:
        page = pull.page(url)
        yield page
        url = page.next_url


class _Pull:
    """What one walk through the pages remembers."""

    def __init__(self, client: Client, query: Query, provider: Provider) -> None:
        check_dialect(provider, query.filter)
        self.client, self.query, self.provider = client, query, provider
        self.checker = Checker(validate_filter(query.filter), provider.unjudged)
        own = [path[0] for known in provider.properties for path in known.paths]
        asked = (*STRUCTURE_FIELDS, *NEWER_FIELDS, *own, *self.checker.properties, *query.response_fields)
        self.fields = tuple(dict.fromkeys(name for name in asked if name not in ("id", "type")))
        self.limit = query.page_limit or provider.page_limit
        if query.max_entries is not None:
            self.limit = min(self.limit, query.max_entries)
        self.first = _first_url(client, query.filter, self.fields, self.limit)
        self.seen: set[str] = set()
        self.visited: set[str] = set()
        self.n_pages = self.taken = 0
        self.most_pages = MAX_PAGES
        self.data_returned: int | None = None

    def page(self, url: str) -> Page:
        """Fetch one page and decide whether it is the last."""
        reply = self._fetch(url)
        entries = _entries(reply)
        if self.n_pages == 0:
            self.data_returned = _count(reply.json, "data_returned")
            if self.data_returned is not None and entries:
                self.most_pages = min(MAX_PAGES, math.ceil(self.data_returned / len(entries)) + SPARE_PAGES)
        self.n_pages += 1
        self.client.slow_down(float(_count(reply.json, "request_delay") or 0))
        if self.query.max_entries is not None:
            entries = entries[: self.query.max_entries - self.taken]
        self.taken += len(entries)
        origin = _brief(reply.url)
        crystals, quarantined = self._convert(entries, origin)
        names = {entry_id(entry, self.provider, origin, place) for place, entry in enumerate(entries)}
        fresh = len(names - self.seen)
        self.seen |= names
        following = self._next(reply.json, url)
        page = Page(crystals, quarantined, reply.url, reply.sha256, len(entries), following, self.data_returned)
        end = self._end(len(entries), fresh, following)
        return self._last(page, end) if end else page

    def _fetch(self, url: str) -> Reply:
        """Get a page, asking for less where the server or the size limit refuses."""
        while True:
            self.visited.add(_bare(url))
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
                log.warning("%s; trying page_limit %d", error, self.limit)
                url = _with_limit(url, self.limit)

    def _drop_newer_fields(self, error: Exception) -> bool:
        """Give up properties that an older server does not know; one that knows them must show them."""
        newer = set(NEWER_FIELDS) & set(self.fields) - set(self.checker.properties)
        if self.n_pages or not newer or not isinstance(error, SourceRefused) or error.status != 400:
            return False
        self.fields = tuple(name for name in self.fields if name not in newer)
        self.first = _first_url(self.client, self.query.filter, self.fields, self.limit)
        return True

    def _next(self, document: Any, url: str) -> str | None:
        """Absolute address of the next page, not yet trusted: the client judges it when it is asked for."""
        links = document.get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not isinstance(link, str) or not link:
            return None
        try:
            target = urljoin(url, link)
            sent = dict(parse_qsl(urlsplit(target).query)).get("response_fields")
        except ValueError:
            raise UnsafeReply(f"next page {link!r:.200} is not a URL") from None
        if not sent:  # some servers forget it from the second page on, and then send no sites
            target += ("&" if "?" in target else "?") + urlencode({"response_fields": ",".join(self.fields)})
        return target

    def _end(self, count: int, fresh: int, following: str | None) -> End | None:
        if self.query.max_entries is not None and self.taken >= self.query.max_entries:
            return End.ASKED
        if following is None:
            return End.NO_NEXT
        if count == 0:
            return End.EMPTY
        if fresh == 0:
            return End.NOTHING_NEW
        if _bare(following) in self.visited:
            return End.VISITED
        return End.TOO_MANY if self.n_pages >= self.most_pages else None

    def _last(self, page: Page, end: End) -> Page:
        missing = 0 if end is End.ASKED else max(0, (self.data_returned or 0) - len(self.seen))
        counted = self.data_returned is not None and missing == 0 and end is not End.TOO_MANY
        complete = end is End.ASKED or counted or (end is End.NO_NEXT and missing == 0)
        if not complete:
            told = f"{missing} of {self.data_returned} announced entries missing" if missing else "the end is unsure"
            log.warning("%s ended after %d entries (%s): %s", self.provider.id, len(self.seen), end, told)
        return replace(page, next_url=None, end=end, missing=missing, complete=complete)

    def _convert(self, entries: list[Any], origin: str) -> tuple[Crystals, list[Quarantined]]:
        crystals, quarantined = entries_to_crystals(
            entries,
            self.provider,
            origin,
            extra=self.query.response_fields,
            max_sites=self.query.max_sites,
        )
        liars = self._liars(crystals, entries, origin)
        if self.n_pages == 1:
            if liars.sum() > MAX_MISSES * len(crystals):
                example = crystals.ids[liars][0]
                raise FilterIgnored(
                    f"{self.provider.id} ignores the filter {self.query.filter!r:.200}: {liars.sum()} of "
                    f"{len(crystals)} rows on its first page contradict it, for example {example}"
                )
            if self.checker.unjudged:
                log.warning("not checked again on arrival: %s", ", ".join(sorted(self.checker.unjudged)))
        told = f"the row contradicts the filter {self.query.filter!r:.200} that the server was asked"
        quarantined += [
            Quarantined(str(name), origin, Stage.PULL, Reason.FILTER_MISMATCH, told) for name in crystals.ids[liars]
        ]
        return (crystals.select(~liars) if liars.any() else crystals), quarantined

    def _liars(self, crystals: Crystals, entries: list[Any], origin: str) -> NDArray[np.bool_]:
        """(n,) True where a row contradicts the filter. Elements are those on the sites, whatever the entry claims."""
        if not self.checker.properties:
            return np.zeros(len(crystals), dtype=np.bool_)
        attributes = {
            entry_id(entry, self.provider, origin, place): entry["attributes"]
            for place, entry in enumerate(entries)
            if isinstance(entry, dict) and isinstance(entry.get("attributes"), dict)
        }
        skip = len(self.provider.id) + 1
        present = crystals.composition() > 0
        verdicts = []
        for name, sites, row in zip(crystals.ids.tolist(), crystals.nsites.tolist(), present, strict=True):
            elements = [SYMBOLS[z] for z in np.flatnonzero(row)]
            facts = {"nsites": sites, **attributes[name], "id": name[skip:]}
            facts.update(elements=elements, nelements=len(elements))
            verdicts.append(self.checker(facts) is False)
        return np.array(verdicts, dtype=np.bool_)


def check_dialect(provider: Provider, text: str) -> None:
    """Refuse a filter that this provider is known to answer wrongly.

    Raises:
        ValueError: with what goes wrong and what to write instead.
    """
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    for quirk in provider.refused:
        if re.search(quirk.pattern, bare):
            raise ValueError(f"filter {text!r:.200} is not sent to {provider.id}: {quirk.told}")
    if provider.filter_required and not text.strip():
        raise ValueError(f"{provider.id} returns nothing without a filter; give one, for example nelements>=1")


def _first_url(client: Client, text: str, fields: Sequence[str], limit: int) -> str:
    root = client.base_url if re.search(r"/v\d+(\.\d+)*$", client.base_url) else f"{client.base_url}/v1"
    params = {"response_fields": ",".join(fields), "page_limit": limit}
    asked = {"filter": text, **params} if text.strip() else params
    return f"{root}/structures?{urlencode(asked, quote_via=quote)}"


def _with_limit(url: str, limit: int) -> str:
    if re.search(r"[?&]page_limit=", url):
        return re.sub(r"([?&]page_limit=)[^&#]*", rf"\g<1>{limit}", url)
    return url + ("&" if "?" in url else "?") + f"page_limit={limit}"


def _brief(url: str) -> str:
    """Page address as provenance: every row carries it, so the long list of fields is left out."""
    return re.sub(r"([?&])response_fields=[^&]*&?", r"\1", url).rstrip("?&")


def _bare(url: str) -> str:
    return url.partition("://")[2].partition("#")[0]


def _entries(reply: Reply) -> list[Any]:
    try:
        return entries_of(reply.json)
    except SourceRefused as error:
        raise SourceRefused(f"{reply.url}: {error}") from None


def _count(document: Any, name: str) -> int | None:
    meta = document.get("meta")
    value = meta.get(name) if isinstance(meta, dict) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return math.ceil(value) if usable else None  # type: ignore[arg-type]
