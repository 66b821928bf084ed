"""Symmetry by name, by number and by operations, and where they contradict each other."""

from __future__ import annotations

import pytest

from assay.sources.quarantine import Reason
from tests.sources.formats.cif.texts import ROCK_SALT, block, cell, hm, one, operations, refusal, sites

FULL = {"Na": 4.0, "Cl": 4.0}
CUBIC = cell(5.64)
ALL_SITES = (
    *(f"Na{k} Na {place} 1" for k, place in enumerate(("0 0 0", "0 .5 .5", ".5 0 .5", ".5 .5 0"))),
    *(f"Cl{k} Cl {place} 1" for k, place in enumerate((".5 .5 .5", ".5 0 0", "0 .5 0", "0 0 .5"))),
)


def hall(symbol: str, tag: str = "_symmetry_space_group_name_Hall") -> str:
    return f"{tag} '{symbol}'\n"


def number(value: int, tag: str = "_symmetry_Int_Tables_number") -> str:
    return f"{tag} {value}\n"


@pytest.mark.parametrize(
    "name",
    [
        hm("F m -3 m"),
        hm("Fm-3m"),
        hm("F m 3 m"),
        hm("F 4/m -3 2/m"),
        hm("FM-3M"),
        "_space_group_name_H-M_alt 'F m -3 m'\n",
        "_space_group.name_H-M_ref 'F m -3 m'\n",
        hall("-F 4 2 3"),
        hall("-F 4 2 3", "_space_group.name_Hall"),
        hall("F m -3 m"),
        hm("-F 4 2 3"),
        number(225),
        number(225, "_space_group.IT_number"),
        number(225) + hm("F m -3 m") + hall("-F 4 2 3"),
        hm("?") + number(225),
    ],
)
def test_rock_salt_by_every_kind_of_name(name: str) -> None:
    found = one(block(CUBIC, name, sites(*ROCK_SALT)))
    assert (found.amounts, found.warnings) == (FULL, "")
    assert found.shortest == pytest.approx(2.82)


HEXAGONAL, RHOMBOHEDRAL = cell(4.546, 4.546, 11.862, 90, 90, 120), cell(4.746, alpha=57.24, beta=57.24, gamma=57.24)


@pytest.mark.parametrize(
    "name", [hm("R -3 m"), hm("R -3 m H"), hm("R -3 m :H"), hm("R-3mH"), number(166), hm("R 3 m h")]
)
def test_hexagonal_axes(name: str) -> None:
    found = one(block(HEXAGONAL, name, sites("Bi1 Bi 0 0 0.234 1")))
    assert found.sites == (3 if "R 3 m" in name else 6)


@pytest.mark.parametrize(
    "name", [hm("R -3 m"), hm("R -3 m R"), hm("R -3 m :R"), number(166), hm("R -3 2/m (rhombohedral axes)")]
)
def test_rhombohedral_axes(name: str) -> None:
    found = one(block(RHOMBOHEDRAL, name, sites("Bi1 Bi 0.234 0.234 0.234 1")))
    assert (found.sites, found.shortest) == (2, pytest.approx(3.07, abs=0.01))


@pytest.mark.parametrize(
    ("symbol", "place", "count"),
    [
        ("F d -3 m :1", "0 0 0", 8),
        ("F d -3 m S", "0 0 0", 8),
        ("F d -3 m :2", "0.125 0.125 0.125", 8),
        ("F d -3 m Z", "0.125 0.125 0.125", 8),
        ("Fd-3mZ", "0.125 0.125 0.125", 8),
        ("F 41/d -3 2/m (origin choice 2)", "0.125 0.125 0.125", 8),
        ("F d -3 m O2", "0.125 0.125 0.125", 8),
        ("F d -3 m (origin at -1)", "0.125 0.125 0.125", 8),
        ("F d -3 m (origin at centre (-3m))", "0.125 0.125 0.125", 8),
        ("F d -3 m, origin at the inversion center", "0 0 0", 16),
        ("F d -3 m (origin at -43m)", "0 0 0", 8),
        ("F d -3 m :2", "0 0 0", 16),
    ],
)
def test_an_origin_in_the_name(symbol: str, place: str, count: int) -> None:
    found = one(block(cell(5.43), hm(symbol), sites(f"Si1 Si {place} 1")))
    assert (found.sites, found.warnings) == (count, "")


