"""What an OPTIMADE server says about itself on its /info page, above all under which licence it gives its entries.

Enters: a `Client`. Leaves: an `Info`, or only the licence; none of it is trusted beyond a short text.
This module does not know structures or filters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sources.client import Client, SourceRefused, UnsafeReply
from sources.trust import printable

PREFERRED = ("CC0-1.0", "CC-BY-4.0")
"""Taken first where a server offers several licences to choose from."""
MAX_LICENCES = 100
"""Entries read from a list of licences."""
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_DEED = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?)|publicdomain/(zero))/(\d\.\d)"
    r"(?:/(?:deed|legalcode)?(?:\.[a-z-]+)?)?"
)
_SPDX_PAGE = re.compile(rf"https?://(?:www\.)?spdx\.org/licenses/({_SPDX.pattern}?)(?:\.html|\.json)?/?")


@dataclass(frozen=True)
class Info:
    """A server's words about itself; every text is one printable line, empty where it says nothing."""

    licence: str | None
    """SPDX identifier for the whole database, None when the server does not commit itself to one."""
    name: str = ""
    """Name of the provider."""
    prefix: str = ""
    """Its prefix for properties, without underscores."""
    api_version: str = ""
    implementation: str = ""
    """Server software and version."""


def licence(client: Client) -> str | None:
    """SPDX identifier of the licence that covers the whole database; None when the server does not say.

    A list `available_licenses` counts as the specification demands, and an empty one means that no SPDX licence
    applies. Without it, `license` counts if it is the address of a Creative Commons deed or an SPDX page, or an SPDX
    identifier; other addresses are for people. `available_licenses_for_entries` never counts: it does not cover
    substantial parts of a database.

    Raises:
        SourceDown: when the server does not answer; no answer is not the same as no licence.
    """
    return facts(client).licence


def facts(client: Client) -> Info:
    """Ask for the /info page; a page that is refused or makes no sense says nothing.

    Raises:
        SourceDown: when the server does not answer.
    """
    root = client.base_url if re.search(r"/v\d+(\.\d+)*$", client.base_url) else f"{client.base_url}/v1"
    try:
        document = client.get_json(f"{root}/info").json
    except (SourceRefused, UnsafeReply):
        return Info(None)
    meta = _object(document, "meta")
    provider, software = _object(meta, "provider"), _object(meta, "implementation")
    return Info(
        licence=_licence(_object(_object(document, "data"), "attributes")),
        name=_text(provider, "name"),
        prefix=_text(provider, "prefix"),
        api_version=_text(meta, "api_version"),
        implementation=f"{_text(software, 'name')} {_text(software, 'version')}".strip(),
    )


def _licence(attributes: Mapping[str, Any]) -> str | None:
    offered = attributes.get("available_licenses")
    if isinstance(offered, list):
        usable = [name for name in offered[:MAX_LICENCES] if isinstance(name, str) and _SPDX.fullmatch(name)]
        return next((name for name in PREFERRED if name in usable), usable[0] if usable else None)
    link = attributes.get("license")
    link = link.get("href") if isinstance(link, dict) else link
    return _from_link(link.strip()) if isinstance(link, str) and len(link) <= 200 else None


def _from_link(link: str) -> str | None:
    if deed := _DEED.fullmatch(link):
        kind, zero, version = deed.groups()
        return f"CC0-{version}" if zero else f"CC-{kind.upper()}-{version}"
    if page := _SPDX_PAGE.fullmatch(link):
        return page[1]
    return link if _SPDX.fullmatch(link) and any(c.isdigit() for c in link) else None  # "free" is no identifier


def _object(holder: Any, name: str) -> Mapping[str, Any]:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return value if isinstance(value, dict) else {}


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    return printable(value, 100) if isinstance(value, str) else ""
