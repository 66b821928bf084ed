"""Written crystals are the same crystals for pymatgen, ASE, gemmi and Assay, or are refused with the reason."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import ase.io
import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from assay.models.potentials.potential import right_handed
from assay.sources import files
from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals, concat
from assay.sources.formats import convert, jsonl
from assay.sources.formats.cif.read import add_cif
from assay.sources.formats.poscar import add_poscar
from assay.sources.formats.writing import optimade, structures, vasp
from tests.metals import metals

DATA = Path(__file__).resolve().parents[2] / "data"
FACTS = {"rank": 7, "id": 'mp/1 "Å"; #!', "formula": "MgB2", "mean": 38.25, "std": None, "unit": "eV/Å^3"}
ROUNDED = 2e-4
"""Fractional coordinates of pymatgen's CIF reader, which takes 0.3333 for a third."""


@pytest.fixture(scope="module")
def real(disordered: Crystals, crystals: Crystals) -> Crystals:
    """120 real crystals: superconductors, half of them disordered, and ordered ones of the Materials Project."""
    batch = concat([disordered[::2].without_columns(), crystals[::15].without_columns()])
    assert (~batch.is_ordered).sum() > 40
    assert (batch.site_occupancy < 0.99).any()  # vacancies
    return batch


def each(batch: Crystals) -> Iterator[Crystals]:
    return (batch[row : row + 1] for row in range(len(batch)))


def atoms(crystal: Crystals) -> list[tuple[NDArray[np.float64], int, float]]:
    """Position, element and share of every species of a crystal."""
    places = crystal.frac[crystal.species_site]
    return list(zip(places, crystal.numbers.tolist(), crystal.occupancy.tolist()))


def assert_same(
    crystal: Crystals,
    lattice: NDArray[np.float64],
    read: list[tuple[NDArray[np.float64], int, float]],
    near: float = 1e-6,
    turned: bool = False,
) -> None:
    """Each species of the crystal is there once, where it was; a cell that is only `turned` is the same."""
    mine = crystal.lattice[0]
    assert np.linalg.det(lattice) > 0
    assert np.allclose(lattice @ lattice.T, mine @ mine.T, atol=1e-5) if turned else np.allclose(lattice, mine)
    assert len(read) == len(crystal.numbers), crystal.ids[0]
    left = list(read)
    for place, number, share in atoms(crystal):
        for at, (other, element, amount) in enumerate(left):
            apart = other - place
            if element == number and abs(amount - share) < 2e-5 and np.abs(apart - apart.round()).max() < near:
                del left[at]
                break
        else:
            pytest.fail(f"{crystal.ids[0]}: {number} x {share} at {place} is lost")


