"""What stands on a site: elements, shares, positions; and what the formula says."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.sources import files
from assay.sources.formats.cif import formulas
from assay.sources.quarantine import Reason
from tests.sources.formats.cif.texts import block, cell, one, operations, refusal, sites

P1 = operations()
CELL = cell(4.0)
LABELS = "label fract_x fract_y fract_z"


@pytest.mark.parametrize(
    ("symbol", "element", "told"),
    [
        ("Fe3+", "Fe", ""),
        ("O-2", "O", ""),
        ("Cu2.5+", "Cu", ""),
        ("Fe(III)", "Fe", ""),
        ("W", "W", ""),
        ("FE", "Fe", "type symbol FE was read as Fe"),
        ("D", "H", "deuterium was read as hydrogen"),
        ("57Fe", "Fe", "isotope 57Fe was read as Fe"),
    ],
)
def test_type_symbols(symbol: str, element: str, told: str) -> None:
    found = one(block(CELL, P1, sites(f"A1 {symbol} 0 0 0 1")))
    assert (found.amounts, found.warnings) == ({element: 1.0}, told)


@pytest.mark.parametrize("symbol", ["FeCo", "Fe0.5Co0.5", "Fe,Co", "(Fe,Co)", "Va", "X", "Xx", "T", "M"])
def test_type_symbols_of_no_single_element(symbol: str) -> None:
    reason, message = refusal(block(CELL, P1, sites(f"Fe1 '{symbol}' 0 0 0 1")))
    assert reason is Reason.UNKNOWN_SPECIES
    assert message.startswith("line 18: ")
    assert symbol in message


@pytest.mark.parametrize("symbol", ["OH", "OW", "Wat", "H2O", "O-H", "NH4"])
def test_type_symbols_of_several_atoms(symbol: str) -> None:
    assert refusal(block(CELL, P1, sites(f"A1 {symbol} 0 0 0 1")))[0] is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("label", "element", "told"),
    [
        ("Fe1", "Fe", ""),
        ("CuA", "Cu", ""),
        ("O2'", "O", ""),
        ("W1", "W", ""),
        ("Cr3+", "Cr", ""),
        ("NA1", "Na", "label NA1 was read as Na"),
        ("fe1", "Fe", "label fe1 was read as Fe"),
        ("Oap", "O", "label Oap was read as O"),
        ("D1", "H", "deuterium was read as hydrogen"),
    ],
)
def test_labels_without_type_symbols(label: str, element: str, told: str) -> None:
    found = one(block(CELL, P1, sites(f"{label} 0 0 0", columns=LABELS)))
    assert (found.amounts, found.warnings) == ({element: 1.0}, told)


@pytest.mark.parametrize("label", ["OH", "OH1", "OHB", "OW1", "Ow", "WatB", "WAT", "H2O1", "O-H", "NH4", "CH3", "Aq1"])
def test_labels_of_several_atoms_are_not_cut_to_one(label: str) -> None:
    reason, message = refusal(block(CELL, P1, sites(f"{label} 0 0 0", columns=LABELS)))
    assert reason is Reason.UNSUPPORTED
    assert label in message


@pytest.mark.parametrize(
    "label", ["HO1", "T1", "M1", "X1", "Va1", "VAC", "Cent", "Fe/Co", "Fe0.5Co0.5", "FeCo1", "Me1", "1"]
)
def test_labels_of_no_single_element(label: str) -> None:
    reason, message = refusal(block(CELL, P1, sites(f"{label} 0 0 0", columns=LABELS)))
    assert reason is Reason.UNKNOWN_SPECIES
    assert label in message


def test_the_formula_decides_what_a_label_in_capitals_means() -> None:
    rows = sites("CO1 0 0 0", "O1 .5 .5 .5", columns=LABELS)
    assert one(block(CELL, P1, "_chemical_formula_sum 'Co O'", rows)).amounts == {"Co": 1.0, "O": 1.0}
    assert one(block(CELL, P1, "_chemical_formula_sum 'C O'", rows)).amounts == {"C": 1.0, "O": 1.0}


def test_a_label_that_contradicts_its_type_symbol_is_told() -> None:
    found = one(block(CELL, P1, sites("Fe1 Co 0 0 0 1", "HO1 Ho .5 .5 .5 1")))
    assert found.amounts == {"Co": 1.0, "Ho": 1.0}
    assert found.warnings == "label Fe1 stands beside the type symbol Co, which was taken"


@pytest.mark.parametrize("share", [".", "?", "1", "1.000(3)"])
def test_a_share_that_is_not_said_is_one(share: str) -> None:
    assert one(block(CELL, P1, sites(f"Fe1 Fe 0 0 0 {share}"))).amounts == {"Fe": 1.0}


@pytest.mark.parametrize(
    ("share", "reason"), [("-0.1", Reason.BAD_OCCUPANCY), ("half", Reason.UNREADABLE), ("1.2", Reason.BAD_OCCUPANCY)]
)
def test_a_share_that_makes_no_sense(share: str, reason: Reason) -> None:
    assert refusal(block(CELL, P1, sites("Al1 Al .5 .5 .5 1", f"Fe1 Fe 0 0 0 {share}")))[0] is reason


def test_hydrogen_on_an_oxygen_site_is_kept() -> None:
    found = one(block(CELL, P1, sites("Ti1 Ti .5 .5 .5 1", "O1 O 0 0 0 0.7", "H1 H 0 0 0 0.3")))
    assert (found.amounts, found.sites) == ({"H": 0.3, "O": 0.7, "Ti": 1.0}, 2)


def test_deuterium_and_hydrogen_share_a_site() -> None:
    found = one(block(CELL, P1, sites("Pd1 Pd 0 0 0 1", "H1 H .5 .5 .5 .4", "D1 D .5 .5 .5 .6")))
    assert (found.amounts, found.sites) == ({"H": 1.0, "Pd": 1.0}, 2)


def test_an_empty_site_is_left_out_and_told() -> None:
    found = one(block(CELL, P1, sites("Fe1 Fe 0 0 0 1", "Co1 Co .5 .5 .5 0")))
    assert (found.sites, found.warnings) == (1, "site Co1 has the occupancy 0 and was left out")


BODY = operations("x,y,z", "x+1/2,y+1/2,z+1/2")


def test_sites_that_share_a_place_by_symmetry() -> None:
    mixed = one(block(CELL, BODY, sites("Fe1 Fe 0 0 0 .5", "Co1 Co .5 .5 .5 .5")))
    assert (mixed.amounts, mixed.sites) == ({"Fe": 1.0, "Co": 1.0}, 2)
    again = one(block(CELL, BODY, sites("Fe1 Fe 0 0 0 1", "Fe2 Fe .5 .5 .5 1")))
    assert (again.sites, again.warnings) == (2, "site Fe2 lists an image of Fe1 again and was left out")
    assert "shares were added" in one(block(CELL, BODY, sites("Fe1 Fe 0 0 0 .5", "Fe2 Fe .5 .5 .5 .5"))).warnings
    reason, message = refusal(block(CELL, P1, sites("Fe1 Fe 0 0 0 1", "Fe2 Fe 0 0 0 1")))
    assert reason is Reason.BAD_OCCUPANCY
    assert "Fe1 and Fe2 share a place and hold 2 atoms" in message


@pytest.mark.parametrize("value", [".", "?", "x", "0,5", "1/0"])
def test_a_coordinate_must_be_said(value: str) -> None:
    reason, message = refusal(block(CELL, P1, sites(f"Fe1 Fe 0 {value} 0 1")))
    assert reason is Reason.UNREADABLE
    assert message.startswith("line 18: coordinate y of Fe1")


def test_fractions_and_uncertainties_are_numbers() -> None:
    found = one(block(CELL, P1, sites("Fe1 Fe 0 0 0 1", "Al1 Al 1/2 .5000(2) 5e-1 1")))
    assert found.shortest == pytest.approx(4 * 0.75**0.5)


@pytest.mark.parametrize(("value", "read"), [("0", True), (".", True), ("?", True), ("1", False), ("many", False)])
def test_attached_hydrogen_has_no_position(value: str, read: bool) -> None:
    text = block(
        CELL, P1, sites(f"O1 O 0 0 0 {value}", columns="label type_symbol fract_x fract_y fract_z attached_hydrogens")
    )
    if read:
        assert one(text).amounts == {"O": 1.0}
    else:
        assert refusal(text)[0] is Reason.UNSUPPORTED


def test_dummy_sites_are_no_atoms() -> None:
    columns = "label type_symbol fract_x fract_y fract_z calc_flag"
    centre = sites("Na1 Na 0 0 0 d", "X1 X .5 .5 .5 dum", columns=columns)
    assert (one(block(CELL, P1, centre)).sites, one(block(CELL, P1, centre)).warnings) == (
        1,
        "dummy sites left out: X1",
    )
    lost = sites("Na1 Na 0 0 0 d", "H1 H -1 -1 -1 dum", columns=columns)
    assert refusal(block(CELL, P1, lost))[0] is Reason.UNSUPPORTED
    assert refusal(block(CELL, P1, "_chemical_formula_sum 'H Na'", lost))[0] is Reason.MALFORMED
    assert one(block(CELL, P1, "_chemical_formula_sum Na", lost)).amounts == {"Na": 1.0}


def test_disorder_groups_without_shares_are_told() -> None:
    columns = "label type_symbol fract_x fract_y fract_z disorder_group"
    found = one(block(CELL, P1, sites("Na1 Na 0 0 0 .", "Cl1 Cl .5 .5 .5 1", columns=columns)))
    assert found.warnings == "disordered sites without an occupancy were taken as full: Cl1"


PAIR = sites("Na1 Na 0 0 0 1", "Cl1 Cl .5 .5 .5 1")


@pytest.mark.parametrize(
    "formula",
    ["Na Cl", "Na1 Cl1", "NaCl", "NA CL", "NACL", "Na1/2 Cl1/2", "Na2 Cl2", "(Na Cl)2", "Cl Na", "Na1.00 Cl0.99"],
)
def test_formulas_that_agree(formula: str) -> None:
    assert one(block(CELL, P1, f"_chemical_formula_sum '{formula}'", PAIR)).warnings == ""


def test_a_formula_on_two_lines_is_one() -> None:
    assert formulas.amounts("Na1\n Cl2") == {"Na": 1, "Cl": 2}


def test_a_hydrate_with_a_dot_is_no_share_of_its_atom() -> None:
    told = formulas.amounts("CaSO4.2H2 O3"), formulas.amounts("CaSO4.2H2O"), formulas.amounts("Na2 Cl2.2")
    assert told == (None, {"H": 4, "O": 6, "S": 1, "Ca": 1}, {"Na": 2, "Cl": 2.2})


@pytest.mark.parametrize("formula", ["Na Cl2", "Na Cl H", "Na", "K Cl", "Na1.00 Cl0.90", "NA CL2"])
def test_formulas_that_disagree(formula: str) -> None:
    reason, message = refusal(block(CELL, P1, f"_chemical_formula_sum '{formula}'", PAIR))
    assert reason is Reason.MALFORMED
    assert "by the formula" in message


def test_a_formula_that_cannot_be_compared_is_told() -> None:
    assert "'Na1-x Cl'" in one(block(CELL, P1, "_chemical_formula_sum 'Na1-x Cl'", PAIR)).warnings


def test_formula_units() -> None:
    stated = "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z {}\n"
    assert one(block(CELL, P1, stated.format(1), PAIR)).warnings == ""
    assert refusal(block(CELL, P1, stated.format(4), PAIR))[0] is Reason.MALFORMED
    density = "_exptl_crystal_density_diffrn 1.516\n"
    assert "density agrees" in one(block(CELL, P1, stated.format(4), density, PAIR)).warnings
    whole_cell = "_chemical_formula_sum 'Na2 Cl2'\n_cell_formula_units_Z 2\n"  # as pymatgen writes it
    assert one(block(CELL, BODY, whole_cell, sites("Na1 Na 0 0 0 1", "Cl1 Cl .5 0 0 1"))).amounts == {
        "Na": 2.0,
        "Cl": 2.0,
    }


PEROXIDE = "Li1 Li 0 0 0 1", "Li2 Li .5 .5 0 1", "O1 O .5 0 0 1", "O2 O 0 .5 0 1"


@pytest.mark.parametrize(
    ("formula", "units", "structural"),
    [
        ("Li4 O4", 2, "Li2O2"),  # pymatgen: the whole cell, and the number of reduced formulas as it spells them
        ("Li2 O2", 2, "Li2 O2"),  # others: one unit, which is no reduced formula
        ("Li2 O2", 2, None),
        ("Li4 O4", 4, None),
    ],
)
def test_formulas_of_peroxides_and_molecules(formula: str, units: int, structural: str | None) -> None:
    stated = f"_chemical_formula_sum '{formula}'\n_cell_formula_units_Z {units}\n"
    stated += f"_chemical_formula_structural '{structural}'\n" if structural else ""
    assert one(block(CELL, BODY, stated, sites(*PEROXIDE))).amounts == {"Li": 4.0, "O": 4.0}
    assert refusal(block(CELL, P1, stated, sites(*PEROXIDE[::2])))[0] is Reason.MALFORMED, "a half is lost"


@pytest.mark.parametrize("elements", [["O"] * 3, ["N"] * 5, ["Cl"] * 7, ["Li"] * 5 + ["O"] * 5])
def test_formula_units_that_pymatgen_rounds_down(elements: list[str], tmp_path: Path) -> None:
    """It says O2 and Z = 1 beside three sites of O, N2 and Z = 2 beside five of N."""
    core, cif = pytest.importorskip("pymatgen.core"), pytest.importorskip("pymatgen.io.cif")
    places = [[k / len(elements)] * 3 for k in range(len(elements))]
    cif.CifWriter(core.Structure(core.Lattice.cubic(9), elements, places)).write_file(tmp_path / "odd.cif")
    found, refused = files.read(tmp_path / "odd.cif")
    assert (found.nsites.tolist(), refused) == ([len(elements)], [])


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (("_cell_angle_beta 90", "_cell_angle_beta ?"), Reason.UNREADABLE, "_cell_angle_beta '?' is no angle"),
        (("_cell_length_a 4.0", "_cell_length_a -4.0"), Reason.UNREADABLE, "'-4.0' is no positive number"),
        (("_cell_length_a 4.0\n", ""), Reason.UNREADABLE, "_cell_length_a is not said"),
        (("_cell_angle_beta 90", "_cell_angle_beta 179"), Reason.BAD_LATTICE, "no cell has the angles 90, 179, 20"),
    ],
)
def test_a_cell_that_is_none(change: tuple[str, str], reason: Reason, told: str) -> None:
    text = block(cell(4.0, gamma=20 if told.endswith("20") else 90).replace(*change), P1, PAIR)
    found, message = refusal(text)
    assert found is reason
    assert told in message


def test_angles_that_are_not_said_and_a_volume_that_differs_are_told() -> None:
    lengths = "".join(line + "\n" for line in CELL.splitlines() if "length" in line)
    assert "taken as 90 degrees" in one(block(lengths, P1, PAIR)).warnings
    assert "a volume of 70 is stated" in one(block(CELL, "_cell_volume 70.0(1)", P1, PAIR)).warnings
    assert one(block(CELL, "_cell_volume 64.1", P1, PAIR)).warnings == ""


def test_a_stated_multiplicity_that_differs_is_told() -> None:
    columns = "label type_symbol symmetry_multiplicity fract_x fract_y fract_z"
    found = one(block(CELL, P1, sites("Na1 Na 4 0 0 0", columns=columns)))
    assert found.warnings == "site Na1 has 1 images in the cell, but the multiplicity 4 is stated"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("label type_symbol Cartn_x Cartn_y Cartn_z occupancy", "Cartesian coordinates only"),
        ("label type_symbol fract_x fract_y other occupancy", "no _atom_site_fract_z"),
        ("id other fract_x fract_y fract_z occupancy", "neither _atom_site_label nor"),
    ],
)
def test_a_list_of_sites_that_lacks_a_column(columns: str, told: str) -> None:
    assert told in refusal(block(CELL, P1, sites("Na1 Na 0 0 0 1", columns=columns)))[1]


def test_a_stated_density_that_differs_is_told() -> None:
    density = "_exptl_crystal_density_diffrn {}\n"
    assert "a density of 2.16 is stated" in one(block(CELL, density.format(2.16), P1, PAIR)).warnings
    assert one(block(CELL, density.format(1.52), P1, PAIR)).warnings == ""


@pytest.mark.parametrize("length", ["1e160", "1e-320", "0.01", "20000"])
def test_a_length_that_no_cell_has(length: str) -> None:
    for symmetry in (P1, "_symmetry_Int_Tables_number 225", "_symmetry_space_group_name_Hall '-F 4 2 3'"):
        text = block(CELL.replace("_cell_length_b 4.0", f"_cell_length_b {length}"), symmetry, PAIR)
        assert refusal(text)[0] in {Reason.BAD_LATTICE, Reason.UNREADABLE}


def test_images_of_a_long_cell_merge_by_their_distance() -> None:
    halves = sites("Ti1 Ti 0 0 .0007 .5", "O1 O .5 .5 .25 1")  # titanium is 0.11 Å from its image
    found = one(block(cell(4, 4, 80), operations("x,y,z", "-x,-y,-z"), halves))
    assert (found.amounts, found.sites) == ({"Ti": 1.0, "O": 2.0}, 4)


def test_nothing_on_a_site_needs_no_name() -> None:
    assert one(block(CELL, P1, sites("Na1 Na 0 0 0 1", "X1 X .5 .5 .5 0"))).amounts == {"Na": 1.0}
