"""How many of the best crystals a cascade missed, from crystals that were scored in full though they were set aside.

Enters: scores as arrays, higher is better. Leaves: `Recall`, the share of the true top k that the
last tier scored, in two ways. `counted` looks only at how many audited crystals beat the found
ones: right whatever the cheap tier does, with a bound, and coarse, because each audited crystal
stands for many. `expected` also uses how far cheap and full scores lie apart: finer, and no better
than its assumption, that a crystal set aside errs like the audited ones of similar cheap score. It
knows no campaign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.screening.folder.summary import Recall

CONFIDENCE = 0.95
"""Of the bounds, one-sided."""
NEIGHBOURS = 50
"""Audited crystals, nearest in cheap score, whose errors a crystal set aside is given."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """What is known after a cascade; all scores higher is better. A full score that is not finite beats nothing.

    Who has the same score as another one counts as missed and not as found: what breaks ties is not
    known here.
    """

    found: Scores
    """(s,) full scores of the survivors."""
    cheap: Scores
    """(n,) cheap scores of the audited crystals, drawn at random from all that were set aside."""
    full: Scores
    """(n,) their full scores."""
    aside: Scores
    """(u,) cheap scores of those that were set aside and not audited; finite."""


def estimate(sample: Sample, k: int) -> Recall | None:
    """The recall of the best `k`; None when something was set aside and nothing of it was audited."""
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
        k, len(sample.found), n, n + u, int(reaching[-1]),
        counted=share(everything, lambda t: u * (full >= t).sum() / max(n, 1), k),
        at_least=least(found, reaching, n, u), at_best=max(0, wanted - most_hidden(0, n, n + u)) / wanted,
        missed=float(at_mark.sum()),
        expected=share(everything, lambda t: errors.by_audited(t).sum(), k),
        rests_on=float(at_mark.sum() ** 2 / (at_mark**2).sum()) if at_mark.any() else 0.0,
    )  # fmt: skip


def share(scored: Scores, missed: Callable[[float], float], k: int) -> float:
    """The part of the true top k that is among the scored ones.

    `scored` (s,) descends; `missed(t)` is how many others are thought to beat t. Going down from
    the best, the top k is full when those found and those missed so far are k.

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

    `found` and `audited` (k,) are how many crystals in all, and how many audited ones, reach the
    survivor at rank 1, 2, ... k; n crystals were audited and u were not. At each of these marks, f
    crystals are found, and at most x are missed with that confidence: then the top k holds at least
    min(f, k - x) of the found. The best of these k bounds holds with the same confidence as one:
    one of them fails only where the first survivor outside the top k is beaten by more than its x,
    and chance, which draws the audit, does not decide which survivor that is.
    """
    k = min(len(found), int(found[-1]) + u)
    hidden = {seen: most_hidden(seen, n, n + u) - seen for seen in set(audited.tolist())}
    sure = [min(f, k - hidden[seen]) for f, seen in zip(found.tolist(), audited.tolist(), strict=True)]
    return float(max(0, *sure) / max(k, 1))


def most_hidden(seen: int, n: int, size: int, confidence: float = CONFIDENCE) -> int:
    """Upper bound of how many of `size` crystals are of a kind, when `seen` of `n` drawn without replacement are.

    The exact bound of Clopper and Pearson for a finite population: the largest number that still
    leaves a chance of 1 - `confidence` to see so few. With none seen it is about 3 size / n (the
    rule of three).

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
    """Chance of at most `seen` of a kind among `n` of `size`, of which `kind` are: hypergeometric."""
    every = _log_ways(size, n)
    terms = [_log_ways(kind, j) + _log_ways(size - kind, n - j) - every
             for j in range(max(0, n - size + kind), min(seen, kind) + 1)]  # fmt: skip
    return math.fsum(math.exp(term) for term in terms)


def _log_ways(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass
class Errors:
    """Full less cheap score of the audited crystals, lent to those of similar cheap score that were set aside."""

    sample: Sample
    _cheap: Scores = field(init=False)
    _error: Scores = field(init=False)
    _aside: Scores = field(init=False)
    _start: NDArray[np.int64] = field(init=False)
    """(n - width + 2,) where in `_aside` those begin to whom this audited crystal and the next ones
    are nearest."""

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
        """How many audited crystals lend their errors to each crystal set aside."""
        return min(NEIGHBOURS, len(self._cheap))

    def by_audited(self, mark: float) -> Scores:
        """(n,) expected number of crystals set aside that beat a mark, by the audited crystal whose error lets them."""
        lent = np.zeros(len(self._cheap))
        for first, (begin, end) in enumerate(zip(self._start, self._start[1:], strict=False)):
            if begin < end:
                near = slice(first, first + self.width)
                with np.errstate(invalid="ignore"):  # -inf less -inf: nobody can tell, and it beats nothing
                    needed = mark - self._error[near]
                lent[near] += (end - begin) - np.searchsorted(self._aside[begin:end], needed)
        return lent / max(self.width, 1)


def _ordered(scores: Scores) -> Scores:
    """The finite ones, best first."""
    return np.sort(scores[np.isfinite(scores)])[::-1]
