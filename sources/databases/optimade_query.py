"""Queries to an OPTIMADE server: their checks, their addresses, their counts.

Enters: a `Query`, and a `Client` bound to a provider. Leaves: the address of the first page, and
the number of entries that match. This module does not know the pages behind the first, or
crystals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from assay.sources.databases.client import Client, Reply, SourceDown, SourceRefused
from assay.sources.databases.filters.grammar import check_dialect, validate_filter
from assay.sources.databases.filters.reference import is_reference, wrong_answer
from assay.sources.databases.optimade_entries import entries_of
from assay.sources.databases.pace import Pace
from assay.sources.databases.paging import check_limits
from assay.sources.databases.providers import Provider, resolve
from assay.sources.sift import MAX_SITES


@dataclass(frozen=True)
class Query:
    """A request to an OPTIMADE server.

    Raises:
        ValueError: for an invalid filter (the message points at the character) or a limit below 1.
    """

    filter: str = ""
    """OPTIMADE filter; empty asks for everything."""
    shard_filter: str = ""
    """Filter of one shard, sent in place of `filter`; rows are judged by `filter` alone."""
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
        validate_filter(self.shard_filter)
        check_limits(page_limit=self.page_limit, max_entries=self.max_entries, max_sites=self.max_sites)
        for name in self.response_fields:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"response field {name!r:.80} is no property name: letters, digits and '_' accepted")


def connect(
    provider: Provider, headers: Mapping[str, str] | None = None, pace: Pace | None = None, **limits: Any
) -> Client:
    """Open a client with the interval and timeout the provider needs; `limits` go to `Client`.

    Clients of one host share a `pace`.
    """
    own = {"min_interval_s": provider.min_interval_s, "timeout_s": provider.timeout_s}
    return Client(provider.base_url, headers=headers, local=provider.local, pace=pace, **{**own, **limits})


def announced(client: Client, query: Query, provider: Provider | None = None) -> int | None:
    """Ask how many entries match, without fetching them; None when the server does not say."""
    provider = provider or resolve(client.base_url)
    check_dialect(provider, query.filter)
    url = first_url(client, query.filter, ("nelements",), 1)
    try:
        reply = client.get_json(url)
    except SourceDown as error:
        if not error.answered:
            raise
        second = with_parameter(url, "page_offset", 1)  # the first entry may be the broken one
        reply = client.get_json(second, retries=1)
    check_answer(reply, query.filter, provider)
    return announced_count(reply.json, "data_returned")


def first_url(client: Client, text: str, fields: Sequence[str], limit: int) -> str:
    """Address of the first page of a filter."""
    root = client.base_url if re.search(r"/v\d+(\.\d+)*$", client.base_url) else f"{client.base_url}/v1"
    params = {"response_fields": ",".join(fields), "page_limit": limit}
    asked = {"filter": text, **params} if text.strip() else params
    return f"{root}/structures?{urlencode(asked, quote_via=quote)}"


def with_parameter(url: str, name: str, value: int) -> str:
    """Set a parameter of an address."""
    if re.search(rf"[?&]{name}=", url):
        return re.sub(rf"([?&]{name}=)[^&#]*", rf"\g<1>{value}", url)
    return url + ("&" if "?" in url else "?") + f"{name}={value}"


def brief(url: str) -> str:
    """Shorten an address for the column `origin` of each row: leave out the list of fields."""
    return re.sub(r"([?&])response_fields=[^&\s]*&?", r"\1", url).rstrip("?&")


def reply_entries(reply: Reply) -> list[Any]:
    """Return the entries of a reply; an error names the address."""
    try:
        return entries_of(reply.json)
    except SourceRefused as error:
        raise SourceRefused(f"{reply.url}: {error}") from None


def check_answer(reply: Reply, text: str, provider: Provider) -> list[Any]:
    """Return the entries of a reply, unless its server is known to answer this filter wrongly.

    Raises:
        SourceRefused: when the reference implementation answered a filter that it misreads.
    """
    if is_reference(reply.json) and (fault := wrong_answer(validate_filter(text))):
        raise SourceRefused(f"the answer of {provider.id} to the filter {text!r:.200} is wrong: {fault}")
    return reply_entries(reply)


def announced_count(document: Any, name: str) -> int | None:
    """Read a count in the meta part of a reply; None where there is no usable one."""
    value = meta_number(document, name)
    return None if value is None else math.ceil(value)


def says_more(document: Any) -> bool:
    """Whether the meta part of a reply says that more entries follow it."""
    meta = document.get("meta")
    return isinstance(meta, dict) and meta.get("more_data_available") is True


def meta_number(document: Any, name: str) -> float | None:
    """Read a number in the meta part of a reply; None where there is no usable one."""
    meta = document.get("meta")
    value = meta.get(name) if isinstance(meta, dict) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return value if usable else None
