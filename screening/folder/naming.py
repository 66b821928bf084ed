"""The ids of a campaign: equal ids of different crystals are told apart, repeated rows are found.

Enters: pulled rows, shard by shard in the order of the plan. Leaves: for each row its id in the
campaign, or that the row came before. What counts is the crystal, not its reported columns. This
module does not know where the rows are kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.sources import table
from assay.sources.crystals import WARNINGS, Crystals, text_array
from assay.sources.quarantine import Quarantined

MAX_TEXT = 4096
"""Longest id or text, in characters; longer ones are refused where tables are read."""
CACHED = 65_536
"""KiB of the digests that are kept in memory."""
ASKED = 512
"""Digests that one question of SQLite asks for."""
Refusal = tuple[str, str, str, str, int]
"""Id, origin, reason and message of a refused row, and how often a page had them before it."""
Judge = Callable[[str, pa.Table], NDArray[np.bool_]]
"""Takes a source and its rows; gives (n,) which of them are kept by what they report."""
Row = tuple[str, int, int]
"""Id as it was pulled, digest of the id, digest of the crystal."""


class Digests:
    """Digests of 64 bits, each with a number, in a nameless file that ends with the process."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", check_same_thread=False)  # the empty name: a file of SQLite's own
        for line in (f"PRAGMA cache_size = -{CACHED}", "PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF"):
            self._file.execute(line)
        self._file.execute("CREATE TABLE digests (digest INTEGER PRIMARY KEY, number INTEGER)")

    def add(self, numbers: Mapping[int, int]) -> int:
        """Add those that are not there yet, with numbers of 64 bits, too; how many were not.

        Raises:
            OSError: when the folder for temporary files is full.
        """
        before = self._file.total_changes
        try:
            self._file.executemany("INSERT OR IGNORE INTO digests VALUES (?, ?)", sorted(numbers.items()))
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{error}, in the folder for temporary files, where the ids are kept; TMPDIR names it"
            ) from error
        return self._file.total_changes - before

    def find(self, wanted: Iterable[int]) -> dict[int, int]:
        """Those of some digests that are there, with their numbers."""
        wanted, found = list(wanted), dict[int, int]()
        for start in range(0, len(wanted), ASKED):
            some = wanted[start : start + ASKED]
            places = ",".join("?" * len(some))
            found.update(self._file.execute(f"SELECT * FROM digests WHERE digest IN ({places})", some))  # noqa: S608
        return found


@dataclass
class Taken:
    """The ids of the shards before this one."""

    good: Digests = field(default_factory=Digests)
    """Digest of an id -> digest of its crystal."""
    again: dict[tuple[str, int], str] = field(default_factory=dict)
    """Id as it was pulled, and digest -> id of a crystal that found its own id taken."""
    last: dict[str, int] = field(default_factory=dict)
    """Id as it was pulled -> the number behind the last crystal that found it taken."""
    bad: set[Refusal] = field(default_factory=set)
    """Refused rows."""
    judge: Judge | None = None
    """Which rows the campaign keeps by what they report; None: all of them."""
    out: Taken | None = None
    """The ids of rows that it does not keep; a row that it keeps repeats none of them."""

    def names(self, pulled: Sequence[str], crystals: Sequence[int]) -> Sequence[str | None]:
        """The ids of the crystals of a shard; None for a crystal that had its id before.

        `pulled` holds the ids as they were pulled, `crystals` the digests of the crystals.

        >>> Taken().names(["POSCAR", "POSCAR", "POSCAR", "a", "POSCAR"], [7, 7, 8, 9, 8])
        ['POSCAR', None, 'POSCAR~2', 'a', None]
        """
        keys = [digest(name) for name in pulled]
        fresh = dict(zip(keys, crystals))
        known = self.good.find(keys)
        if not known and len(fresh) == len(keys):
            self.good.add(fresh)
            return pulled
        fresh.clear()
        names = [self._name(row, fresh, known) for row in zip(pulled, keys, crystals, strict=True)]
        self.good.add(fresh)
        return names

    def _name(self, row: Row, fresh: dict[int, int], known: dict[int, int]) -> str | None:
        """One id; `fresh` and `known` are the ids of this shard so far and of those before it."""
        pulled, key, crystal = row
        before = fresh.get(key, known.get(key))
        if before is None:
            fresh[key] = crystal
            return pulled
        if before == crystal or (pulled, crystal) in self.again:
            return None
        number = self.last.get(pulled, 1) + 1
        while (own := digest(_suffixed(pulled, f"~{number}"))) in fresh or self.good.find([own]):
            number += 1
        name = _suffixed(pulled, f"~{number}")
        fresh[own], self.again[pulled, crystal], self.last[pulled] = crystal, name, number
        return name

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


def named(content: pa.Table, taken: Taken, kept: NDArray[np.bool_] | None = None) -> pa.Table:
    """The rows of a crystal table that did not come before, in order, with their ids.

    `kept` (n,) says which rows the campaign keeps by what they report; None: all of them.
    """
    pulled, crystals = content["id"].to_pylist(), digests(content)
    ids = taken.names(pulled, crystals) if kept is None or kept.all() else _apart(pulled, crystals, taken, kept)
    if ids == pulled:
        return content
    rows = [row for row, name in enumerate(ids) if name is not None]
    place = content.column_names.index("id")
    column = pa.array([ids[row] for row in rows], pa.string())
    return content.take(pa.array(rows, pa.int64())).set_column(place, content.field(place), column)


def _apart(pulled: Sequence[str], crystals: Sequence[int], taken: Taken, kept: NDArray[np.bool_]) -> list[str | None]:
    """The ids of rows of which some are left out for what they report."""
    taken.out = taken.out or Taken()
    found: list[str | None] = [None] * len(pulled)
    for part, mask in ((taken, kept), (taken.out, ~kept)):
        rows = np.flatnonzero(mask).tolist()
        ids = part.names([pulled[row] for row in rows], [crystals[row] for row in rows])
        for row, name in zip(rows, ids, strict=True):
            found[row] = name
    return found


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
    return crystals.with_columns(**{WARNINGS: text_array(texts)})


def digests(content: pa.Table) -> list[int]:
    """A digest of 64 bits per row, with a sign: cell, positions and species, to the last bit."""
    found = np.zeros(content.num_rows, np.uint64)
    for column in table.CRYSTAL_FIELDS:
        if pa.types.is_list(column.type):
            lists = content[column.name].combine_chunks()
            values = np.ascontiguousarray(lists.flatten().to_numpy()) + column.type.value_type.to_pandas_dtype()(0)
            lengths = lists.value_lengths().to_numpy()
            ends = np.cumsum(lengths)
            place = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
            mixed = _mixed(_mixed(values.view(f"u{values.itemsize}")) + place.astype(np.uint64))
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
            found = _mixed(found) + sums[ends] - sums[ends - lengths]
    rows: list[int] = _mixed(found).view(np.int64).tolist()
    return rows


def _mixed(x: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits, each of which depends on every bit of x: one step of splitmix64 (Steele, 2014)."""
    mixed: NDArray[np.uint64] = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def digest(name: str) -> int:
    """A digest of 64 bits, with a sign.

    Among 100 million ids two share one with a chance of 3 in 10,000; the second is then renamed as
    if it had the id of the first, and no crystal is lost.
    """
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), signed=True)


def _suffixed(name: str, suffix: str) -> str:
    return f"{name[: MAX_TEXT - len(suffix)]}{suffix}"