@pytest.mark.parametrize(
    "name", ["P 21 21 21 (origin at -1)", "F d -3 m (origin at 6/mmm)", "F d -3 m (origin at sea)"]
)
def test_an_origin_that_a_group_does_not_have_is_refused(name: str) -> None:
    reason, message = refusal(block(cell(5.43), hm(name), sites("Si1 Si 0 0 0 1")))
    assert reason is Reason.MALFORMED
    assert name in message


def test_an_origin_that_only_the_distances_give_away_is_told() -> None:
    spinel = sites("Mg1 Mg .125 .125 .125 1", "Al1 Al .5 .5 .5 1", "O1 O .2624 .2624 .2624 1")
    found = one(block(cell(8.08), hm("F d -3 m"), spinel))
    assert found.amounts == {"Mg": 8.0, "Al": 16.0, "O": 32.0}
    assert found.warnings.startswith("the origin is not stated; F d -3 m:2 was taken")


def test_an_origin_that_formula_and_units_give_away() -> None:
    stated = "_chemical_formula_sum C\n_cell_formula_units_Z 8\n"
    assert one(block(cell(3.567), number(227), stated, sites("C1 C 0 0 0 1"))).sites == 8


def test_an_origin_that_nothing_gives_away_is_refused_with_both_readings() -> None:
    reason, message = refusal(block(cell(9.0), hm("F d -3 m"), sites("C1 C 0 0 0 1")))
    assert reason is Reason.MALFORMED
    assert "8 sites by F d -3 m:1, 16 sites by F d -3 m:2" in message


MONOCLINIC = cell(5.12, 5.18, 6.7, 90, 99.2, 90)
GENERAL = sites("Zr1 Zr .276 .04 .208 1", "O1 O .07 .33 .345 1")


@pytest.mark.parametrize("symbol", ["P 21/n", "P2(1)/n", "P 1 21/n 1", "P2_1/n", "P 2~1~/n"])
def test_a_setting_beside_its_number_is_the_setting(symbol: str) -> None:
    named = one(block(MONOCLINIC, hm(symbol), number(14), GENERAL))
    listed = operations("x,y,z", "-x+1/2,y+1/2,-z+1/2", "-x,-y,-z", "x+1/2,-y+1/2,z+1/2")
    written = one(block(MONOCLINIC, listed, GENERAL))
    standard = one(block(MONOCLINIC, number(14), GENERAL))
    assert named == written
    assert named.shortest != pytest.approx(standard.shortest, abs=0.05)


def test_old_and_new_symbols_of_a_double_glide_are_one() -> None:
    rows = sites("La1 La 0 .361 .007 1", "Cu1 Cu 0 0 0 1", "O1 O .25 -.007 .25 1", "O2 O 0 .183 -.034 1")
    found = [
        one(block(cell(5.36, 13.15, 5.4), hm(symbol), rows))
        for symbol in ("C m c a", "C m c e", "Cmca", "C 2/m 2/c 21/a")
    ]
    assert found[0].sites == 28
    assert all(other == found[0] for other in found)


def test_a_unique_axis_by_the_cell() -> None:
    rows = sites("Na1 Na .1 .2 .3 1")
    assert one(block(cell(4, 5, 6, 90, 90, 100), hm("P 2"), rows)).warnings == ""
    assert (
        one(block(cell(9, 10, 11), hm("P 2"), rows)).warnings
        == "the axes are not stated; P 1 2 1 was taken by convention"
    )


