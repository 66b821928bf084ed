"""The same crystal is found in any description of it; another crystal is left apart, however similar."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.featurize import identity
from assay.featurize.identity import search as search_module
from assay.sources import files, symmetry
from assay.sources.crystals import Crystals, concat
from assay.sources.elements import NUMBERS
from assay.sources.formats import convert
from tests.crystal_batches import batches
from tests.crystal_copies import copies, in_cell

DATA = Path(__file__).parents[2] / "data"
CUBE = np.eye(3)
FCC = 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
CENTRES = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
HEXAGONAL = np.array([[1, 0, 0], [-0.5, math.sqrt(0.75), 0], [0, 0, 1]])
CONVENTIONAL = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])


def crystal(id: str, lattice: object, sites: list[tuple[str | dict[str, float], list[float]]]) -> Crystals:
    """One crystal; a site is an element, or elements with occupancies, and its place."""
    species = [{kind: 1.0} if isinstance(kind, str) else kind for kind, _ in sites]
    return Crystals(
        ids=np.array([id]),
        lattice=np.array([lattice], dtype=float),
        site_ptr=np.array([0, len(sites)]),
        frac=np.array([place for _, place in sites], dtype=float) % 1,
        species_ptr=np.cumsum([0, *map(len, species)]),
        numbers=np.array([NUMBERS[symbol] for kinds in species for symbol in kinds]),
        occupancy=np.array([share for kinds in species for share in kinds.values()], dtype=np.float32),
    )


def named(one: Crystals, id: str) -> Crystals:
    """The same crystal under another id."""
    return Crystals(
        np.array([id]), one.lattice, one.site_ptr, one.frac, one.species_ptr, one.numbers, one.occupancy, {}
    )


def scaled(one: Crystals, id: str, volume: float) -> Crystals:
    """The same crystal in a cell of another volume (a ratio)."""
    lattice = one.lattice * volume ** (1 / 3)
    return Crystals(np.array([id]), lattice, one.site_ptr, one.frac, one.species_ptr, one.numbers, one.occupancy)


def search(*parts: Crystals) -> list[int]:
    """First row of the group of every crystal of all parts."""
    leader = identity.find(concat(parts))[0].tolist()
    return [leader.index(row) for row in leader]


def numbers(found: identity.Fingerprints) -> list[list[float]]:
    """The numbers of each fingerprint."""
    return [found.values[a:b].tolist() for a, b in zip(found.pointer, found.pointer[1:])]


def composition(one: Crystals) -> str:
    """Composition as the search compares it."""
    return identity.fingerprints(one).compositions[0]


ROCKSALT = crystal("a/nacl", 5.64 * FCC, [("Na", [0, 0, 0]), ("Cl", [0.5, 0.5, 0.5])])
ZINCBLENDE = crystal("a/zns", 5.41 * FCC, [("Zn", [0, 0, 0]), ("S", [0.25, 0.25, 0.25])])
WURTZITE = crystal(
    "b/zns",
    HEXAGONAL * [[3.82], [3.82], [6.26]],
    [
        ("Zn", [1 / 3, 2 / 3, 0]),
        ("Zn", [2 / 3, 1 / 3, 0.5]),
        ("S", [1 / 3, 2 / 3, 0.375]),
        ("S", [2 / 3, 1 / 3, 0.875]),
    ],
)
DIAMOND = crystal("a/c", 3.567 * FCC, [("C", [0, 0, 0]), ("C", [0.25, 0.25, 0.25])])
GRAPHITE = crystal(
    "b/c",
    HEXAGONAL * [[2.46], [2.46], [6.71]],
    [("C", [0, 0, 0.25]), ("C", [0, 0, 0.75]), ("C", [1 / 3, 2 / 3, 0.25]), ("C", [2 / 3, 1 / 3, 0.75])],
)
CUAU = crystal("a/cuau", np.diag([2.8, 2.8, 3.67]), [("Cu", [0, 0, 0]), ("Au", [0.5, 0.5, 0.5])])
ALLOY = crystal("b/cuau", 3.87 * FCC, [({"Cu": 0.5, "Au": 0.5}, [0, 0, 0])])


def k2nif4(id: str, doping: float) -> Crystals:
    """La(2-x)Sr(x)CuO4 in the tetragonal cell with two formula units."""
    large = {"La": 1 - doping / 2, "Sr": doping / 2} if doping else "La"
    half = [0.5, 0.5, 0.5]
    places = [(large, [0, 0, 0.361]), (large, [0, 0, -0.361]), ("Cu", [0, 0, 0])]
    places += [("O", [0, 0, 0.182]), ("O", [0, 0, -0.182]), ("O", [0.5, 0, 0]), ("O", [0, 0.5, 0])]
    sites = [(kind, list(np.add(place, shift))) for shift in ([0, 0, 0], half) for kind, place in places]
    return crystal(id, np.diag([3.78, 3.78, 13.2]), sites)


# One crystal, many descriptions.


def test_rocksalt_is_one_crystal_in_every_cell() -> None:
    conventional = named(in_cell(ROCKSALT, CONVENTIONAL), "b/conventional")
    assert conventional.nsites.tolist() == [8]
    assert np.allclose(conventional.lattice[0], 5.64 * CUBE)
    supercell = named(in_cell(ROCKSALT, np.diag([3, 2, 1])), "c/supercell")
    swapped = crystal("d/swapped", 5.64 * FCC, [("Cl", [0, 0, 0]), ("Na", [0.5, 0.5, 0.5])])
    assert search(ROCKSALT, conventional, supercell, swapped) == [0, 0, 0, 0]
    assert composition(ROCKSALT) == composition(supercell) == "Cl:1 Na:1"


@pytest.mark.parametrize("seed", range(3))
def test_every_disturbed_copy_of_a_real_crystal_is_found_and_nothing_else_is(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the CIF readers remark on rounding
        read, _ = files.read_many([DATA / "La1.85Sr0.15CuO4.cif", DATA / "MgB2.cif", DATA / "Nb3Sn.vasp"])
    known = concat([read, ROCKSALT, ZINCBLENDE, WURTZITE, DIAMOND, GRAPHITE, CUAU, ALLOY])
    assert len(known) == 10
    assert search(known, copies(known, seed)) == 2 * list(range(10))


def test_copies_of_the_data_packs_are_found(crystals: Crystals, disordered: Crystals) -> None:
    known = concat([crystals[::3], disordered.select(disordered.nsites <= 60)[::3]])
    found = search(known, copies(known, seed=5))
    n = len(known)
    # LaFeAsO at its tetragonal-orthorhombic transition is 0.1 Å from being tetragonal: either
    # answer is right there
    assert np.sum(np.array(found[n:]) != found[:n]) <= 1
    assert n - len(set(found[:n])) <= 3


# Different crystals with one formula.


@pytest.mark.parametrize(("one", "other"), [(ZINCBLENDE, WURTZITE), (DIAMOND, GRAPHITE)], ids=["ZnS", "C"])
def test_polymorphs_are_left_apart(one: Crystals, other: Crystals) -> None:
    assert one.formulas().tolist() == other.formulas().tolist()
    assert search(one, other) == [0, 1]


def test_exchanged_sites_of_a_perovskite_are_another_crystal() -> None:
    oxygen = [("O", place) for place in CENTRES[1:].tolist()]
    one = crystal("a/1", 3.9 * CUBE, [("Mg", [0, 0, 0]), ("Ti", [0.5, 0.5, 0.5]), *oxygen])
    other = crystal("b/1", 3.9 * CUBE, [("Ti", [0, 0, 0]), ("Mg", [0.5, 0.5, 0.5]), *oxygen])
    assert search(one, other) == [0, 1]


def test_a_distorted_perovskite_is_not_the_cubic_one_though_its_sites_fit() -> None:
    sites = [("Ba", [0, 0, 0]), ("Ti", [0.5, 0.5, 0.5]), *(("O", place) for place in CENTRES[1:].tolist())]
    cubic = crystal("a/1", 4 * CUBE, sites)
    polar = crystal("b/1", 4 * CUBE, [*sites[:1], ("Ti", [0.5, 0.5, 0.54]), *sites[2:]])
    both = concat([cubic, polar, named(polar, "c/1")])
    assert identity.space_groups(both) == [221, 99, 99]
    assert identity.find(both)[1].same.tolist() == [[1, 2]]


def test_the_free_coordinate_decides_where_space_group_and_letters_agree() -> None:
    """Pyrite and the same space group, letters and cell with sulphur elsewhere."""

    def pyrite(id: str, u: float) -> Crystals:
        sulphur = np.array([[u, u, u], [0.5 - u, -u, 0.5 + u], [-u, 0.5 + u, 0.5 - u], [0.5 + u, 0.5 - u, -u]])
        places = [*(("Fe", list(p)) for p in CENTRES), *(("S", list(p)) for p in np.vstack([sulphur, -sulphur]))]
        return crystal(id, 5.42 * CUBE, places)  # type: ignore[arg-type]

    one, near, far = pyrite("a/1", 0.385), pyrite("b/1", 0.39), pyrite("c/1", 0.29)
    assert identity.space_groups(concat([one, near, far])) == [205, 205, 205]
    assert search(one, near, far) == [0, 0, 2]


def test_volumes_three_percent_apart_are_two_functionals_and_thirty_percent_two_crystals() -> None:
    assert search(ROCKSALT, scaled(ROCKSALT, "b/pbesol", 0.97), scaled(ROCKSALT, "c/dense", 0.7)) == [0, 0, 2]


# Disorder.


def test_doped_and_undoped_cuprate_are_two_crystals() -> None:
    assert search(k2nif4("a/0", 0), k2nif4("b/0.15", 0.15), k2nif4("c/0", 0)) == [0, 1, 0]
    assert composition(k2nif4("b/0.15", 0.15)) == "Cu:1 La0.92Sr0.08:2 O:4"


def test_neighbours_of_a_doping_series_stay_apart_and_rounding_of_a_file_does_not_matter() -> None:
    series = [k2nif4("a/0.150", 0.15), k2nif4("b/0.1501", 0.1501), k2nif4("c/0.154", 0.154)]
    assert len({composition(one) for one in series}) == 1
    assert search(*series) == [0, 0, 2]


def test_an_ordered_and_a_disordered_alloy_are_two_crystals() -> None:
    assert search(CUAU, ALLOY, named(in_cell(ALLOY, CONVENTIONAL), "c/cuau")) == [0, 1, 1]
    assert composition(ALLOY) == "Au0.5Cu0.5:1"


def test_a_vacancy_is_part_of_the_crystal() -> None:
    empty = crystal("b/nacl", 5.64 * FCC, [({"Na": 0.9}, [0, 0, 0]), ("Cl", [0.5, 0.5, 0.5])])
    assert search(ROCKSALT, empty) == [0, 1]
    assert composition(empty) == "Cl:1 Na0.9:1"


def test_a_doped_crystal_is_found_in_a_supercell() -> None:
    doped = crystal("a/1", 3.9 * CUBE, [({"La": 0.5, "Sr": 0.5}, [0, 0, 0]), ("Mn", [0.5, 0.5, 0.5])])
    large = named(in_cell(doped, np.diag([2, 1, 1])), "b/1")
    assert search(doped, large) == [0, 0]


# Fingerprints and space groups.


def split_layer(id: str, apart: float, share: float | None = 0.5) -> Crystals:
    """TlClO with its thallium on both sides of a mirror plane, so far apart (Å), or on it."""
    sides = [(0.0, 1.0)] if share is None else [(apart / 12, share), (-apart / 12, 1 - share)]
    metal: list[tuple[str | dict[str, float], list[float]]] = [({"Tl": part}, [0, 0, z]) for z, part in sides]
    return crystal(id, np.diag([4.0, 4.0, 6.0]), [*metal, ("O", [0.5, 0.5, 0.5]), ("Cl", [0, 0, 0.5])])


@pytest.mark.parametrize("apart", [0.08, 0.2, 0.45])
def test_a_split_position_is_found_in_every_description(apart: float) -> None:
    """Also where both sites lie within the tolerance of the symmetry search, 0.1 Å."""
    known = concat([split_layer("a/half", apart), split_layer("a/mostly one", apart, 0.7), ROCKSALT])
    for seed in range(3):
        assert search(known, copies(known, seed)) == [0, 1, 2, 0, 1, 2]
    assert identity.space_groups(known[:1]) == [123]


def test_how_far_an_atom_is_split_does_not_matter_but_whether_it_is() -> None:
    """Refinements of one crystal differ by 0.1 Å. With the atom on the plane the sites are others: another crystal."""
    assert search(split_layer("a", 0.2), split_layer("b", 0.35), split_layer("c", 0, None)) == [0, 0, 2]


def test_distances_are_those_of_ase(crystals: Crystals) -> None:
    from ase.neighborlist import neighbor_list

    known = crystals[::20]
    found = identity.fingerprints(known)
    assert found.ids.tolist() == known.ids.tolist()
    for atoms, distances in zip(convert.to_ase(known), numbers(found), strict=True):
        unit = (atoms.get_volume() / len(atoms)) ** (1 / 3)
        first, length = neighbor_list("id", atoms, 4.0 * unit)
        nearest = np.array([np.sort(length[first == i])[:24] / unit for i in range(len(atoms))])
        symbols = np.array(atoms.get_chemical_symbols())
        bins = np.split(np.arange(24), [2, 4, 6, 8, 12, 16, 20])
        expected = [nearest[symbols == kind][:, part].mean() for kind in sorted(set(symbols)) for part in bins]
        assert distances == pytest.approx(expected, abs=0.01)  # sites within 0.02 Å of a smaller cell are averaged


def test_a_small_change_of_a_crystal_changes_its_fingerprint_little(crystals: Crystals) -> None:
    known = crystals[::4]
    both = numbers(identity.fingerprints(concat([known, copies(known, 1, shear=0.004)])))
    gaps = [np.abs(np.subtract(one, other)).max() for one, other in zip(both, both[len(known) :])]
    assert max(gaps) < 0.03


def test_space_groups_are_those_of_moyo(crystals: Crystals) -> None:
    known = crystals[::10]
    expected = []
    for lattice, a, b in zip(known.lattice, known.site_ptr, known.site_ptr[1:]):
        found = symmetry.dataset(lattice.tolist(), known.frac[a:b].tolist(), known.numbers[a:b].tolist(), 0.1)
        expected.append(0 if found is None else found.number)
    assert identity.space_groups(known) == expected


def test_a_broken_cell_does_not_stop_the_batch() -> None:
    broken = crystal("a/twice", 4 * CUBE, [("Na", [0, 0, 0]), ("Na", [0, 0, 0])])
    batch = concat([broken, ROCKSALT, named(broken, "b/twice"), named(ROCKSALT, "b/nacl")])
    assert identity.fingerprints(batch).compositions == ["", "Cl:1 Na:1", "", "Cl:1 Na:1"]
    assert identity.space_groups(batch)[1::2] == [225, 225]
    assert identity.find(batch)[0].tolist() == [0, 1, 2, 1]


def test_a_panic_of_moyo_is_a_crystal_without_symmetry(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="assay.sources.symmetry"):
        assert symmetry.dataset(CUBE.tolist(), [], [], 0.1) is None
    assert "no symmetry at 0.1" in caplog.text


def test_an_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    import moyopy

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moyopy, "MoyoDataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        identity.space_groups(ROCKSALT)


def test_a_very_flat_cell_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    flat = crystal("a/1", np.diag([1, 1, 3000.0]), [("Na", [0, 0, 0])])
    assert search(flat, named(flat, "b/1")) == [0, 1]
    assert "too flat" in caplog.text


@settings(max_examples=40, deadline=None)
@given(batches())
def test_any_batch_has_one_fingerprint_per_crystal(batch: Crystals) -> None:
    found = identity.fingerprints(batch)
    assert len(found.ids) == len(batch)
    for text, distances in zip(found.compositions, numbers(found), strict=True):
        assert len(distances) == 8 * len(text.split())
        assert np.all(np.isfinite(distances))
    identity.find(batch)


# Rounds, order, limits.


def test_the_order_of_rows_changes_nothing(crystals: Crystals) -> None:
    known = concat([crystals[::6], copies(crystals[::6], 1), copies(crystals[::6], 2, shear=0.002)])
    expected = dict(zip(known.ids.tolist(), known.ids[search(known)].tolist()))
    groups = {frozenset(id for id, root in expected.items() if root == name) for name in expected.values()}
    assert max(map(len, groups)) == 3
    for seed in range(2):
        mixed = known.select(np.random.default_rng(seed).permutation(len(known)))
        roots = np.array(search(mixed))
        assert {frozenset(mixed.ids[roots == root].tolist()) for root in roots} == groups


def test_pairs_confirmed_apart_give_the_same_answers() -> None:
    known = concat([ROCKSALT, DIAMOND, named(ROCKSALT, "b/nacl"), named(DIAMOND, "b/diamond"), WURTZITE, ZINCBLENDE])
    pairs = identity.Search(identity.fingerprints(known)).pairs()
    assert {(0, 2), (1, 3)} <= set(map(tuple, pairs.tolist()))
    apart = [pair for pair in pairs for _ in identity.confirm(known.select(pair), np.array([[0, 1]])).same]
    assert sorted(np.array(apart).tolist()) == sorted(identity.confirm(known, pairs).same.tolist()) == [[0, 2], [1, 3]]


def frames(n: int, seed: int = 0) -> Crystals:
    """Snapshots of one cell of 16 atoms without symmetry: each atom 0.1 Å from its place, more or less."""
    rng = np.random.default_rng(seed)
    cell = in_cell(CUAU, np.diag([2, 2, 2]))
    frac = (np.tile(cell.frac, (n, 1, 1)) + rng.normal(size=(n, 16, 3)) * 0.1 / 6).reshape(-1, 3) % 1.0
    names = np.array([f"a/{k:05d}" for k in range(n)])
    return Crystals(
        names,
        np.tile(cell.lattice, (n, 1, 1)),
        np.arange(n + 1) * 16,
        frac,
        np.arange(16 * n + 1),
        np.tile(cell.numbers, n),
        np.tile(cell.occupancy, n),
    )


def test_snapshots_of_one_cell_are_compared_with_their_nearest_ones_only() -> None:
    """And each is found in another source."""
    one = frames(120)
    other = copies(one, seed=3)
    both = concat([one, other])
    search = identity.Search(identity.fingerprints(both))
    pairs = search.pairs()
    assert len(pairs) <= search_module.NEAR * len(both)
    assert {(k, k + 120) for k in range(120)} <= set(map(tuple, pairs.tolist()))
    leader, _ = identity.find(both)
    assert leader[120:].tolist() == leader[:120].tolist()


def test_many_copies_of_one_crystal_become_one_round_by_round() -> None:
    many = concat([named(ROCKSALT, f"a/{k:03d}") for k in range(100)])
    assert set(identity.find(many)[0].tolist()) == {0}


def test_nothing_gives_nothing() -> None:
    none = ROCKSALT[:0]
    assert len(identity.fingerprints(none).ids) == 0
    leader, found = identity.find(none)
    assert (leader.shape, found.same.shape) == ((0,), (0, 2))


# Groups.


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_every_row_is_equal_to_the_one_that_leads_it_and_no_two_leaders_are_equal(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    n, pairs = case
    same = {tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}
    leader = identity.joined(np.arange(n), np.array(sorted(same), dtype=np.int64)).tolist()
    for row, first in enumerate(leader):
        assert row == first or (first, row) in same
        assert leader[first] == first
    assert not any(leader[a] == a and leader[b] == b for a, b in same)
    again = identity.joined(np.arange(n), np.array([pair[::-1] for pair in same], dtype=np.int64))
    assert again.tolist() == leader
