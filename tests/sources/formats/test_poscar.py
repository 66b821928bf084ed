"""POSCAR files: against pymatgen and ASE where they follow VASP, and against hand-built crystals where they do not."""

from __future__ import annotations

import io
import random
import warnings

import numpy as np
import pytest
from ase.io.vasp import read_vasp
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.formats.convert import from_ase, from_pymatgen
from assay.sources.formats.poscar import add_poscar
from assay.sources.quarantine import Quarantined, Reason


def read(text: str, max_sites: int = 400) -> tuple[Crystals, list[Quarantined]]:
    assembler = Assembler(max_sites)
    add_poscar(assembler, text, "POSCAR", "/lab/POSCAR")
    return assembler.finish()


def one(text: str) -> Crystals:
    crystals, refused = read(text)
    assert not refused
    assert len(crystals) == 1
    return crystals


def refusal(text: str) -> Quarantined:
    crystals, refused = read(text)
    assert len(crystals) == 0
    assert len(refused) == 1
    return refused[0]


def warned(crystals: Crystals) -> str:
    return str(crystals.columns["warnings"][0]) if "warnings" in crystals.columns else ""


def symbols(crystals: Crystals) -> list[str]:
    return [SYMBOLS[number] for number in crystals.numbers.tolist()]


# A small CaF2-like cell: tetragonal, so that each axis is known by its length.
CELL = ["4.0 0.0 0.0", "0.0 5.0 0.0", "0.0 0.0 6.0"]
PLACES = ["0.0 0.0 0.0", "0.5 0.5 0.25", "0.5 0.5 0.75"]
FRAC = np.array([[0, 0, 0], [0.5, 0.5, 0.25], [0.5, 0.5, 0.75]])


def poscar(
    comment: str = "own cell",
    scale: str = "1.0",
    cell: list[str] = CELL,
    kinds: str = "Ca F\n1 2",
    mode: str = "Direct",
    places: list[str] = PLACES,
    after: str = "",
) -> str:
    return "\n".join([comment, scale, *cell, kinds, mode, *places, after])


def assert_as_written(text: str, told: str = "") -> None:
    crystals = one(text)
    assert symbols(crystals) == ["Ca", "F", "F"]
    assert np.allclose(crystals.lattice[0], np.diag([4, 5, 6]), atol=1e-9)
    assert np.allclose(crystals.frac, FRAC, atol=1e-9)
    assert told in warned(crystals)
    assert bool(told) == bool(warned(crystals)), warned(crystals)


# What pymatgen and ASE read right.

lattices = st.lists(st.floats(-1, 1), min_size=9, max_size=9).map(lambda x: np.reshape(x, (3, 3)) + 6 * np.eye(3))


@given(lattices, st.data(), st.booleans(), st.sampled_from([1.0, 1.13, 0.97]))
@settings(max_examples=150, deadline=None)
def test_files_of_pymatgen_are_read_as_pymatgen_reads_them_to_the_last_bit(
    lattice: NDArray[np.float64], data: st.DataObject, direct: bool, scale: float
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(SYMBOLS[1:95]), min_size=1, max_size=12))
    frac = np.random.default_rng(len(kinds)).random((len(kinds), 3))
    text = Poscar(Structure(Lattice(lattice), kinds, frac)).get_str(direct=direct, significant_figures=14)
    text = text.replace("\n1.0\n", f"\n{scale}\n", 1)
    assert one(text) == from_pymatgen([Poscar.from_str(text).structure], ["file/POSCAR"])


