"""A batch to measure next: the most useful candidates of a finished campaign, not all alike.

Enters: the results of a campaign and a `Wish`. Leaves: a `Batch`, one row per crystal. The same
folder and wish give the same batch. It does not know how a prediction was made.

Crystals are taken in the order of their utility; one that lies too near to a crystal taken before
it is passed over (sphere exclusion: Hudson et al., Quantitative Structure-Activity Relationships
15, 285, 1996). The rule needs no scale on which utility is weighed against distance, and embeds
only the crystals that it comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.ensemble.distribution import acquisition
from assay.models.ensemble.distribution.acquisition import Belief, Empirical, Normal, Question
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign.plan import as_target
from assay.screening.deciding import hypervolume
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Target
from assay.screening.prediction import predict
from assay.screening.ranking import rules, stability
from assay.screening.ranking.compared import draws
from assay.screening.runners.worker import seen_by
from assay.screening.settings import config, nearest as nearest_name
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import ABOVE_HULL, QUANTILES
from assay.sources import table

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[int]], Floats]
"""Rows -> their places in an embedding, (m, width)."""
STORED, TIER = "config.resolved.yaml", "tier"
PORTION = 64
"""Crystals embedded at once."""
FIRST = ["pick", "id", "formula", "utility"]
"""First columns of a batch."""
NEEDS_BEST = ("ei", "pi")
"""Acquisition functions that ask for a value to improve on."""
EHVI = "ehvi"
"""The expected hypervolume improvement, of a campaign that ranks by several objectives."""


@dataclass(frozen=True)
class Wish:
    """What a batch should be."""

    n: int = 20
    """Crystals, at most."""
    by: str = "ei"
    """A key of `acquisition.ACQUISITIONS`, or `EHVI`, which weighs all objectives of a campaign."""
    property: str | None = None
    """Predicted property that is measured; unset: the one that ranks, of several objectives the
    first that is predicted."""
    order: str | None = None
    """Which end of `property` is wanted, `ascending` or `descending`; unset: as in the campaign."""
    best: float | None = None
    """Value that `ei` and `pi` improve on, in the unit of the property; unset: the best predicted
    value among the candidates."""
    kappa: float = 1.0
    """Standard deviations that `ucb` adds."""
    seed: int = 0
    """Of `thompson`."""
    cost: str | None = None
    """Column of candidates.parquet with the cost of a measurement; utility then counts per cost."""
    apart: float | None = None
    """Least distance between two crystals of the batch, in the unit of `ood_distance`; unset:
    they may be alike."""
    known: bool = False
    """Whether compositions that the ensemble learned from count too."""


@dataclass(frozen=True)
class Batch:
    """What to measure next."""

    rows: pa.Table
    """Most useful first: `pick` from 1, `id`, `formula`, `utility`, the cost if asked for, the
    predicted property with its error bar, `rank`, and `nearest`: the distance to the nearest
    crystal above."""
    candidates: int
    """Crystals that were chosen from."""
    left_out: dict[str, int]
    """Reason -> ranked crystals that were not."""
    best: float | None
    """Value to improve on; None where none is asked for."""
    target: Target
    """The property that is measured."""
    order: str
    """Which values of it are wanted: descending, ascending, or inside (a range)."""


def choose(results: Results, wish: Wish) -> Batch:
    """The most useful candidates of a ranked campaign, farther than `wish.apart` from each other.

    Raises:
        Failure: CONFIG, when the campaign is not ranked, or lacks a column or an ensemble that the
            wish needs; when nothing predicts its property, or nobody says which end is wanted; when
            values inside a range are wanted; when no candidate is left.
    """
    target, order = _measured(results, wish)
    sign = -1.0 if order == "ascending" else 1.0
    if order == "inside" and wish.by not in ("std", EHVI):
        reason = f"{target.name} is wanted inside a range, where neither higher nor lower is better"
        raise Failure(Exit.CONFIG, f"--by {wish.by}: {reason}; choose std")
    needed = not wish.known or wish.apart is not None
    ensemble = _ensemble(results, target) if needed else None
    if wish.apart is not None and ensemble is None:
        reason = f"{target.name} comes from {target.model}, a force field, which knows no distance between crystals"
        raise Failure(Exit.CONFIG, f"--diverse: {reason}; leave it out")
    shown = [target] if wish.by != EHVI else [one for one in results.summary.objectives if one.model]
    content, left_out = _eligible(results, wish, target, None if wish.known else ensemble, shown)
    if not content.num_rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "none was ranked"
        raise Failure(Exit.CONFIG, f"{results.folder} leaves no candidate to choose from: {reasons}")
    belief = _belief(content, target, sign)
    best = float(belief.mean.max()) if wish.best is None else sign * wish.best
    utility = _utility(results, content, belief, best, wish)
    ordered = acquisition.order(utility, belief.mean, content["id"].to_pylist())
    rows, nearest = ordered[: wish.n], np.full(min(wish.n, len(ordered)), np.nan)
    if wish.apart is not None and ensemble is not None:
        rows, nearest = spread(ordered, wish.n, wish.apart, _embedder(results, ensemble, content["id"].to_pylist()))
    columns = [name for name in content.column_names if name not in _quantiles(target)]
    chosen = content.select(columns).take(pa.array(rows, pa.int64()))
    chosen = chosen.add_column(2, "utility", pa.array(utility[rows]))
    chosen = chosen.add_column(0, "pick", pa.array(range(1, len(rows) + 1), pa.int64()))
    distances = pa.array([None if np.isnan(one) else float(one) for one in nearest], pa.float64())
    asked = sign * best if wish.by in NEEDS_BEST else None
    return Batch(chosen.append_column("nearest", distances), content.num_rows, left_out, asked, target, order)


def _measured(results: Results, wish: Wish) -> tuple[Target, str]:
    """The property of a wish, and which values of it are wanted."""
    summary = results.summary
    wanted = {one.property: str(one.order) for one in summary.rank.objectives} or {summary.target.name: summary.order}
    known = {one.name: one for one in (*summary.objectives, summary.target) if one.model}
    name = wish.property or summary.target.name
    if name not in known:
        known |= _beside_hull(results)
        predicted = _predicted(results)
        if name in predicted:
            known[name] = as_target(_owner(results, name), name)
        elif name not in known:
            near = nearest_name.hint(name, dict.fromkeys([*known, *predicted]), "it predicts")
            raise Failure(Exit.CONFIG, f"--property: this campaign does not predict {name!r}; {near}")
    order = wish.order or wanted.get(name)
    if order is None:
        raise Failure(Exit.CONFIG, f"--property {name} does not rank, so say which end is wanted: --order")
    return known[name], order


def _beside_hull(results: Results) -> dict[str, Target]:
    """What a section `stability` judges: a formation energy, and the energy above the hull."""
    found = results.summary.stability
    if found is None:
        return {}
    energy = found.settings.compared()
    judged = Target(found.model, energy, stability.UNIT, calibrated=True)  # by a force field
    if energy in _predicted(results):
        judged = as_target(_owner(results, energy), energy)
    return {energy: judged, ABOVE_HULL: stability.as_target(judged)}


def spread(order: Sequence[int], most: int, apart: float, embed: Embed) -> tuple[list[int], Floats]:
    """The first rows in an order that lie farther than `apart` from all taken before them.

    `embed` gives the places (m, width) of m rows. Returned are at most `most` rows, and for each
    the distance to the nearest one before it; the first has none.

    >>> line = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    >>> spread([0, 1, 2, 3, 4], 3, 1.0, lambda rows: line[list(rows)])
    ([0, 2, 4], array([nan,  5.,  4.]))
    """
    taken: list[int] = []
    places: list[Floats] = []
    nearest: list[float] = []
    for start in range(0, len(order), PORTION):
        portion = order[start : start + PORTION]
        for row, place in zip(portion, embed(portion), strict=True):
            gap = min((float(np.linalg.norm(place - other)) for other in places), default=np.inf)
            if gap > apart:
                taken.append(row)
                places.append(place)
                nearest.append(gap if np.isfinite(gap) else np.nan)
            if len(taken) == most:
                return taken, np.array(nearest)
    return taken, np.array(nearest)


def _embedder(results: Results, ensemble: Ensemble, ids: Sequence[str]) -> Embed:
    """Places of rows, as the ensemble saw their crystals in the campaign."""
    standard = config.load(results.folder / STORED).standard()

    def embed(rows: Sequence[int]) -> Floats:
        (seen,) = seen_by([ensemble], results.crystals([ids[row] for row in rows]), standard)
        return ensemble.embed(seen)

    return embed


def _predicted(results: Results) -> list[str]:
    """The properties that ensembles predict."""
    return [item.name for model in results.summary.models for item in model.properties]


def _ensemble(results: Results, target: Target) -> Ensemble | None:
    """The ensemble that predicts what is measured, or what it comes from; None of a force field."""
    found = results.summary.stability
    name = found.settings.compared() if found and target.name == ABOVE_HULL else target.name
    return _owner(results, name) if name in _predicted(results) else None


def _owner(results: Results, name: str) -> Ensemble:
    """The ensemble that predicts a property, with the weights that scored."""
    owner = next(model for model in results.summary.models if name in {item.name for item in model.properties})
    for folder in config.load(results.folder / STORED).models:
        found = predict.load(folder)
        if name in {item.name for item in found.properties}:
            if list(found.sha256) != owner.sha256:
                reason = "has other weights than those that scored this campaign; run it again into a new folder"
                raise Failure(Exit.CONFIG, f"ensemble {folder} {reason}")
            return found
    raise Failure(Exit.CONFIG, f"{results.folder / STORED} names no ensemble {owner.name!r}, which predicts {name}")


def _eligible(
    results: Results, wish: Wish, target: Target, ensemble: Ensemble | None, shown: Sequence[Target]
) -> tuple[pa.Table, dict[str, int]]:
    """The candidates to choose from, and why others are none; `ensemble` tells what is known."""
    content = results.candidates(_columns(results, target, wish.cost, shown))
    keep = np.ones(content.num_rows, bool)
    left_out: dict[str, int] = {}

    def drop(bad: NDArray[np.bool_], reason: str) -> None:
        if count := int((keep & bad).sum()):
            left_out[reason] = count
        keep[bad] = False

    if TIER in content.column_names:
        drop(content[TIER].to_numpy() != results.summary.last_tier, "not scored by the last tier")
    mean, std = (content[f"{target.name}_{part}"].to_numpy().astype(np.float64) for part in ("mean", "std"))
    drop(~(np.isfinite(mean) & np.isfinite(std)), f"without a finite {target.name}")
    if ensemble is not None and ensemble.learned is not None:
        drop(ensemble.learned.holds(content["formula"].to_pylist()), "of a composition that the ensemble learned from")
    if wish.cost is not None:
        cost = content[wish.cost].to_numpy(zero_copy_only=False).astype(np.float64)
        drop(~(np.isfinite(cost) & (cost > 0)), f"without a {wish.cost} above 0")
    return content.filter(pa.array(keep)), left_out


def _columns(results: Results, target: Target, cost: str | None, shown: Sequence[Target]) -> list[str]:
    """The columns of a batch that the candidates have, the cost behind id and formula."""
    schema = table.schema(results.folder / "candidates.parquet")
    if cost is not None:
        if cost not in schema.names:
            near = nearest_name.hint(cost, schema.names, "it has")
            raise Failure(Exit.CONFIG, f"--cost: candidates.parquet has no column {cost!r}; {near}")
        kind = schema.field(cost).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise Failure(Exit.CONFIG, f"--cost: column {cost!r} holds {kind}, expected numbers")
    own = [*(f"{one.name}_{part}" for one in (target, *shown) for part in rules.PARTS), *_quantiles(target)]
    wanted = ["id", "formula", *([cost] if cost else []), *own, "rank", "ood", "ood_distance", TIER]
    return [name for name in dict.fromkeys(wanted) if name in schema.names]


def _quantiles(target: Target) -> list[str]:
    """Columns of the quantiles of what ranks, from the lowest; none without a distribution."""
    return [f"{target.name}_{part}" for part in QUANTILES] if target.distribution else []


def _belief(content: pa.Table, target: Target, sign: float) -> Belief:
    """What is predicted of each candidate; `sign` -1 turns it over where low values are wanted."""
    values = {part: content[f"{target.name}_{part}"].to_numpy() for part in rules.PARTS}
    mean, std = sign * values["mean"], draws.deviation(values, target)
    if not target.distribution:
        return Normal(mean, std)
    quantiles = np.stack([content[name].to_numpy() for name in _quantiles(target)], axis=1)
    shares = np.array(list(QUANTILES.values()))
    if sign < 0:
        quantiles, shares = -quantiles[:, ::-1], 1 - shares[::-1]
    return Empirical(mean, std, quantiles, shares)


def _utility(results: Results, content: pa.Table, belief: Belief, best: float, wish: Wish) -> Floats:
    """(n,) utilities, per cost where one is named."""
    ids = content["id"].to_pylist()
    if wish.by == EHVI:
        found = hypervolume.utilities(results, content["id"])
    else:
        shares = acquisition.drawn(ids, wish.seed) if wish.by == "thompson" else None
        found = acquisition.ACQUISITIONS[wish.by](belief, Question(best, wish.kappa, shares))
    if wish.cost is None:
        return found
    if (found < 0).any():
        reason = f"--by {wish.by} is {found.min():.4g} for {ids[int(found.argmin())]}, and a negative utility"
        raise Failure(Exit.CONFIG, f"--cost: {reason} cannot count per cost; choose ei, pi or std")
    return np.asarray(found / content[wish.cost].to_numpy().astype(np.float64), np.float64)
