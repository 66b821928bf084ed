"""Keys: equal for every description of one crystal, unlike for unlike crystals, blind where the graph is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.featurize.graphs import GraphSpec, build
from assay.featurize.keys import keys
from assay.featurize.quotient import quotient
from assay.sources.crystals import Crystals, concat, empty
from tests.crystal_copies import in_cell
from tests.featurize.cells import crystal
from tests.featurize.pictures.test_scene import described_anew

NEAREST, FAR = GraphSpec(), GraphSpec(neighbours="radius", cutoff=8.0)
HEXAGON = np.array([[2.46, 0, 0], [-1.23, 2.13042, 0], [0, 0, 1]])
SALT = crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])


def key(one: Crystals, spec: GraphSpec = FAR) -> int:
    return int(keys(build(one, spec))[0])


def graphite(places: list[str], apart: float = 3.35) -> Crystals:
    """Layers of carbon, each at one of three places, A, B or C."""
    shift = {"A": 0.0, "B": 1 / 3, "C": 2 / 3}
    frac = [
        [shift[place] + atom, 2 * (shift[place] + atom), layer / len(places)]
        for layer, place in enumerate(places)
        for atom in (0.0, 1 / 3)
    ]
    return crystal(HEXAGON * [[1], [1], [apart * len(places)]], frac, [6] * len(frac))


@pytest.mark.parametrize("spec", [NEAREST, FAR, replace(NEAREST, angles=True)], ids=["12", "8 Å", "angles"])
def test_every_description_has_the_key_of_the_crystal(
    crystals: Crystals, disordered: Crystals, spec: GraphSpec
) -> None:
    rng = np.random.default_rng(5)
    spread = [some.select(np.argsort(some.nsites, kind="stable")[:-20:5]) for some in (crystals, disordered)]
    for one in (some[k : k + 1] for some in spread for k in range(len(some))):
        assert key(described_anew(one, rng), spec) == key(one, spec), one.ids


def test_a_shell_at_the_cutoff_is_left_out_of_every_description() -> None:
    rng = np.random.default_rng(1)
    for edge in (2.0, 4.0, 8 / np.sqrt(3)):
        one = crystal(edge * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
        assert len({key(described_anew(one, rng)) for _ in range(20)} | {key(one)}) == 1


def test_a_supercell_has_the_key_of_the_crystal(crystals: Crystals) -> None:
    for row in np.flatnonzero(crystals.nsites <= 6)[:30]:
        one = crystals[row : row + 1]
        assert key(in_cell(one, np.diag([2, 1, 3]))) == key(one), one.ids


def test_real_crystals_are_all_unlike(crystals: Crystals, disordered: Crystals) -> None:
    for some in (crystals, disordered):
        assert len(set(keys(build(some, FAR)).tolist())) == len(some)


def test_another_species_share_or_length_is_another_crystal() -> None:
    doped = replace(SALT, occupancy=np.array([1, 0.9], np.float32))
    stretched = replace(SALT, lattice=1.01 * SALT.lattice)
    exchanged = replace(SALT, numbers=np.array([19, 17], np.uint8))
    assert len({key(one) for one in (SALT, doped, stretched, exchanged)}) == 4
    turned = replace(SALT, numbers=SALT.numbers[::-1])  # Na and Cl in each other's place
    mirrored = replace(SALT, lattice=-SALT.lattice)
    assert key(SALT) == key(turned) == key(mirrored)


def test_a_key_sees_what_the_graph_sees() -> None:
    """The 12 nearest atoms of carbon in graphite are in its layer; how layers are stacked shows from farther away."""
    two, three, wide = graphite(["A", "B"]), graphite(["A", "B", "C"]), graphite(["A", "B"], apart=9.0)
    assert key(two, NEAREST) == key(three, NEAREST) == key(wide, NEAREST)
    assert len({key(one) for one in (two, three, wide)}) == 3


def test_no_crystals_quotients_and_no_grain() -> None:
    assert keys(build(empty(), FAR)).shape == (0,)
    built = build(concat([SALT, SALT]), FAR)
    assert len(set(keys(built).tolist())) == 1
    with pytest.raises(ValueError, match="quotients already"):
        keys(quotient(built))
    with pytest.raises(ValueError, match="grain is 0 Å"):
        keys(built, grain=0)
