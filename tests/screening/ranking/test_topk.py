"""How sure an order is: as in independent draws, whatever the order of the rows, and what is left out by proof."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from assay.models.ensemble.distribution import draws as distributions
from assay.screening.folder.summary import Target
from assay.screening.ranking.compared import draws, kernels, swaps, topk
from assay.screening.ranking.compared.draws import Law
from assay.screening.ranking.compared.topk import DRAWS, TopK
from assay.screening.settings.names import QUANTILES

NORMAL = Target("m", "tc", "K", calibrated=True)
QUANTILED = Target("m", "tc", "K", calibrated=True, distribution=True)
SHARES = np.array([*QUANTILES.values()])
INDEPENDENT = 100_000


def names(n: int) -> pa.Array:
    return pa.array([f"prototypes/{k:06d}" for k in range(n)])


def chances(
    law: Law, k: int, columns: dict[str, NDArray[np.float64]], ids: pa.Array | None = None
) -> NDArray[np.float64]:
    found = TopK(law, k)
    found.learn(names(len(next(iter(columns.values())))) if ids is None else ids, columns)
    return found.chances()


def normal(n: int, seed: int = 1) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    mean = rng.normal(20, 5, n)
    return {"mean": mean, "std": rng.uniform(0.5, 5, n), "hi": mean}


def quantiled(n: int) -> dict[str, NDArray[np.float64]]:
    """Skewed laws of several widths."""
    rng = np.random.default_rng(2)
    found = np.sort(rng.gamma(1.5, rng.uniform(2, 9, (n, 1)), (n, len(SHARES))), axis=1)
    return dict(zip(QUANTILES, found.T, strict=True))


@pytest.mark.parametrize("lowest_first", [False, True])
@pytest.mark.parametrize("kind", ["normal", "quantiles"])
def test_it_agrees_with_independent_draws_within_their_error(kind: str, lowest_first: bool) -> None:
    n, k, rng = 60, 7, np.random.default_rng(3)
    columns = normal(n) if kind == "normal" else quantiled(n)
    found = chances(Law(NORMAL if kind == "normal" else QUANTILED, lowest_first), k, columns)
    if kind == "normal":
        drawn = columns["mean"] + columns["std"] * rng.standard_normal((INDEPENDENT, n))
    else:
        u = rng.random((INDEPENDENT, n))
        drawn = np.stack([np.interp(u[:, i], SHARES, [columns[q][i] for q in QUANTILES]) for i in range(n)], axis=1)
    drawn = drawn + 1e-9 * rng.standard_normal(drawn.shape)  # equal outermost quantiles
    best = np.argpartition(drawn if lowest_first else -drawn, k, axis=1)[:, :k]
    share = np.bincount(best.ravel(), minlength=n) / INDEPENDENT
    error = np.sqrt(share * (1 - share) * (1 / DRAWS + 1 / INDEPENDENT)) + 1e-4
    assert found.sum() == pytest.approx(k)
    assert np.abs((found - share) / error).max() < 4
    assert np.sqrt((((found - share) / error) ** 2).mean()) < 1.1
    assert ((share > 0.02) & (share < 0.98)).sum() > 15


def test_the_draws_are_the_strata_of_the_law_and_pairs_of_crystals_are_independent() -> None:
    law = Law(QUANTILED, lowest_first=False)
    strata, columns = law.strata(topk.BITS), quantiled(4)
    keys = draws.keys(names(4), "tc")
    drawn = np.stack([strata.drawn(law.numbers(columns), keys, draw) for draw in range(DRAWS)])
    for row in range(4):
        quantiles = np.array([[columns[q][row] for q in QUANTILES]])
        for threshold in np.quantile(drawn[:, row], [0.1, 0.5, 0.9]):
            above = distributions.above(quantiles, SHARES, float(threshold))[0]
            assert (drawn[:, row] > threshold).mean() == pytest.approx(above, abs=2 / DRAWS)
    places = np.argsort(np.argsort(drawn, axis=0), axis=0) * 16 // DRAWS
    for a, b in ((0, 1), (1, 2), (0, 3)):
        counts = np.bincount(places[:, a] * 16 + places[:, b], minlength=256)
        assert ((counts - DRAWS / 256) ** 2).sum() / (DRAWS / 256) < 330  # chi square of 225 cells, p > 1e-5


def test_neither_order_nor_portions_nor_other_rows_change_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    n, k = 3_000, 20
    columns, ids, law = normal(n), names(n), Law(NORMAL, lowest_first=False)
    whole = chances(law, k, columns)
    order = np.random.default_rng(4).permutation(n)
    monkeypatch.setattr(topk, "HELD", 100)  # rows are left out on the way
    monkeypatch.setattr(topk, "ROOM", 10_000)  # and the draws are taken in blocks
    found = TopK(law, k)
    for part in np.array_split(order, 37):
        found.learn(ids.take(pa.array(part)), {name: column[part] for name, column in columns.items()})
    assert np.array_equal(found.chances(), whole[order])
    assert 100 < (whole > 0).sum() < n
    last = int(np.argmin(columns["mean"] + 4 * columns["std"]))
    kept = np.arange(n) != last
    fewer = chances(law, k, {name: column[kept] for name, column in columns.items()}, ids.filter(pa.array(kept)))
    assert np.array_equal(fewer, whole[kept])


def test_equal_certain_rows_share_the_places_and_unknown_errors_take_no_part() -> None:
    law = Law(NORMAL, lowest_first=False)
    mean, zero = np.array([3.0, 2.0, 2.0, 1.0, 9.0]), np.zeros(5)
    std = np.array([0.0, 0.0, 0.0, 0.0, np.inf])
    found = chances(law, 2, {"mean": mean, "std": std, "hi": zero})
    assert found[0] == 1
    assert found[1:3] == pytest.approx([0.5, 0.5], abs=0.03)
    assert found[1] + found[2] == 1
    assert found[3] == 0
    assert np.isnan(found[4])
    assert chances(law, 4, {"mean": mean, "std": std, "hi": zero})[:4].tolist() == [1, 1, 1, 1]
    assert chances(law, 3, {"mean": np.empty(0), "std": np.empty(0), "hi": np.empty(0)}).tolist() == []


def test_the_pairs_that_change_places_are_those_of_a_count_of_all() -> None:
    n, k = 30, 5
    columns, law = normal(n, seed=5), Law(NORMAL, lowest_first=False)
    found = TopK(law, k)
    found.learn(names(n), columns)
    chance = found.chances()
    order = np.argsort(-columns["mean"])
    ranked = pa.table({
        "rank": np.arange(1, n + 1), "id": names(n).take(pa.array(order)), "formula": ["X"] * n,
        "p_top_k": chance[order],
    })  # fmt: skip
    for start in range(0, n, 7):
        found.see(ranked.slice(start, 7))
    said = found.certainty()
    strata, keys = law.strata(topk.BITS), draws.keys(names(n), "tc")
    drawn, numbers = np.full((DRAWS, n), np.nan), law.numbers(columns)
    for row, stratum in np.ndindex(n, DRAWS):
        draw = kernels.shuffled(np.uint64(stratum), keys[row], np.uint64(topk.BITS))
        drawn[draw, row] = kernels.value(numbers, row, stratum, *strata.arguments)
    assert np.isfinite(drawn).all()
    inside = np.zeros((DRAWS, n), bool)
    np.put_along_axis(inside, np.argsort(-drawn, axis=1)[:, :k], values=True, axis=1)
    shares = {(a, b): (~inside[:, a] & inside[:, b]).mean() for a in order[:k] for b in order[k:]}
    (a, b), most = max(shares.items(), key=lambda pair: pair[1])
    assert said.swaps[0].share == most
    assert (said.swaps[0].above, said.swaps[0].below) == (f"prototypes/{a:06d}", f"prototypes/{b:06d}")
    assert [swap.share for swap in said.swaps] == sorted(shares.values(), reverse=True)[: len(said.swaps)]
    assert said.stay == pytest.approx(inside[:, order[:k]].sum() / DRAWS)
    assert (said.k, len(said.swaps)) == (k, swaps.SHOWN)