def test_a_unique_axis_by_the_distances() -> None:
    rows = sites("Na1 Na .02 .25 0 1", "Na2 Na .25 .02 .5 1")  # close to its image about b, about a
    found = one(block(cell(7, 8, 9), hm("P 2"), rows))
    assert (found.sites, found.warnings[:45]) == (4, "the axes are not stated; P 1 1 2 was taken, s")


def test_a_hall_symbol_that_picks_one_meaning_of_a_name() -> None:
    assert one(block(cell(5, 6, 7), hm("B 2"), hall("B 2x"), sites("Na1 Na .1 .2 .3 1"))).sites == 4


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (hm("F m -3 m") + number(221), "has number 225, but 221 is stated"),
        (hm("F m -3 m") + hall("-P 4 2 3"), "(number 221) contradicts the name 'F m -3 m' (number 225)"),
        (hall("-F 4 2 3") + number(221), "contradicts number 221"),
        (hm("F q -3 m") + number(225), "'F q -3 m' is not known"),
        (hall("-Q 4 2 3"), "'-Q 4 2 3' is no Hall symbol"),
        (hm("P 63/m m c"), "do not fit the cell"),
        (number(231), "'231'; a number from 1 to 230 is accepted"),
        (operations("x,y,z", "-x,y+1/2,-z", "-x,-y,-z"), "are no group"),
        (operations("x,y,z", "-x,-y,-zz"), "'-x,-y,-zz' is no symmetry operation"),
        (operations("x,y,z", "-y,x-y,z", "-x+y,-x,z"), "do not fit the cell"),
        (operations() + hm("F m -3 m"), "number 1, but F m -3 m is stated; 2 sites by the listed operations, 8"),
    ],
)
def test_statements_that_exclude_each_other_are_refused(parts: str, told: str) -> None:
    reason, message = refusal(block(CUBIC, parts, sites(*ROCK_SALT)))
    assert reason is Reason.MALFORMED
    assert told in message


def test_the_hall_symbol_of_another_setting_is_refused_with_both_readings() -> None:
    reason, message = refusal(block(MONOCLINIC, hm("P 21/n"), hall("-P 2ybc"), number(14), GENERAL))
    assert reason is Reason.MALFORMED
    assert "8 sites by the Hall symbol -P 2ybc, 8 sites by P 1 21/n 1" in message


def test_two_statements_that_give_one_crystal_are_read_and_told() -> None:
    found = one(block(CUBIC, hm("F m -3 m"), operations(), sites(*ALL_SITES)))
    assert (found.amounts, found.warnings) == (
        FULL,
        "the listed operations are those of number 1, but F m -3 m is stated",
    )
    assert one(block(CUBIC, hm("F m -3 m"), sites(*ALL_SITES))).amounts == FULL


def test_listed_operations_that_formula_and_units_confirm_come_before_a_wrong_name() -> None:
    stated = "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 1\n"
    found = one(block(cell(3.6), hm("F m -3 m"), operations(), stated, sites(*ROCK_SALT)))
    assert found.amounts == {"Na": 1.0, "Cl": 1.0}
    assert "but F m -3 m is stated" in found.warnings


def test_no_symmetry_at_all_is_told() -> None:
    found = one(block(CUBIC, sites(*ALL_SITES)))
    assert (found.amounts, found.warnings[:22]) == (FULL, "no symmetry is stated;")


@pytest.mark.parametrize(
    "parts",
    [
        "_cell_modulation_dimension 1\n" + operations(),
        "_space_group_ssg_name 'P n m a(0,0,g)0s0'\n" + operations(),
        operations("x1,x2,x3,x4", tag="_space_group_symop_ssg_operation_algebraic"),
        "loop_\n_cell_wave_vector_seq_id\n_cell_wave_vector_x\n1 0.31\n" + operations(),
    ],
)
def test_a_modulated_crystal_is_refused_as_such(parts: str) -> None:
    reason, message = refusal(block(CUBIC, parts, sites(*ROCK_SALT)))
    assert reason is Reason.NOT_PERIODIC
    assert "modulated" in message


