"""A CGCNN without torch: the state of a crystal is its own, whatever is predicted with it."""

from pathlib import Path

import numpy as np
import pytest

from assay.featurize import graphs
from assay.featurize.quotient import of_crystals
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.lean import convolutions
from assay.models.ensemble.lean.convolutions import Convolutions
from assay.sources.crystals import Crystals


@pytest.mark.parametrize("merged", [False, True])
def test_the_state_of_a_crystal_is_its_own(
    merged: bool, zoo: Path, crystals: Crystals, disordered: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble.load(zoo / "tc-fast")
    network = ensemble.members[0].frozen
    assert isinstance(network, Convolutions)
    found = []
    for rows in (crystals[:40], disordered[:40]):
        built = graphs.build(rows, ensemble.spec)
        found.append(of_crystals(built, angles=False) if merged else built)
    both = graphs.join(found)
    assert (both.occupancy == 1).any()
    assert (both.occupancy < 1).any()
    states = network.encode(both)  # by features, because some sites are shared; of whole atoms alone by elements
    assert np.array_equal(network.encode(found[0]), states[:40])
    assert all(np.array_equal(network.encode(both.select(np.array([k])))[0], states[k]) for k in range(0, 80, 7))
    monkeypatch.setattr(convolutions, "EDGES_AT_ONCE", 100)
    assert np.array_equal(network.encode(both), states)
    assert network.encode(both.select(np.arange(0))).shape == (0, states.shape[1])
