"""What one should see before one trusts a force field: slopes, equations of state, dynamics, pairs.

Enters: ordered crystals, a `Potential`, `Settings`. Leaves: a list of `Check`, each with a value
and a verdict for each crystal or pair, and the curves behind them. Small cells are repeated, and
all are relaxed first, from displaced atoms, so that they do not rest on a saddle. A crystal that
broke at 300 K is heated to 1000 K too. This module does not know files or tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.models.potentials import dynamics, potential as potentials, probes, relax
from assay.sources.crystals import concat, wrap

if TYPE_CHECKING:
    from assay.models.potentials.dynamics import Motion, Trajectory
    from assay.models.potentials.potential import Potential
    from assay.models.potentials.relax import Relaxed
    from assay.sources.crystals import Crystals

Floats = NDArray[np.float64]

FORCE, STRESS = 0.05, 0.1
"""eV/Å and GPa: largest difference between a force or stress and the slope of the energy."""
DRIFT = 5.0
"""meV per atom and ps: largest drift of the energy without a thermostat."""
VOLUME = 0.03
"""Largest share by which the minimum of an equation of state misses the relaxed volume."""
REPULSIVE = 0.6
"""Share of the sum of covalent radii, below which two atoms must repel each other at each distance
down to the shortest of `probes.DISTANCES`. Hardly a bond is as short: that of Cr2 is."""
WARM, HOT = 300.0, 1000.0
"""K, of the dynamics."""


@dataclass(frozen=True)
class Settings:
    """How long crystals are watched."""

    steps: int = 100
    """Of each of the three runs of dynamics."""
    timestep: float = 1.0
    """fs."""
    atoms: int = 8
    """Cells with fewer are repeated until they have as many."""
    seed: int = 0
    """Of all random numbers."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 10), ("atoms", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not 0 < self.timestep <= 10:
            raise ValueError(f"timestep is {self.timestep} fs, expected above 0 and at most 10")


@dataclass(frozen=True)
class Check:
    """One question, asked of m crystals or pairs."""

    name: str
    unit: str
    meaning: str
    value: Floats
    """(m,) NaN where it could not be measured."""
    failed: dict[int, str]
    """Row -> why it failed."""
    limit: float | None = None
    """A value whose size is above has failed."""

    @property
    def asked(self) -> int:
        """How many were asked: the others had failed where this check begins."""
        return len(set(np.flatnonzero(np.isfinite(self.value)).tolist()) | set(self.failed))


@dataclass(frozen=True)
class Checked:
    """What was seen of n crystals."""

    crystals: Crystals
    """As they were given."""
    checks: list[Check]
    """Of the crystals, in the order in which they were made."""
    pairs: Check
    """Of `dimers`."""
    dimers: probes.Dimers
    curves: dict[int, Floats]
    """Row -> (v,) eV per atom at `probes.VOLUMES`."""


def check(crystals: Crystals, potential: Potential, settings: Settings | None = None) -> Checked:
    """Check a potential on crystals.

    Raises:
        ValueError: for an element beyond the table of elements.
    """
    settings = settings or Settings()
    elements.check(crystals.numbers)
    rows, refused = potentials.known(potential, crystals)
    cells = repeated(crystals.select(rows), settings.atoms) if len(rows) else crystals[:0]
    found = relax.relax(probes.displaced(cells, settings.seed), potential)
    found = replace(found, index=rows[found.index])
    reasons = {row.id: f"{row.reason}: {row.message}" for row in (*refused, *found.refused)}
    lost = {row: reasons[str(crystals.ids[row])] for row in set(range(len(crystals))) - set(found.index.tolist())}
    meaning = "evaluations until forces and stress are small"
    checks = [Check("relaxation", "", meaning, _placed(crystals, found.index, found.steps), lost)]
    dimers, curves = probes.dimers(found.crystals, potential), {}
    if len(found.crystals):
        checks += _slopes(crystals, found, potential, settings)
        states = probes.equation_of_state(found.crystals, potential)
        curves = dict(zip(found.index.tolist(), states.energy / found.crystals.nsites[:, None]))
        checks += _states(crystals, found, states)
        checks += _dynamics(crystals, found, potential, settings)
    return Checked(crystals, checks, _dimers(dimers), dimers, curves)


def repeated(crystals: Crystals, atoms: int) -> Crystals:
    """Ordered crystals whose cells hold at least so many atoms: short vectors are multiplied."""
    return concat(_repeated(crystals[row : row + 1], atoms) for row in range(len(crystals)))


def _repeated(one: Crystals, atoms: int) -> Crystals:
    lengths, times = np.linalg.norm(one.lattice[0], axis=1), np.ones(3, np.int64)
    while one.nsites[0] * times.prod() < atoms:
        times[np.argmin(lengths * times)] += 1
    cells = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), axis=-1).reshape(-1, 3)
    sites = len(one.frac) * len(cells)
    return replace(
        one,
        lattice=one.lattice * times[:, None],
        site_ptr=np.array([0, sites]),
        frac=wrap(((one.frac + cells[:, None]) / times).reshape(-1, 3)),
        species_ptr=np.arange(sites + 1),
        numbers=np.tile(one.numbers, len(cells)),
        occupancy=np.tile(one.occupancy, len(cells)),
    )


