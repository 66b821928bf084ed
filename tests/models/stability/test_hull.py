"""Hull energies and competing phases against pymatgen and against a linear programme of scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from scipy.optimize import linprog

from assay.models.stability.hull import Hull, Mixtures, Phases
from assay.sources.elements import SYMBOLS

CLOSE = 1e-6
"""eV/atom; pymatgen's own hulls are joggled by about 1e-7."""


def amounts_of(*formulas: str) -> NDArray[np.float64]:
    rows = np.zeros((len(formulas), 119))
    for row, formula in enumerate(formulas):
        for element, amount in Composition(formula).items():
            rows[row, element.Z] = amount
    return rows


def composition(amounts: NDArray[np.float64]) -> Composition:
    return Composition({SYMBOLS[z]: amounts[z] for z in np.flatnonzero(amounts)})


def diagram(amounts: NDArray[np.float64], energy: NDArray[np.float64], elements: list[int]) -> PhaseDiagram:
    """The diagram of pymatgen, elements at 0 among the entries."""
    entries = [PDEntry(composition(row), e * row.sum()) for row, e in zip(amounts, energy, strict=True)]
    return PhaseDiagram([*(PDEntry(Composition(SYMBOLS[z]), 0.0) for z in elements), *entries])


def of_programme(amounts: NDArray[np.float64], energy: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """The hull energy of one composition, elements at 0 among the phases."""
    at = np.flatnonzero(wanted)
    inside = ~np.delete(amounts, at, axis=1).any(axis=1)
    shares = amounts[inside][:, at] / amounts[inside].sum(axis=1, keepdims=True)
    columns, costs = np.vstack([np.eye(len(at)), shares]), np.concatenate([np.zeros(len(at)), energy[inside]])
    return float(linprog(costs, A_eq=columns.T, b_eq=wanted[at] / wanted.sum(), method="highs").fun)


def check_mixtures(hull: Hull, found: Mixtures, wanted: NDArray[np.float64]) -> None:
    """Each mixture has the composition it is for, and the energy that is said of it."""
    for row in np.flatnonzero(np.isfinite(found.energy)):
        pairs = [(p, x) for p, x in zip(found.phases[row], found.parts[row], strict=True) if p >= 0]
        mixed, energy = np.zeros(119), 0.0
        for phase, part in pairs:
            at = slice(hull._ptr[phase], hull._ptr[phase + 1])
            mixed[hull._numbers[at]] += part * hull._shares[at]
            energy += part * hull._energy[phase]
        assert np.abs(mixed - wanted[row] / wanted[row].sum()).max() < 1e-9
        assert energy == pytest.approx(found.energy[row], abs=1e-9)
        assert [x for _, x in pairs] == sorted((x for _, x in pairs), reverse=True)


@pytest.fixture(scope="module")
def project(data: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amounts and formation energies of 69,646 entries of the Materials Project."""
    stored = pq.read_table(data / "mp" / "mp_labelled_le40.parquet", columns=["atomic_numbers", "e_form"])
    stored = stored.filter(stored["e_form"].is_valid())
    numbers = stored["atomic_numbers"].combine_chunks()
    amounts = np.zeros((len(stored), 119))
    np.add.at(amounts, (numbers.value_parent_indices().to_numpy(), numbers.flatten().to_numpy()), 1.0)
    return amounts, stored["e_form"].to_numpy().astype(np.float64)


def test_it_is_the_hull_of_pymatgen_in_systems_of_the_materials_project(project: Any) -> None:
    (amounts, energy), rng = project, np.random.default_rng(0)
    hull = Hull(Phases.of([str(row) for row in range(len(amounts))], amounts, energy))
    there, systems, same, asked = amounts > 0, set(), 0, 0
    while len(systems) < 200:
        systems.add(tuple(np.flatnonzero(there[rng.integers(len(there))]).tolist()))
    for elements in sorted(systems):
        inside = np.flatnonzero(~np.delete(there, elements, axis=1).any(axis=1))
        wanted = np.zeros((4, 119))
        wanted[:3, elements] = rng.dirichlet(np.ones(len(elements)), 3)
        wanted[3] = amounts[rng.choice(inside)]
        found, theirs = hull.mixtures(wanted), diagram(amounts[inside], energy[inside], list(elements))
        check_mixtures(hull, found, wanted)
        for row in range(4):
            point = composition(wanted[row])
            assert found.energy[row] == pytest.approx(theirs.get_hull_energy_per_atom(point), abs=CLOSE)
            candidate = PDEntry(point, 0.123 * point.num_atoms)
            above = theirs.get_e_above_hull(candidate, allow_negative=True)
            assert 0.123 - found.energy[row] == pytest.approx(above, abs=CLOSE)
            parts = sorted(round(x, 5) for x in theirs.get_decomposition(point).values() if x > 1e-5)
            same += parts == sorted(round(x, 5) for x in found.parts[row].tolist() if x > 1e-5)
            asked += 1
    assert same >= 0.99 * asked  # where four phases lie in one plane there are two right mixtures


@st.composite
def systems(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Phases and compositions of up to 8 elements: coarse amounts and energies make ties and planes of many phases."""
    d = draw(st.integers(1, 8))
    elements = draw(st.lists(st.integers(1, 118), min_size=d, max_size=d, unique=True))
    coarse, rng = draw(st.booleans()), np.random.default_rng(draw(st.integers(0, 10**6)))

    def some(n: int) -> NDArray[np.float64]:
        rows, shape = np.zeros((n, 119)), (n, d)
        drawn = rng.integers(0, 4, shape) if coarse else rng.random(shape) * (rng.random(shape) < 0.6)
        rows[:, elements] = np.where(drawn.any(axis=1, keepdims=True), drawn, 1)
        return rows

    amounts = some(draw(st.integers(0, 60)))
    energy = rng.integers(-4, 3, len(amounts)) / 4 if coarse else rng.normal(-0.3, 0.5, len(amounts))
    return amounts, energy.astype(float), some(5)


@given(systems())
def test_it_is_the_optimum_of_the_linear_programme(case: tuple[NDArray[np.float64], ...]) -> None:
    amounts, energy, wanted = case
    everything = np.vstack([amounts, np.ones((1, 119))])  # a phase that holds every element
    hull = Hull(Phases.of([str(row) for row in range(len(everything))], everything, np.append(energy, 1.0)))
    found = hull.mixtures(wanted)
    check_mixtures(hull, found, wanted)
    expected = [of_programme(amounts, energy, row) for row in wanted]
    assert found.energy == pytest.approx(expected, abs=1e-8)


@given(systems())
def test_a_composition_has_the_same_hull_alone_and_among_others(case: tuple[NDArray[np.float64], ...]) -> None:
    amounts, energy, wanted = case
    hull = Hull(Phases.of([str(row) for row in range(len(amounts))], amounts, energy))
    together = hull.mixtures(wanted)
    for row in range(len(wanted)):
        alone = hull.mixtures(wanted[row : row + 1])
        assert np.array_equal(alone.energy, together.energy[row : row + 1], equal_nan=True)
        assert hull.texts(alone) == hull.texts(together)[row : row + 1]


def test_systems_of_eight_elements_agree_with_pymatgen() -> None:
    rng = np.random.default_rng(1)
    elements = [3, 8, 9, 15, 16, 25, 26, 27]
    amounts = np.zeros((40, 119))
    amounts[:, elements] = rng.integers(0, 3, (40, 8))
    amounts = amounts[amounts.any(axis=1)]
    energy = rng.normal(-0.5, 0.5, len(amounts))
    wanted = np.zeros((3, 119))
    wanted[:, elements] = rng.dirichlet(np.ones(8), 3)
    found = Hull(Phases.of([str(row) for row in range(len(amounts))], amounts, energy)).mixtures(wanted)
    theirs = diagram(amounts, energy, elements)
    expected = [theirs.get_hull_energy_per_atom(composition(row)) for row in wanted]
    assert found.energy == pytest.approx(expected, abs=CLOSE)


def test_of_equal_compositions_the_lowest_energy_counts_and_energies_that_are_no_numbers_are_counted() -> None:
    energy = np.array([-0.1, -0.3, np.nan, -np.inf, -0.2])
    phases = Phases.of(list("abcde"), amounts_of("MgB2", "Mg2B4", "MgB2", "MgB4", "MgB2"), energy)
    found = Hull(phases).mixtures(amounts_of("MgB2"))
    assert (phases.given, phases.refused) == (5, 2)
    assert found.energy == pytest.approx([-0.3], abs=1e-12)
    assert Hull(phases).texts(found) == ["1 MgB2 (b)"]


def test_a_system_of_one_element_lies_at_its_reference_or_at_a_lower_phase() -> None:
    phases = Phases.of(["above", "hcp", "graphite"], amounts_of("Mg", "Mg", "C"), np.array([0.02, 0.0, 0.01]))
    hull = Hull(phases)
    found = hull.mixtures(amounts_of("Mg3", "C"))
    assert found.energy.tolist() == [0.0, 0.0]
    assert hull.texts(found) == ["1 Mg (hcp)", "1 C (element)"]
    lower = Hull(Phases.of(["a", "b"], amounts_of("Mg", "Mg"), np.array([-0.2, -0.1])))
    assert lower.mixtures(amounts_of("Mg")).energy.tolist() == [-0.2]


def test_an_element_that_no_phase_holds_has_no_hull() -> None:
    hull = Hull(Phases.of(["a", "b"], amounts_of("MgB2", "FePo"), np.array([-0.2, np.nan])))
    found = hull.mixtures(amounts_of("MgB", "MgPo", "Fe"))
    assert np.isnan(found.energy).tolist() == [False, True, True]
    assert hull.texts(found)[1:] == [None, None]
    nothing = Hull(Phases.of([], np.zeros((0, 119)), np.zeros(0)))
    assert np.isnan(nothing.mixtures(amounts_of("Mg")).energy).all()


def test_a_phase_of_positive_energy_gives_its_elements_a_reference() -> None:
    hull = Hull(Phases.of(["a"], amounts_of("FeCu"), np.array([0.05])))
    found = hull.mixtures(amounts_of("Fe3Cu"))
    assert found.energy.tolist() == [0.0]
    assert hull.texts(found) == ["0.75 Fe + 0.25 Cu (element, element)"]


def test_dopings_lie_between_their_parents() -> None:
    hull = Hull(Phases.of(["p", "q"], amounts_of("La2CuO4", "Sr2CuO4"), np.array([-3.0, -2.0])))
    found = hull.mixtures(amounts_of("La1.85Sr0.15CuO4"))
    assert found.energy[0] == pytest.approx(-3 * 0.925 - 2 * 0.075, abs=1e-12)
    assert hull.texts(found) == ["0.93 La2CuO4 + 0.075 Sr2CuO4 (p, q)"]


def test_parts_joined_are_the_same_as_all_at_once() -> None:
    amounts, energy = amounts_of("MgB2", "MgB4", "Mg", "B", "FePo"), np.array([-0.15, -0.13, 0.01, 0.0, np.nan])
    names = list("abcde")
    pieces = [Phases.of(names[k : k + 2], amounts[k : k + 2], energy[k : k + 2]) for k in (0, 2, 4)]
    joined, whole = Phases.joined(pieces), Phases.of(names, amounts, energy)
    for name, value in vars(whole).items():
        assert np.array_equal(getattr(joined, name), value), name
