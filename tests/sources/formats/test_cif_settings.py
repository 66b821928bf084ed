"""Random crystals in all 530 settings of the space groups, written in many ways: read right, or not at all.

The truth is expanded from spglib's table by the code beside this file, none of it Assay's.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from .settings import COUNT, in_group, numbered, setting, settings, spellings
from .settings_crystals import SHORTEST, orbit, parameters, truth, vectors
from .settings_files import Symmetry, Syntax, triplets, write
from .settings_judge import (
    Expected,
    Outcome,
    Verdict,
    contradictory_cases,
    difference,
    distances,
    judge,
    matrix,
    named_cases,
    unnamed_cases,
)

SEED = 16
HALLS = range(1, COUNT + 1)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[Outcome]:
    cases = [case for hall in HALLS for case in (*unnamed_cases(hall, SEED), *named_cases(hall, SEED, 2))]
    return judge(cases, tmp_path_factory.mktemp("settings"))


def report(outcomes: list[Outcome]) -> str:
    lines = [f"{one.verdict.value}: {one.case.recipe}: {one.message}" for one in outcomes]
    return f"{len(lines)} defects, the first:\n" + "\n".join(lines[:8])


def test_no_file_gives_another_crystal(outcomes):
    wrong = [one for one in outcomes if one.verdict in (Verdict.WRONG, Verdict.WARNED_WRONG)]

    assert not wrong, report(wrong)


def test_a_file_with_one_meaning_is_read(outcomes):
    clear = [one for one in outcomes if one.case.expected is Expected.READ]
    refused = [one for one in clear if one.verdict is Verdict.REFUSED]

    assert len(clear) > 2500
    assert {one.case.truth.setting.hall for one in clear} == set(HALLS)
    assert not refused, report(refused)


def test_a_file_with_several_meanings_is_read_right_or_refused_with_a_reason(outcomes):
    unclear = [one for one in outcomes if one.case.expected is Expected.EITHER]
    counted = Counter(one.verdict for one in unclear)

    assert len(unclear) > 50
    assert set(counted) <= {Verdict.RIGHT, Verdict.WARNED, Verdict.REFUSED}, report(unclear)
    assert all(len(one.message) > 20 for one in unclear if one.verdict is Verdict.REFUSED)


def test_every_way_to_say_a_symmetry_takes_part(outcomes):
    kinds = Counter(one.case.kind for one in outcomes)

    assert {"operations", "hall", "number", "hall and number", "name, nothing", "name, number", "name, hall"} <= set(
        kinds
    )
    assert min(kinds.values()) > 80


def test_a_file_that_contradicts_itself_is_refused_or_told(tmp_path):
    rng = np.random.default_rng(SEED)
    all_cases = [list(contradictory_cases(hall, SEED)) for hall in HALLS]
    cases = [own[i] for own in all_cases for i in rng.choice(len(own), size=1, replace=False)]
    outcomes = judge(cases, tmp_path)
    defects = [one for one in outcomes if one.is_defect]

    assert len({case.kind for case in cases}) >= 11
    assert not defects, report(defects)
    assert not [one for one in outcomes if one.verdict is Verdict.WRONG]


# The generator and the judge themselves.


def test_crystals_are_believable():
    for hall in HALLS:
        crystal = truth(hall, SEED)
        places = np.unique(crystal.frac, axis=0)
        assert crystal.setting.fits(crystal.lattice)
        assert distances(crystal.lattice, places)[len(places)] >= SHORTEST - 1e-3
        assert 10 < crystal.volume / crystal.occupancy.sum() < 27
        assert np.allclose(parameters(vectors(crystal.cell)), crystal.cell)


def test_most_crystals_have_an_atom_in_general_position():
    general = sum(
        max(len(orbit(one, np.array(site.place))) for site in truth(one.hall, SEED).sites) == len(one.rotations)
        for one in settings()
    )

    assert general > 400


def test_the_judge_sees_the_operations_of_another_setting():
    seen = compared = 0
    for hall in HALLS:
        crystal = truth(hall, SEED)
        for sister in sorted(in_group(crystal.setting.number) - {hall})[:2]:
            other = setting(sister)
            if other.operations == crystal.setting.operations or not other.fits(crystal.lattice):
                continue
            orbits = [orbit(other, np.array(site.place)) / 30000 for site in crystal.sites]
            elements = [site.element for site, own in zip(crystal.sites, orbits) for _ in own]
            shares = np.array([site.occupancy for site, own in zip(crystal.sites, orbits) for _ in own])
            compared += 1
            seen += bool(difference(crystal, crystal.lattice, elements, shares, np.concatenate(orbits)))

    assert compared > 400
    assert seen > 0.9 * compared


def test_the_judge_accepts_the_truth_in_another_frame_and_order():
    crystal = truth(526, SEED)
    order = np.random.default_rng(SEED).permutation(len(crystal.elements))
    turned = crystal.lattice @ np.linalg.qr(np.random.default_rng(SEED).normal(size=(3, 3)))[0]
    elements = [crystal.elements[i] for i in order]

    assert difference(crystal, turned, elements, crystal.occupancy[order], crystal.frac[order] + 3) == ""
    assert "distances" in difference(crystal, turned, elements, crystal.occupancy[order], crystal.frac[order] * 0.98)


@pytest.mark.parametrize("style", range(4))
def test_operations_are_written_as_they_are(style):
    class OneStyle:
        def integers(self, count):
            return style

        def random(self):
            return 0.0

    for one in settings():
        read = [matrix(text) for text in triplets(truth(one.hall, SEED), OneStyle())]
        assert np.array_equal([r for r, _ in read], one.rotations)
        assert np.array_equal([t for _, t in read], one.shifts)


def test_spellings_of_a_name_hold_the_forms_in_use():
    texts = {hall: {one.text for one in spellings(setting(hall))} for hall in (82, 115, 304, 458, 459, 517, 526)}

    assert {"P 21/n", "P 1 21/n 1", "P 2(1)/n", "P2_1/n", "P 1 2(1)/n 1"} <= texts[82]
    assert {"P 21 21 21", "P2(1)2(1)2(1)", "P212121"} <= texts[115]
    assert {"C m c e", "C m c a", "Cmca", "C 2/m 2/c 21/e"} <= texts[304]
    assert {"R -3 m H", "R -3 m:H", "R-3m", "R -3 2/m (hexagonal axes)"} <= texts[458]
    assert {"R -3 m R", "R -3 m :R", "R -3 m (rhombohedral axes)"} <= texts[459]
    assert {"P m 3 m", "P m -3 m", "P 4/m -3 2/m"} <= texts[517]
    assert {"F d -3 m Z", "F d 3 m Z", "F d -3 m :2", "F 41/d -3 2/m (origin choice 2)"} <= texts[526]


def test_what_a_number_alone_may_mean():
    assert numbered(14) == {81}
    assert numbered(166) == {458, 459}
    assert numbered(227) == {525, 526}
    assert numbered(225) == {523}


def test_a_written_file_holds_what_was_asked_for():
    crystal = truth(458, SEED)
    text = write(crystal, Symmetry(name="R -3 m H", number=166), Syntax(tags="dots", quirks=frozenset({"CRLF"})))

    assert text.startswith("data_crystal\r\n_cell.length_a ")
    assert "_space_group.name_H-M_alt 'R -3 m H'\r\n_space_group.IT_number 166\r\n" in text
    assert "_atom_site.fract_x\r\n" in text
