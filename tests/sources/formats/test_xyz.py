"""Extended XYZ: against ASE on what ASE writes, and against hand-built frames where ASE loses something."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import read_xyz, write_xyz
from hypothesis import given, settings, strategies as st

from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.formats.convert import add_ase, to_ase
from assay.sources.formats.xyz import add_xyz
from assay.sources.quarantine import Quarantined, Reason


def read(text: str, max_sites: int = 400) -> tuple[Crystals, list[Quarantined]]:
    assembler = Assembler(max_sites)
    add_xyz(assembler, io.StringIO(text), "a.xyz", "/lab/a.xyz")
    return assembler.finish()


def one(text: str) -> Crystals:
    crystals, refused = read(text)
    assert not refused
    assert len(crystals) == 1
    return crystals


def warned(crystals: Crystals) -> list[str]:
    return crystals.columns["warnings"].tolist() if "warnings" in crystals.columns else [""] * len(crystals)


CELL = 'Lattice="4 0 0 0 5 0 0 0 6"'
NAMES = "Properties=species:S:1:pos:R:3"
ATOMS = ("Ca 0 0 0", "F 2 2.5 1.5", "F 2 2.5 4.5")


def frame(*atoms: str, comment: str = f'{CELL} {NAMES} pbc="T T T"', count: object = None) -> str:
    atoms = atoms or ATOMS
    return "\n".join([str(len(atoms) if count is None else count), comment, *atoms, ""])


def assert_as_written(crystals: Crystals, told: str = "") -> None:
    assert [SYMBOLS[number] for number in crystals.numbers.tolist()] == ["Ca", "F", "F"]
    assert crystals.lattice[0].tolist() == [[4, 0, 0], [0, 5, 0], [0, 0, 6]]
    assert np.allclose(crystals.frac, [[0, 0, 0], [0.5, 0.5, 0.25], [0.5, 0.5, 0.75]], atol=1e-12)
    assert told in warned(crystals)[0]
    assert bool(told) == bool(warned(crystals)[0])


# What ASE reads right.


def by_ase(text: str) -> tuple[Crystals, list[Quarantined]]:
    assembler = Assembler()
    for number, atoms in enumerate(read_xyz(io.StringIO(text), index=slice(None)), start=1):
        known = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
        scalars = {
            name: value for name, value in known.items() if isinstance(value, bool | int | float | str | np.generic)
        }
        add_ase(assembler, atoms, "file/a.xyz" if number == 1 else f"file/a.xyz#{number}", "/lab/a.xyz", scalars)
    return assembler.finish()


# ASE writes a text that ends in a backslash or in "=" so that it swallows the next value.
values = (
    st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.booleans()
    | st.text("abcXYZ019 =,.:;()[]{}'\"/-+", min_size=1, max_size=12).filter(
        lambda text: text.strip() and text[-1] != "="
    )
    | st.lists(st.floats(-10, 10), min_size=2, max_size=4).map(np.array)
    | st.dictionaries(st.sampled_from("abc"), st.integers())
)
names = st.sampled_from(["config", "run_7", "dft-energy", "Time", "magmom", "free_energy", "uid", "step", "a b"])


@st.composite
def boxes(draw: st.DrawFn) -> Atoms:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sites = draw(st.integers(1, 9))
    cell = rng.uniform(-1, 1, (3, 3)) + 6 * np.eye(3)
    atoms = Atoms(rng.choice(SYMBOLS[1:], sites), positions=rng.uniform(-9, 9, (sites, 3)), cell=cell)
    atoms.pbc = draw(st.sampled_from([True, True, True, (True, True, False), False]))
    atoms.info.update(draw(st.dictionaries(names, values, max_size=4)))
    if draw(st.booleans()):
        atoms.set_tags(range(sites))
        atoms.new_array("move", rng.random((sites, 2)) > 0.5)
    if draw(st.booleans()) and not atoms.info.keys() & {"magmom", "free_energy"}:
        results = {"energy": float(rng.normal()), "forces": rng.normal(size=(sites, 3)), "stress": rng.normal(size=6)}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@given(st.lists(boxes(), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_frames_of_ase_are_read_as_ase_reads_them_to_the_last_bit(frames: list[Atoms]) -> None:
    file = io.StringIO()
    write_xyz(file, frames)
    ours, theirs = read(file.getvalue()), by_ase(file.getvalue())
    assert ours[0] == theirs[0], (file.getvalue(), ours[0].columns, theirs[0].columns)
    assert list(ours[0].columns) == list(theirs[0].columns)
    assert [(record.id, record.reason) for record in ours[1]] == [(record.id, record.reason) for record in theirs[1]]


def test_a_disordered_crystal_survives_ase_and_a_file() -> None:
    assembler = Assembler()
    species = [[(57, 0.925), (38, 0.075)], [(29, 1.0)], [(8, 0.9)]]
    assembler.add("a", "memory", np.eye(3) * 4, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]], species)
    crystals, _ = assembler.finish()
    file = io.StringIO()
    write_xyz(file, to_ase(crystals))
    back = one(file.getvalue())
    assert back.formulas().tolist() == crystals.formulas().tolist() == ["Sr3La37Cu40O36"]
    _, refused = read(file.getvalue().replace(":spacegroup_kinds:I:1", ":tags:I:1"))
    assert [record.reason for record in refused] == [Reason.MALFORMED]
    assert "Properties lack spacegroup_kinds" in refused[0].message


def test_a_cell_behind_the_atoms_is_read() -> None:
    file = io.StringIO()
    atoms = Atoms("CaF2", positions=[[0, 0, 0], [2, 2.5, 1.5], [2, 2.5, 4.5]], cell=[4, 5, 6], pbc=True)
    write_xyz(file, [atoms, atoms], vec_cell=True, comment="two of them")
    crystals, refused = read(file.getvalue())
    assert not refused
    assert crystals.columns["comment"].tolist() == ["two of them"] * 2
    assert_as_written(crystals[:1])
    atoms.pbc = (True, True, False)
    file = io.StringIO()
    write_xyz(file, atoms, vec_cell=True)
    assert [record.reason for record in read(file.getvalue())[1]] == [Reason.NOT_PERIODIC]


# Ways to write one frame.


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        (CELL, ""),
        ("Lattice={4 0 0 0 5 0 0 0 6}", ""),
        ("Lattice=[4,0,0,0,5,0,0,0,6]", ""),
        ("Lattice='4 0 0  0 5 0  0 0 6' pbc=T", ""),
        ('pbc=[T,T,T] energy=-1 Lattice = "4.0 0 0 0 5e0 0 0 0 0.6E+1" ', ""),
        ("Lattice=4,0,0,0,5,0,0,0,6 pbc={1 1 1}", ""),
        (f'{CELL} pbc="true True TRUE"', ""),
        (f"{CELL} {CELL}", ""),
        (f'{CELL} stress="1 2 3 4 5 6" virial=none dipole=4', ""),  # ASE loses the frame
        (f'{CELL} note="" energy=-1', ""),
        (f'{CELL.lower()} PBC="T T T"', "'lattice' is read as Lattice; 'PBC' is read as pbc"),
    ],
)
def test_one_cell_is_written_in_many_ways(comment: str, told: str) -> None:
    assert_as_written(one(frame(comment=comment)), told)


@pytest.mark.parametrize(
    ("columns", "lines", "told"),
    [
        ("Z:I:1:pos:R:3", ["20 0 0 0", "9 2 2.5 1.5", "9 2 2.5 4.5"], ""),
        ("pos:R:3:species:S:1", ["0 0 0 Ca", "2 2.5 1.5 F", "2 2.5 4.5 F"], ""),
        (
            "id:I:1:forces:R:3:pos:R:3:species:S:1",
            ["1 9 9 9 0 0 0 Ca", "2 nan * x 2 2.5 1.5 F", "3 9 9 9 2 2.5 4.5 F"],
            "",
        ),
        ("species:S:1:Z:I:1:pos:R:3", ["Ca 20 0 0 0", "F 9 2 2.5 1.5", "F 9 2 2.5 4.5"], ""),
        ("species:S:1:pos:R:3:occupancy:R:1", ["Ca 0 0 0 1", "F 2 2.5 1.5 1.0", "F 2 2.5 4.5 1"], ""),
        ("species:S:1:pos:R:3", ["CA 0 0 0", "F 2 2.5 1.5", "F 2 2.5 4.5"], "line 3: 'CA' is read as Ca"),
        (
            "species:S:1:pos:R:3",
            ["Ca 0 0 0", "F 2 2.5 1.5 0.1", "F 2 2.5 4.5"],
            "line 4: 5 values, of which Properties name the first 4",
        ),
        ("species:S:1:pos:R:3", ["Ca 0 0 0", "F 2 2.5d0 1.5", "F 2 2.5 4.5D+00"], ""),
    ],
)
def test_columns_stand_in_any_order(columns: str, lines: list[str], told: str) -> None:
    assert_as_written(one(frame(*lines, comment=f"{CELL} Properties={columns}")), told)


def test_properties_in_small_letters_are_not_passed_over() -> None:
    lines = ["Ca 9 9 9 0 0 0", "F 9 9 9 2 2.5 1.5", "F 9 9 9 2 2.5 4.5"]
    crystals = one(frame(*lines, comment=f"{CELL} properties=species:S:1:forces:R:3:pos:R:3"))
    assert_as_written(crystals, "'properties' is read as Properties")


def test_a_column_of_occupancies_is_used() -> None:
    lines = ["La 0 0 0 0.9", "Sr 0 0 0 0.1", "O 2 2.5 3 1"]
    crystals = one(frame(*lines, comment=f"{CELL} {NAMES}:occupancy:R:1"))
    assert crystals.formulas().tolist() == ["SrLa9O10"]


def test_values_of_the_comment_become_columns() -> None:
    comment = (
        f'{CELL} energy=-3.5 n=7 done=T failed=False day=2024_01 week=1_0.5 name="a \\"b\\" c" {{two words}}=1 '
        'list="1 2 3" flags="T F" d="_JSON {\\"a\\": 1}" free text x=a=b unit=eV,Å id=9 uid=007 empty=""'
    )
    columns = one(frame(comment=comment)).columns
    assert {name: column[0] for name, column in columns.items()} == {
        "n": 7.0, "done": 1.0, "failed": 0.0, "day": "2024_01", "week": "1_0.5", "name": 'a "b" c', "two words": 1.0,
        "free": 1.0, "text": 1.0, "x": "a=b", "unit": "eV,Å", "reported_id": 9.0, "uid": "007", "energy": -3.5,
    }  # fmt: skip
    assert list(columns)[-1] == "energy"


def test_a_coordinate_with_an_underscore_is_none() -> None:
    _, refused = read(frame("Pd 0 0 0", "H 1_0 2.5 3"))
    (message,) = [record.message for record in refused]
    assert message == "frame 1 at line 1: line 4: three coordinates expected, found 'H 1_0 2.5 3'"


def test_deuterium_is_hydrogen_and_the_row_says_so() -> None:
    crystals = one(frame("Pd 0 0 0", "D 2 2.5 3", "T 2 2.5 0", "D 0 2.5 3"))
    assert crystals.formulas().tolist() == ["PdH3"]
    assert warned(crystals) == ["line 4: 'D' is deuterium, read as H; line 5: 'T' is tritium, read as H"]


# Frames that are lost, and none beside them.

BAD: dict[str, tuple[str, Reason, str]] = {
    "unknown symbol": (
        frame("Ca 0 0 0", "Qq 2 2.5 3"),
        Reason.UNKNOWN_SPECIES,
        "line {4}: 'Qq' is no symbol of an element",
    ),
    "type for symbol": (frame("1 0 0 0"), Reason.UNKNOWN_SPECIES, "line {3}: '1' is no symbol of an element"),
    "dummy": (frame("X 0 0 0"), Reason.UNKNOWN_SPECIES, "line {3}: 'X' is no symbol of an element"),
    "atomic number": (
        frame("119 0 0 0", comment=f"{CELL} Properties=Z:I:1:pos:R:3"),
        Reason.UNKNOWN_SPECIES,
        "line {3}: '119'",
    ),
    "symbol and number": (
        frame("Ca 21 0 0 0", comment=f"{CELL} Properties=species:S:1:Z:I:1:pos:R:3"),
        Reason.MALFORMED,
        "line {3}: symbol and atomic number disagree in 'Ca 21 0 0 0'",
    ),
    "short line": (frame("Ca 0 0 0", "F 2 2.5"), Reason.UNREADABLE, "line {4}: 4 values expected, found 'F 2 2.5'"),
    "no number": (
        frame("Ca 0 0 0", "F 2 2,5 3"),
        Reason.UNREADABLE,
        "line {4}: three coordinates expected, found 'F 2 2,5 3'",
    ),
    "nan": (
        frame("Ca 0 0 0", "F 2 nan 3"),
        Reason.NON_FINITE,
        "line {4}: three coordinates expected, found 'F 2 nan 3'",
    ),
    "share": (
        frame("Ca 0 0 0 ?", comment=f"{CELL} {NAMES}:occupancy:R:1"),
        Reason.BAD_OCCUPANCY,
        "an occupancy expected, found '?'",
    ),
    "eight numbers": (
        frame(comment='Lattice="4 0 0 0 5 0 0 0"'),
        Reason.UNREADABLE,
        "Lattice must hold nine numbers, found '4 0 0 0 5 0 0 0'",
    ),
    "words for cell": (
        frame(comment='Lattice="a b c d e f g h i"'),
        Reason.UNREADABLE,
        "Lattice must hold nine numbers",
    ),
    "flat cell": (frame(comment='Lattice="4 0 0 0 5 0 4 5 0"'), Reason.BAD_LATTICE, "Å^3 per atom"),
    "two cells": (
        frame(comment=f'{CELL} Lattice="5 0 0 0 5 0 0 0 5"'),
        Reason.MALFORMED,
        "two different values of Lattice",
    ),
    "no cell": (frame(comment='pbc="T T T"'), Reason.BAD_LATTICE, "periodic by pbc, but without Lattice"),
    "molecule": (frame(comment="water's own"), Reason.NOT_PERIODIC, "periodic along (False, False, False)"),
    "prose": (frame(comment="Lattice constant, no pbc, of Vegard's law"), Reason.NOT_PERIODIC, "periodic along (False"),
    "slab": (frame(comment=f'{CELL} pbc="T T F"'), Reason.NOT_PERIODIC, "periodic along (True, True, False)"),
    "two axes": (
        frame(comment=f'{CELL} pbc="T T"'),
        Reason.MALFORMED,
        "pbc must hold T or F for three axes, found 'T T'",
    ),
    "open quote": (
        frame(comment=f'{CELL} note="never closed'),
        Reason.MALFORMED,
        "cannot be read from '\"never closed' on",
    ),
    "no positions": (
        frame(comment=f"{CELL} Properties=species:S:1:frac:R:3"),
        Reason.UNREADABLE,
        "Properties must hold pos:R:3",
    ),
    "torn columns": (frame(comment=f"{CELL} Properties=species:S:1:pos:R"), Reason.UNREADABLE, "Properties must hold"),
    "shares": (frame(comment=f'{CELL} occupancy="_JSON [1]"'), Reason.UNREADABLE, "occupancy must hold shares"),
    "no atoms": (frame(count=0, comment=CELL).split("\n", 2)[0] + f"\n{CELL}\n", Reason.MALFORMED, "no occupied site"),
    "one atom too many": (
        frame(count=2),
        Reason.MALFORMED,
        "line {5} follows the 2 atoms: 'F 2 2.5 4.5'; line {5} is not read",
    ),
    "a blank and an atom": (
        frame(*ATOMS[:2]) + "\n" + ATOMS[2] + "\n",
        Reason.MALFORMED,
        "line {6} follows the 2 atoms",
    ),
    "huge count": (frame(count=10**12), Reason.MALFORMED, "3 of 1000000000000 atoms, then "),
    "longer count": (frame(count=10**40), Reason.UNREADABLE, "a number of atoms expected, found '1000"),
    "one atom too few": (frame(count=4), Reason.MALFORMED, "3 of 4 atoms, then "),
    "blank for an atom": (frame(*ATOMS[:2], "", count=3), Reason.MALFORMED, "2 of 3 atoms, then line {5} is ''"),
    "words for a count": (
        frame(count="three atoms"),
        Reason.UNREADABLE,
        "a number of atoms expected, found 'three atoms'; lines {2} to {5} are not read",
    ),
    "whole as real": (frame(count="3.0"), Reason.UNREADABLE, "a number of atoms expected, found '3.0'"),
    "many sites": (
        frame(*["H 0 0 0"] * 401, comment='Lattice="40 0 0 0 40 0 0 0 40"'),
        Reason.TOO_LARGE,
        "401 sites, at most 400",
    ),
    "bad vector": (
        frame(comment="") + "VEC1 4 0 0\nVEC3 0 5 0\n",
        Reason.UNREADABLE,
        "a cell vector VEC1, VEC2 or VEC3 expected",
    ),
}


@pytest.mark.parametrize("between", ["", "\n", "\n  \n\t\n"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_costs_itself_and_is_recorded_by_its_number_and_line(name: str, between: str) -> None:
    bad, reason, message = BAD[name]
    text = frame() + between + bad + between + frame("Mg 0 0 0", "O 2 2.5 3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crystals, refused = read(text)
    assert crystals.ids.tolist() == ["file/a.xyz", "file/a.xyz#3"]
    assert crystals.formulas().tolist() == ["CaF2", "MgO"]
    assert [(record.id, record.reason, record.origin) for record in refused] == [("file/a.xyz#2", reason, "/lab/a.xyz")]
    start = 6 + between.count("\n")
    lines = {str(number): start - 1 + number for number in range(1, 9)}
    for number, line in lines.items():
        message = message.replace("{" + number + "}", str(line))
    assert message in refused[0].message
    if reason != Reason.BAD_LATTICE and name != "no atoms":  # these are judged without the file
        assert refused[0].message.startswith(f"frame 2 at line {start}: ")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_at_the_end_is_recorded(name: str) -> None:
    crystals, refused = read(frame() + BAD[name][0].rstrip())
    assert crystals.ids.tolist() == ["file/a.xyz"]
    assert [(record.id, record.reason) for record in refused] == [("file/a.xyz#2", BAD[name][1])]


def test_a_short_frame_does_not_swallow_the_next_one() -> None:
    crystals, refused = read(frame(count=9) + frame() + frame(count=4) + frame())
    assert crystals.ids.tolist() == ["file/a.xyz#2", "file/a.xyz#4"]
    assert [record.message for record in refused] == [
        "frame 1 at line 1: 3 of 9 atoms, then line 6 is '3'",
        "frame 3 at line 11: 3 of 4 atoms, then line 16 is '3'",
    ]


def test_text_between_frames_has_a_record_and_costs_no_frame() -> None:
    crystals, refused = read("written by hand\n" + frame() + "\n# a remark\nand more\n\n" + frame() + "the end\n")
    assert crystals.formulas().tolist() == ["CaF2", "CaF2"]
    assert [record.id for record in refused] == ["file/a.xyz", "file/a.xyz#3", "file/a.xyz#5"]
    assert refused[1].message == "frame 3 at line 8: a number of atoms expected, found '# a remark'; line 9 is not read"


def test_blank_lines_anywhere_but_in_a_frame_are_nothing() -> None:
    crystals, refused = read("\n\n" + frame() + "\n \n" + frame() + frame() + "\n\n\n")
    assert not refused
    assert crystals.ids.tolist() == ["file/a.xyz", "file/a.xyz#2", "file/a.xyz#3"]
    assert [record.message for record in read("\n\n")[1]] == ["no frame: the text is blank"]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_every_frame_is_a_crystal_or_a_record(good: list[bool], rng: Any) -> None:
    kinds = sorted(BAD.keys() - {"words for a count", "whole as real", "longer count"})  # two of these are one text
    parts = [frame() if fine else BAD[rng.choice(kinds)][0] for fine in good]
    crystals, refused = read("".join(part + rng.choice(["", "\n", "\n\n"]) for part in parts))
    ids = ["file/a.xyz" + (f"#{number}" if number > 1 else "") for number in range(1, len(good) + 1)]
    assert crystals.ids.tolist() == [id for id, fine in zip(ids, good) if fine]
    assert sorted(record.id for record in refused) == sorted(id for id, fine in zip(ids, good) if not fine)


@given(st.text(alphabet="0123456789. -+eT\n=\"'{}[]\\LatticepbcCaF:SR", max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_text_raises(noise: str) -> None:
    for text in (noise, frame(comment=noise), frame(comment=f"{CELL} {noise}"), frame(noise), frame() + noise):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            crystals, refused = read(text)
        assert len(crystals) + len(refused) >= 1


def test_a_count_costs_nothing_and_large_files_pass_through() -> None:
    def lines(count: int) -> Iterator[str]:
        yield f"{count}\n"
        yield f"{CELL}\n"
        for _ in range(300_000):
            yield "H 0 0 0\n"

    for count, reason in ((10**12, Reason.MALFORMED), (300_000, Reason.TOO_LARGE)):
        assembler = Assembler()
        began = time.perf_counter()
        add_xyz(assembler, lines(count), "a.xyz", "/lab/a.xyz")
        assert time.perf_counter() - began < 20
        assert [record.reason for record in assembler.finish()[1]] == [reason]


def test_json_of_any_depth_is_refused() -> None:
    deep = json.dumps("[" * 50_000)[1:-1]
    _, refused = read(frame(comment=f'{CELL} occupancy="_JSON {deep}"'))
    assert [record.reason for record in refused] == [Reason.UNREADABLE]


@pytest.mark.parametrize("text", ["[[4,0,0],[0,5,0],[0,0,6]]", "[[4,1,0],[1,5,0],[0,0,6]]"])
def test_a_nested_lattice_is_read_where_rows_and_columns_agree(text: str) -> None:
    crystals, refused = read(f"1\nLattice={text} Properties=species:S:1:pos:R:3\nNa 0 0 0\n")
    assert not refused
    assert crystals.lattice[0].diagonal().tolist() == [4, 5, 6]


def test_a_nested_lattice_that_may_be_rows_or_columns_is_refused() -> None:
    _, refused = read("1\nLattice=[[4,0,0],[1,5,0],[0,0,6]] Properties=species:S:1:pos:R:3\nNa 0 0 0\n")
    assert "rows or as columns" in refused[0].message
