"""A shortlist with a guarantee: conformal selection of scored crystals.

Enters: the `rank` section of a config, the calibration rows of an ensemble, scored rows, a portion
at a time. Leaves: the columns `selected` and `conformal_p_value` of ranked rows, and the shortlist
in numbers and sentences. The method is that of Jin and Candès, Journal of Machine Learning Research
24(244), 2023: a p-value is the share of calibration rows that miss the threshold and look at least
as good as the crystal, and the procedure of Benjamini and Hochberg selects by the p-values. Memory
holds a few numbers per crystal beyond the threshold. This module does not know how rows are ranked,
nor folders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.stored import CalibrationRows
from assay.screening.folder.summary import Selection, Target
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import COLUMNS

SELECTED, P_VALUE = "selected", "conformal_p_value"
GROUPS = {"element-set": "elements", "formula": "formula"}
"""Column of scored rows whose equal values make a group, by what the split of the training keeps
together; with `row` each is alone."""
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Shortlist:
    """The crystals of which a known share at most is expected to miss the threshold.

    Every scored crystal is one test. One that cannot be selected, because a filter on its
    predictions excludes it or the ensemble predicts it on the wrong side of the threshold, has the
    p-value 1: were it selected first and excluded then, the bound would not hold for the others.
    The rows of a group
    err together, and groups are what is exchangeable, so a p-value also counts the crystals of the
    same group that look at least as good. Where every crystal is alone in its group this is the
    method of the paper, to the number.
    """

    def __init__(self, settings: Rank, target: Target, kept: CalibrationRows) -> None:
        """`settings` has `select`; `kept` has rows of the property `target`."""
        assert settings.select is not None
        self._select, self._target, self._kept = settings.select, target, kept
        self._side = 1.0 if settings.order == "descending" else -1.0
        rows = kept.rows[target.name]
        missed = self._side * rows.known <= self._side * self._select.threshold
        self._null = np.sort(self._scores(rows.mean[missed], rows.std[missed]))
        self._rows, self._tests = len(rows.known), 0
        self._learnt: list[tuple[Numbers, Floats]] = [(np.empty(0, np.int64), np.empty(0))]
        self._numbers: dict[str, int] = {}
        self._chosen = dict.fromkeys(("selected", "ood", "far", "known"), 0)

    @property
    def reads(self) -> list[str]:
        """Columns of scored rows that are looked at."""
        by = [GROUPS[self._kept.by]] if self._kept.by in GROUPS else []
        return [f"{self._target.name}_mean", f"{self._target.name}_std", *by]

    def learn(self, scored: pa.Table, tests: int | None = None) -> None:
        """Look at rows that may be selected, among so many tests; unset: as many as rows."""
        groups, scores = self._seen(scored)
        self._learnt.append((groups[scores > 0], scores[scores > 0]))
        self._tests += scored.num_rows if tests is None else tests

    def marked(self, portion: pa.Table, last: int = 0) -> pa.Table:
        """Ranked rows with both columns, once all scored rows were learnt.

        Rows of a cascade that its last tier, number `last`, did not score have no p-value.
        """
        groups, scores = self._seen(portion)
        scored = ~np.isnan(scores) if "tier" not in portion.column_names else portion["tier"].to_numpy() == last
        values = self._p_values(groups, scores)
        chosen = scored & (values <= self._cut)
        for name, column in {SELECTED: pa.array(chosen), P_VALUE: pa.array(values, mask=~scored)}.items():
            field = pa.field(name, column.type, metadata={"meaning": COLUMNS[name]})
            portion = portion.append_column(field, column)
        self._count(portion.filter(pa.array(chosen)))
        return portion

    def _seen(self, rows: pa.Table) -> tuple[Numbers, Floats]:
        """(n,) numbers of groups and scores."""
        mean, std, *by = self.reads
        groups = np.zeros(len(rows), np.int64)
        if by:
            named = rows[by[0]].combine_chunks().dictionary_encode()
            numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in named.dictionary.to_pylist()]
            groups = np.array(numbers, np.int64)[named.indices.to_numpy()]
        return groups, self._scores(*(np.asarray(rows[part].to_numpy(), np.float64) for part in (mean, std)))

    def _scores(self, mean: Floats, std: Floats) -> Floats:
        """(n,) standard deviations that a prediction lies beyond the threshold; NaN: unknown."""
        margin = self._side * (mean - self._select.threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(margin == 0, 0.0, margin / std)
        return np.where(np.isfinite(mean) & np.isfinite(std), scores, np.nan)

    @cached_property
    def _ordered(self) -> tuple[Floats, Numbers]:
        """Scores that were learnt, each once, ascending; and a key per row: group, then score."""
        groups, scores = (np.concatenate(parts) for parts in zip(*self._learnt, strict=True))
        different = np.unique(scores)
        return different, np.sort(self._keys(groups, scores, different))

    @staticmethod
    def _keys(groups: Numbers, scores: Floats, different: Floats) -> Numbers:
        return groups * (len(different) + 1) + np.searchsorted(different, scores)

    def _p_values(self, groups: Numbers, scores: Floats) -> Floats:
        """(n,) p-values: the share of rows that look at least as good and miss, or may miss."""
        worse = len(self._null) - np.searchsorted(self._null, scores)
        own = np.ones(len(scores), np.int64)
        if self._kept.by in GROUPS:
            different, keys = self._ordered
            end = np.searchsorted(keys, (groups + 1) * (len(different) + 1))
            own = end - np.searchsorted(keys, self._keys(groups, scores, different))
        return np.where(scores > 0, np.minimum((worse + own) / (self._rows + 1), 1.0), 1.0)

    @cached_property
    def _cut(self) -> float:
        """The largest p-value that is selected, by Benjamini and Hochberg; -1: none is."""
        found = np.sort(np.concatenate([self._p_values(*part) for part in self._learnt]))
        within = found * self._tests <= self._select.fdr * np.arange(1, len(found) + 1) * (1 + 1e-12)
        return float(found[within].max(initial=-1.0))

    def _count(self, chosen: pa.Table) -> None:
        none = np.zeros(len(chosen))
        new, distance, learned = (
            chosen[name].to_numpy() if name in chosen.column_names else none
            for name in ("ood", "ood_distance", "in_training")
        )
        found = {"selected": none == 0, "ood": new, "far": (new > 0) | (distance > 1), "known": learned}
        self._chosen = {name: n + int(found[name].sum()) for name, n in self._chosen.items()}

    def summary(self) -> Selection:
        """The shortlist in numbers, once all ranked rows were marked."""
        passing = sum(int((self._p_values(*part) <= self._cut).sum()) for part in self._learnt)
        return Selection(
            tests=self._tests,
            rows=self._rows,
            missed=len(self._null),
            by=self._kept.by,
            out_of_fold=self._kept.out_of_fold,
            share=self._cut * self._tests / passing if passing else None,
            **self._chosen,
        )


def find(ensembles: Sequence[Ensemble], settings: Rank, target: Target) -> Shortlist | None:
    """The shortlist that a config asks for; None where it asks for none.

    Raises:
        Failure: CONFIG, when the ensemble that ranks keeps no calibration rows of the property.
    """
    if settings.select is None:
        return None
    ensemble = next((each for each in ensembles if each.name == target.model), None)
    if ensemble is None:
        what = f"{target.name} comes from {target.model}, a force field, which keeps no calibration rows"
        raise Failure(Exit.CONFIG, f"rank.select: {what}; rank by a property of an ensemble, or leave select out")
    kept = ensemble.calibration_rows
    if kept is None:
        advice = "measure it again (assay train RECIPE --output FOLDER --resume keeps its weights), or leave select out"
        what = f"ensemble {ensemble.name} was fitted before calibration rows were kept, and cannot promise a share"
        raise Failure(Exit.CONFIG, f"rank.select: {what}; {advice}")
    if target.name not in kept.rows:
        what = f"ensemble {ensemble.name} has calibration rows of {', '.join(kept.rows)}, none of {target.name}"
        raise Failure(Exit.CONFIG, f"rank.select: {what}; rank by one of these, or leave select out")
    return Shortlist(settings, target, kept)


def lines(found: Selection, settings: Rank, target: Target) -> list[str]:
    """The shortlist in sentences."""
    assert settings.select is not None
    share, bound = settings.select.fdr, f"{settings.select.threshold:.4g} {target.unit}".rstrip()
    side = "above" if settings.order == "descending" else "below"
    head = (
        f"{found.selected:,} of {found.tests:,} scored crystals are selected. At most {share:.0%} of such a shortlist "
        f"are expected to be false discoveries: crystals whose {target.name} is not {side} {bound}."
    )
    return [head, _estimate(found, share), _exchangeable(found)]


def _estimate(found: Selection, share: float) -> str:
    of = f"{found.rows:,} calibration rows, of which {found.missed:,} miss the threshold"
    if found.share is None:
        least = 1 / (1 + found.rows)
        needed = math.ceil(least / share * found.tests)
        crystals = "crystal" if needed == 1 else "crystals"
        return (
            f"There are {of}, so no p-value is below {least:.2g}. A shortlist of m crystals needs p-values of at most "
            f"m times {share / max(found.tests, 1):.2g}; here it has {needed:,} {crystals} at least."
        )
    together = {"element-set": "one element set", "formula": "one formula"}.get(found.by)
    return (
        f"By {of}, the expected share is about {found.share:.1%}. It is an average over campaigns, one of which may "
        "hold more" + (f": crystals of {together} err together." if together else ".")
    )


def _exchangeable(found: Selection) -> str:
    said = (
        "The bound holds where the crystals are like the calibration rows (exchangeable with them); new chemistry "
        "voids it."
    )
    if found.selected:
        said += (
            f" Of those selected, {found.far:,} lie far from training, where the bound need not hold: {found.ood:,} "
            "hold an element that no training crystal held, the others have an ood_distance above 1. "
            f"{found.known:,} have a composition that was learned from, and are no discoveries."
        )
    if found.out_of_fold:
        said += (
            " The rows were predicted out of fold, by members that learned from fewer rows than those that scored "
            "here: they are not exactly exchangeable, and should err no less than the crystals."
        )
    return said
