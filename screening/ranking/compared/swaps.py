"""The pairs of crystals that change places most often.

Enters: which rows the best k of each draw are, and later the ranking, portion by portion. Leaves:
pairs of a row among the first k and a row behind them, with the share of the draws in which the
second is among the best and the first is not. Pairs are looked for among the rows whose chance is
nearest to one half. This module does not know how draws are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.folder.summary import Swap
from assay.screening.ranking.compared import draws
from assay.screening.ranking.compared.draws import Floats, Keys

MOST = 256
"""Crystals among which pairs are looked for."""
SHOWN = 5
"""Pairs that are told."""


class Undecided:
    """The rows that some draws have among the best and others have not."""

    def __init__(self, keys: Keys, chances: Floats, picks: Iterable[NDArray[np.int64]], trials: int, salt: str) -> None:
        """Choose them.

        Args:
            keys: (n,) of the rows, see `draws.keys`.
            chances: (n,) shares of the draws in which a row is picked; NaN for one never looked at.
            picks: the rows that are picked, by draw.
            trials: number of draws.
            salt: with which the keys were made.
        """
        doubt = np.where(np.isnan(chances), 0.5, np.abs(chances - 0.5))
        chosen = np.lexsort((keys, doubt))[:MOST]
        chosen = chosen[doubt[chosen] < 0.5]
        self._keys, self._salt, self._trials = keys[chosen], salt, trials
        self._inside = np.zeros((len(chosen), trials), bool)
        self._seen: dict[int, dict[str, Any]] = {}
        place = np.full(len(keys), -1)
        place[chosen] = np.arange(len(chosen))
        for draw, rows in enumerate(picks):
            found = place[rows]
            self._inside[found[found >= 0], draw] = True

    @property
    def complete(self) -> bool:
        """Whether all of them were seen."""
        return len(self._seen) == len(self._keys)

    def see(self, portion: pa.Table) -> None:
        """Look at the next rows of the ranking, with `rank`, `id` and `formula`."""
        if self.complete:
            return
        keys = draws.keys(portion["id"], self._salt)
        rows = np.flatnonzero(np.isin(keys, self._keys))
        found = portion.select(["rank", "id", "formula"]).take(pa.array(rows)).to_pylist()
        self._seen |= zip(keys[rows].tolist(), found, strict=True)

    def swaps(self, k: int) -> list[Swap]:
        """The pairs, the most frequent first, once all rows were seen."""
        rows = [self._seen[key] for key in self._keys.tolist()]
        ranks = np.array([row["rank"] for row in rows], np.int64)
        ours, theirs = np.flatnonzero(ranks <= k), np.flatnonzero(ranks > k)
        counts = (~self._inside[ours]).astype(np.float32) @ self._inside[theirs].T.astype(np.float32)
        left, right = np.nonzero(counts)
        order = np.lexsort((ranks[theirs[right]], ranks[ours[left]], -counts[left, right]))[:SHOWN]
        pairs = [(rows[ours[left[at]]], rows[theirs[right[at]]], counts[left[at], right[at]]) for at in order]
        return [
            Swap(a["id"], b["id"], (a["rank"], b["rank"]), (a["formula"], b["formula"]), float(count) / self._trials)
            for a, b, count in pairs
        ]
