"""A second and a third round of EMT's students: chosen, labelled, learned, killed, gone on with."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assay.models.potentials import dynamics, potential
from assay.models.training.distil import fit, label, rounds, sample, split
from assay.models.training.distil.frames import Frames, moved
from assay.models.training.distil.recipe import Distillation, Round, Schedule, StudentSpec
from assay.sources import table
from assay.sources.quarantine import Reason
from tests.conftest import ROOT
from tests.metals import alloys

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
EMT = "ase:ase.calculators.emt:EMT"
STILL = Schedule(epochs=1, batch_size=32, learning_rate=1e-9, matrix_rate=1e-9)
DRIVEN = sample.Displacement(
    frames=(Frames("relaxation", 0.4, "students", 4), Frames("dynamics", 0.3, "students", 6, temperature=900))
)
RECIPE = Distillation(
    name="rounds",
    teacher=EMT,
    crystals=(sample.Drawn("alloys.parquet#known", 100, 6),),
    elements=METALS,
    students=(StudentSpec(0, 8, 2, 4, 4.0), StudentSpec(1, 8, 2, 4, 4.0)),
    displacement=sample.Displacement(frames=(Frames("relaxation", 0.3, steps=4),)),
    test=0.2,
    validation=0.1,
    largest_force=8.0,
    schedule=Schedule(epochs=3, batch_size=16, ema=0.9),
    rounds=(
        Round(candidates=50, labels=20, displacement=DRIVEN, schedule=STILL),
        Round(candidates=30, labels=8, students="anew"),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """Alloys by a name that random numbers can depend on, small parts, a card without checks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("alloys"))
        table.write(table.to_table(alloys(300).with_columns(known=np.zeros(300))), Path("alloys.parquet"))
        patch.setattr(label, "PART", 30)
        patch.setattr(fit, "_checks", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One round, and then two more in the same folder."""
    output = tmp_path_factory.mktemp("made")
    fit.run(replace(RECIPE, rounds=()), output, command="a test")
    kept = (output / "training/student-0/weights.safetensors").read_bytes()
    found = fit.run(RECIPE, output, command="a test")
    assert (output / "training/student-0/weights.safetensors").read_bytes() == kept
    return output, found.facts


def content(folder):
    """The files that say something, not the states of optimisers."""
    every = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pt")
    return {str(path): (folder / path).read_bytes() for path in every}


def test_the_teacher_labels_what_the_students_disagree_on_most(made):
    output, _ = made
    asked, _ = label.read(output, "round-2/candidates", RECIPE.largest_force)
    _, shaky = rounds.ensemble(RECIPE, output, 0).disagreement(asked.crystals)
    spread = dict(zip(asked.crystals.ids, np.maximum.reduceat(shaky, asked.crystals.site_ptr[:-1]), strict=True))
    chosen = rounds.chosen(RECIPE, output, 1)
    assert len(chosen) == 20
    assert min(spread[name] for name in chosen.ids) >= sorted(spread.values())[-20]
    labels, refused = label.read(output, "round-2/labels", np.inf)
    wanted = potential.load(EMT).evaluate(chosen)
    assert not refused
    assert (labels.forces == wanted.forces).all()
    assert (labels.energy == wanted.energy).all()


def test_later_rounds_draw_other_crystals_and_never_a_held_out_system(made):
    output, facts = made
    first, last = split.divide(RECIPE, output), split.divide(RECIPE, output, 2)
    held = {*sample.systems(first.validation.crystals), *sample.systems(first.test.crystals)}
    assert (last.test.energy == first.test.energy).all()
    assert held & set(sample.systems(rounds._drawn(RECIPE, rounds._seed(RECIPE, 1))))
    for turn, candidates in ((1, 50), (2, 30)):
        drawn = rounds.candidates(RECIPE, output, turn)
        assert 0 < len(drawn) <= candidates
        assert not held & set(sample.systems(drawn))
        assert not np.isin(drawn.lattice, rounds.first(RECIPE).lattice).all(axis=(1, 2)).any()
    assert last.learned[0] == len(first.train.crystals) == facts["rows"]["train"] - sum(last.learned[1:])
    assert not held & set(sample.systems(last.train.crystals))


def test_students_go_on_from_their_weights_or_begin_again(made):
    one, two, three = (load_file(rounds.weights(made[0], turn, 0)) for turn in range(3))
    for name, before in one.items():
        assert torch.allclose(two[name], before, atol=1e-6), name  # the second round hardly learns
    assert not torch.allclose(three["layers.0.mix.weight"], one["layers.0.mix.weight"], atol=1e-3)
    assert not torch.equal(three["shift"], one["shift"])  # fitted to the labels of all rounds


def test_each_crystal_is_learned_or_tests_or_is_in_quarantine(made):
    output, facts = made
    found = table.quarantine_rows(table.read(output / "quarantine.parquet"))
    kept = split.divide(RECIPE, output, 2)
    by_round = Counter(record.origin.rpartition("/")[0] for record in found)
    assert set(by_round) <= {"labels", "round-2/labels", "round-3/labels"}
    labelled = facts["rounds"][0]["learned"] + len(kept.validation.crystals) + len(kept.test.crystals)
    assert labelled + by_round["labels"] == len(rounds.first(RECIPE))
    assert facts["rounds"][1]["learned"] + by_round["round-2/labels"] == 20
    assert facts["rounds"][2]["learned"] + by_round["round-3/labels"] == 8
    assert by_round["labels"] > 0
    assert {record.reason for record in found} == {Reason.EXPLODED}
    assert all("expected at most 8 (largest_force)" in record.message for record in found)
    for record in found:
        assert record.id in label._read(output / record.origin, "", np.inf)[0].crystals.ids
    assert facts["left_out"] == len(found)


def test_the_card_counts_the_labels_of_each_round(made):
    output, facts = made
    card = (output / "README.md").read_text()
    for k, one in enumerate(facts["rounds"], 1):
        assert f"| {k} | {one['learned']} | {one['left_out']} | {one['energy']:.1f} | {one['force']:.1f} |" in card
    assert facts["test"]["force"] == facts["rounds"][2]["force"] != facts["rounds"][0]["force"]
    assert f"Crystals without a label to learn from, in `quarantine.parquet`: {facts['left_out']}." in card


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_rounds
from assay.models.training.distil import fit, label, learn
label.PART, fit._checks, save = 30, lambda *_: [], learn._Run.save

def kill(run, folder):
    if "round-3" in str(folder) and run.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    save(run, folder)

learn._Run.save = kill
fit.run(test_rounds.RECIPE, Path(sys.argv[2]), command="a test")
"""


def test_rounds_that_were_stopped_or_killed_end_in_the_same_bytes(made, tmp_path, monkeypatch, request):
    output, evaluate = tmp_path / "killed", rounds.Student.evaluate

    def stop(student, crystals):  # as the first candidates of the second part are asked about
        if (output / "round-2/candidates/part-00000.safetensors").exists():
            raise KeyboardInterrupt
        return evaluate(student, crystals)

    with monkeypatch.context() as patch:
        patch.setattr(rounds.Student, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            fit.run(RECIPE, output, command="a test")
    assert not (output / "round-2/chosen.json").exists()
    command = [sys.executable, "-c", KILLED, request.path.parent, output]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (output / "round-3/training/student-0/state.pt").exists()
    assert not (output / "round-3/training/student-0/weights.safetensors").exists()
    fit.run(RECIPE, output, workers=1, command="a test")
    assert content(output) == content(made[0])


def test_another_round_is_refused_and_one_more_is_not(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    one, other = RECIPE.rounds
    with pytest.raises(ValueError, match=r"round-2 holds a training run of another recipe"):
        fit.run(replace(RECIPE, rounds=(replace(one, labels=19), other)), folder)
    fit.run(replace(RECIPE, rounds=(*RECIPE.rounds, Round(20, 5, schedule=STILL))), folder)
    assert (folder / "round-4/chosen.json").exists()


def test_a_student_learns_where_no_teacher_can_be_loaded(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    path = rounds.weights(folder, 0, 1)
    before = path.read_bytes()
    shutil.rmtree(path.parent)
    rounds.first.cache_clear()
    monkeypatch.setattr(potential, "KINDS", {})
    fit.learn_one(RECIPE, folder, 0, 1)
    assert path.read_bytes() == before


def test_frames_lie_on_paths_and_depend_on_their_crystal_alone():
    crystals = sample.displaced(alloys(50), sample.Displacement(), 3)
    teacher = {"teacher": potential.load(EMT)}
    relaxing, hot = Frames("relaxation", 0.5, steps=6), Frames("dynamics", 0.3, steps=6)
    found = moved(crystals, (relaxing, hot), teacher, 1)
    assert (found.ids == crystals.ids).all()
    same_cell = (found.lattice == crystals.lattice).all(axis=(1, 2))
    shift = abs(found.frac - crystals.frac)
    still = same_cell & (np.maximum.reduceat(shift.max(axis=1), crystals.site_ptr[:-1]) == 0)
    assert 15 < (~same_cell).sum() < 35  # half of them relax
    assert 6 < (same_cell & ~still).sum() < 24
    before, after = (teacher["teacher"].evaluate(some).energy for some in (crystals, found))
    assert (after < before)[~same_cell].mean() > 0.9
    rows, steps = np.flatnonzero(same_cell & ~still), set()
    start = dynamics.thermal(crystals.select(rows), 600, 1)
    for step in range(1, 6):
        end = dynamics.run(start, teacher["teacher"], step, 1.0, 600, thermostat=True, seed=1).end.crystals
        places = abs(end.frac - found.select(rows).frac).max(axis=1).reshape(-1, 4).max(axis=1)
        steps |= {(row, step) for row in rows[places == 0].tolist()}
    assert {row for row, _ in steps} == set(rows.tolist())
    assert len({step for _, step in steps}) > 2  # each path ends where its crystal drew
    assert moved(crystals[10:30], (relaxing, hot), teacher, 1) == found[10:30]
    other = moved(crystals, (relaxing, hot), teacher, 2)
    assert (other.lattice != found.lattice).any()


def test_a_crystal_that_the_driver_does_not_know_stays(made):
    crystals, students = alloys(20), {"students": rounds.ensemble(RECIPE, made[0], 0)}
    crystals.numbers[:4] = 26
    found = moved(crystals, (Frames("dynamics", 1.0, "students"),), students, 1)
    assert found[:1] == crystals[:1]
    assert (found.frac[4:] != crystals.frac[4:]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Round(candidates=5, labels=6), r"rounds\.labels is 6, expected 1 to rounds\.candidates, 5"),
        (lambda: Round(candidates=5, labels=0), r"rounds\.labels is 0"),
        (lambda: Frames("dynamics", 1.5), r"frames\.share is 1\.5"),
        (lambda: Frames("dynamics", 0.5, steps=1), r"frames\.steps is 1, expected at least 2"),
        (lambda: Frames("dynamics", 0.5, temperature=0), r"frames\.temperature is 0"),
        (lambda: sample.Displacement(frames=(Frames("dynamics", 0.6),) * 2), r"shares of 1\.2 in all"),
        (lambda: replace(RECIPE, displacement=DRIVEN), "the first round has none"),
        (lambda: replace(RECIPE, parts=0), "parts is 0, expected at least 1"),
    ],
)
def test_rounds_and_frames_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
