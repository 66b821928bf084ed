"""Finds the OPTIMADE database that a name or a base URL stands for.

Enters: a name or a base URL. Leaves: a `Provider`, from `assay.sources.databases.provider_table`
where the database is known there. This module does not know HTTP or crystals.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from urllib.parse import urlsplit

from assay.sources.databases.provider_table import (
    ALIASES,
    COMMERCIAL,
    PROVIDERS,
    Provider,
    Quirk,
    ReportedProperty,
    properties,
)

__all__ = ["ALIASES", "COMMERCIAL", "PROVIDERS", "Provider", "Quirk", "ReportedProperty", "is_local", "resolve"]

_EXAMPLE_PROPERTIES = properties(
    "as reported",
    formation_energy_per_atom="_exmpl_formation_energy_per_atom",
    energy_above_hull="_exmpl_energy_above_hull",
    band_gap="_exmpl_band_gap",
)


def resolve(name_or_url: str, *, id: str | None = None) -> Provider:
    """Find a provider by id, or describe any other OPTIMADE base URL; `id` renames it.

    A URL on this machine is local and is called `local`. `exmpl` is the prefix that OPTIMADE
    reserves for examples; its usual properties are mapped for every unknown URL.

    Raises:
        ValueError: for an unknown name (the message lists the known ones), a URL without host, an
            unusable id, or a commercial database.
    """
    if id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", id):
        raise ValueError(f"provider id {id!r:.80} must be letters, digits, '.', '_' or '-', at most 64")
    if "://" in name_or_url:
        provider = _from_url(name_or_url.rstrip("/"))
    else:
        key = name_or_url.strip().lower()
        key = ALIASES.get(key, key)
        if key in COMMERCIAL:
            raise ValueError(f"provider {key}: {COMMERCIAL[key][1]}")
        if key not in PROVIDERS:
            near = difflib.get_close_matches(key, [*PROVIDERS, *ALIASES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(PROVIDERS)
            raise ValueError(f"unknown provider {name_or_url!r:.80}{hint} Known: {known}, or a URL with https://")
        provider = PROVIDERS[key]
    return provider if id is None else replace(provider, id=id)


def _from_url(url: str) -> Provider:
    for provider in PROVIDERS.values():
        if _bare(url) == _bare(provider.base_url):
            return provider
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"provider URL {url!r:.200}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"provider URL {url!r:.200} must start with http:// or https:// and name a host")
    for name, (commercial, reason) in COMMERCIAL.items():
        if host == commercial:
            raise ValueError(f"provider {name}: {reason}")
    local = is_local(host)
    return Provider(
        id="local" if local else host,
        title=host,
        base_url=url,
        licence="unknown",
        min_interval_s=0.0 if local else 0.5,
        properties=_EXAMPLE_PROPERTIES,
        local=local,
    )


def is_local(host: str) -> bool:
    """Whether a host name stands for this machine."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) is not None


def _bare(url: str) -> str:
    return re.sub(r"(/v\d+(\.\d+)*)?/*$", "", url).removeprefix("https://").removeprefix("http://").lower()
