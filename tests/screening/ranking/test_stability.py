"""Columns beside a hull: shifted energies, an error that stays, a probability that follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from assay.models.stability.hull import Hull, Phases
from assay.screening.folder.summary import Target
from assay.screening.ranking import stability
from assay.screening.ranking.stability import Judge
from assay.screening.settings.names import QUANTILES

ENERGY = Target("m", "formation_energy", "eV/atom", 0.9, calibrated=True)


def amounts(*rows: dict[int, float]) -> Any:
    made = np.zeros((len(rows), 119))
    for row, held in enumerate(rows):
        made[row, [*held]] = [*held.values()]
    return made


HULL = Hull(Phases.of(["mp-763"], amounts({12: 1, 5: 2}), np.array([-0.15])))
WANTED = amounts({12: 2, 5: 4}, {12: 1, 5: 1}, {12: 1, 84: 1})
ROWS = {"mean": [-0.13, -0.2, -0.1], "std": [0.04, 0.02, 0.03], "lo": [-0.2, -0.25, -0.2], "hi": [-0.05, -0.1, 0.0]}


def rows(energy: Target = ENERGY) -> pa.Table:
    columns = {f"{energy.name}_{part}": np.array(values) for part, values in ROWS.items()}
    if energy.distribution:
        columns |= {
            f"{energy.name}_{part}": np.array(ROWS["mean"]) + 0.04 * stats.norm.ppf(share)
            for part, share in QUANTILES.items()
        }
    return pa.table({"id": ["a", "b", "c"], **columns})


def test_energies_are_those_above_the_hull_and_the_error_is_that_of_the_prediction() -> None:
    found = Judge(HULL, ENERGY, 0.05).judged(rows(), WANTED)
    hull = np.array([-0.15, -0.1125, np.nan])
    for part in ("mean", "lo", "hi"):
        assert found[f"energy_above_hull_{part}"].to_numpy() == pytest.approx(np.array(ROWS[part]) - hull, nan_ok=True)
    assert found["energy_above_hull_std"].to_numpy() == pytest.approx([0.04, 0.02, np.nan], nan_ok=True)
    expected = [stats.norm.cdf(0.05, 0.02, 0.04), stats.norm.cdf(0.05, -0.0875, 0.02), np.nan]
    assert found["p_stable"].to_numpy() == pytest.approx(expected, nan_ok=True)
    assert found["competing_phases"].to_pylist() == ["1 MgB2 (mp-763)", "0.75 MgB2 + 0.25 Mg (mp-763, element)", None]
    assert found.schema.field("energy_above_hull_mean").metadata[b"unit"] == b"eV/atom"
    assert b"0.05 eV/atom" in found.schema.field("p_stable").metadata[b"meaning"]


def test_a_predictive_distribution_is_shifted_and_gives_the_probability() -> None:
    energy = Target("m", "formation_energy", "eV/atom", 0.9, calibrated=True, distribution=True)
    found = Judge(HULL, energy, 0.05).judged(rows(energy), WANTED)
    assert found["energy_above_hull_q50"].to_numpy()[:2] == pytest.approx([0.02, -0.0875])
    assert found["p_stable"][0].as_py() == pytest.approx(stats.norm.cdf(0.75), abs=0.02)


def test_only_columns_that_are_asked_for_are_added() -> None:
    found = Judge(HULL, ENERGY, 0.05).judged(rows(), WANTED, ["id", stability.MEAN])
    assert [name for name in found.column_names if name not in rows().column_names] == [stability.MEAN]
