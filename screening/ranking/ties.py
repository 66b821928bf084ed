"""Rows of a ranking that share a score, and the rule that would separate them.

Enters: ranked rows and their rule. Leaves: the ties that decide which rows people see first, and
the same in sentences. It does not know where a ranking is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from assay.screening.folder.summary import Tie
from assay.screening.ranking.rules import RULES, Rule


def columns(rule: Rule) -> frozenset[str]:
    """Names of the columns of the candidates that `find` reads, where they exist."""
    return frozenset({"score", "tier"}.union(*(_other(rule, name).columns().values() for name in RULES)))


def find(candidates: pa.Table, rule: Rule, shown: int) -> list[Tie]:
    """The tie at the top of a ranking, and the one that its first `shown` rows cut through.

    Of a cascade the rows of the last tier are compared, since each tier has scores of its own.
    """
    if "tier" in candidates.column_names and candidates.num_rows:
        tier = candidates["tier"].to_numpy()
        candidates = candidates.filter(pa.array(tier == tier[0]))
    scores = candidates["score"].to_numpy()
    found: list[Tie] = []
    for row in (0, shown - 1):
        place = row + 1
        if place >= len(scores) or scores[row] != scores[place] or any(tie.score == scores[row] for tie in found):
            continue
        same = candidates.filter(pa.array(scores == scores[row]))
        first = int(np.argmax(scores == scores[row])) + 1
        found.append(Tie(float(scores[row]), first, same.num_rows, len(scores), _separating(same, rule)))
    return found


def sentences(found: Sequence[Tie], by: str) -> list[str]:
    """The ties in words; `by` is the name of the rule that ranked."""
    return [_sentence(tie, by) for tie in found]


def _sentence(tie: Tie, by: str) -> str:
    place = "at the top" if tie.first == 1 else f"from rank {tie.first:,}"
    remedy = f"`rank.by: {tie.rule}` would separate them" if tie.rule else "no rule separates them"
    order = "std, then by id" if by == "mean" else "mean, then by std and id"
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
    for name in RULES:
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
