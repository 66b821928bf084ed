"""The probability of each crystal to be among the best k of several objectives.

Enters: rows with points (n, m), one column per objective, the laws of their true values, and what
picks the best k of some points. Leaves: (n,) shares of the draws in which a row is picked. In each
draw most rows are left out, by proof: k others or more are nowhere worse and somewhere better, so
they are picked first, and they beat all that the left-out row beats. This module does not know
tables or rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.ranking.compared import kernels, pfront
from assay.screening.ranking.compared.draws import Floats
from assay.screening.ranking.compared.pfront import DRAWS, STRONG, Movable

WITNESSES = 512
"""Points that k rows may beat in a draw."""
Picked = Callable[[Floats, int], NDArray[np.int64]]
"""(points (r, m), k) -> rows of the best k; of equal rows the first."""
Note = Callable[[NDArray[np.int64]], object]
"""Takes the rows of the best k of one draw."""


def chances(
    objectives: Sequence[Movable],
    points: Floats,
    order: NDArray[np.int64],
    last: pa.Table,
    k: int,
    picked: Picked,
    decisive: int,
    note: Note | None = None,
) -> Floats:
    """(n,) probabilities; NaN for a row whose error is not known, which takes no part.

    Args:
        objectives: m of them, each with all rows.
        points: (n, m) how the predicted values count, finite.
        order: (n,) rows, the strong ones first.
        last: (n,) rows of the columns that order rows which are equal otherwise, the lowest first.
        k: how many are the best.
        picked: see `Picked`.
        decisive: a row that dominates another in the first so many objectives is picked before it.
        note: takes the rows that are picked, draw after draw.
    """
    found = np.full(len(points), np.nan)
    order = order[np.logical_and.reduce([each.known for each in objectives])[order]]
    if not len(order):
        return found
    found[order] = 0.0
    strong, rest = order[: max(STRONG, 4 * k)], order[max(STRONG, 4 * k) :]
    some = np.unique(np.geomspace(1, len(order), WITNESSES).astype(np.int64)) - 1
    ahead = [each.at(strong) for each in objectives[:decisive]]
    walls, whole = _walls(ahead, np.ascontiguousarray(points[order[some], :decisive]), k)
    best = np.stack([each.at(rest).best() for each in objectives[:decisive]], axis=1)
    rows = np.sort(np.concatenate([strong, rest[~pfront.outdone(best, whole, strictly=False)]]))
    keys = [(name, "ascending") for name in last.column_names]
    rows = rows[pc.sort_indices(last.take(pa.array(rows)), sort_keys=keys).to_numpy()]
    here = [each.at(rows) for each in objectives]
    for draw, wall in enumerate(walls):
        drawn = pfront.drawn(here, draw)
        stays = np.flatnonzero(~pfront.outdone(drawn[:, :decisive], wall, strictly=False))
        best_rows = rows[stays[picked(drawn[stays], k)]]
        found[best_rows] += 1
        if note is not None:
            note(best_rows)
    return np.asarray(found / DRAWS, np.float64)


def _walls(ahead: Sequence[Movable], witnesses: Floats, k: int) -> tuple[list[Floats], Floats]:
    """By draw the witnesses that k strong rows beat in it, and those beaten in every draw."""
    walls, always = list[Floats](), np.ones(len(witnesses), bool)
    for draw in range(DRAWS):
        beaten = np.empty(len(witnesses), np.bool_)
        kernels.crowded(witnesses, pfront.drawn(ahead, draw), k, beaten)
        always &= beaten
        walls.append(pfront.strongest(witnesses[beaten])[0])
    return walls, pfront.strongest(witnesses[always])[0]
