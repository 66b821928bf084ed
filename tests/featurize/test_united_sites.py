"""Split positions as one atom: what a network is given in place of them."""

from __future__ import annotations

import numpy as np
import pytest

from assay.featurize.alternatives import united
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.zoo import find
from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals, concat

Site = tuple[tuple[float, float, float], list[tuple[int, float]]]


def crystal(*sites: Site, a: float = 4.0, id: str = "x/1") -> Crystals:
    assembler = Assembler()
    places = [place for place, _ in sites]
    assembler.add(id, "memory", np.diag([a, a, a]), places, [species for _, species in sites], columns={"n": 1.0})
    found, refused = assembler.finish()
    assert not refused
    return found


TITANIUM: Site = ((0.5, 0.5, 0.5), [(22, 1.0)])
OXYGEN: tuple[Site, ...] = tuple((place, [(8, 1.0)]) for place in ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)))
PEROVSKITE = crystal(((0.0, 0.0, 0.0), [(56, 1.0)]), TITANIUM, *OXYGEN)


def split(step: float, share: float = 1 / 6) -> Crystals:
    """Barium off the centre of its cage, along six directions."""
    axes = [(x, 0.0, 0.0) for x in (step, -step)] + [(0.0, x, 0.0) for x in (step, -step)]
    axes += [(0.0, 0.0, x) for x in (step, -step)]
    return crystal(*((place, [(56, share)]) for place in axes), TITANIUM, *OXYGEN)


def test_six_places_of_one_atom_are_the_atom_at_their_mean() -> None:
    found = united(split(0.03))
    assert found.nsites.tolist() == [5]
    assert found.formulas().tolist() == PEROVSKITE.formulas().tolist()
    assert found.is_ordered.all()
    gap = found.frac[:, None] - PEROVSKITE.frac[None]
    assert np.abs(gap - np.round(gap)).max(axis=-1).min(axis=1).max() < 1e-9
    assert found.columns["n"].tolist() == [1.0]


def test_the_mean_is_weighted_and_species_are_joined() -> None:
    first: Site = ((0.0, 0.0, 0.0), [(56, 0.3), (38, 0.3)])
    second: Site = ((0.0, 0.0, 0.1), [(56, 0.2)])
    found = united(crystal(first, second, TITANIUM))
    assert found.nsites.tolist() == [2]
    assert found.frac[0, 2] == pytest.approx(0.1 * 0.2 / 0.8)
    assert dict(zip(found.numbers[:2].tolist(), found.occupancy[:2].tolist())) == pytest.approx({38: 0.3, 56: 0.5})


def test_places_on_both_sides_of_the_cell_meet_at_its_face() -> None:
    found = united(crystal(((0.0, 0.0, 0.97), [(56, 0.5)]), ((0.0, 0.0, 0.03), [(56, 0.5)]), TITANIUM))
    assert found.nsites.tolist() == [2]
    assert min(found.frac[0, 2], 1 - found.frac[0, 2]) < 1e-9


def test_what_is_no_split_position_stays_as_it_is() -> None:
    ordered = PEROVSKITE
    mixed = crystal(((0.0, 0.0, 0.0), [(56, 0.3), (38, 0.3)]), TITANIUM)
    apart = crystal(((0.0, 0.0, 0.0), [(56, 0.5)]), ((0.0, 0.0, 0.4), [(56, 0.5)]), TITANIUM)
    for one in (ordered, mixed, apart):
        assert united(one) is one


def test_the_other_crystals_of_a_batch_keep_their_bytes() -> None:
    mixed = crystal(((0.0, 0.0, 0.0), [(56, 0.3), (38, 0.31), (20, 0.1)]), TITANIUM, id="x/2")
    found = united(concat([mixed, split(0.03), mixed.with_columns(n=[2.0])]))
    assert found[0:1] == mixed
    assert found[2:3] == mixed.with_columns(n=[2.0])


def test_an_ensemble_predicts_the_atom_and_not_its_places() -> None:
    ensemble = Ensemble.load(find("tc-fast"))
    means = [ensemble.predict(one)[0].values["tc"].mean.item() for one in (PEROVSKITE, split(0.03))]
    assert means[0] == pytest.approx(means[1], rel=1e-4)
