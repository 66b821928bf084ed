"""The tiers of a cascade put together: one row per crystal, and the recall that the audit shows.

Enters: a plan with a cascade and the ledger of its folder, where all tiers are chosen. Leaves: the
ranked rows of all tiers with the columns `tier`, `audit` and `tier_<k>_score`, and the `cascade`
section of the summary. It does not know how survivors are chosen
(`assay.screening.ranking.cascade`) nor how a recall is estimated
(`assay.screening.ranking.recall`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED
from assay.screening.campaign.judged import Judged
from assay.screening.campaign.plan import Plan
from assay.screening.folder import results, snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.summary import Cascade, Model, Recall, Tier
from assay.screening.ranking import bounds, cascade, rank, recall, rules
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.rules import Rule
from assay.screening.ranking.select import Shortlist
from assay.screening.runners import worker
from assay.sources.crystals import empty

NOVELTY = ("in_training", "ood", "ood_distance")
DESCRIBED = ("id", "formula", "elements", "nsites", "ordered")
"""Columns of a part that are no prediction, where nothing is reported."""


class Tiers:
    """Every crystal that tier 0 scored: the last tier it reached, and its score in each tier."""

    def __init__(self, plan: Plan, ledger: Ledger, judged: Judged | None = None) -> None:
        """`judged` is the last tier beside a hull, where there is one."""
        self._plan, self._ledger = plan, ledger
        self._parts = [results.scored(ledger, tier) for tier in range(len(plan.tiers) + 1)]
        self._reached = len(plan.tiers)
        """The last tier."""
        groups = [*([tier] for tier in plan.tiers), plan.ensembles]
        self._blank = [worker.score(empty(), group).table for group in groups]
        """The part of no crystals, by tier."""
        if judged is not None:
            self._blank[-1] = judged.blank
            self._parts[-1] = pa.concat_tables(judged.tables()) if judged else None
        self.ids = _ids(self._parts[0])
        self._place = {name: row for row, name in enumerate(self.ids.tolist())}
        self.tier = np.zeros(len(self.ids), np.int32)
        """(n,) the last tier that a crystal reached, scored there or not."""
        self.audit = np.zeros(len(self.ids), bool)
        """(n,) True for crystals drawn at random from those that were set aside."""
        self.aside_by = np.zeros(len(self.ids), np.int32)
        """(n,) the last cheap tier that a crystal reached."""
        for tier in range(1, self._reached + 1):
            rows = self._rows(cascade.members(ledger, tier))
            self.tier[rows] = tier
            if tier < self._reached:
                self.aside_by[rows] = tier
            else:
                self.audit[self._rows(cascade.members(ledger, tier, only_audit=True))] = True
        self.scores = np.stack([self._scores(tier) for tier in range(self._reached + 1)])
        """(tiers, n) by the rank rule; NaN where a tier did not score a crystal, or not with a
        finite number."""

    def _rows(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        return np.array([self._place[name] for name in ids.tolist()], np.int64)

    def _scores(self, tier: int) -> NDArray[np.float64]:
        scores = np.full(len(self.ids), np.nan)
        part = self._parts[tier]
        if part is not None:
            found = rank.measure(part, self._rule(tier))
            scores[self._rows(cascade.texts(found.ids))] = found.scores
        return scores

    def _rule(self, tier: int) -> Rule:
        return rules.make(self._plan.campaign.rank, self._plan.targets[tier])

    def teach(self, shortlist: Shortlist) -> None:
        """Show it what may be selected of the last tier; all crystals of the cascade are tests."""
        part = self._parts[self._reached]
        kept, _ = bounds.split(self._blank[self._reached] if part is None else part, self._plan.bounds)
        shortlist.learn(kept, tests=len(self.ids))

    def rank(self) -> Ranked:
        """All crystals ranked: first those of the last tier, then those set aside, tier by tier."""
        farthest_first = reversed(range(self._reached + 1))
        ranked = [rank.rank(self._table(tier), self._rule(tier), self._plan.facts) for tier in farthest_first]
        candidates = pa.concat_tables([each.candidates for each in ranked], promote_options="permissive")
        numbers = pa.array(np.arange(1, candidates.num_rows + 1, dtype=np.int64))
        unrankable = pa.concat_tables([each.unrankable for each in ranked], promote_options="permissive")
        return Ranked(candidates.set_column(0, "rank", numbers), unrankable)

    def _table(self, tier: int) -> pa.Table:
        """The crystals whose last tier is this one, with the predictions of that tier."""
        part = self._parts[tier]
        part = self._blank[tier] if part is None else part
        rows = self._rows(_ids(part))
        stays = np.flatnonzero(self.tier[rows] == tier)
        rows, part = rows[stays], part.take(pa.array(stays))
        table = self._described().take(pa.array(rows))
        for name in self._predicted(tier):
            table = table.append_column(part.schema.field(name), part[name])
        table = table.append_column("tier", pa.array(self.tier[rows]))
        table = table.append_column("audit", pa.array(self.audit[rows]))
        for cheap in range(self._reached):
            unasked = self.aside_by[rows] < cheap
            table = table.append_column(f"tier_{cheap}_score", pa.array(self.scores[cheap, rows], mask=unasked))
        return table

    def _described(self) -> pa.Table:
        """Columns of tier 0 that are no predictions."""
        content = self._blank[0] if self._parts[0] is None else self._parts[0]
        predicted = self._predictions(0)
        return content.select([name for name in content.column_names if name not in predicted])

    def _predicted(self, tier: int) -> list[str]:
        """Predictions that the rows of a tier hold; of a cheap tier only those that rank."""
        every = self._predictions(self._reached)
        if tier == self._reached:
            return every
        read = [*self._rule(tier).columns().values()]
        ranking = {f"{self._plan.target.name}_{part}" for part in rules.PARTS} | {*read, *NOVELTY}
        ranking &= {*self._predictions(tier)}
        return [name for name in dict.fromkeys((*every, *read)) if name in ranking]

    def _predictions(self, tier: int) -> list[str]:
        return [name for name in self._blank[tier].column_names if name not in {*DESCRIBED, *FORMED}]

    def summary(self, models: list[Model]) -> Cascade:
        """The cascade in numbers; `models` are its cheap ensembles."""
        last = self._selection(self._reached)
        return Cascade(
            tiers=[self._summarised(tier) for tier in range(self._reached)],
            entered=int((self.tier == self._reached).sum()),
            scored=self._count(self._reached),
            audit=last["audit"],
            aside=last["aside"],
            recall=self.recall(),
            models=models,
        )

    def _selection(self, tier: int) -> dict[str, int]:
        """How many crystals were chosen for a tier, and how many were set aside."""
        record = self._ledger.find("selection", str(tier))
        assert record is not None
        return record.counts

    def _summarised(self, tier: int) -> Tier:
        target, selection = self._plan.targets[tier], self._selection(tier + 1)
        return Tier(
            model=target.model,
            keep=self._plan.campaign.tiers()[tier].keep,
            level=target.level,
            calibrated=target.calibrated,
            distribution=target.distribution,
            entered=selection["entered"],
            scored=self._count(tier),
            survivors=selection["survivors"],
            unjudged=selection["unjudged"],
        )

    def _count(self, tier: int) -> int:
        part = self._parts[tier]
        return 0 if part is None else int(part.num_rows)

    def recall(self) -> Recall | None:
        """The recall of the best k; None before everything is scored, or without an audit."""
        if any(self._ledger.find("part", chunk.name) is None for chunk in snapshot.chunks(self._ledger)):
            return None
        settings = self._plan.campaign.cascade
        assert settings is not None
        scores = -self.scores if self._rule(self._reached).lowest_first else self.scores
        full, last = scores[self._reached], self.tier == self._reached
        cheap = scores[self.aside_by, np.arange(len(self.ids))]
        aside = ~last & np.isfinite(cheap)  # the others were refused on the way
        sample = recall.Sample(full[last & ~self.audit], cheap[self.audit], full[self.audit], cheap[aside])
        return recall.estimate(sample, settings.k or self._plan.campaign.rank.top)


def lines(found: Cascade, model: str) -> list[str]:
    """The cascade in sentences: the work of each tier, and the recall; `model` ranks."""
    cheap = "".join(f"{tier.model} scored {tier.scored:,} and let {tier.survivors:,} through; " for tier in found.tiers)
    audit = f"{found.audit:,} drawn at random from the {found.aside:,} that were set aside"
    first = f"Cascade: {cheap}{model} scored these and {audit}."
    if found.recall is None:
        return [first, "How many of the best were missed is unknown until an audit is scored."]
    if found.recall.survivors < found.recall.k:
        return [first, _too_few(found.recall, model)]
    return [first, _by_errors(found.recall, model), _by_counting(found.recall)]


def _too_few(found: Recall, model: str) -> str:
    return (
        f"Only {found.survivors:,} crystals survived, fewer than the best {found.k:,} that are looked for. Recall of "
        f"these, against scoring everything with {model}: about {found.expected:.1%} by the errors of the cheap "
        f"scores, about {found.counted:.1%} by counting, with {recall.CONFIDENCE:.0%} confidence at least "
        f"{found.at_least:.1%}. Let more crystals survive (cascade.tiers: keep), or look for fewer (cascade.k)."
    )


def _by_errors(found: Recall, model: str) -> str:
    if found.rests_on:
        basis = f"{found.missed:.1f} crystals missed; this rests on about {found.rests_on:.0f} of the audited ones"
    else:
        basis = "none of which would bring a crystal that was set aside among them"
    return (
        f"Recall of the best {found.k:,}, against scoring everything with {model}: about {found.expected:.1%} by the "
        f"errors of the cheap scores, {basis}. It is assumed that what was set aside errs like the audited crystals of "
        "similar score."
    )


def _by_counting(found: Recall) -> str:
    return (
        f"By counting alone, which assumes nothing: {found.beating:,} of {found.audited:,} audited crystals reach the "
        f"survivor at rank {found.k:,}, a recall of about {found.counted:.1%}, with {recall.CONFIDENCE:.0%} confidence "
        f"of at least {found.at_least:.1%}. An audit of this size could not show more than {found.at_best:.1%}, even "
        "if none had reached it."
    )


def _ids(part: pa.Table | None) -> NDArray[Any]:
    return cascade.EMPTY if part is None else cascade.texts(part["id"])
