"""Symmetrised primitive cells: noise goes, the crystal stays. (Conventional cells are tested with scenes.)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.featurize import standard
from assay.featurize.graphs import build
from assay.featurize.quotient import quotient
from assay.models.ensemble.ensemble import Ensemble
from assay.sources import files
from assay.sources.crystals import Crystals, concat, empty, wrap
from tests.crystal_copies import in_cell
from tests.featurize.cells import crystal
from tests.featurize.test_quotient import BY_HAND, NEAREST, classes

DATA = Path(__file__).parents[1] / "data"


def shaken(one: Crystals, noise: float, seed: int = 0) -> Crystals:
    """The crystal with every coordinate off by up to `noise` Å."""
    off = np.random.default_rng(seed).uniform(-noise, noise, one.frac.shape)
    return replace(one, frac=wrap(one.frac + off @ np.linalg.inv(one.lattice[0])))


@pytest.mark.parametrize("name", BY_HAND)
def test_noise_goes_and_all_equal_bonds_are_found(name: str) -> None:
    one, counted = BY_HAND[name]
    noisy = shaken(one, 1e-3)
    assert classes(quotient(build(noisy, NEAREST))) != counted
    assert classes(quotient(build(standard.symmetrised(noisy, 0.01), NEAREST))) == counted


def test_real_crystals_stay_what_they_are(crystals: Crystals) -> None:
    found = standard.symmetrised(crystals, 0.01)
    assert found.ids.tolist() == crystals.ids.tolist()
    assert found.formulas().tolist() == crystals.formulas().tolist()
    assert found.columns.keys() == crystals.columns.keys()
    assert found.volume / found.nsites == pytest.approx(crystals.volume / crystals.nsites, rel=0.01)
    before, after = (build(some, NEAREST) for some in (crystals, found))
    assert before.shortest() == pytest.approx(after.shortest(), abs=0.02)
    merged = [quotient(graphs).triplet_ptr[-1] for graphs in (before, after)]
    assert merged[1] < merged[0]
    again = standard.symmetrised(found, 0.01)
    assert again.nsites.tolist() == found.nsites.tolist()


def test_a_supercell_becomes_primitive_and_predicts_the_same(zoo: Path, crystals: Crystals) -> None:
    small = crystals.select(np.flatnonzero(crystals.nsites <= 12)[:20])
    large = concat([in_cell(small[k : k + 1], np.diag([2, 1, 1])) for k in range(len(small))])
    ends = [standard.symmetrised(some, 0.001) for some in (small, large)]
    assert ends[0].nsites.tolist() == ends[1].nsites.tolist()
    ensemble = Ensemble.load(zoo / "formation-energy")
    (one,), (two,) = (ensemble.predict(some)[0].values.values() for some in ends)
    assert one.mean == pytest.approx(two.mean, abs=1e-4)


def test_shared_and_vacant_sites_keep_their_species() -> None:
    doped, refused = files.read_many([DATA / "La1.85Sr0.15CuO4.cif"])
    assert not refused
    (found,) = (standard.symmetrised(doped, 0.01),)
    assert found.nsites[0] == doped.nsites[0] // 2  # body-centred
    share = doped.composition() / doped.nsites[:, None]
    assert found.composition() / found.nsites[:, None] == pytest.approx(share, abs=1e-5)
    assert set(found.occupancy.tolist()) == set(doped.occupancy.tolist())


def test_what_has_no_symmetry_that_can_be_found_stays_as_it_is() -> None:
    twice = crystal(4 * np.eye(3), [[0, 0, 0], [0, 0, 0]], [3, 3])
    salt = BY_HAND["NaCl"][0]
    found = standard.symmetrised(concat([salt, twice]), 0.01)
    assert found.nsites.tolist() == [2, 2]
    assert found[1:2] == twice


def test_no_crystals_and_no_tolerance() -> None:
    assert len(standard.symmetrised(empty(), 0.01)) == 0
    with pytest.raises(ValueError, match="tolerance of the symmetry search is 0 Å"):
        standard.symmetrised(empty(), 0)
