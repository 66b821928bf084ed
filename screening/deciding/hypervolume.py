"""What a measurement is expected to add to the hypervolume of several objectives.

Enters: candidates of a campaign that ranks by several objectives. Leaves: (n,) utilities: the
expected hypervolume improvement (Emmerich, Giannakoglou and Naujoks, IEEE Trans. Evol. Comput. 10,
421, 2006) over the first front of the predicted values. The true values are drawn as for `p_front`:
two objectives of one property err together, others by themselves. This module does not know what is
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.folder.results import Results
from assay.screening.ranking import several
from assay.screening.ranking.compared import fronts, kernels, pfront
from assay.screening.ranking.several import Goal, Several
from assay.screening.settings.exits import Exit, Failure

Floats = NDArray[np.float64]


def utilities(results: Results, ids: pa.ChunkedArray) -> Floats:
    """(n,) utilities of some candidates, in the order of the ranking.

    Raises:
        Failure: CONFIG, when the campaign ranks by one property.
    """
    rule = several.of(results.summary)
    if not isinstance(rule, Several):
        raise Failure(Exit.CONFIG, "--by ehvi weighs several objectives, and rank.objectives names none; choose ei")
    reads = [column for goal in rule.goals for column in (_mean(goal), *_law(goal).values())]
    rows = results.candidates(["id", *dict.fromkeys(reads)])
    return expected(rule.goals, rows.filter(pc.is_in(rows["id"], ids.combine_chunks())))


def expected(goals: Sequence[Goal], rows: pa.Table) -> Floats:
    """(n,) improvements, where the range of the predicted values of each objective counts 1.

    The reference point lies a tenth of the range beyond the worst of them. A row whose error is not
    known in some objective promises nothing.
    """
    now = np.stack([goal.true(_floats(rows, _mean(goal))) for goal in goals], axis=1)
    low, span = now.min(axis=0), np.ptp(now, axis=0)
    span = np.where(span > 0, span, 1.0)
    lower, upper = free(_scaled(np.unique(now[fronts.first(now)], axis=0), low, span))
    ids = rows["id"].combine_chunks()
    each = [
        pfront.movable(goal, goal.law, ids, {part: _floats(rows, column) for part, column in _law(goal).items()})
        for goal in goals
    ]
    known = np.flatnonzero(np.logical_and.reduce([one.known for one in each]))
    here, found = [one.at(known) for one in each], np.zeros(len(now))
    total = np.zeros(len(known))
    for draw in range(pfront.DRAWS):
        kernels.fill(_scaled(pfront.drawn(here, draw), low, span), lower, upper, total)
    found[known] = total / pfront.DRAWS
    return found


def free(front: Floats) -> tuple[Floats, Floats]:
    """Disjoint boxes that fill what lies above 0 and is dominated by no point of a front.

    Returned are their lower and upper ends (b, m); an upper end may be infinite.

    >>> lower, upper = free(np.array([[1.0, 2.0]]))
    >>> lower.tolist(), upper.tolist()
    ([[1.0, 0.0], [0.0, 2.0]], [[inf, inf], [1.0, inf]])
    """
    m = front.shape[1]
    boxes = [(np.zeros(m), np.full(m, np.inf))]
    for point in front:
        kept = []
        for low, high in boxes:
            if (point <= low).any():
                kept.append((low, high))
                continue
            inner = np.minimum(point, high)
            for k in range(m):  # what lies beyond the point in objective k, and not in those before
                if point[k] < high[k]:
                    before = np.arange(m) < k
                    kept.append((np.where(np.arange(m) == k, point, low), np.where(before, inner, high)))
        boxes = kept
    return np.array([low for low, _ in boxes]), np.array([high for _, high in boxes])


def _scaled(points: Floats, low: Floats, span: Floats) -> Floats:
    return np.ascontiguousarray((points - low) / span + fronts.BEYOND)


def _mean(goal: Goal) -> str:
    return goal.target.name if goal.law is None else f"{goal.target.name}_mean"


def _law(goal: Goal) -> dict[str, str]:
    return {"mean": _mean(goal)} if goal.law is None else goal.law.columns()


def _floats(rows: pa.Table, column: str) -> Floats:
    return np.asarray(rows[column].to_numpy(), np.float64)