def _slopes(crystals: Crystals, found: Relaxed, potential: Potential, settings: Settings) -> list[Check]:
    force, stress = probes.slopes(found.crystals, potential, settings.seed)
    meaning = "largest difference from the slope of the energy"
    return [
        _limited(("forces", "eV/Å", meaning), crystals, found.index, force, FORCE),
        _limited(("stress", "GPa", meaning), crystals, found.index, stress, STRESS),
    ]


def _states(crystals: Crystals, found: Relaxed, states: probes.EquationOfState) -> list[Check]:
    """Bulk moduli, and volumes at the minimum; a curve that is not smooth has failed."""
    ratio, wrong = states.volume / found.crystals.volume, {}
    for place, row in enumerate(found.index.tolist()):
        if states.minima[place] != 1:
            wrong[row] = f"the energy has {states.minima[place]} minima over the volume, expected 1"
        elif not (states.modulus[place] > 0 and abs(ratio[place] - 1) <= VOLUME):
            wrong[row] = f"the fit has its minimum at {ratio[place]:.3f} times the relaxed volume, expected 1"
    volume = _placed(crystals, found.index, states.volume / found.crystals.nsites)
    modulus = _placed(crystals, found.index, states.modulus)
    return [
        Check("equation_of_state", "Å^3/atom", "volume at the minimum of the energy", volume, wrong),
        Check("bulk_modulus", "GPa", "of the equation of state", modulus, {}),
    ]


def _dynamics(crystals: Crystals, found: Relaxed, potential: Potential, settings: Settings) -> list[Check]:
    """Three runs. The crystals begin at rest, so they get twice the heat: half of it is stored."""

    def run(start: Motion, kelvin: float, *, thermostat: bool) -> Trajectory:
        steps = settings.steps, settings.timestep
        return dynamics.run(start, potential, *steps, kelvin, thermostat=thermostat, seed=settings.seed)

    warm = run(dynamics.thermal(found.crystals, 2 * WARM, settings.seed), WARM, thermostat=True)
    hot = run(dynamics.thermal(found.crystals, 2 * HOT, settings.seed), HOT, thermostat=True)
    left = np.array([row for place, row in enumerate(found.index.tolist()) if place not in warm.broken], np.int64)
    free = run(warm.end, WARM, thermostat=False)
    time = np.arange(settings.steps + 1) * settings.timestep / 1000
    energy = 1000 * free.energy / warm.end.crystals.nsites
    time -= time.mean()
    drift = np.einsum("t,tn->n", time, energy) / (time**2).sum()
    named = "nve_drift", "meV/atom/ps", f"drift of the energy around {WARM:g} K, without a thermostat"
    drifting = _limited(named, crystals, left, drift, DRIFT)
    drifting.failed.update({int(left[place]): said for place, said in free.broken.items()})
    return [_held(crystals, found, warm, WARM), drifting, _held(crystals, found, hot, HOT)]


def _held(crystals: Crystals, found: Relaxed, seen: Trajectory, kelvin: float) -> Check:
    """Whether crystals stayed whole at a temperature; the value is the mean of the second half."""
    mean = seen.temperature[len(seen.temperature) // 2 :].mean(axis=0)
    broken = {int(found.index[place]): said for place, said in seen.broken.items()}
    meaning = f"temperature under a thermostat of {kelvin:g} K"
    return Check(f"nvt_{kelvin:g}", "K", meaning, _placed(crystals, found.index, mean), broken)


def _dimers(found: probes.Dimers) -> Check:
    """Whether two atoms repel each other at short distances."""
    wrong = {}
    for row, share in enumerate(found.repulsive.tolist()):
        if not share >= REPULSIVE - 1e-9:
            least, most, wanted = (part * found.length[row] for part in (probes.DISTANCES[0], share, REPULSIVE))
            said = (
                f"they repel each other from {least:.2f} to {most:.2f} Å"
                if most > least
                else f"they attract each other at {least:.2f} Å"
            )
            wrong[row] = found.failed.get(row, f"{said}, expected repulsion up to {wanted:.2f} Å")
    meaning = "share of the covalent radii below which two atoms repel each other"
    return Check("dimers", "", meaning, found.repulsive, wrong)


def _limited(
    named: tuple[str, str, str], crystals: Crystals, rows: NDArray[np.int64], values: Floats, limit: float
) -> Check:
    """A check of some rows that fails where a value is too large, or not a number."""
    said = f"{named[1]}, expected at most {limit:g}"
    far = {row: f"{value:.3g} {said}" for row, value in zip(rows.tolist(), values) if not abs(value) <= limit}
    return Check(*named, _placed(crystals, rows, values), far, limit)


def _placed(crystals: Crystals, rows: NDArray[np.int64], values: NDArray[Any]) -> Floats:
    """(n,) values of some rows, NaN for the others."""
    placed = np.full(len(crystals), np.nan)
    placed[rows] = values
    return placed