def by_pymatgen(text: str) -> tuple[NDArray[np.float64], list[tuple[NDArray[np.float64], int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = CifParser.from_str(text).parse_structures(primitive=False)
    return found.lattice.matrix, [(s.frac_coords, e.Z, amount) for s in found for e, amount in s.species.items()]


def by_ase(text: str) -> tuple[NDArray[np.float64], list[tuple[NDArray[np.float64], int, float]]]:
    found = convert.from_ase([ase.io.read(io.StringIO(text), format="cif")], ["a"])
    return found.lattice[0], atoms(found)


def by_gemmi(text: str) -> tuple[NDArray[np.float64], list[tuple[NDArray[np.float64], int, float]]]:
    found = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    lattice = np.array(found.cell.orth.mat.tolist()).T
    return lattice, [
        (np.array(s.fract.tolist()), s.element.atomic_number, s.occ) for s in found.get_all_unit_cell_sites()
    ]


def by_assay(text: str) -> tuple[NDArray[np.float64], list[tuple[NDArray[np.float64], int, float]]]:
    assembler = Assembler()
    add_cif(assembler, text, "a", "a")
    found, refused = assembler.finish()
    assert refused == []
    assert "warnings" not in found.columns
    return found.lattice[0], atoms(found)


@pytest.mark.parametrize("reader", [by_pymatgen, by_ase, by_gemmi, by_assay])
def test_a_cif_is_the_same_crystal_for_every_reader(real: Crystals, reader: Callable[[str], tuple]) -> None:
    near = ROUNDED if reader in (by_pymatgen, by_ase) else 1e-6
    for crystal in each(right_handed(real)):
        assert_same(crystal, *reader(structures.cif(crystal, FACTS)), near=near, turned=True)


def test_a_poscar_is_the_same_crystal_for_every_reader(real: Crystals) -> None:
    ordered = right_handed(real.select(real.is_ordered))
    assert len(ordered) > 40
    for crystal in each(ordered):
        text = structures.poscar(crystal, FACTS)
        assembler = Assembler()
        add_poscar(assembler, text, "a", "a")
        own, refused = assembler.finish()
        assert refused == []
        symbols = text.split("\n")[5].split()
        assert len(symbols) == len(set(symbols))  # one POTCAR per element
        theirs = convert.from_pymatgen([Poscar.from_str(text).structure], ["a"])
        for found in (own, theirs, convert.from_ase([ase.io.read(io.StringIO(text), format="vasp")], ["a"])):
            assert_same(crystal, found.lattice[0], atoms(found))


def test_equal_elements_of_a_poscar_stand_together() -> None:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0, 0.5]]
    salt = Crystals(["salt"], 5.6 * np.eye(3)[None], [0, 4], places, range(5), [11, 17, 11, 17], np.ones(4))
    text = structures.poscar(salt, FACTS)
    assert text.split("\n")[5:7] == ["Na Cl", "2 2"]
    found = convert.from_pymatgen([Poscar.from_str(text).structure], ["a"])
    assert_same(salt, found.lattice[0], atoms(found))


def test_the_formula_of_a_cif_counts_the_cell_once() -> None:
    """pymatgen writes O8 beside four formula units, which is 32 atoms."""
    places = np.random.default_rng(0).random((8, 3))
    oxygen = Crystals(["o"], 9.0 * np.eye(3)[None], [0, 8], places, range(9), [8] * 8, np.ones(8))
    block = gemmi.cif.read_string(structures.cif(oxygen, FACTS)).sole_block()
    units = int(block.find_value("_cell_formula_units_Z"))
    assert (block.find_value("_chemical_formula_sum"), units) == ("O8", 1)
    assert_same(oxygen, *by_assay(structures.cif(oxygen, FACTS)), turned=True)


def test_extended_xyz_and_json_are_the_same_crystal(real: Crystals) -> None:
    for crystal in each(right_handed(real)):
        text = structures.extended_xyz(crystal, FACTS)
        frame = ase.io.read(io.StringIO(text), format="extxyz")
        assert frame.info["id"] == FACTS["id"]
        assert frame.info["mean"] == 38.25
        dumped = structures.structure_json(crystal, FACTS)
        theirs = Structure.from_dict(json.loads(dumped))
        assert theirs.properties == FACTS
        own = [files.read_stream(io.BytesIO(content.encode()))[0] for content in (text, dumped)]
        for found in (*own, convert.from_ase([frame], ["a"]), convert.from_pymatgen([theirs], ["a"])):
            assert_same(crystal, found.lattice[0], atoms(found), near=1e-5)


def test_the_facts_stand_on_one_line_whatever_they_hold(real: Crystals) -> None:
    facts = FACTS | {"id": "a\nb\rdata_x\u2028\u202e"}
    ordered = next(each(real.select(real.is_ordered)))
    cif, poscar = structures.cif(ordered, facts), structures.poscar(ordered, facts)
    for line in (cif.split("\n")[0].removeprefix("# "), poscar.split("\n")[0]):
        assert line.isascii()
        assert json.loads(line) == facts
    assert_same(right_handed(ordered), *by_assay(cif), turned=True)


def test_a_poscar_of_shared_sites_is_refused(real: Crystals) -> None:
    for crystal in each(real.select(~real.is_ordered)):
        with pytest.raises(ValueError, match=r"sites are shared or partly empty, and POSCAR holds whole atoms"):
            structures.poscar(crystal, FACTS)
        with pytest.raises(ValueError, match="MPRelaxSet holds whole atoms"):
            vasp.inputs(crystal, "MPRelaxSet", "x", FACTS)


@pytest.mark.parametrize("recipe", ["MPRelaxSet", "MPScanRelaxSet", "MPStaticSet", "MatPESStaticSet"])
def test_inputs_name_the_pseudopotentials_and_hold_none(real: Crystals, recipe: str) -> None:
    crystal = next(each(real.select(real.is_ordered)))
    found = vasp.inputs(crystal, recipe, "007_MgB2", FACTS)
    structure = Poscar.from_str(found["POSCAR"]).structure
    names = found["POTCAR.spec"].split()
    assert [name.partition("_")[0] for name in names] == found["POSCAR"].split("\n")[5].split()
    incar = Incar.from_str(found["INCAR"])
    assert incar["SYSTEM"].lower() == "007_mgb2"
    assert len(incar["MAGMOM"]) == len(structure) if "MAGMOM" in incar else True
    assert ("KPOINTS" in found) != ("KSPACING" in incar)
    if "KPOINTS" in found:
        assert min(Kpoints.from_str(found["KPOINTS"]).kpts[0]) >= 1
        assert '"rank": 7' in found["KPOINTS"].split("\n")[0]
    assert json.loads(found["POSCAR"].split("\n")[0]) == FACTS


def test_an_element_that_a_recipe_lacks_is_named() -> None:
    polonium = Crystals(["po"], 3.35 * np.eye(3)[None], [0, 1], [[0, 0, 0]], [0, 1], [84], [1.0])
    with pytest.raises(ValueError, match="MPRelaxSet names no pseudopotential or setting for Po"):
        vasp.inputs(polonium, "MPRelaxSet", "x", FACTS)


def test_a_left_handed_cell_would_be_mirrored_by_a_cif_and_is_not() -> None:
    crystal = next(c for c in each(metals(12)) if np.linalg.det(c.lattice[0]) < 0 and len(c.frac) > 1)
    lattice, read = by_gemmi(structures.cif(right_handed(crystal), FACTS))
    turn = np.linalg.inv(right_handed(crystal).lattice[0]) @ lattice
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) > 0.99
    places = (crystal.frac @ crystal.lattice[0]) @ turn @ np.linalg.inv(lattice)
    for place in places:
        assert min(np.abs(at - place - (at - place).round()).max() for at, _, _ in read) < 1e-6


