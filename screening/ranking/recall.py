"""The recall of a cascade: the share of the true top k that its last tier scored.

Enters: scores as arrays, higher is better; among them the full scores of the audit, a random sample
of the crystals that were set aside. Leaves: a `Recall` with two estimates.

- `counted` uses only the number of audited crystals that beat the found ones. It holds whatever the
  cheap tier does, and has a bound. It is coarse, because each audited crystal stands for many.
- `expected` also uses the errors of the cheap scores. It is finer, and assumes that a crystal set
  aside errs like the audited crystals of similar cheap score.

It knows no campaign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.screening.folder.summary import Recall

CONFIDENCE = 0.95
"""Confidence of the bounds, one-sided."""
NEIGHBOURS = 50
"""Audited crystals, nearest in cheap score, that lend their errors to a crystal set aside."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The scores that a cascade knows; higher is better.

    A full score that is not finite beats nothing. Of two crystals with the same score the one set
    aside counts as better, because the rule that breaks ties is not known here.
    """

    found: Scores
    """(s,) full scores of the survivors."""
    cheap: Scores
    """(n,) cheap scores of the audited crystals, drawn at random from all that were set aside."""
    full: Scores
    """(n,) their full scores."""
    aside: Scores
    """(u,) cheap scores of the crystals set aside and not audited; finite."""


def estimate(sample: Sample, k: int) -> Recall | None:
    """The recall of the best `k`; None when crystals were set aside and none of them audited."""
    n, u = len(sample.full), len(sample.aside)
    if u and not n:
        return None
    survivors, full = _ordered(sample.found), _ordered(sample.full)
    marks = np.concatenate([survivors[:k], np.full(max(0, k - len(survivors)), -np.inf)])
    reaching, better = (len(full) - np.searchsorted(full[::-1], marks, side) for side in ("left", "right"))
    everything = np.sort(np.concatenate([survivors, full]))[::-1]
    errors = Errors(sample)
    at_mark = errors.by_audited(float(marks[-1]))
    found = better + np.minimum(np.arange(1, k + 1), len(survivors))
    wanted = max(1, min(k, int(found[-1]) + u))
    return Recall(
        k=k,
        survivors=len(sample.found),
        audited=n,
        aside=n + u,
        beating=int(reaching[-1]),
        counted=share(everything, lambda t: u * (full >= t).sum() / max(n, 1), k),
        at_least=least(found, reaching, n, u),
        at_best=max(0, wanted - most_hidden(0, n, n + u)) / wanted,
        missed=float(at_mark.sum()),
        expected=share(everything, lambda t: errors.by_audited(t).sum(), k),
        rests_on=float(at_mark.sum() ** 2 / (at_mark**2).sum()) if at_mark.any() else 0.0,
    )


def share(scored: Scores, missed: Callable[[float], float], k: int) -> float:
    """The part of the true top k that is among the scored crystals.

    `scored` (s,) descends; `missed(t)` is the estimated number of others that beat t. Going down
    from the best, the top k is full when the found and the missed so far are k together.

    >>> share(np.array([9.0, 8.0, 7.0, 6.0]), lambda t: 2.0 if t < 8.5 else 0.0, k=4)
    0.5
    """
    reach = min(k, len(scored))
    low, high = 0, reach  # the top k is full at the first place where place + 1 + missed >= k
    while low < high:
        middle = (low + high) // 2
        if middle + 1 + missed(float(scored[middle])) >= k:
            high = middle
        else:
            low = middle + 1
    found = min(low + 1, reach)
    rankable = len(scored) + missed(-np.inf)
    return found / max(1.0, min(float(k), rankable))


def least(found: NDArray[np.int64], audited: NDArray[np.int64], n: int, u: int) -> float:
    """Lower bound of the recall of the top k, at `CONFIDENCE`.

    `found` and `audited` (k,) count the crystals in all, and the audited ones, that reach the
    survivor at rank 1, 2, ... k; n crystals were audited and u were not. At each of these marks, f
    crystals are found, and at most x are missed with that confidence: then the top k holds at least
    min(f, k - x) of the found. The best of these k bounds holds with the same confidence as one of
    them. A bound fails only where the first survivor outside the top k is beaten by more than its
    x, and the draw of the audit does not decide which survivor that is.
    """
    k = min(len(found), int(found[-1]) + u)
    hidden = {seen: most_hidden(seen, n, n + u) - seen for seen in set(audited.tolist())}
    sure = [min(f, k - hidden[seen]) for f, seen in zip(found.tolist(), audited.tolist(), strict=True)]
    return float(max(0, *sure) / max(k, 1))


def most_hidden(seen: int, n: int, size: int, confidence: float = CONFIDENCE) -> int:
    """Upper bound of the crystals of a kind among `size`, when `seen` of `n` drawn ones are.

    They are drawn without replacement. This is the exact bound of Clopper and Pearson for a finite
    population: the largest number that still leaves a chance of 1 - `confidence` to see so few.
    With none seen it is about 3 size / n (the rule of three).

    >>> most_hidden(0, 500, 95_000), most_hidden(2, 500, 95_000), most_hidden(3, 10, 10)
    (565, 1188, 3)
    """
    low, high = seen, size - n + seen  # what was not drawn may all be of that kind
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(seen, n, middle, size) > 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(seen: int, n: int, kind: int, size: int) -> float:
    """Chance to draw at most `seen` of `kind` crystals with `n` of `size`: hypergeometric."""
    every = _log_ways(size, n)
    drawn = range(max(0, n - size + kind), min(seen, kind) + 1)
    terms = [_log_ways(kind, j) + _log_ways(size - kind, n - j) - every for j in drawn]
    return math.fsum(math.exp(term) for term in terms)


def _log_ways(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass
class Errors:
    """Errors of the cheap scores: full less cheap score of the audited crystals.

    Each crystal set aside borrows the errors of the audited crystals nearest to it in cheap score.
    """

    sample: Sample
    _cheap: Scores = field(init=False)
    _error: Scores = field(init=False)
    _aside: Scores = field(init=False)
    _start: NDArray[np.int64] = field(init=False)
    """(n - width + 2,) positions in `_aside`: from here this audited crystal and the next ones are
    the nearest."""

    def __post_init__(self) -> None:
        order = np.argsort(self.sample.cheap, kind="stable")
        full = np.where(np.isfinite(self.sample.full), self.sample.full, -np.inf)
        self._cheap, self._error = self.sample.cheap[order], (full - self.sample.cheap)[order]
        self._aside = np.sort(self.sample.aside)
        width = self.width
        borders = (self._cheap[:-width] + self._cheap[width:]) / 2  # beyond it the next is nearer than the first
        self._start = np.searchsorted(np.searchsorted(borders, self._aside), np.arange(len(borders) + 2))

    @property
    def width(self) -> int:
        """Number of audited crystals that lend their errors to each crystal set aside."""
        return min(NEIGHBOURS, len(self._cheap))

    def by_audited(self, mark: float) -> Scores:
        """(n,) expected number of crystals set aside that beat a mark, by the audited crystal.

        Each audited crystal is charged with those that beat the mark by its error.
        """
        lent = np.zeros(len(self._cheap))
        for first, (begin, end) in enumerate(zip(self._start, self._start[1:], strict=False)):
            if begin < end:
                near = slice(first, first + self.width)
                with np.errstate(invalid="ignore"):  # -inf less -inf is NaN, which beats nothing
                    needed = mark - self._error[near]
                lent[near] += (end - begin) - np.searchsorted(self._aside[begin:end], needed)
        return lent / max(self.width, 1)


def _ordered(scores: Scores) -> Scores:
    """The finite ones, best first."""
    return np.sort(scores[np.isfinite(scores)])[::-1]
