"""CIFs with one token changed: no exception, nothing slow, and no other composition without a word.

`python benchmarks/reading.py --mutations 5000` does the same with more files.
"""

from __future__ import annotations

from collections import Counter

import pytest

from .cif_mutations import KINDS, Mutant, independent, mutants, originals
from .mutation_judge import Fate, Reading, judge_mutants
from .settings_crystals import truth
from .settings_files import Symmetry, Syntax, write

SEED = 16
COUNT = 600
SLOWEST = 10.0
"""s"""


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> list[Reading]:
    return judge_mutants(mutants(COUNT, SEED), tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize("fate", [Fate.RAISED, Fate.DIFFERENT, Fate.UNKNOWN])
def test_no_changed_file_is_read_as_another_crystal_in_silence(readings, fate):
    found = [one for one in readings if one.fate is fate]

    assert not found, "\n".join(f"{one.mutant.recipe}: {one.message}" for one in found[:5])


def test_no_changed_file_is_slow(readings):
    assert max(one.seconds for one in readings) < SLOWEST


def test_a_refusal_has_a_reason_that_is_no_inner_error(readings):
    refused = [one.message for one in readings if one.fate is Fate.REFUSED]

    assert len(refused) > 100
    assert all(len(message) > 15 for message in refused)
    assert not [message for message in refused if "Error:" in message or "object" in message.split()]


@pytest.mark.parametrize("word", ["loop_", "LOOP_", "_", "data_crystal", "data_other", "global_", "stop_"])
def test_a_word_that_ends_a_loop_costs_no_site(tmp_path, word):
    crystal = truth(458, SEED)
    text = write(crystal, Symmetry(hall=crystal.setting.hall_symbol), Syntax())
    label = crystal.sites[-1].label
    cut = text.replace(f"\n{label} ", f"\n{word} ")
    found = judge_mutants([Mutant(word, cut, crystal.composition)], tmp_path)

    assert cut != text
    assert found[0].fate in (Fate.REFUSED, Fate.WARNED), found[0].message


def test_changes_of_each_kind_are_read_refused_and_warned_of(readings):
    kinds = {kind: Counter(one.fate for one in readings if f" {kind} by " in one.mutant.recipe) for kind in KINDS}

    assert all(sum(fates.values()) > 50 for fates in kinds.values())
    assert sum(fates[Fate.AGREED] for fates in kinds.values()) > 40
    assert sum(fates[Fate.WARNED] for fates in kinds.values()) > 20


def test_the_independent_reading_knows_the_files_before_the_change():
    files = originals(60, SEED)
    found = [independent(text) for text, _ in files]

    assert sum(one is not None for one in found) > 50
    assert all(one == pytest.approx(amounts) for one, (_, amounts) in zip(found, files) if one is not None)


def test_the_independent_reading_sees_a_change():
    seen = 0
    for text, amounts in originals(60, SEED):
        rows = text.splitlines()
        if len(rows[-1].split()) < 5 or "," in rows[-1] or independent(text) is None:
            continue  # does not end with a whole row of the sites
        shorter = independent("\n".join(rows[:-1])) or {}
        seen += 1
        assert sum(shorter.values()) < sum(amounts.values()) - 0.1

    assert seen > 10
