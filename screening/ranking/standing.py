"""Each ranked row beside all others: `p_top_k`, and the fronts of several objectives.

Enters: scored rows, portion by portion, twice in one order: first what a rule reads, then all
columns. Leaves: the rows with score and added columns, apart from those that cannot be ranked.
Memory holds a few numbers per row and, for a rule of several objectives, what the rule reads. This
module does not know campaigns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.folder.summary import Certainty, Fronts
from assay.screening.ranking import rank
from assay.screening.ranking.compared import draws, pfront, topk
from assay.screening.ranking.compared.swaps import Undecided
from assay.screening.ranking.compared.topk import TopK
from assay.screening.ranking.rank import Measured
from assay.screening.ranking.rules import Rule
from assay.screening.ranking.several import Pareto
from assay.screening.settings import digits

Parted = tuple[pa.Table, pa.Table]
"""Rows that are ranked, with their scores, and rows that cannot be."""


class Standing:
    """Rows compared with one another."""

    def __init__(self, rule: Rule, k: int) -> None:
        """`k` rows are those that `p_top_k` speaks of, 1 or more."""
        self.rule = rule
        self.topk = None if rule.whole else TopK(rule.law, k)
        """Of one property; a rule of several objectives has `p_top_k` among its columns."""
        self._k, self._stay = k, 0.0
        self._held: list[pa.Table] = []
        self._found: Measured | None = None
        self._chances = np.empty(0)
        self._undecided: Undecided | None = None

    def columns(self) -> list[str]:
        """Columns of scored rows that are read, id first."""
        names = [*self.rule.columns().values()]
        if self.topk is not None:
            names += self.topk.law.columns().values()
        return ["id", *dict.fromkeys(names)]

    def learn(self, rows: pa.Table) -> Iterator[Parted]:
        """Look at the next rows; what can be said of their order already."""
        if self.topk is None:
            self._held.append(rows.select(self.columns()))
            return
        ranked, left = self._parted(rows, rank.with_scores(rows, self.rule))
        self.take(ranked)
        yield ranked, left

    def take(self, ranked: pa.Table) -> None:
        """Look at rows that are known to be ranked, by one property."""
        assert self.topk is not None
        law = self.topk.law.columns()
        self.topk.learn(ranked["id"], {part: _floats(ranked[column]) for part, column in law.items()})

    def chances(self) -> NDArray[np.float64]:
        """(n,) `p_top_k` of the rows that were looked at; NaN where no error is known."""
        assert self.topk is not None
        return self.topk.chances()

    def settle(self) -> Iterator[Parted]:
        """Compare the rows, once all were learnt; what can be said of their order now."""
        if self.topk is not None:
            self._chances = self.topk.chances()
            return
        rows = pa.concat_tables(self._held)
        self._held = []
        picks: list[NDArray[np.int64]] = []
        self._found = rank.measure(rows, self.rule, picks.append if self._k * pfront.DRAWS <= topk.ROOM else None)
        if picks:
            keys, chances = draws.keys(self._found.ids, ""), self._found.added[topk.COLUMN]
            self._undecided = Undecided(keys, chances, picks, pfront.DRAWS, "")
        yield next(self.parts(iter([rows])))

    def parts(self, tables: Iterator[pa.Table]) -> Iterator[Parted]:
        """The rows again, in the order in which they were learnt, now with all that was found."""
        start = 0
        for rows in tables:
            if self._found is not None:
                stop = start + len(rows)
                added = {"score": self._found.scores, **self._found.added}
                here = {name: column[start:stop] for name, column in added.items()}
                ranked, left = self._parted(rows, rank.with_columns(rows, here))
            else:
                ranked, left = self._parted(rows, rank.with_scores(rows, self.rule))
                stop = start + len(ranked)
                ranked = with_chances(ranked, self._chances[start:stop])
            start = stop
            yield ranked, left

    def complete(self, ranked: pa.Table, tier: int) -> pa.Table:
        """A ranking that is in memory, with `p_top_k` of the rows that the last tier scored."""
        if self.topk is None:
            return ranked
        last = np.ones(len(ranked), bool) if "tier" not in ranked.column_names else ranked["tier"].to_numpy() == tier
        self.take(ranked.filter(pa.array(last)))
        chances = np.full(len(ranked), np.nan)
        chances[last] = self.topk.chances()
        return with_chances(ranked, chances)

    def _parted(self, rows: pa.Table, scored: pa.Table) -> Parted:
        finite = pc.is_finite(scored["score"])
        return scored.filter(finite), rank.without_score(rows.filter(pc.invert(finite)), self.rule)

    def see(self, portion: pa.Table) -> None:
        """Look at the next rows of the ranking."""
        if self.topk is not None:
            self.topk.see(portion)
        elif topk.COLUMN in portion.column_names:
            self._stay += float(np.nansum(_floats(portion[topk.COLUMN])[portion["rank"].to_numpy() <= self._k]))
            if self._undecided is not None:
                self._undecided.see(portion)

    def certainty(self) -> Certainty | None:
        """How sure the order is, once the ranking was seen."""
        if self.topk is not None or self._found is None:
            return self.topk.certainty() if self.topk else None
        k = min(self._k, int(np.isfinite(self._found.scores).sum()))
        swaps = [] if self._undecided is None else self._undecided.swaps(self._k)
        return Certainty(k, pfront.DRAWS, self._stay, swaps)

    def fronts(self) -> Fronts | None:
        """The fronts in numbers, where they rank."""
        if self._found is None or not isinstance(self.rule, Pareto):
            return None
        front, chance = self._found.added["front"], self._found.added["p_front"]
        expected = float(np.nansum(chance))
        reference = self.rule.reference(self._found.values)
        return Fronts(int(front.max(initial=0)), int((front == 1).sum()), expected, pfront.DRAWS, reference)


def sentences(certainty: Certainty | None, fronts: Fronts | None, rule: Rule) -> list[str]:
    """How sure the order is, in words."""
    said = [_stay(certainty, rule)] if certainty is not None and certainty.k else []
    if fronts is None or not fronts.count or not isinstance(rule, Pareto):
        return said
    ends = zip(rule.goals, fronts.reference)
    point = ", ".join(f"{goal.target.name} {digits.alone(end)} {goal.target.unit}".rstrip() for goal, end in ends)
    are, of = "crystal is" if fronts.first == 1 else "crystals are", "front" if fronts.count == 1 else "fronts"
    first = f"{fronts.first:,} {are} on the first of {fronts.count:,} {of}: no other crystal is at least as "
    often = (
        f"On average of {fronts.trials:,} trials {fronts.expected:.1f} crystals were on the first front of the true "
        "values; p_front says how often each was. "
    )
    exact = "Numbers that no model predicts with an error, p_stable among them, stayed as they are."
    volume = f"The hypervolume lies between a front and the reference point ({point}), which is a tenth of the range "
    return [
        first + "good in every objective and better in one.",
        *said,
        often + exact,
        volume + "worse than the worst ranked values.",
    ]


def _stay(certainty: Certainty, rule: Rule) -> str:
    what, errors = f"{rule.target.name} of each ranked crystal was", "error of its prediction"
    if rule.whole:
        what, errors = "values of each ranked crystal were", "errors of its predictions"
    return (
        f"Of the first {certainty.k:,} rows about {certainty.stay:.1f} are expected to be among the true best "
        f"{certainty.k:,}. In each of {certainty.trials:,} trials the true {what} drawn by the calibrated {errors}, "
        "each crystal by itself."
    )


def with_chances(ranked: pa.Table, chances: NDArray[np.float64]) -> pa.Table:
    """Ranked rows with `p_top_k`; null where it is NaN."""
    return ranked.append_column(topk.COLUMN, pa.array(chances, from_pandas=True))


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(), np.float64)