@given(lattices, st.integers(0, 2**32 - 1), st.sampled_from(["Direct", "Cartesian", "k-like", "cart"]), st.data())
@settings(max_examples=150, deadline=None)
def test_scales_are_read_as_ase_reads_them(
    lattice: NDArray[np.float64], seed: int, mode: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(SYMBOLS[1:95], size=rng.integers(1, 6)).tolist()
    counts = rng.integers(1, 4, size=len(kinds)).tolist()
    scale = data.draw(st.sampled_from(["1.25", "-300", "-80.25", "1.1 1.2 0.9", "1.2 1.2 1.2"]))
    cell = [" ".join(map(repr, row)) for row in lattice.tolist()]
    assume(np.linalg.det(lattice) > 0)  # ASE inverts a left-handed crystal that is given by its volume
    places = [" ".join(f"{x:.10f}" for x in row) for row in rng.random((sum(counts), 3)) * 6]
    text = poscar("own", scale, cell, f"{' '.join(kinds)}\n{' '.join(map(str, counts))}", mode, places)
    ours, theirs = one(text), from_ase([read_vasp(io.StringIO(text))], ["file/POSCAR"])
    assert ours.numbers.tolist() == theirs.numbers.tolist()
    assert np.allclose(ours.lattice, theirs.lattice, rtol=1e-12, atol=1e-12)
    gap = ours.frac - theirs.frac
    assert np.allclose(gap - np.round(gap), 0, atol=1e-9)


# What they read wrong, or refuse.


def test_cartesian_positions_are_scaled_with_the_lattice() -> None:
    places = ["0 0 0", "2.0 2.5 1.5", "2.0 2.5 4.5"]
    assert_as_written(poscar(mode="Cartesian", places=places))
    half = [" ".join(str(float(x) / 2) for x in line.split()) for line in (*CELL, *places)]
    assert_as_written(poscar(scale="2.0", cell=half[:3], mode="Cartesian", places=half[3:]))
    assert_as_written(poscar(scale="-120", cell=half[:3], mode="Cartesian", places=half[3:]))
    ones = ["0 0 0", ".5 .5 .25", ".5 .5 .75"]
    assert_as_written(poscar(scale="4 5 6", cell=["1 0 0", "0 1 0", "0 0 1"], mode="kartesisch", places=ones))


def test_three_factors_scale_the_axes_of_space_and_not_the_vectors() -> None:
    sheared = ["1 1 0", "0 1 0", "0 0 1"]
    crystals = one(poscar(scale="4 5 6", cell=sheared))
    assert crystals.lattice[0].tolist() == [[4, 5, 0], [0, 5, 0], [0, 0, 6]]


def test_a_left_handed_lattice_keeps_its_hand() -> None:
    swapped = [CELL[1], CELL[0], CELL[2]]
    for scale, mode, places in (
        ("1", "D", PLACES),
        ("-120", "D", PLACES),
        ("-120", "C", ["0 0 0", "2 2.5 1.5", "2 2.5 4.5"]),
    ):
        crystals = one(poscar(scale=scale, cell=swapped, mode=mode, places=places))
        assert np.linalg.det(crystals.lattice[0]) == pytest.approx(-120)
        assert np.allclose(crystals.lattice[0], [[0, 5, 0], [4, 0, 0], [0, 0, 6]])
        assert np.allclose(crystals.frac, FRAC, atol=1e-12)


@pytest.mark.parametrize(
    "flags",
    ["T T T", "F F F", ".TRUE. .FALSE. .true.", "T F T", ".T. .F. .T.", "t f t", "True False True"],
)
@pytest.mark.parametrize("word", ["Selective dynamics", "selective", "S"])
def test_flags_do_not_touch_the_crystal(flags: str, word: str) -> None:
    assert_as_written(poscar(mode=f"{word}\nDirect", places=[f"{place} {flags}" for place in PLACES]))


@pytest.mark.parametrize("head", ["Selective dynamics\nDirect", "Direct"])
def test_fluorine_is_told_from_a_flag(head: str) -> None:
    labels = ["Ca", "F", "F"]
    places = [f"{place} F T F {label}" for place, label in zip(PLACES, labels)]
    assert_as_written(poscar(mode=head, places=places))
    assert_as_written(poscar(mode=head, places=[f"{place} {label}" for place, label in zip(PLACES, labels)]))
    places[1] = places[1][:-1] + "O"
    assert "the label 'O' stands on a site that is F" in refusal(poscar(mode=head, places=places)).message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (poscar(kinds="Ca F ! kinds\n1 2 # atoms"), ""),
        (poscar(kinds="Ca_pv F_h_GW\n 1 2"), ""),
        (poscar(kinds="Ca_sv/3a1f9c F/79d9987ad87\n1 2"), ""),
        (poscar(kinds="Ca F F\n1\t1 1"), ""),
        (poscar(kinds="Ca\nF F\n1 1\n1"), ""),
        (poscar(kinds="Ca O F\n1 0 2"), ""),
        (poscar(kinds="Ca F\n1 2 atoms"), "line 7: 'atoms' after the numbers"),
        (poscar(kinds="CA F\n1 2"), "line 6: 'CA' is read as Ca"),
        (poscar(kinds="Ca F1 F2\n1 1 1"), "line 6: 'F1' is read as F"),
        (poscar(kinds="Ca2+ F-\n1 2"), "line 6: 'Ca2+' is read as Ca; line 6: 'F-' is read as F"),
        (poscar(scale="1.0d0 ! a factor"), ""),
        (poscar(cell=["4.0D+00 0 .0", "0. 5 0e0 # b", " \t0 0 +6"]), ""),
        (poscar(mode="direct lattice coordinates"), ""),
        (poscar(mode="Fractional"), "line 8: 'Fractional' is read as Direct"),
        (poscar(places=["0 0 0 ! one", "0.5 0.5 0.25 Fluorine", "0.5 0.5 0.75 # O"]), ""),
        (
            poscar(places=["0 0 0", "0.5 0.5 0.25", "0.5 0.5 0.75 O"]),
            "line 11: the label 'O' stands on a site that is F",
        ),
        (poscar(places=["0 0 0 Ca1", "0.5 0.5 0.25 F1-", "0.5 0.5 0.75 F_2"]), ""),
        (poscar(places=["0 0 0 1.0", "0.5 0.5 0.25", "0.5 0.5 0.75"]), "line 9: '1.0' after the position is not read"),
        (poscar(places=["0 0 0", "0.5 0.5 0.25000000", "2.5-1.5-0.25"]), "line 11: numbers that run together"),
        (poscar(after="\n" + "0.1 0.2 0.3\n" * 3), ""),
        (poscar(after="Lattice velocities and vectors\n1\n" + "0 0 0\n" * 6), ""),
        (poscar(after="\n" + "0 0 0\n" * 3 + "\n1\n0.1E+01\n1 2 3 4\n" + "0 0 0\n" * 9), ""),
        (poscar(after="Cartesian\n" + "0 0 0\n" * 3), ""),
        (poscar(after="\nrelaxed with care"), "line 13: text after the positions is not read: 'relaxed with care'"),
        (poscar(after="\n\n\n  \n"), ""),
        (poscar(comment=""), ""),
        (poscar().replace("\n", "\r\n"), ""),
        (poscar().replace("\n", "\r"), ""),
        (poscar(comment="Ca F", kinds="1 2"), "no line of element symbols (VASP 4); taken from the comment line"),
        (poscar(comment="CaF2", kinds="1 2"), "the comment line"),
        (poscar(comment="Ca2 F4", kinds="1 2"), "the comment line"),
        (
            poscar(kinds="1 2", places=["0 0 0 Ca", "0.5 0.5 0.25 F", "0.5 0.5 0.75 F"]),
            "no line of element symbols (VASP 4); taken from the labels after the positions",
        ),
    ],
)
def test_what_people_write_is_read_and_oddities_are_told(text: str, told: str) -> None:
    assert_as_written(text, told)


