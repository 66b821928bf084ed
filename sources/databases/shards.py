"""Cuts an OPTIMADE query into shards: disjoint parts, small enough to pull again after a failure.

Enters: a `Query`, and a client that can ask for counts. Leaves: `Shard`s. Their filters exclude
each other, and their counts add up to the count of the query; a cut that does not add up is not
made. This module does not know pages or crystals.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

from assay.sources.databases.client import Client, SourceDown, SourceRefused
from assay.sources.databases.filters.grammar import check_dialect, validate_filter
from assay.sources.databases.optimade_query import Query, announced
from assay.sources.databases.paging import Shard
from assay.sources.databases.providers import Provider

log = logging.getLogger(__name__)

MAX_PROBES = 400
"""Requests for counts, whatever the size of the database."""
MAX_SHARD_FILTER = 4000
"""Longest filter made here, in characters: addresses must stay short enough for any server."""
MOST_ELEMENTS = 10
"""Crystals of more different elements share one shard."""
MOST_SITES = 10_000
"""Cells of more sites share one shard."""
COMMON = re.findall(
    "[A-Z][a-z]?",
    "O Si S F P N Se Li Fe Mn Al C Mg Na Ni Cu Co Ti Ca K Ge Sn Ga In Te Sb Cl Zn V Sr Ba La H B Y Pd Rh Pt Au Ag Ru Ir"
    "Cr Zr Nb Mo Hf Ta W Re Os Bi As Pb Tl Cd Hg Br I Rb Cs Sc Be Nd Ce Pr Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Th U",
)
"""Elements that shards are cut by, roughly from the most common in the databases down."""
_ELEMENTS, _SITES, _CHAIN = range(3)  # ways of cutting, in the order they are tried
_WHOLE = _CHAIN + len(COMMON)


def split(client: Client, query: Query, provider: Provider, most: int = 4000) -> list[Shard]:
    """Cut a query into shards of at most `most` entries, where possible; the order is fixed.

    The query stays whole where it is small, limited by `max_entries`, or not counted by the server.
    Cuts follow the number of elements, then the number of sites, then the elements. The largest
    part is cut first, until all parts are small enough or `MAX_PROBES` counts were asked for.

    Raises:
        ValueError: for a filter the provider is known to answer wrongly, or `most` below 1.
        SourceError: when the count of the whole query cannot be had.
    """
    if most < 1:
        raise ValueError(f"most is {most}, at least 1 entry per shard accepted")
    total = announced(client, query, provider)
    if query.max_entries is not None:
        return [Shard(query.filter, None if total is None else min(total, query.max_entries))]
    if total is None or total <= most:
        return [Shard(query.filter, total)]
    return _Splitter(client, query.filter, provider, most).run(total)


@dataclass(frozen=True)
class _Subset:
    """A part of the query, and how it may be cut next."""

    path: tuple[int, ...]  # place among the parts: decides the order of the shards
    count: int
    conditions: tuple[str, ...] = ()
    sites: str = ""  # condition on nsites
    low: int = 1  # cells of fewer sites do not occur
    high: int | None = None  # nor cells of more
    way: int = _ELEMENTS


class _Spent(Exception):
    """No probe is left."""


class _Splitter:
    def __init__(self, client: Client, text: str, provider: Provider, most: int) -> None:
        self.client, self.text, self.provider, self.most = client, text, provider, most
        expressions = validate_filter(text).children
        alternatives = len(expressions[0].children) if expressions else 0
        self.stem = f"({text})" if alternatives > 1 else text.strip()  # AND binds closer than OR
        self.n_probes = 1  # the count of the whole
        self.useless: set[int] = set()  # ways of cutting that the server refuses

    def run(self, total: int) -> list[Shard]:
        parts = [_Subset((), total)]
        if self._child(parts[0], _ELEMENTS, ("nelements<1",)).count > 0:
            log.info("not cut: the server counts entries without elements, so its counts say nothing")
            return [Shard(self.text, total)]
        while large := [part for part in parts if part.count > self.most and part.way < _WHOLE]:
            part = max(large, key=lambda part: part.count)
            try:
                children = self._cut(part)
            except _Spent:
                log.warning("%s: no more than %d counts asked for; some shards stay large", self.text, MAX_PROBES)
                break
            parts.remove(part)
            parts += children
        whole = [part for part in parts if part.count > self.most]
        if whole:
            counts = ", ".join(str(part.count) for part in whole[:5])
            log.info("%d shards could not be cut to %d entries: %s", len(whole), self.most, counts)
        return [Shard(self._filter(part), part.count) for part in sorted(parts, key=lambda part: part.path)]

    def _cut(self, part: _Subset) -> list[_Subset]:
        """Children that add up to the part, or the part itself with the next way to be cut."""
        way = min(part.way, _CHAIN)
        if way in self.useless:
            return [replace(part, way=_WHOLE if way == _CHAIN else way + 1)]
        children = (self._by_elements, self._by_sites, self._by_chain)[way](part)
        if sum(child.count > 0 for child in children) < 2:
            return [replace(part, way=part.way + 1)]
        total = sum(child.count for child in children)
        if total != part.count:
            log.info("not cut: %d entries in the parts of %d entries of %s", total, part.count, self._filter(part))
            return [replace(part, way=_WHOLE if way == _CHAIN else way + 1)]
        return [replace(child, path=(*part.path, place)) for place, child in enumerate(children) if child.count]

    def _by_elements(self, part: _Subset) -> list[_Subset]:
        numbers = [f"nelements={n}" for n in range(1, MOST_ELEMENTS + 1)]
        children: list[_Subset] = []
        for condition in (*numbers, f"nelements>{MOST_ELEMENTS}", "nelements IS UNKNOWN"):
            children.append(self._child(part, _ELEMENTS, (*part.conditions, condition), after=_SITES))
            if children[-1].count < 0:
                return []
            if sum(child.count for child in children) >= part.count:
                break
        return children

    def _by_sites(self, part: _Subset) -> list[_Subset]:
        """Halve the range of nsites; a half that holds everything is only remembered."""
        low, high = part.low, part.high
        while (high is None and low < MOST_SITES) or (high is not None and low < high):
            middle = max(8, 2 * low) if high is None else (low + high) // 2
            below = self._within(part, low, middle)
            if below.count < 0:
                break
            if below.count == part.count:
                high = middle
            elif below.count == 0:
                low = middle + 1
            else:
                children = [below, self._within(part, middle + 1, high)]
                if sum(child.count for child in children) < part.count:
                    children.append(self._child(part, _SITES, part.conditions, "nsites IS UNKNOWN", after=_CHAIN))
                return children
        return []

    def _within(self, part: _Subset, low: int, high: int | None) -> _Subset:
        """The part restricted to a range of nsites."""
        if high is None:
            sites = f"nsites>={low}"
        elif low == high:
            sites = f"nsites={low}"
        else:
            sites = f"nsites<={high}" if low == 1 else f"nsites>={low} AND nsites<={high}"
        return replace(self._child(part, _SITES, part.conditions, sites), low=low, high=high)

    def _by_chain(self, part: _Subset) -> list[_Subset]:
        """Crystals that hold an element, and those that do not."""
        held = f'elements HAS "{COMMON[part.way - _CHAIN]}"'
        having = self._child(part, _CHAIN, (*part.conditions, held), part.sites, after=part.way + 1)
        if having.count <= 0 or having.count == part.count:
            return []  # the element tells nothing
        return [having, self._child(part, _CHAIN, (*part.conditions, f"NOT {held}"), part.sites, after=part.way + 1)]

    def _child(
        self, part: _Subset, way: int, conditions: tuple[str, ...], sites: str = "", after: int | None = None
    ) -> _Subset:
        """A counted part of a part; the count is -1 where the server gives no usable count."""
        after = part.way if after is None else after
        child = replace(part, conditions=conditions, sites=sites, count=-1, way=after)
        text = self._filter(child)
        try:
            check_dialect(self.provider, text)
        except ValueError:
            return child
        if len(text) > MAX_SHARD_FILTER:
            return child
        if self.n_probes >= MAX_PROBES:
            raise _Spent
        self.n_probes += 1
        try:
            count = announced(self.client, Query(text), self.provider)
        except (SourceRefused, SourceDown) as error:
            if isinstance(error, SourceDown) and error.status < 500:  # torn replies, or none: no way is better
                raise
            log.info("%s is not counted: %s", text, error)
            if not text.endswith(" IS UNKNOWN"):
                self.useless.add(way)  # it would refuse the next one too
            return child
        return child if count is None else replace(child, count=count)

    def _filter(self, part: _Subset) -> str:
        if not part.conditions and not part.sites:
            return self.text
        return " AND ".join(text for text in (self.stem, *part.conditions, part.sites) if text)
