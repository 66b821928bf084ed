"""JSON of pymatgen and ASE: crystals as they were written, and nothing that contradicts itself."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import jsonio
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals
from assay.sources.formats import convert
from assay.sources.formats.documents.documents import add_json
from assay.sources.quarantine import Quarantined, Reason


def read(document: Any) -> tuple[Crystals, list[Quarantined], int]:
    assembler = Assembler()
    text = document if isinstance(document, str) else json.dumps(document)
    count = add_json(assembler, text, "a.json", "/in/a.json")
    return (*assembler.finish(), count)


def halide() -> Structure:
    """Disordered, with charges, a vacancy and a triclinic cell."""
    lattice = Lattice.from_parameters(4.1, 5.2, 6.3, 80, 95, 101)
    species = ["Cs+", {"Sn2+": 0.6, "Pb2+": 0.3}, {"Br-": 0.5, "I-": 0.5}]
    return Structure(lattice, species, [[0, 0, 0], [0.5, 0.5, 0.45], [0.1, 0.55, -0.7]])


def same(found: Crystals, wanted: Crystals) -> None:
    assert found.formulas().tolist() == wanted.formulas().tolist()
    np.testing.assert_allclose(found.lattice, wanted.lattice, atol=1e-12)
    np.testing.assert_allclose(found.frac, wanted.frac, atol=1e-12)
    np.testing.assert_array_equal(found.numbers, wanted.numbers)
    np.testing.assert_array_equal(found.occupancy, wanted.occupancy)


def test_a_structure_of_pymatgen_keeps_its_disorder() -> None:
    found, refused, count = read(halide().as_dict())
    assert (refused, count) == ([], 1)
    assert found.ids.tolist() == ["file/a.json"]
    same(found, convert.from_pymatgen([halide()], ["x"]))
    bare = json.loads(halide().to(fmt="json"))
    bare.pop("@class")
    same(read(bare)[0], found)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: [one, one],
        lambda one: [{"structure": one, "band_gap": 1.5, "material_id": "mp-1", "tags": []}] * 2,
        lambda one: {"structures": [one, one], "author": "me"},
        lambda one: {"mp-1": one, "mp-2": {"structure": one}, "note": "two"},
        lambda one: {"columns": ["structure", "target"], "index": [0, 1], "data": [[one, 1.0], [one, 2.0]]},
    ],
)
def test_several_structures_in_one_document(wrap: Any) -> None:
    document = wrap(halide().as_dict())
    found, refused, count = read(document)
    assert (refused, count) == ([], 2)
    assert found.ids.tolist() == ["file/a.json", "file/a.json#2"]
    if isinstance(document, list) and "band_gap" in document[0]:
        assert found.columns["band_gap"].tolist() == [1.5, 1.5]
        assert found.columns["material_id"].tolist() == ["mp-1", "mp-1"]
    if "columns" in document:
        assert found.columns["target"].tolist() == [1.0, 2.0]


def test_an_entry_keeps_its_energy() -> None:
    entry = ComputedStructureEntry(halide(), -12.5, entry_id="mine-7", data={"source": "me"})
    found, refused, _ = read([entry.as_dict()])
    assert not refused
    assert found.columns["energy"].tolist() == [-12.5]
    assert found.columns["entry_id"].tolist() == ["mine-7"]
    assert not any(name.startswith("@") for name in found.columns)


def test_an_item_without_structure_beside_others_is_a_record() -> None:
    found, refused, count = read([halide().as_dict(), None, {"structure": None}])
    assert (len(found), count) == (1, 3)
    assert [(row.id, row.reason) for row in refused] == [
        ("file/a.json#2", Reason.MALFORMED),
        ("file/a.json#3", Reason.MALFORMED),
    ]
    assert "item 2 of the list holds no structure" in refused[0].message


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"a": [1, 2]}', '{"lattice": 3, "sites": []}'])
def test_a_json_without_structures_is_none_of_ours(text: str) -> None:
    found, refused, count = read(text)
    assert (len(found), refused, count) == (0, [], 0)


@pytest.mark.parametrize(
    ("text", "told"), [("", "empty"), (" \n", "empty"), ("not json", "no intact"), ("[" * 10**5, "deep")]
)
def test_what_is_no_json_is_a_record(text: str, told: str) -> None:
    found, refused, count = read(text)
    assert (len(found), count) == (0, 1)
    assert refused[0].reason is Reason.UNREADABLE
    assert told in refused[0].message


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
def test_a_torn_document_of_structures_is_a_record(keep: float) -> None:
    text = json.dumps([halide().as_dict()] * 3)
    found, refused, count = read(text[: int(len(text) * keep)])
    assert (len(found), count) == (0, 1)
    assert refused[0].reason is Reason.UNREADABLE
    assert refused[0].message.startswith("no intact JSON: ")


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = deepcopy(halide().as_dict())
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "reason", "said"),
    [
        (["lattice", "matrix", 0, 0], 9.0, Reason.MALFORMED, "lattice.a is 4.1"),
        (["lattice", "matrix"], [[1, 0], [0, 1]], Reason.MALFORMED, "expected 3 x 3 numbers"),
        (["lattice", "matrix"], None, Reason.MALFORMED, "lattice.matrix is None"),
        (["lattice", "pbc"], [True, True, False], Reason.NOT_PERIODIC, "three dimensions are needed"),
        (["sites", 1, "abc"], [0.5, 0.5, 0.5], Reason.MALFORMED, "sites[1]: abc and xyz are"),
        (["sites", 1, "abc"], ["a", 0, 0], Reason.MALFORMED, "sites[1].abc"),
        (["sites", 1, "abc"], [10**400, 0, 0], Reason.NON_FINITE, "must be finite"),
        (["sites", 2, "species", 0, "occu"], 10**400, Reason.NON_FINITE, ""),
        (["lattice", "a"], -(10**400), Reason.MALFORMED, "lattice.a is -inf"),
        (["sites", 2, "species", 0, "element"], "Xx", Reason.UNKNOWN_SPECIES, "sites[2]: 'Xx' is no chemical element"),
        (["sites", 2, "species", 0, "occu"], None, Reason.MALFORMED, "has no element or no occu"),
        (["sites", 2, "species", 0, "occu"], -0.5, Reason.BAD_OCCUPANCY, "-0.5"),
        (["sites", 2, "species", 0, "occu"], float("nan"), Reason.NON_FINITE, ""),
        (["sites", 2], 3, Reason.MALFORMED, "sites[2] is int"),
        (["sites"], [], Reason.MALFORMED, "sites is empty"),
    ],
)
def test_a_structure_that_is_no_crystal_says_why(path: list[Any], value: Any, reason: Reason, said: str) -> None:
    found, refused, _ = read(changed(path, value))
    assert len(found) == 0
    assert [row.reason for row in refused] == [reason], refused
    assert said in refused[0].message
    assert refused[0].origin == "/in/a.json"


def test_a_molecule_is_not_periodic() -> None:
    molecule = Molecule(["O", "H", "H"], [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]])
    _, refused, _ = read(molecule.as_dict())
    assert [row.reason for row in refused] == [Reason.NOT_PERIODIC]


def test_deuterium_is_read_as_hydrogen_and_said() -> None:
    document = Structure(Lattice.cubic(4), ["Li", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()
    document["sites"][1]["species"][0]["element"] = "D"  # pymatgen itself writes H
    found, refused, _ = read(document)
    assert not refused
    assert found.formulas().tolist() == ["LiH"]
    assert found.columns["warnings"].tolist() == ["deuterium was read as hydrogen"]


def test_no_class_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {**halide().as_dict(), "properties": {"@module": "os", "@class": "system", "command": "false"}}
    found, refused, _ = read({"@module": "builtins", "@class": "exec", "structure": document})
    assert (len(found), refused) == (1, [])


# ASE


def salt() -> Atoms:
    atoms = Atoms(
        "KCl", scaled_positions=[[0, 0, 0], [0.5, 0.4, 0.5]], cell=[4, 4.5, 5], pbc=True, info={"name": "salt"}
    )
    atoms.calc = SinglePointCalculator(atoms, energy=-7.25)
    return atoms


def mixed() -> Atoms:
    atoms = salt()
    atoms.info["occupancy"] = {"0": {"K": 0.75, "Na": 0.25}, "1": {"Cl": 1.0}}
    atoms.arrays["spacegroup_kinds"] = np.array([0, 1])
    return atoms


def test_atoms_of_ase_keep_their_disorder() -> None:
    for document in (jsonio.encode(mixed()), jsonio.encode([mixed()]), jsonio.encode({"frames": [mixed()]})):
        found, refused, _ = read(document)
        assert refused == []
        assert found.formulas().tolist() == ["K3NaCl4"]
        same(found, convert.from_ase([mixed()], ["x"]))
        assert found.columns["name"].tolist() == ["salt"]


def test_a_database_of_ase_in_json_is_read_row_by_row(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.json", [salt(), salt() * (2, 1, 1)])
    found, refused, count = read((tmp_path / "a.json").read_text())
    assert (refused, count) == ([], 2)
    assert found.nsites.tolist() == [2, 4]
    assert found.columns["energy"].tolist()[0] == -7.25
    assert set(found.columns) == {"energy"}  # no user name, no times


def test_shares_without_the_sites_they_belong_to_are_refused() -> None:
    atoms = mixed()
    del atoms.arrays["spacegroup_kinds"]
    _, refused, _ = read(jsonio.encode(atoms))
    assert [row.reason for row in refused] == [Reason.MALFORMED]
    assert "no spacegroup_kinds" in refused[0].message


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("pbc", [True, True, False], Reason.NOT_PERIODIC),
        ("pbc", None, Reason.NOT_PERIODIC),
        ("numbers", [19.5, 17], Reason.MALFORMED),
        ("numbers", {"__ndarray__": [[3], "int64", [19, 17]]}, Reason.MALFORMED),
        ("numbers", [0, 17], Reason.UNKNOWN_SPECIES),
        ("positions", [[0, 0, 0]], Reason.MALFORMED),
        ("positions", "here", Reason.MALFORMED),
        ("cell", {"__ndarray__": "?"}, Reason.MALFORMED),
        ("cell", [4, 4, 4], Reason.MALFORMED),
    ],
)
def test_atoms_that_are_no_crystal_say_why(key: str, value: Any, reason: Reason) -> None:
    document = {**json.loads(jsonio.encode(salt())), key: value}
    found, refused, _ = read(document)
    assert len(found) == 0
    assert [row.reason for row in refused] == [reason], refused


def test_what_ase_writes_ase_reads_alike(tmp_path: Path) -> None:
    stream = io.StringIO()
    jsonio.write_json(stream, salt())
    same(read(stream.getvalue())[0], convert.from_ase([salt()], ["x"]))
