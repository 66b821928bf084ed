"""The same crystal is found in any description of it; another crystal is left apart, however similar."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources import files, identity, symmetry
from assay.sources.crystals import Crystals, concat
from assay.sources.elements import NUMBERS
from assay.sources.formats import convert
from assay.sources.identity import search as search_module
from tests.crystal_batches import batches
from tests.crystal_copies import copies, in_cell

DATA = Path(__file__).parents[1] / "data"
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
    """Cluster of every crystal of all parts."""
    both = concat(parts)
    block = identity.blocks(identity.labels(both))
    return identity.clusters(len(both), identity.confirm(both, block).same).tolist()


def label(one: Crystals) -> str:
    """Label at the coarse tolerance."""
    found: list[str] = identity.labels(one)["label"].to_pylist()
    return found[0]


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
    assert label(ROCKSALT) == label(supercell) == "AB_cF8_225_a_b:Cl-Na"


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
    assert identity.labels(both)["spacegroup"].to_pylist() == [221, 99, 99]
    assert identity.confirm(both, np.zeros(3, dtype=np.int64)).same.tolist() == [[1, 2]]


def test_the_free_coordinate_decides_where_all_labels_agree() -> None:
    """Pyrite and the same space group, letters and cell with sulphur elsewhere."""

    def pyrite(id: str, u: float) -> Crystals:
        sulphur = np.array([[u, u, u], [0.5 - u, -u, 0.5 + u], [-u, 0.5 + u, 0.5 - u], [0.5 + u, 0.5 - u, -u]])
        places = [*(("Fe", list(p)) for p in CENTRES), *(("S", list(p)) for p in np.vstack([sulphur, -sulphur]))]
        return crystal(id, 5.42 * CUBE, places)  # type: ignore[arg-type]

    one, near, far = pyrite("a/1", 0.385), pyrite("b/1", 0.39), pyrite("c/1", 0.29)
    assert label(one) == label(near) == label(far) == "AB2_cP12_205_a_c:Fe-S"
    assert search(one, near, far) == [0, 0, 2]


def test_volumes_three_percent_apart_are_two_functionals_and_thirty_percent_two_crystals() -> None:
    assert search(ROCKSALT, scaled(ROCKSALT, "b/pbesol", 0.97), scaled(ROCKSALT, "c/dense", 0.7)) == [0, 0, 2]


# Disorder.


def test_doped_and_undoped_cuprate_are_two_crystals() -> None:
    assert search(k2nif4("a/0", 0), k2nif4("b/0.15", 0.15), k2nif4("c/0", 0)) == [0, 1, 0]
    assert label(k2nif4("b/0.15", 0.15)) == "AB2C4_tI14_139_a_e_ce:Cu-La0.92Sr0.08-O"


def test_neighbours_of_a_doping_series_stay_apart_and_rounding_of_a_file_does_not_matter() -> None:
    series = [k2nif4("a/0.150", 0.15), k2nif4("b/0.1501", 0.1501), k2nif4("c/0.154", 0.154)]
    assert len({label(one) for one in series}) == 1
    assert search(*series) == [0, 0, 2]


def test_an_ordered_and_a_disordered_alloy_are_two_crystals() -> None:
    assert search(CUAU, ALLOY, named(in_cell(ALLOY, CONVENTIONAL), "c/cuau")) == [0, 1, 1]
    assert label(ALLOY) == "A_cF4_225_a:Au0.5Cu0.5"


def test_a_vacancy_is_part_of_the_crystal() -> None:
    empty = crystal("b/nacl", 5.64 * FCC, [({"Na": 0.9}, [0, 0, 0]), ("Cl", [0.5, 0.5, 0.5])])
    assert search(ROCKSALT, empty) == [0, 1]
    assert label(empty) == "AB_cF8_225_a_b:Cl-Na0.9"


def test_a_doped_crystal_keeps_its_label_in_a_supercell() -> None:
    doped = crystal("a/1", 3.9 * CUBE, [({"La": 0.5, "Sr": 0.5}, [0, 0, 0]), ("Mn", [0.5, 0.5, 0.5])])
    large = named(in_cell(doped, np.diag([2, 1, 1])), "b/1")
    assert search(doped, large) == [0, 0]


# Labels.


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
    assert label(known[:1]) == "ABC2_tP4_123_a_c_g:Cl-O-Tl0.5"


def test_how_far_an_atom_is_split_does_not_matter_but_whether_it_is() -> None:
    """Refinements of one crystal differ by 0.1 Å. With the atom on the plane the sites are others: another crystal."""
    assert search(split_layer("a", 0.2), split_layer("b", 0.35), split_layer("c", 0, None)) == [0, 0, 2]


def test_labels_are_those_of_pymatgen(crystals: Crystals) -> None:
    from pymatgen.analysis.prototypes import get_protostructure_label_from_moyopy

    found = identity.labels(crystals)
    assert found.schema == identity.LABELS
    assert found["id"].to_pylist() == crystals.ids.tolist()
    assert found["formula"].to_pylist() == crystals.formulas().tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pymatgen's own gcd
        structures = convert.to_pymatgen(crystals)
        for name, symprec in (("label", 0.1), ("label_fine", 0.01)):
            oracle = [get_protostructure_label_from_moyopy(one, symprec=symprec) for one in structures]
            assert found[name].to_pylist() == oracle
    assert [int(text.split("_")[2]) for text in found["label"].to_pylist()] == found["spacegroup"].to_pylist()


def test_a_broken_cell_does_not_stop_the_batch() -> None:
    broken = crystal("a/twice", 4 * CUBE, [("Na", [0, 0, 0]), ("Na", [0, 0, 0])])
    batch = concat([broken, ROCKSALT, named(broken, "b/twice"), named(ROCKSALT, "b/nacl")])
    found = identity.labels(batch)
    assert found["spacegroup"].to_pylist() == [0, 225, 0, 225]
    assert found["label"].to_pylist()[::2] == found["label_fine"].to_pylist()[::2] == ["", ""]
    assert identity.blocks(found).tolist() == [0, 1, 2, 1]
    assert identity.confirm(batch, np.zeros(4, dtype=np.int64)).same.tolist() == [[1, 3]]


def test_a_panic_of_moyo_is_a_crystal_without_label(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="assay.sources.symmetry"):
        assert symmetry.dataset(CUBE.tolist(), [], [], 0.1) is None
    assert "no symmetry at 0.1" in caplog.text


def test_an_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    import moyopy

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moyopy, "MoyoDataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        identity.labels(ROCKSALT)


def test_a_very_flat_cell_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    flat = crystal("a/1", np.diag([1, 1, 3000.0]), [("Na", [0, 0, 0])])
    assert search(flat, named(flat, "b/1")) == [0, 1]
    assert "too flat" in caplog.text


@settings(max_examples=40)
@given(batches())
def test_any_batch_has_one_row_of_labels_per_crystal(batch: Crystals) -> None:
    found = identity.labels(batch)
    assert len(found) == len(batch)
    for group, text, fine in zip(*(found[name].to_pylist() for name in ("spacegroup", "label", "label_fine"))):
        assert (group == 0) == (not text)
        assert text or not fine


# Blocks, order, limits.


def table(*rows: tuple[str, str]) -> pa.Table:
    """A table of labels from pairs (label, label_fine)."""
    coarse, fine = zip(*rows)
    n = len(rows)
    arrays = [[str(row) for row in range(n)], ["X"] * n, [1] * n, coarse, fine]
    return pa.table([pa.array(values, field.type) for values, field in zip(arrays, identity.LABELS)], identity.LABELS)


def test_rows_that_share_either_label_are_in_one_block() -> None:
    rows = table(("a", "x"), ("b", "y"), ("", ""), ("b", "x"), ("", ""), ("x", "a"), ("c", ""), ("d", ""))
    assert identity.blocks(rows).tolist() == [0, 0, 2, 0, 4, 5, 6, 7]


def test_the_order_of_rows_changes_nothing(crystals: Crystals) -> None:
    known = concat([crystals[::6], copies(crystals[::6], 1), copies(crystals[::6], 2, shear=0.002)])
    expected = dict(zip(known.ids.tolist(), known.ids[search(known)].tolist()))
    groups = {frozenset(id for id, root in expected.items() if root == name) for name in expected.values()}
    assert max(map(len, groups)) == 3
    for seed in range(2):
        mixed = known.select(np.random.default_rng(seed).permutation(len(known)))
        roots = np.array(search(mixed))
        assert {frozenset(mixed.ids[roots == root].tolist()) for root in roots} == groups


def test_blocks_confirmed_apart_give_the_same_pairs() -> None:
    known = concat([ROCKSALT, DIAMOND, named(ROCKSALT, "b/nacl"), named(DIAMOND, "b/diamond")])
    block = identity.blocks(identity.labels(known))
    apart = []
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        apart += rows[identity.confirm(known.select(rows), block[rows]).same].tolist()
    assert sorted(apart) == identity.confirm(known, block).same.tolist() == [[0, 2], [1, 3]]


def test_a_large_block_is_cut_by_volume_into_equal_parts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(search_module, "LARGEST_BLOCK", 4)
    sizes = [1.0, 1.5, 2.3, 1.001, 1.501, 2.301]  # every volume twice, out of order
    known = concat([scaled(ROCKSALT, f"{'ab'[row // 3]}/{row}", size) for row, size in enumerate(sizes)])
    with caplog.at_level(logging.WARNING):
        pairs = identity.confirm(known, np.zeros(6, dtype=np.int64))
    assert pairs.same.tolist() == [[0, 3], [2, 5]]  # the pair in the middle is what the cut costs
    assert "6 crystals may be the same as a/0: compared in 2 parts" in caplog.text


def test_confirm_wants_a_block_for_every_crystal() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1,\)"):
        identity.confirm(ROCKSALT, np.zeros(2, dtype=np.int64))


def test_nothing_gives_nothing() -> None:
    none = ROCKSALT[:0]
    assert identity.labels(none).num_rows == 0
    assert identity.blocks(identity.labels(none)).shape == (0,)
    assert identity.confirm(none, np.empty(0, dtype=np.int64)).same.shape == (0, 2)
    assert identity.clusters(0, np.empty((0, 2), dtype=np.int64)).shape == (0,)


# Clusters.


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_the_connected_rows_named_by_the_smallest(case: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = case
    found = identity.clusters(n, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    reach = np.eye(n, dtype=bool)
    for one, other in pairs:
        reach[one, other] = reach[other, one] = True
    for _ in range(n):
        reach = reach @ reach
    assert found.tolist() == [int(np.argmax(row)) for row in reach]
    again = identity.clusters(n, np.array([pair[::-1] for pair in pairs[::-1]], dtype=np.int64))
    assert again.tolist() == found.tolist()


def test_a_pair_outside_the_rows_is_refused() -> None:
    for pair in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="expected 0 to 2"):
            identity.clusters(3, np.array([pair]))