@pytest.mark.parametrize("z", ["0.34", "0.16", "0.33", "0.1667", "0.34(1)"])
def test_a_coordinate_that_no_third_makes_special_stays(z: str) -> None:
    rows = sites(f"K1 K .13 .21 {z} 1", "Cl1 Cl .4107 .0712 .5512 1")
    hexagonal, exact = cell(9.4, 9.4, 12.3, 90, 90, 120), z.replace("(1)", "") + "0000"
    written = sites(f"K1 K .13 .21 {exact} 1", "Cl1 Cl .4107 .0712 .5512 1")
    found = [one(block(hexagonal, hm("P 63 m c"), text)) for text in (rows, written)]
    assert (found[0], found[0].warnings) == (found[1], "")


@pytest.mark.parametrize("pair", [(".33", ".67"), (".33", ".66"), (".333", ".667"), (".3333", ".6667"), ("1/3", "2/3")])
def test_thirds_in_any_rounding_are_a_special_position(pair: tuple[str, str]) -> None:
    rows = sites("Mg1 Mg 0 0 0 1", f"B1 B {pair[0]} {pair[1]} .5 1")
    assert one(block(cell(3.086, 3.086, 3.524, 90, 90, 120), hm("P 6/m m m"), rows)).amounts == {"Mg": 1.0, "B": 2.0}


def test_a_coordinate_near_a_third_is_none() -> None:
    rows = sites("Mg1 Mg 0 0 0 1", "B1 B .34 .67 .5 1")
    found = one(block(cell(9, 9, 3.5, 90, 90, 120), hm("P 6/m m m"), rows))
    assert (found.amounts["B"], found.warnings) == (6, "")  # x, 2x is not met, x, -x + 1.01 neither


def test_thirds_that_were_rounded_are_thirds() -> None:
    found = one(
        block(cell(3.086, 3.086, 3.524, 90, 90, 120), hm("P 6/m m m"), sites("Mg1 Mg 0 0 0 1", "B1 B .33 .67 .5 1"))
    )
    assert (found.amounts, found.shortest) == ({"Mg": 1.0, "B": 2.0}, pytest.approx(3.086 / 3**0.5))


def test_a_list_that_name_and_hall_symbol_contradict_together_is_refused() -> None:
    listed = operations("x,y,z", "-x,y,-z", "x+1/2,y+1/2,z+1/2", "-x+1/2,y+1/2,-z+1/2")  # I 1 2 1
    names = hm("C 1 2 1") + hall("C 2y")
    reason, message = refusal(block(MONOCLINIC, names, listed, GENERAL))
    assert reason is Reason.MALFORMED
    assert "but C 1 2 1 is stated" in message
    assert "are those of I 1 2 1, not of C 1 2 1" in one(block(MONOCLINIC, hm("C 1 2 1"), listed, GENERAL)).warnings


@pytest.mark.parametrize("symbol", ["H", "1", "225"])
def test_what_names_no_lattice_is_no_hall_symbol(symbol: str) -> None:
    assert f"'{symbol}' is no Hall symbol" in refusal(block(CUBIC, hall(symbol), sites(*ROCK_SALT)))[1]


@pytest.mark.parametrize("symbol", ["225", "F m -3 m (225)", "F m -3 m (No. 225)", "Fm-3m (#225)"])
def test_a_number_in_the_name(symbol: str) -> None:
    assert one(block(CUBIC, hm(symbol), sites(*ROCK_SALT))).amounts == FULL


def test_a_symbol_of_two_settings_is_refused_with_both() -> None:
    text = block(cell(9, 10, 11), hm("C c c e :2"), sites("Na1 Na .1 .2 .3 1"))
    assert "the origin or setting is not stated" in refusal(text)[1]
    assert "by C c c a:2, 16 sites by C c c b:2" in refusal(text)[1]
