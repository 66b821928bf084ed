"""Expected hypervolume improvement: boxes and draws against moocore and blind sums."""

from __future__ import annotations

import moocore
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from assay.screening.deciding import hypervolume
from assay.screening.ranking.compared import fronts, pfront
from tests.screening.ranking.test_several import THREE, rows, rule

Floats = NDArray[np.float64]


def gained(point: Floats, front: Floats) -> float:
    """By the definition: the hypervolume with a point less that without it, above 0."""
    without, together = (
        moocore.hypervolume(np.maximum(points, 0.0), ref=np.zeros(len(point)), maximise=True)
        for points in (front, np.vstack([front, point]))
    )
    return float(together - without)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_boxes_give_the_volume_that_a_point_adds(m: int) -> None:
    rng = np.random.default_rng(m)
    cloud = rng.normal(size=(40, m))
    cloud = np.round(np.abs(cloud) / np.linalg.norm(cloud, axis=1, keepdims=True), 1)  # many equal coordinates
    front = cloud[fronts.first(cloud)]
    assert len(front) > 3
    lower, upper = hypervolume.free(front)
    for point in rng.normal(0.6, 0.4, (200, m)):
        volume = np.prod(np.maximum(np.minimum(point, upper) - lower, 0.0), axis=1).sum()
        assert volume == pytest.approx(gained(point, front), abs=1e-12)


def test_it_agrees_with_independent_draws() -> None:
    asked, content, rng = rule(THREE, by="pareto", top=5), rows(25, seed=4), np.random.default_rng(6)
    found = hypervolume.expected(asked.goals, content)
    value = {name: content[name].to_numpy() for name in content.column_names[1:]}
    now = np.stack([value["tc_mean"], -value["formation_energy_mean"], value["p_stable"]], axis=1)
    low, span = now.min(axis=0), np.ptp(now, axis=0)
    front = now[fronts.first(now)]
    draws = 1_500
    gains = np.zeros((draws, len(content)))
    for draw in range(draws):
        tc, energy = (
            value[f"{name}_mean"] + value[f"{name}_std"] * rng.standard_normal(len(content))
            for name in ("tc", "formation_energy")
        )
        points = np.stack([tc, -energy, value["p_stable"]], axis=1)
        scaled = [(some - low) / span + fronts.BEYOND for some in (points, front)]
        gains[draw] = [gained(point, scaled[1]) for point in scaled[0]]
    error = gains.std(axis=0) * np.sqrt(1 / draws + 1 / pfront.DRAWS) + 1e-6
    assert np.abs((found - gains.mean(axis=0)) / error).max() < 4.5
    assert (found > 1e-4).sum() > 5
    assert (found == 0).sum() > 0
    order = pa.array(rng.permutation(len(content)))
    assert hypervolume.expected(asked.goals, content.take(order)).tolist() == found[order.to_numpy()].tolist()