def lines_of(batch: Crystals) -> list[str]:
    properties = {
        "Tc mean": optimade.Property("mean", "float", "K"),
        "tc_mean": optimade.Property("other", "float", "K"),
    }
    values = [{"Tc mean": 1.0 * row, "tc_mean": float("nan")} for row in range(len(batch))]
    return list(optimade.lines(batch, properties, values))


def test_optimade_lines_are_valid_and_the_same_crystals(real: Crystals) -> None:
    models = pytest.importorskip("optimade.models")
    lines = lines_of(real)
    header, info, *entries = map(json.loads, lines)
    assert header["x-optimade"]["meta"]["api_version"] == "1.2.0"
    assert info["properties"]["_assay_tc_mean"]["unit"] == "K"
    for entry in entries:
        models.StructureResource.model_validate(entry)
    assert entries[3]["attributes"]["_assay_tc_mean"] == 3.0
    assert entries[3]["attributes"]["_assay_tc_mean_"] is None
    found, refused = jsonl.read_jsonl(io.BytesIO("\n".join(lines).encode()), "best.jsonl", "best.jsonl")
    assert refused == []
    assert found.ids.tolist() == [f"best/{name}" for name in real.ids]
    assert found.columns["_assay_tc_mean"].tolist() == list(range(len(real)))
    for before, after in zip(each(real), each(found), strict=True):
        left = np.linalg.det(before.lattice[0]) < 0
        assert_same(
            right_handed(before) if left else before, right_handed(after).lattice[0], atoms(right_handed(after))
        )


def test_the_reference_server_of_optimade_takes_the_file(real: Crystals, tmp_path: Path) -> None:
    utils = pytest.importorskip("optimade.utils")
    (tmp_path / "best.jsonl").write_text("\n".join(lines_of(real)))
    taken: list[dict] = []
    collection = type("Collection", (), {"insert": staticmethod(taken.extend)})
    utils.insert_from_jsonl(tmp_path / "best.jsonl", {"structures": collection})
    assert [row["id"] for row in taken] == real.ids.tolist()
    assert [row["_assay_tc_mean"] for row in taken] == list(range(len(real)))


def test_optimade_formulas_of_doped_crystals_are_whole_numbers() -> None:
    doped, _ = files.read(DATA / "La1.85Sr0.15CuO4.cif")
    entry = json.loads(lines_of(doped)[2])["attributes"]
    assert entry["chemical_formula_reduced"] == "Cu20La37O80Sr3"
    assert entry["chemical_formula_anonymous"] == "A80B37C20D3"
    assert entry["structure_features"] == ["disorder"]
    shared = {"name": "La0.925Sr0.075", "chemical_symbols": ["La", "Sr"], "concentration": [0.925, 0.075]}
    assert shared in entry["species"]


def test_a_vacancy_is_named_in_optimade() -> None:
    half = Crystals(["v"], 3 * np.eye(3)[None], [0, 1], [[0, 0, 0]], [0, 1], [41], [0.75])
    (species,) = json.loads(lines_of(half)[2])["attributes"]["species"]
    assert species["chemical_symbols"] == ["Nb", "vacancy"]
    assert species["concentration"] == [0.75, 0.25]


def test_ids_are_kept_whatever_they_hold(real: Crystals) -> None:
    odd = replace(real[:1], ids=np.array(["x/é\n"]))
    assert json.loads(lines_of(odd)[2])["id"] == "x/é\n"
