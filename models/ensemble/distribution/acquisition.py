"""Acquisition functions: how much the next measurement of a crystal promises.

Enters: beliefs about `n` crystals, where a higher value is better, and the best value so far.
Leaves: utilities (n,), higher is better. This module does not know campaigns, costs or batches.

Expected improvement: Jones, Schonlau, Welch, Journal of Global Optimization 13, 455 (1998).
Probability of improvement: Kushner, Journal of Basic Engineering 86, 97 (1964). Upper confidence
bound: Srinivas et al., ICML 2010. Thompson sampling: Thompson, Biometrika 25, 285 (1933).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from assay.models.ensemble.distribution import draws
from assay.models.ensemble.distribution.draws import Floats


class Belief(Protocol):
    """What is believed of the property of `n` crystals."""

    @property
    def mean(self) -> Floats:
        """(n,) predicted values."""

    @property
    def std(self) -> Floats:
        """(n,) standard deviations of their errors."""

    def gain(self, best: float) -> Floats:
        """(n,) expected value of max(y - best, 0), in the unit of the property."""

    def above(self, best: float) -> Floats:
        """(n,) probability that y exceeds `best`."""

    def at(self, share: Floats) -> Floats:
        """(n,) values with the share (n,) of the distribution below."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution around the predicted value; with a deviation of 0 it is certain."""

    mean: Floats
    """(n,)"""
    std: Floats
    """(n,) 0 or more."""

    def gain(self, best: float) -> Floats:
        """With z = (mean - best) / std: std * (density(z) + z * distribution(z))."""
        z = torch.from_numpy(self._ratio(best))
        finite = torch.where(torch.isfinite(z), z, 0.0)
        density = torch.exp(-0.5 * finite**2) / math.sqrt(2 * math.pi)
        scaled = (density + finite * torch.special.ndtr(finite)).clamp(min=0.0).numpy()
        return np.asarray(np.where(self.std > 0, self.std * scaled, np.maximum(self.mean - best, 0.0)), np.float64)

    def above(self, best: float) -> Floats:
        """A certain value exactly at `best` has one half."""
        return np.asarray(torch.special.ndtr(torch.from_numpy(self._ratio(best))).numpy(), np.float64)

    def at(self, share: Floats) -> Floats:
        """Quantiles."""
        return np.asarray(self.mean + self.std * torch.special.ndtri(torch.from_numpy(share)).numpy(), np.float64)

    def _ratio(self, best: float) -> Floats:
        margin = self.mean - best
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(margin == 0, 0.0, margin / self.std), np.float64)


@dataclass(frozen=True)
class Empirical:
    """A distribution given by quantiles, uniform between two of them.

    What lies below the first and above the last quantile lies at that quantile. The draws of a
    forest are quantiles at `draws.levels`.
    """

    mean: Floats
    """(n,) predicted values, which need not be means of the distribution."""
    std: Floats
    """(n,)"""
    values: Floats
    """(n, m) quantiles, ascending in each row."""
    shares: Floats
    """(m,) share of the distribution below each quantile, ascending."""

    def gain(self, best: float) -> Floats:
        """Exact under this distribution."""
        low, high = self.values[:, :-1], self.values[:, 1:]
        part = np.maximum(high - best, 0.0) - np.maximum(low - best, 0.0)  # of the step above `best`
        wide = np.where(high > low, high - low, 1.0)
        middle = 0.5 * (np.maximum(high - best, 0.0) + np.maximum(low - best, 0.0))
        steps = np.where(high > low, middle * part / wide, np.maximum(low - best, 0.0))
        ends = self.shares[0] * np.maximum(self.values[:, 0] - best, 0.0)
        ends = ends + (1 - self.shares[-1]) * np.maximum(self.values[:, -1] - best, 0.0)
        return np.asarray((steps * np.diff(self.shares)).sum(axis=1) + ends, np.float64)

    def above(self, best: float) -> Floats:
        """As a ranking by probability counts it (`draws.above`)."""
        return draws.above(self.values, self.shares, best)

    def at(self, share: Floats) -> Floats:
        """Quantiles, linear between two of them."""
        rows = zip(share, self.values, strict=True)
        return np.array([np.interp(one, self.shares, row) for one, row in rows], np.float64)


@dataclass(frozen=True)
class Question:
    """What an acquisition function is asked with, beside a belief."""

    best: float = math.nan
    """Value to improve on, in the unit of the property; of `ei` and `pi`."""
    kappa: float = 1.0
    """Standard deviations that `ucb` adds to the predicted value."""
    shares: Floats | None = None
    """(n,) places of the draws in the distributions, between 0 and 1; of `thompson`."""


def _thompson(belief: Belief, asked: Question) -> Floats:
    if asked.shares is None:
        raise ValueError("thompson needs `shares`, one number between 0 and 1 per crystal")
    return belief.at(asked.shares)


ACQUISITIONS: Mapping[str, Callable[[Belief, Question], Floats]] = {
    "mean": lambda belief, _: belief.mean,
    "std": lambda belief, _: belief.std,
    "ucb": lambda belief, asked: np.asarray(belief.mean + asked.kappa * belief.std, np.float64),
    "ei": lambda belief, asked: belief.gain(asked.best),
    "pi": lambda belief, asked: belief.above(asked.best),
    "thompson": _thompson,
}
"""Name -> utility: predicted value, its deviation, upper confidence bound, expected improvement,
probability of improvement, a draw."""


def drawn(names: Iterable[str], *seed: object) -> Floats:
    """(n,) numbers between 0 and 1, each from its name and the seed alone.

    >>> drawn(["MgB2", "Nb3Sn"], 0).tolist() == drawn(["Nb3Sn", "MgB2"], 0).tolist()[::-1]
    True
    """
    head = " ".join(map(str, seed))
    found = [hashlib.sha256(f"{head} {name}".encode()).digest()[:8] for name in names]
    whole = np.frombuffer(b"".join(found), ">u8").astype(np.uint64) >> np.uint64(11)
    return np.asarray((whole.astype(np.float64) + 0.5) / 2**53, np.float64)


def order(utility: Floats, mean: Floats, names: Sequence[str]) -> list[int]:
    """Rows, the highest utility first; equal ones by the higher predicted value, then by name.

    >>> order(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 0.0]), ["a", "b", "c"])
    [2, 1, 0]
    """
    return sorted(range(len(names)), key=lambda row: (-utility[row], -mean[row], names[row]))
