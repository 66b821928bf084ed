"""How sure the order is: the probability of each crystal to be among the best k.

Enters: ranked rows, portion by portion in any order, with what is predicted of the property that
ranks. Leaves: `p_top_k` of each, and the pairs of crystals that change places most often. In each
of `DRAWS` draws every true value is drawn from its law (`draws`), and the best k are taken. Rows
that no draw can bring among them are left out, by proof: k others are better even if all of these
turn out as badly, and the row as well, as a draw can say. This module does not know where rows come
from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.folder.summary import Certainty
from assay.screening.ranking.compared import draws, kernels
from assay.screening.ranking.compared.draws import Floats, Keys, Law
from assay.screening.ranking.compared.swaps import Undecided

COLUMN = "p_top_k"
BITS = 12
DRAWS = 2**BITS
"""A probability of 0.5 is known to 0.008, one of 0.01 to 0.0016 (one standard deviation)."""
ROOM = 2**23
"""Rows of draws in memory at once."""
HELD = 2**17
"""Rows after which those that cannot be among the best are looked for again."""


class TopK:
    """The best k in many draws, of rows that pass by."""

    def __init__(self, law: Law, k: int) -> None:
        """`k` is at least 1."""
        self.law, self.k = law, k
        self.rows = 0
        """Rows that passed by."""
        self._strata = law.strata(BITS)
        self._held: list[tuple[Floats, Keys, NDArray[np.int64]]] = []
        self._since = 0
        self._unknown: list[NDArray[np.int64]] = []
        self._undecided = Undecided(np.empty(0, np.uint64), np.empty(0), [], DRAWS, law.source)
        self._stay = 0.0

    def learn(self, ids: pa.Array | pa.ChunkedArray, values: Mapping[str, Floats]) -> None:
        """Look at the next rows; `values` are (n,) arrays named as the parts of the law."""
        numbers, keys = self.law.numbers(values), draws.keys(ids, self.law.source)
        known = np.isfinite(numbers).all(axis=1)
        places = self.rows + np.arange(len(numbers))
        self.rows += len(numbers)
        self._unknown.append(places[~known])
        self._held.append((numbers[known], keys[known], places[known]))
        self._since += int(known.sum())
        if self._since >= HELD:
            self._held, self._since = [self._possible()], 0

    def _possible(self) -> tuple[Floats, Keys, NDArray[np.int64]]:
        """The rows that may be among the best k."""
        if not self._held:
            return np.empty((0, 2)), np.empty(0, np.uint64), np.empty(0, np.int64)
        numbers, keys, places = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        if len(keys) <= self.k:
            return numbers, keys, places
        lowest, highest = self._strata.ends(numbers)
        stays = highest >= np.partition(lowest, len(lowest) - self.k)[len(lowest) - self.k]
        return numbers[stays], keys[stays], places[stays]

    def chances(self) -> Floats:
        """(rows,) probabilities in the order of the rows; NaN where no error is known."""
        chances = np.zeros(self.rows)
        chances[np.concatenate([np.empty(0, np.int64), *self._unknown])] = np.nan
        numbers, keys, places = self._possible()
        if len(keys) <= self.k:
            chances[places] = 1.0
            return chances
        counts = np.zeros(len(keys), np.int64)
        blocks = [*self._blocks(numbers, keys)] if self.k * DRAWS <= ROOM else None
        for rows in blocks or self._blocks(numbers, keys):
            counts += np.bincount(rows.ravel(), minlength=len(keys))
        chances[places] = counts / DRAWS
        picks = chain.from_iterable(blocks or self._blocks(numbers, keys))
        self._undecided = Undecided(keys, counts / DRAWS, picks, DRAWS, self.law.source)
        return chances

    def _blocks(self, numbers: Floats, keys: Keys) -> Iterator[NDArray[np.int64]]:
        """(draws, k) the best rows of each draw, some draws at a time."""
        size = min(DRAWS, max(1, ROOM // self.k))
        order = np.argsort(-self._strata.ends(numbers)[1], kind="stable")
        for first in range(0, DRAWS, size):
            shape = min(size, DRAWS - first), self.k
            values, rows = np.empty(shape), np.empty(shape, np.int64)
            kernels.best(numbers, keys, order, *self._strata.arguments, np.uint64(BITS), first, values, rows)
            yield rows

    def see(self, portion: pa.Table) -> None:
        """Look at the next rows of the ranking, which have `rank` and `p_top_k` now."""
        if self._undecided.complete and (not portion.num_rows or portion["rank"][0].as_py() > self.k):
            return
        self._stay += float(np.nansum(_floats(portion[COLUMN])[portion["rank"].to_numpy() <= self.k]))
        self._undecided.see(portion)

    def certainty(self) -> Certainty:
        """How sure the order is, once all rows of the ranking were seen."""
        return Certainty(min(self.k, self.rows), DRAWS, self._stay, self._undecided.swaps(self.k))


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.to_numpy(), np.float64)
