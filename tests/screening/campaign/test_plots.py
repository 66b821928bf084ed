"""The plots of a report, as numbers, and what a report takes from an ensemble."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import assay
from assay.screening.campaign.reporting import plots
from assay.screening.campaign.reporting.evidence import gather, landscape
from assay.screening.display import cells
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.sources import prototypes
from assay.sources.crystals import Crystals
from assay.sources.elements import NUMBERS
from tests.screening import small_campaign

DATA = Path(__file__).resolve().parents[2] / "data"


def test_a_density_counts_every_finite_pair_once_in_whatever_portions() -> None:
    rng = np.random.default_rng(0)
    known = np.append(rng.normal(size=500), [np.nan, 1.0])
    found = np.append(known[:500] + rng.normal(scale=0.1, size=500), [1.0, np.inf])
    cut = [(known[a:b], found[a:b]) for a, b in ((0, 1), (1, 1), (1, 300), (300, 502))]
    whole = plots.density(lambda: iter([(known, found)]))
    assert whole == plots.density(lambda: iter(cut))
    assert whole["n"] == sum(cell["n"] for cell in whole["cells"]) == 500
    assert whole["mae"] == pytest.approx(np.abs(known - found)[:500].mean())
    assert plots.density(lambda: iter([(known[500:501], found[500:501])])) is None


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.87, 0.93), (2.0, 0.98, 1.0), (0.5, 0.5, 0.65)])
def test_coverage_is_that_of_normal_errors(factor: float, low: float, high: float) -> None:
    known = np.random.default_rng(1).normal(size=4000)
    points = plots.coverage(known, np.zeros(4000), np.full(4000, factor))["points"]
    (nine,) = [point["observed"] for point in points if point["nominal"] == pytest.approx(0.9)]
    assert low <= nine <= high
    assert [point["observed"] for point in points] == sorted(point["observed"] for point in points)


def test_every_element_has_a_place_of_its_own_where_chemists_look_for_it() -> None:
    places = dict(zip(NUMBERS, plots.empty_places(), strict=True))
    assert len(set(places.values())) == len(NUMBERS) == 118
    where = {"H": (0, 0), "He": (17, 0), "B": (12, 1), "Cu": (10, 3), "Lu": (2, 5), "La": (2, 7), "Og": (17, 6)}
    assert {symbol: places[symbol] for symbol in where} == where


def test_elements_are_counted_with_their_mean_score() -> None:
    rows = [{"elements": "Nb-Sn", "score": 1.0}, {"elements": "Nb", "score": 2.0}]
    assert [(cell["symbol"], cell["n"], cell["score"]) for cell in plots.periodic_table(rows)] == [
        ("Nb", 2, 1.5),
        ("Sn", 1, 1.0),
    ]


def test_the_map_is_the_same_for_any_number_of_threads_and_near_what_it_knows(zoo: Path) -> None:
    ensemble, crystals = assay.load(zoo / "tc-fast"), prototypes.generate(30)
    first = landscape(ensemble, crystals)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = landscape(ensemble, crystals)
    finally:
        torch.set_num_threads(before)
    assert (first.found == again.found).all()
    assert (first.known == again.known).all()
    assert np.var(first.known, axis=0)[0] >= np.var(first.known, axis=0)[1] > 0
    assert 0 < first.share <= 1
    drawn = plots.scatter(first.known, first.found, first.share)
    assert len(drawn["known"]) + drawn["beyond"] == len(first.known)
    assert all(0 <= x <= drawn["width"] and 0 <= y <= drawn["height"] for x, y in drawn["found"])


def test_a_drawing_holds_the_whole_cell_with_its_shares() -> None:
    crystal = assay.read(DATA / "La1.85Sr0.15CuO4.cif")
    found = json.loads(cells.drawing(crystal))
    assert np.allclose(found["lattice"], crystal.lattice[0], atol=1e-4)
    assert np.allclose([site[:3] for site in found["sites"]], crystal.frac, atol=1e-4)
    symbols = [symbol for symbol, _, _ in found["elements"]]
    shares = [{symbols[which]: share for which, share in site[3]} for site in found["sites"]]
    assert shares.count({"La": 0.925, "Sr": 0.075}) == 4
    assert "A cell of 14 sites: a = 3.779 Å" in cells.words(crystal)
    assert cells.sites(crystal)[0][0] == "La/Sr 0.925/0.075"


def test_angles_stand_where_crystallographers_put_them() -> None:
    lattice = cells.lattice(assay.read(DATA / "MgB2.cif"))
    assert [round(lattice[name], 3) for name in ("a", "b", "c", "α", "β", "γ")] == [3.086, 3.086, 3.524, 90, 90, 120]


def test_a_cell_too_large_to_be_drawn_is_still_told() -> None:
    n = cells.MOST_SITES + 1
    frac = np.random.default_rng(0).random((n, 3))
    large = Crystals(["x"], [np.eye(3) * 30], [0, n], frac, np.arange(n + 1), np.full(n, 29), np.ones(n))
    assert cells.drawing(large) == ""
    assert len(cells.sites(large)) == cells.LISTED
    assert f"A cell of {n} sites" in cells.words(large)


def test_a_report_takes_structures_and_reported_values_from_the_campaign(tmp_path: Path, real, model: Path) -> None:
    reported = np.arange(60) / 10
    crystals = real[:60].without_columns().with_columns(formation_energy_per_atom=reported)
    planned = small_campaign.finish(tmp_path, crystals, model)
    rows = Results(planned.folder).best(20).to_pylist()
    found = gather(planned, Ledger(planned.folder), rows)
    assert found.crystals.ids.tolist() == [row["id"] for row in rows]
    assert found.crystals.formulas().tolist() == [row["formula"] for row in rows]
    assert found.reported == "formation_energy_per_atom"
    every = Results(planned.folder).candidates().to_pylist()
    new = [(row[found.reported], row["formation_energy_mean"]) for row in every if not row["in_training"]]
    assert 0 < len(new) < len(every)  # the ensemble learned from some of these compositions
    assert [pair for known, mean in found.pairs() for pair in zip(known.tolist(), mean.tolist(), strict=True)] == new
    assert len(found.held.known) == 3483
    assert found.landscape.found.shape == (20, 2)
    page = (planned.folder / "report.html").read_text()
    assert "predicted formation_energy against formation_energy_per_atom" in page
    assert page.count("data-crystal=") == planned.campaign.rank.top == 50
