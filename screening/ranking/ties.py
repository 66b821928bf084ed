"""Rows of a ranking that share a score, and the rule that would separate them.

Enters: ranked rows, portion by portion, and their rule. Leaves: the ties that decide which rows
people see first, and the same in sentences. It does not know where a ranking is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.screening.folder.summary import Tie
from assay.screening.ranking.rules import RULES, Rule


class Ties:
    """The ties among rows that pass by, best first.

    Of a cascade the rows of the last tier are compared, since each tier has scores of its own.
    Memory holds the rows that are shown, and those that tie with the last of them.
    """

    def __init__(self, rule: Rule, shown: int) -> None:
        """`shown` is the number of rows that people see, 1 or more."""
        self._rule, self._shown = rule, shown
        others = [] if rule.whole else [_other(rule, name) for name in RULES]
        self._columns = {"score"}.union(*(other.columns().values() for other in others))
        self._kept: list[pa.Table] = []
        self._tier: pa.Scalar | None = None
        self._rows = 0  # of that tier

    def take(self, portion: pa.Table) -> None:
        """Look at the next rows."""
        if "tier" in portion.column_names and portion.num_rows:
            self._tier = portion["tier"][0] if self._tier is None else self._tier
            portion = portion.filter(pc.equal(portion["tier"], self._tier))
        room = max(self._shown - self._rows, 0)
        self._rows += portion.num_rows
        content = portion.select([name for name in portion.column_names if name in self._columns])
        self._keep(content.slice(0, room))
        self._keep(content.slice(room).filter(pc.equal(content.slice(room)["score"], self._last())))

    def _keep(self, content: pa.Table) -> None:
        if content.num_rows:
            self._kept.append(content)

    def _last(self) -> pa.Scalar:
        return self._kept[-1]["score"][-1] if self._kept else pa.scalar(None, pa.float64())

    def found(self) -> list[Tie]:
        """The tie at the top of the ranking, and the one that goes on behind the rows shown."""
        found: list[Tie] = []
        rows = pa.concat_tables(self._kept) if self._kept else pa.table({"score": np.empty(0)})
        scores = rows["score"].to_numpy()
        for row in (0, self._shown - 1):
            place = row + 1
            if place >= len(scores) or scores[row] != scores[place] or any(tie.score == scores[row] for tie in found):
                continue
            same = rows.filter(pa.array(scores == scores[row]))
            first = int(np.argmax(scores == scores[row])) + 1
            found.append(Tie(float(scores[row]), first, same.num_rows, self._rows, _separating(same, self._rule)))
        return found


def sentences(found: Sequence[Tie], by: str) -> list[str]:
    """The ties in words; `by` is the name of the rule that ranked."""
    return [_sentence(tie, by) for tie in found]


def _sentence(tie: Tie, by: str) -> str:
    place = "at the top" if tie.first == 1 else f"from rank {tie.first:,}"
    remedy = f"`rank.by: {tie.rule}` would separate them" if tie.rule else "no rule separates them"
    order = "std, then by id" if by == "mean" else "mean, then by std and id"
    if by not in RULES:  # several objectives
        remedy = "other ranges of the objectives may separate them"
        order = "the std of the first predicted objective, then by id"
    return (
        f"{tie.rows:,} of {tie.of:,} rows tie {place}, at a score of {tie.score:.4g} (by {by}); {remedy}. "
        f"Among themselves they stand by {order}."
    )


def _other(rule: Rule, name: str) -> Rule:
    """The rule of another name with the same settings."""
    return RULES[name](rule.settings.model_copy(update={"by": name}), rule.target)


def _separating(rows: pa.Table, rule: Rule) -> str:
    """The first rule that tells half of some equal rows apart, or most of them; "" for none."""
    best, most = "", 1
    for name in () if rule.whole else RULES:
        other = _other(rule, name)
        columns = other.columns()
        if name == rule.settings.by or not set(columns.values()) <= set(rows.column_names):
            continue
        try:
            other.check()
        except ValueError:
            continue  # it needs a setting that nobody made
        values = {part: np.asarray(rows[column].to_numpy(), np.float64) for part, column in columns.items()}
        distinct = len(np.unique(other.score(values)))
        if 2 * distinct > rows.num_rows:
            return name
        if distinct > most:
            best, most = name, distinct
    return best
