"""The ids of a campaign: equal ids of different crystals are told apart, repeated rows are found.

Enters: pulled rows, shard by shard in the order of the plan. Leaves: for each row its id in the
campaign, or that the row came before. What counts is the crystal, not its reported columns. This
module does not know where the rows are kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from assay.sources import table
from assay.sources.crystals import WARNINGS, Crystals
from assay.sources.quarantine import Quarantined

MAX_TEXT = 4096
"""Longest id or text, in characters; longer ones are refused where tables are read."""
Refusal = tuple[str, str, str, str, int]
"""Id, origin, reason and message of a refused row, and how often a page had them before it."""


@dataclass
class Taken:
    """The ids of the shards before this one."""

    good: dict[str, int] = field(default_factory=dict)
    """Id -> digest of its crystal."""
    again: dict[tuple[str, int], str] = field(default_factory=dict)
    """Id as it was pulled, and digest -> id of a crystal that found its own id taken."""
    bad: set[Refusal] = field(default_factory=set)
    """Refused rows."""

    def name(self, pulled: str, digest: int) -> str | None:
        """The id of a crystal; None when the same crystal had this id before.

        >>> taken = Taken()
        >>> [taken.name("POSCAR", digest) for digest in (7, 7, 8, 9, 8)]
        ['POSCAR', None, 'POSCAR~2', 'POSCAR~3', None]
        """
        known = self.good.get(pulled)
        if known is None:
            self.good[pulled] = digest
            return pulled
        if known == digest or (pulled, digest) in self.again:
            return None
        number = 2
        while (own := _suffixed(pulled, f"~{number}")) in self.good:
            number += 1
        self.good[own], self.again[pulled, digest] = digest, own
        return own

    def refuse(self, page: Iterable[Quarantined]) -> list[Quarantined]:
        """The refused rows of one page or block that did not come before, each as often as it came.

        A row came before when another page held one with the same id, origin, reason and message.
        The origin is left out where it is the address of a page.
        """
        times: Counter[tuple[str, ...]] = Counter()
        fresh = []
        for row in page:
            key = (row.id, "" if "://" in row.origin else row.origin, row.reason.value, row.message)
            if not row.id or (*key, times[key]) not in self.bad:
                fresh.append(row)
            self.bad.add((*key, times[key]))
            times[key] += 1
        return fresh


def named(content: pa.Table, taken: Taken) -> pa.Table:
    """The rows of a crystal table that did not come before, in order, with their ids."""
    pulled = content["id"].to_pylist()
    ids = [taken.name(*row) for row in zip(pulled, digests(content), strict=True)]
    if ids == pulled:
        return content
    rows = [row for row, name in enumerate(ids) if name is not None]
    place = content.column_names.index("id")
    column = pa.array([ids[row] for row in rows], pa.string())
    return content.take(pa.array(rows, pa.int64())).set_column(place, content.field(place), column)


def warned(crystals: Crystals, taken: Taken) -> Crystals:
    """The crystals of one shard, with a warning on each one that found its own id taken."""
    renamed = {own: pulled for (pulled, _), own in taken.again.items()}
    ids = crystals.ids.tolist()
    if renamed.keys().isdisjoint(ids):
        return crystals
    texts = crystals.columns[WARNINGS].tolist() if WARNINGS in crystals.columns else [""] * len(ids)
    for row, name in enumerate(ids):
        if name in renamed:
            line = f"another crystal is called {renamed[name][:100]!r}, too"
            texts[row] = f"{texts[row][: MAX_TEXT - len(line) - 2]}; {line}" if texts[row] else line
    return crystals.with_columns(**{WARNINGS: np.array(texts, dtype=np.str_)})


def digests(content: pa.Table) -> list[int]:
    """A digest of 64 bits per row: cell, positions and species, to the last bit."""
    hashes = [hashlib.blake2b(digest_size=8) for _ in range(content.num_rows)]
    for column in table.CRYSTAL_FIELDS:
        if pa.types.is_list(column.type):
            lists = content[column.name].combine_chunks()
            values = np.ascontiguousarray(lists.flatten().to_numpy()) + column.type.value_type.to_pandas_dtype()(0)
            ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
            for found, start, end in zip(hashes, [0, *ends], ends):
                found.update(values[start:end])
    return [int.from_bytes(found.digest()) for found in hashes]


def _suffixed(name: str, suffix: str) -> str:
    return f"{name[: MAX_TEXT - len(suffix)]}{suffix}"