def test_deuterium_is_hydrogen_and_the_row_says_so() -> None:
    crystals = one(poscar(kinds="Pd D T\n1 1 1"))
    assert symbols(crystals) == ["Pd", "H", "H"]
    assert warned(crystals) == "line 6: 'D' is deuterium, read as H; line 6: 'T' is tritium, read as H"


def test_many_kinds_stand_on_several_lines_as_vasp_writes_them() -> None:
    rng = random.Random(3)
    kinds = [rng.choice(["Fe", "Cr", "Ni"]) for _ in range(45)]
    counts = [rng.randint(1, 3) for _ in kinds]
    rows = [range(start, min(start + 20, 45)) for start in (0, 20, 40)]
    text = "\n".join(" ".join(kinds[i] for i in row) for row in rows)
    text += "\n" + "\n".join(" ".join(str(counts[i]) for i in row) for row in rows)
    places = [f"{rng.random():.6f} {rng.random():.6f} {rng.random():.6f}" for _ in range(sum(counts))]
    crystals = one(poscar(scale="3", kinds=text, places=places))
    assert symbols(crystals) == [kind for kind, count in zip(kinds, counts) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("", Reason.UNREADABLE, "line 2: a scale (one number but 0, or three above 0) expected, but the text ends"),
        (poscar(scale="about one"), Reason.UNREADABLE, "line 2: a scale"),
        (poscar(scale="0.0"), Reason.UNREADABLE, "line 2: a scale"),
        (poscar(scale="1.0 2.0"), Reason.UNREADABLE, "found '1.0 2.0'"),
        (poscar(scale="1 -1 1"), Reason.UNREADABLE, "found '1 -1 1'"),
        (poscar(scale="1,0"), Reason.UNREADABLE, "found '1,0'"),
        (poscar(scale="nan"), Reason.UNREADABLE, "found 'nan'"),
        (poscar(scale="-10", cell=["1 0 0", "0 1 0", "1 1 0"]), Reason.BAD_LATTICE, "lie in one plane"),
        (poscar(cell=["1 0 0", "0 1 0", "1 1 0"], mode="C"), Reason.BAD_LATTICE, "lie in one plane"),
        (
            poscar(cell=["4 0 0", "0 5", "0 0 6"]),
            Reason.UNREADABLE,
            "line 4: three numbers of a lattice vector expected, found '0 5'",
        ),
        (poscar(cell=["4 0 0", "0 5 0", "0 0 6x"]), Reason.UNREADABLE, "line 5: three numbers"),
        (poscar(kinds="Ca Xx\n1 2"), Reason.UNKNOWN_SPECIES, "line 6: 'Xx' is no symbol of an element"),
        (poscar(kinds="Ca F.5\n1 2"), Reason.UNKNOWN_SPECIES, "line 6: 'F.5' is no symbol"),
        (poscar(kinds="CaF2\n1 2"), Reason.UNKNOWN_SPECIES, "line 6: 'CaF2' is no symbol"),
        (poscar(kinds="Ca F"), Reason.UNREADABLE, "line 7: whole numbers of atoms expected, found 'Direct'"),
        (poscar(kinds="Ca F\n1.0 2.0"), Reason.UNREADABLE, "line 7: whole numbers of atoms expected, found '1.0 2.0'"),
        (poscar(kinds="Ca F\n1 -2"), Reason.UNREADABLE, "line 7: whole numbers"),
        (poscar(kinds="Ca F\n3"), Reason.MALFORMED, "line 7: 1 numbers of atoms for the 2 symbols of line 6"),
        (poscar(kinds="Ca F\n1 1 1"), Reason.MALFORMED, "line 7: 3 numbers of atoms for the 2 symbols of line 6"),
        (
            poscar(kinds="Ca F\n1 1000000000000"),
            Reason.MALFORMED,
            "1000000000001 positions are counted, but only 3 lines",
        ),
        (poscar(kinds="Ca F\n1 3"), Reason.MALFORMED, "4 positions are counted, but only 3 lines follow line 8"),
        (
            poscar(kinds="Ca F\n1 3", after="\nwords\n"),
            Reason.UNREADABLE,
            "line 12: position 4 of 4 expected, found ''",
        ),
        (
            poscar(kinds="Ca F\n1 1"),
            Reason.MALFORMED,
            "line 11: a further line follows the 2 positions: '0.5 0.5 0.75'",
        ),
        (poscar(kinds="Ca F\n0 0", places=[]), Reason.MALFORMED, "no occupied site"),
        (
            poscar(mode="0.25 0.25 0.25"),
            Reason.UNREADABLE,
            "line 8: Direct or Cartesian expected, found '0.25 0.25 0.25'",
        ),
        (
            poscar(scale="1e300", cell=["1e300 0 0", "0 1e300 0", "0 0 1e300"], mode="C"),
            Reason.NON_FINITE,
            "must be finite",
        ),
        (poscar(scale="-1", cell=["1e300 0 0", "0 1e300 0", "0 0 1e300"], mode="C"), Reason.BAD_LATTICE, ""),
        (poscar(mode=""), Reason.UNREADABLE, "line 8: Direct or Cartesian expected, found ''"),
        (
            poscar(mode="Direct configuration=     1"),
            Reason.UNSUPPORTED,
            "line 8: 'Direct configuration= 1' begins a frame of an XDATCAR",
        ),
        (
            poscar(places=["0 0 0", "0.5 nan 0.25", "0 0 1"]),
            Reason.UNREADABLE,
            "line 10: position 2 of 3 expected, found '0.5 nan 0.25'",
        ),
        (poscar(places=["0 0 0", "0,5 0,5 0,25", "0 0 1"]), Reason.UNREADABLE, "line 10: position 2 of 3"),
        (poscar(places=["0 0 0", "0.5 0.5", "0 0 1"]), Reason.UNREADABLE, "line 10: position 2 of 3"),
        (
            poscar(places=["0 0 0 F", "0.5 0.5 0.25 Ca", "0 0 1 F"]),
            Reason.MALFORMED,
            "line 9: the label 'F' stands on a site that is Ca",
        ),
        (poscar(kinds="1 2"), Reason.UNREADABLE, "no line of element symbols (VASP 4), and the comment 'own cell'"),
        (
            poscar(comment="CaF3", kinds="1 2"),
            Reason.UNREADABLE,
            "the comment 'CaF3' is not one symbol for each of the 2",
        ),
        (poscar(comment="Ca F O", kinds="1 2"), Reason.UNREADABLE, "VASP 4"),
        (
            poscar(comment="F Ca", kinds="1 2", places=["0 0 0 Ca", "0.5 0.5 0.25 F", "0.5 0.5 0.75 F"]),
            Reason.MALFORMED,
            "line 8: the label 'Ca' stands on a site that is F",
        ),
        (
            poscar(kinds="1 2", places=["0 0 0 Ca", "0.5 0.5 0.25 F", "0.5 0.5 0.75 Ca"]),
            Reason.MALFORMED,
            "line 10: the label 'Ca' stands on a site that is F",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, reason: Reason, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = refusal(text)
    assert message in record.message
    assert record.reason is reason
    assert (record.id, record.origin) == ("file/POSCAR", "/lab/POSCAR")


def test_poscars_one_after_the_other_are_all_read() -> None:
    moving = "\n" + "0.1 0.2 0.3\n" * 3
    second = poscar(comment="second", kinds="Mg H\n1 2", after=moving)
    broken = poscar(comment="third", kinds="Sr O\n1 3")
    crystals, refused = read(poscar(after=moving) + second + broken + poscar(comment="fourth", kinds="Ba F\n1 2"))
    assert crystals.ids.tolist() == ["file/POSCAR", "file/POSCAR#2", "file/POSCAR#4"]
    assert crystals.formulas().tolist() == ["CaF2", "MgH2", "BaF2"]
    assert [record.id for record in refused] == ["file/POSCAR#3"]
    assert "warnings" not in crystals.columns


def test_every_truncation_and_every_lost_line_ends_in_the_crystal_or_in_a_record() -> None:
    text = poscar(
        scale="-120", mode="Selective\nCartesian", places=["0 0 0 T T T", "2 2.5 1.5 T T T", "2 2.5 4.5 T T T"]
    )
    whole = one(text)
    for length in range(len(text)):
        crystals, refused = read(text[:length])
        assert len(crystals) + len(refused) == 1, length
        if len(crystals) and length < len(text) - len("4.5 T T T"):
            pytest.fail(f"{length} of {len(text)} characters gave a crystal")
    lines = text.splitlines()
    for missing in range(1, len(lines)):
        crystals, refused = read("\n".join(lines[:missing] + lines[missing + 1 :]))
        assert len(crystals) + len(refused) == 1
        if len(crystals):
            assert (crystals == whole) == (lines[missing] == "Selective"), lines[missing]
            assert lines[missing] == "Selective" or warned(crystals), lines[missing]


@given(st.binary(max_size=200) | st.text(alphabet="0123456789. -+eEdDTFCaO\n\t\rNSs!#/_", max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_text_raises(noise: bytes | str) -> None:
    text = noise.decode("utf-8", "replace") if isinstance(noise, bytes) else noise
    for whole in (text, poscar(comment=text), poscar(kinds=text), poscar(places=[text]), poscar(after=text)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            crystals, refused = read(whole)
        assert len(crystals) + len(refused) >= 1


def test_a_cell_with_more_sites_than_accepted_is_too_large() -> None:
    text = poscar(scale="20", kinds="Ca\n500", places=[f"{i / 500:.6f} 0 0" for i in range(500)])
    _, refused = read(text)
    assert [record.reason for record in refused] == [Reason.TOO_LARGE]
