"""How a sequential campaign is judged: hits, enrichment, regret, acceleration, over many seeds.

Enters: the order in which formulas were measured, and which of them are hits. Leaves: numbers per
round, and a comparison of strategies. It does not know surrogates or files.

Enhancement and acceleration of sequential learning: Rohr et al., Chem. Sci. 11, 2696 (2020).
Discovery acceleration factor: Riebesell et al., arXiv 2308.14920.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BAND = 0.8
"""Share of the seeds inside a band."""
LEVEL = 0.95
"""Of the interval of a paired difference."""
DRAWS = 10_000
"""Of its bootstrap."""


@dataclass(frozen=True)
class Run:
    """One strategy with one seed, judged after each round; round 0 is the start."""

    strategy: str
    seed: int
    measured: NDArray[np.int64]
    """(r + 1,) formulas measured since the start."""
    hits: NDArray[np.int64]
    """(r + 1,) hits among them."""
    enrichment: Floats
    """(r + 1,) share of hits among them over the share among all formulas that were hidden at the
    start; NaN in round 0."""
    regret: Floats
    """(r + 1,) best value of the pool less the best value measured, in the unit of the property; at
    the start too."""
    acceleration: float
    """How many times fewer measurements than a blind draw, on average, until a share of the hits
    was found, counted in whole rounds; NaN where it was not."""


def judge(
    strategy: str,
    seed: int,
    order: NDArray[np.int64],
    hit: NDArray[np.bool_],
    value: Floats,
    start: int,
    batch: int,
    reach: float,
) -> Run:
    """Judge a run.

    Args:
        strategy: its name.
        seed: its seed.
        order: (m,) rows of the pool as they were measured.
        hit: (n,) of the pool.
        value: (n,) of the pool, higher is better.
        start: formulas measured before the first batch.
        batch: formulas per round.
        reach: share of the hits at which the acceleration is measured.
    """
    ends = np.arange(start, len(order) + 1, batch)
    measured = ends - start
    found = np.concatenate([[0], np.cumsum(hit[order])])[ends]
    found = found - found[0]
    hidden, rich = len(hit) - start, int(hit.sum() - hit[order[:start]].sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        enrichment = found / measured * (hidden / rich if rich else math.nan)
    regret = value.max() - np.maximum.accumulate(value[order])[ends - 1]
    wanted = math.ceil(reach * rich)
    reached = np.flatnonzero(found >= wanted)
    acceleration = math.nan
    if wanted and len(reached):
        blind = wanted * (hidden + 1) / (rich + 1)  # the mean place of the k-th of `rich` among `hidden`
        acceleration = blind / float(measured[reached[0]])
    return Run(strategy, seed, measured, found, enrichment, regret, acceleration)


def band(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of the finite values, and the ends of the band that holds `BAND` of them."""
    found = np.array([one for one in values if math.isfinite(one)])
    if not len(found):
        return {"mean": None, "low": None, "high": None}
    low, high = np.quantile(found, [(1 - BAND) / 2, (1 + BAND) / 2])
    return {"mean": float(found.mean()), "low": float(low), "high": float(high)}


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs of one strategy: bands per round, and of the acceleration."""
    rounds = range(len(runs[0].measured))
    return {
        "measured": runs[0].measured.tolist(),
        **{
            name: [band([float(getattr(run, name)[k]) for run in runs]) for k in rounds]
            for name in ("hits", "enrichment", "regret")
        },
        "acceleration": band([run.acceleration for run in runs]),
        "reached": sum(math.isfinite(run.acceleration) for run in runs),
        "runs": len(runs),
    }


def compare(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """Hits of the strategy that found most, less those of each other one, on the same seeds.

    `low` and `high` are the ends of a bootstrap interval of the mean difference.
    """
    last = {name: np.array([float(run.hits[-1]) for run in found]) for name, found in runs.items()}
    best = max(last, key=lambda name: float(last[name].mean()))
    drawn = np.random.default_rng(0).integers(0, len(last[best]), (DRAWS, len(last[best])))
    rows = []
    for name, hits in last.items():
        if name != best:
            gap = last[best] - hits
            low, high = np.quantile(gap[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            rows.append({"best": best, "other": name, "mean": float(gap.mean()), "low": low, "high": high})
    return sorted(rows, key=lambda row: row["mean"])
