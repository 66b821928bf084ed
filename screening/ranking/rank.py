"""Parts -> candidates: scores and a total order.

Enters: the scored rows of a campaign and the `rank` section. Leaves: ranked rows with `rank` and
`score`, and the unrankable ones, set aside before any ranking (sorts disagree about where NaN
goes). It does not know chunks or models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.folder.summary import Target
from assay.screening.settings.config import Rank


@dataclass(frozen=True)
class Ranked:
    """The outcome of ranking."""

    candidates: pa.Table
    """Best first: `rank` from 1, the columns of the parts, `score`."""
    unrankable: pa.Table
    """Rows whose prediction is not finite, by id."""


def rank(scored: pa.Table, rule: Rank, target: Target, units: Mapping[str, str]) -> Ranked:
    """Order the scored rows by a predicted property; `units` is property -> unit, kept in the field metadata."""
    ids, std, scores = measure(scored, rule, target)
    rows = np.flatnonzero(np.isfinite(scores))
    best = rows[order(scores[rows], std[rows], ids[rows], not wants_low(rule))]
    left = np.flatnonzero(~np.isfinite(scores))
    left = left[np.argsort(ids[left], kind="stable")]
    table = _with_units(scored, units)
    candidates = table.take(best).append_column("score", pa.array(scores[best]))
    numbers = pa.array(np.arange(1, len(best) + 1, dtype=np.int64))
    return Ranked(candidates.add_column(0, "rank", numbers), table.take(left))


def measure(
    scored: pa.Table, rule: Rank, target: Target
) -> tuple[NDArray[np.str_], NDArray[np.float64], NDArray[np.float64]]:
    """Ids, std and score of scored rows, each (n,); the score is NaN where any number it may rest on is not finite."""
    values = {part: _floats(scored, f"{target.name}_{part}") for part in ("mean", "std", "lo", "hi")}
    scores = score(values, rule, target.level, calibrated=target.calibrated)
    finite = np.isfinite(scores) & np.isfinite(values["mean"]) & np.isfinite(values["std"])
    ids = np.array(scored["id"].to_pylist(), dtype=np.str_)
    return ids, values["std"], np.where(finite, scores, np.nan)


def score(
    values: Mapping[str, NDArray[np.float64]], rule: Rank, level: float = 0.9, *, calibrated: bool = False
) -> NDArray[np.float64]:
    """(n,) what the rows are ordered by: mean, an end of the interval, or a probability.

    The probability takes the error as normal, with the standard deviation `std` where that is
    calibrated, else the one that the upper half of the interval implies (the lower half may be cut
    at the smallest possible value).

    >>> interval = {"mean": np.array([40.0]), "lo": np.array([30.0]), "hi": np.array([50.0])}
    >>> score(interval, Rank(by="probability", threshold=40.0))
    array([0.5])
    >>> score(interval, Rank(by="lower"))
    array([30.])
    """
    if rule.by != "probability":
        return values[{"mean": "mean", "lower": "lo", "upper": "hi"}[rule.by]]
    implied = (values["hi"] - values["mean"]) / statistics.NormalDist().inv_cdf((1 + level) / 2)
    sigma = values["std"] if calibrated else implied
    margin = values["mean"] - (math.nan if rule.threshold is None else rule.threshold)
    margin = -margin if rule.order == "ascending" else margin
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(margin == 0, 0.0, margin / sigma)  # a certain prediction (sigma 0) is above, below or at it
    ratio[~np.isfinite(sigma)] = np.nan
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in ratio])


def order(scores: NDArray[Any], std: NDArray[Any], ids: NDArray[Any], descending: bool = True) -> NDArray[Any]:
    """Positions of the rows, best first: score, then the smaller std, then id.

    >>> order(np.array([1.0, 2.0, 2.0]), np.array([0.1, 0.3, 0.2]), np.array(["a", "b", "c"])).tolist()
    [2, 1, 0]
    """
    frame = pl.DataFrame({"score": scores, "std": std, "id": ids.astype(object)}, schema_overrides={"id": pl.String})
    arranged = frame.with_row_index("row").sort(["score", "std", "id"], descending=[descending, False, False])
    return arranged["row"].to_numpy().astype(np.int64)


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def wants_low(rule: Rank) -> bool:
    """Whether the lowest score is the best."""
    return rule.order == "ascending" and rule.by != "probability"  # a probability is better when it is higher


def _with_units(table: pa.Table, units: Mapping[str, str]) -> pa.Table:
    fields = []
    for field in table.schema:
        owner = next((name for name in units if field.name.startswith(f"{name}_")), None)
        fields.append(field.with_metadata({"unit": units[owner]}) if owner else field)
    return table.cast(pa.schema(fields))
