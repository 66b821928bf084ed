"""A student of ASE's EMT: drawn, labelled, learned, stopped, read back, relaxed with."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from ase.build import bulk

from assay.models.potentials import potential, relax
from assay.models.potentials.student import student
from assay.models.training.distil import assess, card, fit, label, learn, rounds, sample, split
from assay.models.training.distil.recipe import Distillation, Schedule, StudentSpec
from assay.sources import prototypes, table
from assay.sources.formats import convert
from assay.sources.quarantine import Reason

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
RECIPE = Distillation(
    name="emt",
    teacher="ase:ase.calculators.emt:EMT",
    crystals=(sample.Drawn("ALLOYS", 200, 8), sample.Drawn("prototypes", 30, 8)),
    elements=METALS,
    students=(StudentSpec(0, 24, 2, 8, 4.5), StudentSpec(1, 24, 2, 8, 4.5)),
    displacement=sample.Displacement(rattle=0.1),
    test=0.15,
    validation=0.1,
    schedule=Schedule(epochs=10, batch_size=4, ema=0.9, learning_rate=2e-3, matrix_rate=1e-2),
)


def alloys():
    """Elements and ordered alloys, each on a lattice between those of its elements."""
    length = dict(zip(METALS, (4.05, 3.61, 4.09, 4.08, 3.52, 3.89, 3.92), strict=True))
    made = []
    for one, other in itertools.product(METALS, METALS):
        a = (3 * length[one] + length[other]) / 4
        atoms = bulk(one, "fcc", a=a, cubic=True)
        atoms.symbols[0] = other
        made.append(atoms)
        if one < other:
            made.append(bulk(one + other, "cesiumchloride", a=0.81 * (length[one] + length[other]) / 2))
    return convert.from_ase(made, [f"alloy-{k}" for k in range(len(made))])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("alloys") / "alloys.parquet"
    crystals = alloys()
    energy = potential.load(RECIPE.teacher).evaluate(crystals).energy
    table.write(table.to_table(crystals.with_columns(known=np.zeros(len(crystals)), energy=energy)), path)
    drawn = replace(RECIPE.crystals[0], dataset=f"{path}#known"), RECIPE.crystals[1]
    compared = {"energies": f"{path}#energy", "moduli": f"{path}#known", "moduli_count": 5}
    return replace(RECIPE, crystals=drawn, **compared)


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("emt")
    return output, fit.run(recipe, output, command="a test")


def test_the_students_have_learned_and_say_how_well(recipe, made):
    output, found = made
    test, facts = split.divide(recipe, output).test, found.facts
    assert facts["test"]["energy"] < abs(test.energy / test.crystals.nsites).mean() * 1e3
    assert facts["test"]["force"] < abs(test.forces).mean() * 1e3 / 2
    assert facts["test"]["energy"] < np.mean([one["energy"] for one in facts["alone"]]) + 1e-9
    assert f"| mean of the students | {facts['test']['energy']:.1f} |" in (output / "README.md").read_text()
    assert str(found.scale) == "ase.calculators.emt:EMT, that of the calculator"


def test_the_card_compares_students_and_teacher_with_energies_and_moduli(recipe, made):
    found, card = made[1].facts["dft"], (made[0] / "README.md").read_text()
    teacher, students = found[recipe.teacher], found["students"]
    assert teacher["energy"] == pytest.approx(0, abs=1e-6)
    assert students["energy"] > 1
    assert teacher["moduli_rows"] + teacher["moduli_without"] == 5
    assert 30 < teacher["modulus"] < 250  # GPa: the known ones are set to 0
    assert f"| {recipe.teacher} | 0.0 |" in card
    assert "| nve_drift: " in card
    error = made[1].facts["calibration"]
    assert error["n"] == students["rows"]
    assert error["scale"] * error["floor"] > 1e-3  # eV/atom
    assert f"{error['scale']:.2f} x (disagreement" in card.replace("\n", " ")


def test_no_chemical_system_is_both_learned_and_tested(recipe, made):
    found = split.divide(recipe, made[0])
    parts = [set(sample.systems(rows.crystals)) for rows in (found.train, found.validation, found.test)]
    assert all(parts)
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_a_run_that_was_stopped_ends_in_the_same_bytes(recipe, made, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learn._Run, "averaged", stop)  # after the fifth epoch, before it is kept
        with pytest.raises(KeyboardInterrupt):
            fit.run(recipe, tmp_path, command="a test")
    assert (tmp_path / "training/student-0/state.pt").exists()
    fit.run(recipe, tmp_path, workers=2, command="a test")
    for name in ("student-0.safetensors", "student-1.safetensors", "potential.json", "labels/part-00000.safetensors"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes(), name


def test_another_recipe_does_not_go_on_in_the_folder(recipe, made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    for changed in ({"seed": 1}, {"schedule": replace(recipe.schedule, epochs=11)}, {"elements": METALS[1:]}):
        with pytest.raises(ValueError, match="another recipe or other data"):
            fit.run(replace(recipe, **changed), folder)
    fit.run(replace(recipe, moduli_count=3), folder, command="a test")  # changes the card alone
    assert (folder / "student-0.safetensors").read_bytes() == (made[0] / "student-0.safetensors").read_bytes()


def test_too_few_chemical_systems_are_refused_before_anything_is_labelled(recipe, tmp_path):
    with pytest.raises(ValueError, match="28 chemical systems are too few to learn, watch and test; raise count"):
        fit.run(replace(recipe, crystals=recipe.crystals[:1], validation=0.02), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_element_has_too_few_chemical_systems_and_count_does_not_help(recipe, tmp_path):
    with pytest.raises(
        ValueError, match="1 chemical system is too few .* needs systems of its own: name more elements"
    ):
        fit.run(replace(recipe, crystals=recipe.crystals[:1], elements=("Cu",)), tmp_path)


def test_labels_that_teach_no_element_are_refused_before_anything_is_learned(recipe, tmp_path):
    few = replace(recipe, crystals=(replace(recipe.crystals[0], count=12),), test=0.2, validation=0.2)
    with pytest.raises(ValueError, match="no element is in 10 or more of the . crystals to learn from"):
        fit.run(few, tmp_path)
    assert (tmp_path / "labels/part-00000.safetensors").exists()
    assert not (tmp_path / "training").exists()


def test_crystals_of_elements_that_were_not_learned_judge_nobody(recipe, made, monkeypatch):
    divided = split.divide(recipe, made[0])
    seen = (divided.train.crystals.composition() > 0).sum(axis=0)
    monkeypatch.setattr(rounds, "_LEAST", int(np.sort(seen[seen > 0])[1]))  # one element less is learned
    rows = rounds.judged(divided)
    held = np.flatnonzero((divided.test.crystals.composition()[rows] > 0).any(axis=0))
    assert 0 < len(rows) < len(divided.test.crystals)
    assert set(held.tolist()) <= rounds.learned(divided.train.crystals)


@pytest.mark.parametrize(("most", "advice"), [(1e-9, "raise it"), (20.0, "lower the rates of schedule")])
def test_a_student_that_takes_no_step_is_no_potential(recipe, made, most, advice, monkeypatch):
    labels = split.divide(recipe, made[0]).validation
    if most > 1:
        monkeypatch.setattr(learn._Run, "_loss", lambda run, _: next(run.network.parameters()).sum() * float("nan"))
    how = replace(recipe.schedule, largest_loss=most)
    with pytest.raises(ValueError, match=f"student 0 took no step in epoch 1, .* it learned nothing; {advice}"):
        learn.learn(labels, labels, recipe.students[0], how, None)


def test_students_and_teacher_are_compared_with_dft_on_the_same_crystals(made):
    crystals, teacher = alloys(), potential.load(RECIPE.teacher)
    fewer = replace(made[1], elements=frozenset({29, 47}))
    energy = teacher.evaluate(crystals).energy
    found = assess.beside_dft({"students": fewer, "teacher": teacher}, crystals, energy)
    copper_and_silver = sum(set(held.split("-")) <= {"Cu", "Ag"} for held in sample.systems(crystals))
    assert [found[name]["rows"] for name in ("students", "teacher")] == [copper_and_silver] * 2
    assert assess.beside_dft({"students": replace(fewer, elements=frozenset({3}))}, crystals, energy) == {}
    empty = {"students": {}, "teacher": {}}
    assert "students and teacher know no crystal" in card._dft(empty, {"energies": "a", "moduli": ""})[0]
    assert card._dft(empty, {"energies": "", "moduli": ""}) == []


def test_a_crystal_of_two_places_is_drawn_once(recipe):
    once = rounds.first(recipe)
    twice = rounds.first(replace(recipe, crystals=(*recipe.crystals, replace(recipe.crystals[0], sites=7))))
    assert twice.ids.tolist() == once.ids.tolist()


def test_a_file_without_labels_is_refused(tmp_path):
    safetensors.numpy.save_file({"energy": np.zeros(1)}, label.part_path(tmp_path, 0))
    with pytest.raises(ValueError, match="holds no labels"):
        label.read(tmp_path, "", 25.0)


def test_what_the_teacher_cannot_say_is_recorded_and_not_learned(tmp_path):
    crystals = alloys()
    crystals.numbers[crystals.numbers == 28] = 26  # EMT refuses iron
    label.label(crystals, potential.load(RECIPE.teacher), tmp_path / "labels", [0])
    kept, refused = label.read(tmp_path, "labels", 25.0)
    iron = crystals.composition()[:, 26] > 0
    assert iron.any()
    assert set(kept.crystals.ids) == set(crystals.ids[~iron])
    assert [record.id for record in refused] == crystals.ids[iron].tolist()
    assert {record.reason for record in refused} == {Reason.PREDICTION_FAILED}
    assert {record.origin for record in refused} == {"labels/part-00000.safetensors"}
    assert all("NotImplementedError: No EMT-potential for Fe" in record.message for record in refused)
    found = potential.load(RECIPE.teacher).evaluate(kept.crystals)
    assert kept.energy == pytest.approx(found.energy)
    assert kept.forces == pytest.approx(found.forces)
    assert kept.stress == pytest.approx(found.stress)


def test_a_displaced_crystal_depends_on_nothing_but_itself():
    crystals = prototypes.generate(40, 1)
    moved = sample.displaced(crystals, sample.Displacement(), 7)
    alone = sample.displaced(crystals[5:6], sample.Displacement(), 7)
    assert (moved.lattice[5] == alone.lattice[0]).all()
    assert (moved.frac[moved.site_ptr[5] : moved.site_ptr[6]] == alone.frac).all()
    assert not np.allclose(moved.lattice, crystals.lattice)
    assert (np.linalg.det(moved.lattice) > 0).all()


def test_the_folder_is_a_potential_that_relaxes_and_refuses_other_elements(made):
    found = potential.load(f"potential:{made[0]}")
    crystals = alloys()
    crystals = sample.displaced(crystals, RECIPE.displacement, 1)
    relaxed = relax.relax(crystals, found)
    assert len(relaxed.crystals) + len(relaxed.refused) == len(crystals)
    assert len(relaxed.crystals) > 0.9 * len(crystals)
    wanted = relax.relax(crystals, potential.load(RECIPE.teacher))
    both, mine, theirs = np.intersect1d(relaxed.index, wanted.index, return_indices=True)
    grown = relaxed.crystals.volume[mine] / wanted.crystals.volume[theirs]
    assert len(both) > 0.9 * len(crystals)
    assert abs(np.median(grown) - 1) < 0.03
    iron = replace(crystals[:1], numbers=np.full_like(crystals[:1].numbers, 26))
    assert "has not learned Fe" in relax.relax(iron, found).refused[0].message


def test_a_changed_file_is_refused(made, tmp_path):
    for name in ("potential.json", "student-0.safetensors", "student-1.safetensors"):
        (tmp_path / name).write_bytes((made[0] / name).read_bytes())
    weights = bytearray((tmp_path / "student-1.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "student-1.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="student-1.safetensors is damaged or replaced"):
        student.load(str(tmp_path))
    text = (made[0] / "potential.json").read_text()
    (tmp_path / "potential.json").write_text(text.replace('"Cu"', '"Co"', 1))
    with pytest.raises(ValueError, match=r"potential.json is damaged or was edited"):
        student.load(str(tmp_path))
    told = json.loads(text)
    told["networks"][0]["sizes"]["features"] = 10**6
    told["sha256"] = student._seal({key: value for key, value in told.items() if key != "sha256"})
    (tmp_path / "potential.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="features is 1000000, expected above 0, at most 1024"):
        student.load(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no potential\.json"):
        student.load(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": RECIPE.students[:1]}, "students has 1 entries"),
        ({"students": RECIPE.students[:1] * 2}, "two students are one network"),
        ({"elements": ("Cu", "Xx")}, "'Xx' is not an element symbol"),
        ({"test": 0.6}, r"test is 0\.6"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)
