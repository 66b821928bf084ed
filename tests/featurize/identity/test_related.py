"""Phases that people tell apart keep rows of their own, and a soft distortion is related to its parent."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from assay.featurize import identity
from assay.sources.crystals import Crystals, concat, wrap
from tests.crystal_copies import in_cell
from tests.featurize.identity.test_identity import CENTRES, CUBE, HEXAGONAL, crystal, named, scaled

FACES = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def verdict(one: Crystals, other: Crystals) -> tuple[str, float, float]:
    """What is said of two crystals, with the distance (Å) and the ratio of the volumes."""
    both = concat([named(one, "a/1"), named(other, "b/1")])
    _, found = identity.find(both)
    if len(found.same):
        return "same", 0.0, 1.0
    if len(found.related):
        return "related", float(found.distance[0]), float(found.volume_ratio[0])
    return "different", math.nan, math.nan


def perovskite(a: float = 3.905) -> Crystals:
    return crystal("cubic", a * CUBE, [("Sr", [0, 0, 0]), ("Ti", [0.5] * 3), *(("O", place) for place in FACES)])


def tilted(degrees: float, *, in_phase: bool = False, a: float = 3.905) -> Crystals:
    """SrTiO3 with octahedra turned about c, in phase (P4/mbm) or out of phase (I4/mcm)."""
    x = 0.25 * (1 - math.tan(math.radians(degrees)))
    layers = [(0.0, x)] if in_phase else [(0.0, x), (0.5, 0.5 - x)]
    height = 1.0 if in_phase else 0.5
    sites: list[tuple[str, list[float]]] = []
    for z, u in layers:
        sites += [("Ti", [0, 0, z]), ("Ti", [0.5, 0.5, z])]
        sites += [("Sr", [0, 0.5, z + height / 2]), ("Sr", [0.5, 0, z + height / 2])]
        sites += [("O", [0, 0, z + height / 2]), ("O", [0.5, 0.5, z + height / 2])]
        sites += [("O", [p, q, z]) for p, q in ((u, u + 0.5), (-u, 0.5 - u), (0.5 - u, u), (u + 0.5, -u))]
    wide = a * math.sqrt(2)
    return crystal("tilted", np.diag([wide, wide, a if in_phase else 2 * a]), sites)  # type: ignore[arg-type]


def moved(one: Crystals, size: Iterable[int], shifts: dict[int, list[float]]) -> Crystals:
    """A supercell of `one`, some of its sites moved (Å, along the axes of a frame of the lattice)."""
    other = in_cell(one, np.diag(list(size)))
    frac = other.frac.copy()
    for site, shift in shifts.items():
        frac[site] += np.array(shift) @ np.linalg.inv(other.lattice[0])
    return Crystals(
        other.ids, other.lattice, other.site_ptr, wrap(frac), other.species_ptr, other.numbers, other.occupancy
    )


def strained(one: Crystals, factors: list[float]) -> Crystals:
    lattice = one.lattice * np.array(factors)
    return Crystals(one.ids, lattice, one.site_ptr, one.frac, one.species_ptr, one.numbers, one.occupancy)


def iron_arsenide(a: float, b: float, c: float, z: float = 0.354, metal: str = "Ba") -> Crystals:
    """The 122 structure in the cell of the orthorhombic phase (Fmmm), twice that of I4/mmm."""
    shifts = np.array([[0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    sites = [(metal, [0, 0, 0]), ("Fe", [0.25, 0.25, 0.25]), ("Fe", [0.25, 0.75, 0.25])]
    sites += [("As", [0, 0, z]), ("As", [0, 0, -z])]
    every = [(kind, list(np.add(place, shift))) for shift in shifts for kind, place in sites]
    return crystal("122", np.diag([a, b, c]), every)  # type: ignore[arg-type]


def a15(a: float, c: float) -> Crystals:
    chains = [[0.25, 0, 0.5], [0.75, 0, 0.5], [0.5, 0.25, 0], [0.5, 0.75, 0], [0, 0.5, 0.25], [0, 0.5, 0.75]]
    places: list[tuple[str, list[float]]] = [("Sn", [0, 0, 0]), ("Sn", [0.5] * 3), *(("Nb", p) for p in chains)]
    return crystal("a15", np.diag([a, a, c]), places)  # type: ignore[arg-type]


def lah10(a: float) -> Crystals:
    """LaH10 (Fm-3m) in its cubic cell."""
    x = 0.12
    corners = [[i, j, k] for i in (x, -x) for j in (x, -x) for k in (x, -x)]
    sites = [("La", [0, 0, 0]), ("H", [0.25] * 3), ("H", [0.75] * 3)]
    sites += [("H", list(np.add(place, 0.5))) for place in corners]
    return crystal("h", a * CUBE, [(kind, list(np.add(p, c))) for c in CENTRES for kind, p in sites])  # type: ignore[arg-type]


def quartz(*, left: bool) -> Crystals:
    third = -1 / 3 if left else 1 / 3
    u, x, y, z = 0.47, 0.4135, 0.2669, 0.1191
    silicon = [[u, 0, third], [0, u, 2 * third], [-u, -u, 0]]
    oxygen = [[x, y, z], [-y, x - y, z + third], [y - x, -x, z + 2 * third]]
    oxygen += [[y, x, -z], [x - y, -y, -z + 2 * third], [-x, y - x, -z + third]]
    if left:  # the mirror image of the right-handed one in the plane of its c axis
        return crystal("q", HEXAGONAL * [[4.913], [4.913], [5.405]], [*quartz_sites(quartz(left=False), -1)])
    sites = [*(("Si", p) for p in silicon), *(("O", p) for p in oxygen)]
    return crystal("q", HEXAGONAL * [[4.913], [4.913], [5.405]], sites)  # type: ignore[arg-type]


def quartz_sites(one: Crystals, sign: int) -> list[tuple[str, list[float]]]:
    kinds = {8: "O", 14: "Si"}
    return [(kinds[int(z)], [p[0], p[1], sign * p[2]]) for z, p in zip(one.numbers, one.frac.tolist(), strict=True)]


def carbide(layers: str) -> Crystals:
    """A polytype of SiC by its stacking, such as ABC (3C) or ABCB (4H)."""
    place = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    n = len(layers)
    sites = []
    for level, letter in enumerate(layers):
        x, y = place[letter]
        sites += [("Si", [x, y, level / n]), ("C", [x, y, (level + 0.75) / n])]
    return crystal("sic", HEXAGONAL * [[3.08], [3.08], [2.52 * n]], sites)  # type: ignore[arg-type]


def double(order: str) -> Crystals:
    """Sr2FeMoO6 with iron and molybdenum in rock-salt order or in layers, in a doubled cell of one size."""
    cell = in_cell(perovskite(), np.diag([2, 2, 2]))
    numbers = cell.numbers.copy()
    for site in np.flatnonzero(numbers == 22):
        x, y, z = np.rint(2 * cell.frac[site] - 0.5).astype(int)
        numbers[site] = 26 if (x + y + z if order == "rocksalt" else z) % 2 == 0 else 42
    return Crystals(cell.ids, cell.lattice, cell.site_ptr, cell.frac, cell.species_ptr, numbers, cell.occupancy)


def chains(*, ordered: bool) -> Crystals:
    """YBa2Cu3O6.5: every other chain full (ortho-II), or all chains half full."""
    half = [("Y", [0.5, 0.5, 0.5]), ("Ba", [0.5, 0.5, 0.186]), ("Ba", [0.5, 0.5, 0.814])]
    half += [("Cu", [0, 0, 0]), ("Cu", [0, 0, 0.357]), ("Cu", [0, 0, 0.643])]
    half += [("O", [0, 0, z]) for z in (0.157, 0.843)]
    half += [("O", [*p, z]) for p in ((0.5, 0), (0, 0.5)) for z in (0.378, 0.622)]
    if not ordered:
        return crystal("y", np.diag([3.83, 3.88, 11.7]), [*half, ({"O": 0.5}, [0, 0.5, 0])])  # type: ignore[list-item]
    sites = [(kind, [(x + cell) / 2, y, z]) for cell in (0, 1) for kind, (x, y, z) in half]
    return crystal("y", np.diag([7.66, 3.88, 11.7]), [*sites, ("O", [0, 0.5, 0])])  # type: ignore[arg-type]


def selenide(*, wave: float) -> Crystals:
    """TiSe2 in a cell doubled along a and b, half of its titanium moved by `wave` (Å)."""
    sites = [("Ti", [0, 0, 0]), ("Se", [1 / 3, 2 / 3, 0.255]), ("Se", [2 / 3, 1 / 3, 0.745])]
    one = crystal("t", HEXAGONAL * [[3.54], [3.54], [6.01]], sites)  # type: ignore[arg-type]
    return moved(one, (2, 2, 1), {0: [wave, 0, 0], 1: [-wave, 0, 0]}) if wave else one


def manganite(shift: float) -> Crystals:
    """A cubic perovskite whose oxygen moves along its bonds in turns (Å): the Jahn-Teller mode Q2."""
    wide = 3.905 * math.sqrt(2)
    e = shift / wide / math.sqrt(2)
    sites = [("Ti", [0, 0, 0]), ("Ti", [0.5, 0.5, 0]), ("Sr", [0, 0.5, 0.5]), ("Sr", [0.5, 0, 0.5])]
    sites += [("O", [0, 0, 0.5]), ("O", [0.5, 0.5, 0.5]), ("O", [0.25 + e, 0.25 + e, 0])]
    sites += [("O", [0.75 - e, 0.75 - e, 0]), ("O", [0.75 + e, 0.25 - e, 0]), ("O", [0.25 - e, 0.75 + e, 0])]
    return crystal("jt", np.diag([wide, wide, 3.905]), sites)  # type: ignore[arg-type]


TETRAGONAL = iron_arsenide(5.59, 5.59, 13.0)
CUBIC = perovskite()

APART = {
    "tilt of 1 degree": (CUBIC, tilted(1), "related"),
    "tilt of 1.4 degrees": (CUBIC, tilted(1.4), "related"),
    "tilt of 2 degrees": (CUBIC, tilted(2), "related"),
    "tilt of 3 degrees": (CUBIC, tilted(3), "related"),
    "tilt of 5 degrees": (CUBIC, tilted(5), "different"),
    "tilt of 8 degrees": (CUBIC, tilted(8), "different"),
    "tilt in phase": (CUBIC, tilted(1.4, in_phase=True), "related"),
    "two tilts of one size": (tilted(1.4), tilted(1.4, in_phase=True), "related"),
    "Jahn-Teller": (CUBIC, manganite(0.04), "related"),
    "stronger Jahn-Teller": (CUBIC, manganite(0.08), "related"),
    "ferroelectric": (CUBIC, moved(CUBIC, (1, 1, 1), {1: [0, 0, 0.05]}), "related"),
    "charge density wave": (selenide(wave=0), selenide(wave=0.08), "related"),
    "magnetic BaFe2As2": (TETRAGONAL, iron_arsenide(5.61, 5.57, 13.0), "related"),
    "half of that": (TETRAGONAL, iron_arsenide(5.60, 5.58, 13.0), "related"),
    "martensitic Nb3Sn": (a15(5.29, 5.29), a15(5.296, 5.277), "related"),
    "150 and 200 GPa": (lah10(5.10), lah10(4.95), "related"),
    "3 % in a": (CUBIC, scaled(CUBIC, "x", 1.03**3), "related"),
    "collapsed tetragonal": (
        iron_arsenide(5.49, 5.49, 11.73, 0.366, "Ca"),
        iron_arsenide(5.63, 5.63, 10.61, 0.366, "Ca"),
        "related",
    ),
    "cation order": (double("rocksalt"), double("layers"), "different"),
    "chirality": (quartz(left=False), quartz(left=True), "different"),
    "vacancy order": (chains(ordered=True), chains(ordered=False), "different"),
    "polytypes 3C and 4H": (carbide("ABC"), carbide("ABCB"), "different"),
    "polytypes 2H and 4H": (carbide("AB"), carbide("ABCB"), "different"),
}

SHAKEN = moved(CUBIC, (1, 1, 1), {1: [0.01, 0.02, 0.03], 2: [0.03, -0.01, 0.02], 3: [0.0, 0.03, -0.02]})

ALIKE = {
    "a cell without symmetry, and itself": (SHAKEN, in_cell(SHAKEN, np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]]))),
    "1 % in a": (CUBIC, scaled(CUBIC, "x", 1.01**3)),
    "one tilt, two functionals": (tilted(1.4), tilted(2)),
    "a tilt of 0.3 degrees": (CUBIC, tilted(0.3)),
    "one magnetic phase, two relaxations": (iron_arsenide(5.61, 5.57, 13), iron_arsenide(5.62, 5.57, 12.9, 0.352)),
    "a strain of 0.05 %": (CUBIC, strained(CUBIC, [1.0005, 1, 1])),
    "one hydride, 20 GPa apart": (lah10(5.10), lah10(5.05)),
}


@pytest.mark.parametrize("name", APART)
def test_phases_that_people_tell_apart_are_kept_apart(name: str) -> None:
    one, other, expected = APART[name]
    assert verdict(one, other)[0] == expected
    assert verdict(other, one)[0] == expected


@pytest.mark.parametrize("name", ALIKE)
def test_two_computations_of_one_phase_are_the_same(name: str) -> None:
    assert verdict(*ALIKE[name])[0] == "same"


def test_distance_and_volume_ratio_say_how_far_apart() -> None:
    _, distance, ratio = verdict(CUBIC, tilted(1.4))
    assert distance == pytest.approx(3.905 / 2 * math.tan(math.radians(1.4)), abs=0.003)
    assert ratio == pytest.approx(1)
    _, distance, ratio = verdict(CUBIC, scaled(CUBIC, "x", 1.09))
    assert (distance, ratio) == pytest.approx((0, 1.09))
    _, distance, ratio = verdict(TETRAGONAL, iron_arsenide(5.61, 5.57, 13.0))
    assert distance == pytest.approx(0.0036 * (5.59**2 * 13 / 4) ** (1 / 3), rel=0.02)


def test_a_row_is_related_to_each_group_once_whatever_the_order() -> None:
    parts = [named(CUBIC, "a/1"), named(tilted(1.4), "b/1"), named(CUBIC, "c/1"), named(tilted(1.5), "d/1")]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        both = concat([parts[k] for k in order])
        leader, found = identity.find(both)
        ids = both.ids
        assert dict(zip(ids, ids[leader])) == {"a/1": "a/1", "c/1": "a/1", "b/1": "b/1", "d/1": "b/1"}
        assert [sorted(pair) for pair in ids[found.related].tolist()] == [["a/1", "b/1"]]
