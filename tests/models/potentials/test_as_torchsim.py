"""`assay.torchsim_model`: a potential drives torch-sim, and refuses what it cannot know. Skips without torch-sim."""

import pickle
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111

import assay
from assay.models.potentials import potential, relax
from assay.sources import prototypes
from assay.sources.formats import convert
from tests import metals

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "relaxation.md"
ts = pytest.importorskip("torch_sim", reason="torch-sim is not installed: pip install 'assay[torchsim]'")
FRECHET = (
    {"optimizer": ts.Optimizer.fire, "init_kwargs": {"cell_filter": ts.CellFilter.frechet}}
    if hasattr(ts, "Optimizer")  # 0.6, from Python 3.12 on
    else {"optimizer": ts.frechet_cell_fire}  # 0.3
)


@pytest.fixture(scope="module")
def student():
    return potential.load("potential")


@pytest.fixture(scope="module")
def model():
    return assay.torchsim_model("potential")


@pytest.fixture(scope="module")
def crystals(student):
    """Hypothetical crystals of 2 to 14 atoms; every third one has a left-handed cell."""
    made = prototypes.generate(300, seed=0)
    made = made.select(potential.known(student, made)[0][:18])
    turned = made.lattice.copy()
    turned[::3] *= -1
    return replace(made, lattice=turned)


def of(atoms):
    return ts.initialize_state(atoms, "cpu", assay.torchsim_model("potential").dtype)


def test_the_numbers_are_those_of_the_potential(model, student, crystals):
    found, own = model(model.state(crystals)), student.evaluate(potential.right_handed(crystals))
    assert found["energy"].numpy() == pytest.approx(own.energy, abs=1e-6)
    assert found["forces"].numpy() == pytest.approx(own.forces, abs=1e-6)
    assert found["stress"].numpy() == pytest.approx(own.stress, abs=1e-6)
    assert abs(own.forces).max() > 0.1
    assert abs(own.stress).max() > 0.01


def test_torch_sim_finds_no_fault_with_crystals(model):
    molecules = pytest.raises(ValueError, match="open axis") if hasattr(ts, "Optimizer") else nullcontext()
    with molecules:  # 0.6 asks about one in the end
        ts.models.interface.validate_model_outputs(model, model.device, model.dtype)


def test_a_copy_in_another_process_says_the_same(model, crystals):
    state, copy = model.state(crystals), pickle.loads(pickle.dumps(model))
    assert (copy(state)["energy"] == model(state)["energy"]).all()


def test_its_fire_ends_where_ours_does(model, student, crystals):
    ours = relax.relax(crystals, student, relax.Settings(fmax=0.01, smax=0.02))
    assert len(ours.index) == len(crystals)
    reached = ts.generate_force_convergence_fn(0.01, include_cell_forces=True)
    end = ts.optimize(model.state(crystals), model, convergence_fn=reached, max_steps=600, **FRECHET)
    theirs = convert.from_ase(end.to_atoms(), crystals.ids.tolist())
    assert theirs.volume == pytest.approx(ours.crystals.volume, rel=0.01)
    assert abs(theirs.volume / crystals.volume - 1).max() > 0.05


@pytest.mark.skipif(not hasattr(ts, "Optimizer"), reason="the example is for torch-sim 0.6, from Python 3.12 on")
def test_the_example_of_the_guide_runs(tmp_path, monkeypatch, crystals):
    (text,) = re.findall(r"```python\n(import assay\nimport torch_sim.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "my-crystals").mkdir()
    convert.to_ase(crystals)[1].write(tmp_path / "my-crystals" / "one.cif")
    monkeypatch.chdir(tmp_path)
    room = {}
    exec(compile(text, "relaxation.md", "exec"), room)
    assert room["ended"].volume != pytest.approx(room["crystals"].volume, rel=1e-3)


def left_handed():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    return atoms


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        ([fcc111("Cu", (1, 1, 3), vacuum=8.0)], "open axis"),
        ([bulk("Cu"), bulk("Po", "sc", a=3.3)], "system 1: potential has not learned Po"),
        ([bulk("Cu"), left_handed()], "system 1: the cell is left-handed; .* turns it"),
    ],
)
def test_what_it_cannot_know_is_refused(model, atoms, said):
    with pytest.raises(ValueError, match=said):
        model(of(atoms))


@pytest.mark.parametrize(
    ("crystals", "said"),
    [
        (metals.disordered("alloy"), "alloy: a site is shared"),
        (convert.from_ase([bulk("Po", "sc", a=3.3)], ["polonium"]), "polonium: potential has not learned Po"),
    ],
)
def test_no_state_is_made_of_what_it_cannot_know(model, crystals, said):
    with pytest.raises(ValueError, match=said):
        model.state(crystals)


def test_a_potential_that_fails_says_for_which_system():
    model = assay.torchsim_model(metals.EMT)
    with pytest.raises(RuntimeError, match="system 1: .*W"):
        model(of([bulk("Cu"), bulk("W")]))


def test_numbers_that_are_not_finite_are_not_given(monkeypatch, model, student, crystals):
    state, own = model.state(crystals), student.evaluate(potential.right_handed(crystals))
    forces = own.forces.copy()
    forces[crystals.site_ptr[2], 1] = np.nan
    monkeypatch.setattr(type(student), "evaluate", lambda *_: replace(own, forces=forces))
    with pytest.raises(RuntimeError, match="system 2: .* not finite"):
        model(state)
