"""Energies with the corrections of the Materials Project: those of WBM, and those of the hull's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk

from assay.models.potentials import potential as potentials
from assay.models.stability.corrections import OF_2018, OF_2020, TOTALS, converted, convertible, of_elements
from assay.models.stability.references import formation_energies
from assay.sources import datasets, table
from assay.sources.crystals import Crystals
from assay.sources.formats import convert


@pytest.fixture(scope="module")
def totals(data: Path) -> dict[str, float]:
    rows = pq.read_table(data / "potentials" / "mp_element_references.parquet").to_pylist()
    return {row["element"]: row["energy_per_atom"] for row in rows}


@pytest.fixture(scope="module")
def wbm(data: Path) -> Crystals:
    crystals, _ = table.from_table(table.read(data / "potentials" / "wbm_pbe_relaxed.parquet"), "wbm")
    return crystals[:250]


def test_those_of_2020_are_those_of_wbm_and_can_be_taken_off(wbm: Crystals) -> None:
    raw, corrected = (wbm.columns[name] / wbm.nsites for name in ("energy", "corrected_energy"))
    assert (abs(corrected - raw) > 0.01).sum() > 80
    assert converted(wbm, raw, TOTALS, OF_2020) == pytest.approx(corrected, abs=1e-9)
    assert converted(wbm, corrected, "PBE(+U), totals with MP2020 corrections", TOTALS) == pytest.approx(raw, abs=1e-9)


def test_those_of_2018_are_those_of_the_materials_project_then(
    data: Path, totals: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oxides, fluorides, chlorides, nitrides, hydrides and sulfides by the bundled force field, which errs by 0.05."""
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    known = datasets.load("mp-formation-energy")
    amounts = known.crystals.composition()
    corrected = (amounts[:, [1, 7, 8, 9, 16, 17]] > 0).any(axis=1) & (known.crystals.nsites <= 6)
    potential = potentials.load("potential")
    rows = np.flatnonzero(corrected)[::10]
    rows = rows[potentials.known(potential, known.crystals.select(rows))[0]][:250]
    crystals = potentials.right_handed(known.crystals.select(rows))
    energy = potential.evaluate(crystals).energy / crystals.nsites
    off = {}
    for scale in (TOTALS, OF_2018, OF_2020):
        there = converted(crystals, energy, TOTALS, scale)
        found = formation_energies(amounts[rows], there, of_elements(totals, scale))
        off[scale] = float(np.median(abs(found - known.target[rows])))
    assert off[OF_2018] < 0.05
    assert off[OF_2018] < off[OF_2020] < off[TOTALS]
    assert off[TOTALS] > 0.25


def test_elements_keep_their_energies_but_for_four_gases_of_2018(totals: dict[str, float]) -> None:
    assert of_elements(totals, OF_2020) == pytest.approx(totals)
    old = of_elements(totals, OF_2018)
    changed = {symbol: energy for symbol, energy in old.items() if abs(energy - totals[symbol]) > 1e-9}
    assert changed == pytest.approx({"H": -3.23973666, "N": -7.95247219, "F": -1.42055013, "Cl": -1.25385098})
    assert of_elements({"Cu": -0.1}, "EMT, that of the calculator") == {"Cu": -0.1}


def test_a_metal_without_anions_has_the_energy_that_it_had() -> None:
    iron = convert.from_ase([bulk("Fe")], ["iron"])
    energy = np.array([-8.4])
    assert converted(iron, energy, TOTALS, OF_2018) == pytest.approx(energy)
    assert converted(iron, energy, "mine", "mine") is energy


@pytest.mark.parametrize(
    ("given", "wanted", "possible"),
    [
        (TOTALS, OF_2018, True),
        ("PBE(+U), totals with MP2020 corrections", OF_2018, True),
        (OF_2018, OF_2020, False),
        (TOTALS, "r2SCAN", False),
        ("r2SCAN", OF_2020, False),
        ("r2SCAN", "r2SCAN", True),
    ],
)
def test_other_functionals_are_not_convertible(given: str, wanted: str, *, possible: bool) -> None:
    assert convertible(given, wanted) is possible
