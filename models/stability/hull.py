"""The convex hull of formation energies, and the energy of any composition above it.

Enters: reference phases (compositions, formation energies, names), then compositions. Leaves: the
hull energy of each composition, and the mixture of phases that has it. Amounts may be fractions.
Every element lies at 0 eV/atom, as the definition of a formation energy says, also where no phase
is that element. Energies are compared as they come: one functional, one set of corrections and
references is the business of the caller. This module does not know crystals or campaigns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.stability import pivots
from assay.sources.elements import SYMBOLS, reduced_formulas

ZERO = 1e-9
"""eV/atom above 0 up to which an elemental phase counts as the element's reference."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Phases:
    """Reference phases that can lie on a hull, without those at positive formation energy."""

    names: NDArray[Any]
    """(m,) texts."""
    energy: Floats
    """(m,) formation energies, eV/atom."""
    ptr: NDArray[np.int64]
    """(m + 1,) elements of phase i are `ptr[i]:ptr[i + 1]`."""
    numbers: NDArray[np.int64]
    """(k,) atomic numbers."""
    shares: Floats
    """(k,) share of each element, of all atoms of its phase."""
    held: NDArray[np.bool_]
    """(119,) whether an atomic number occurs in any phase, those left out counted."""
    given: int
    """Phases that were given."""
    refused: int
    """Those among them without a finite energy or without atoms."""

    @classmethod
    def of(cls, names: Sequence[str] | NDArray[Any], amounts: Floats, energy: Floats) -> Phases:
        """Phases from amounts (n, 119) by atomic number, on any scale, and energies (n,), eV/atom.

        A phase whose energy is not finite is refused and counted.
        """
        sound = np.isfinite(energy) & np.isfinite(amounts).all(axis=1) & (amounts > 0).any(axis=1)
        held = np.asarray((amounts[sound] > 0).any(axis=0))
        rows = np.flatnonzero(sound & (energy <= np.where((amounts > 0).sum(axis=1) == 1, ZERO, 0.0)))
        kept = amounts[rows]
        row, numbers = np.nonzero(kept > 0)
        ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
        shares = kept[row, numbers] / kept.sum(axis=1)[row]
        chosen = np.array(names, dtype=object)[rows]
        energy = np.asarray(energy, np.float64)[rows]
        return cls(chosen, energy, ptr, numbers, shares, held, len(sound), int((~sound).sum()))

    def with_refused(self, refused: int) -> Phases:
        """The same phases, where so many others were refused before."""
        return replace(self, given=self.given + refused, refused=self.refused + refused)

    @staticmethod
    def joined(parts: Sequence[Phases]) -> Phases:
        """The phases of all parts in order; there is at least one part."""
        lengths = np.concatenate([np.diff(part.ptr) for part in parts])
        return Phases(
            names=np.concatenate([part.names for part in parts]),
            energy=np.concatenate([part.energy for part in parts]),
            ptr=np.concatenate([[0], np.cumsum(lengths)]),
            numbers=np.concatenate([part.numbers for part in parts]),
            shares=np.concatenate([part.shares for part in parts]),
            held=np.asarray(np.any([part.held for part in parts], axis=0)),
            given=sum(part.given for part in parts),
            refused=sum(part.refused for part in parts),
        )


@dataclass(frozen=True)
class Mixtures:
    """For n compositions the mixture of phases that has the least energy."""

    energy: Floats
    """(n,) hull energies, eV/atom; NaN where no phase holds some element of the composition."""
    phases: NDArray[np.int64]
    """(n, d) phases of the hull, the largest part first; -1 where a mixture has fewer."""
    parts: Floats
    """(n, d) their parts of the atoms; 0 where a mixture has fewer."""


class Hull:
    """The lower convex hull of reference phases, in every chemical system.

    >>> amounts = np.zeros((2, 119))
    >>> amounts[0, [12, 5]], amounts[1, [12, 5]] = (1, 2), (1, 4)
    >>> hull = Hull(Phases.of(["mp-763", "mp-365"], amounts, np.array([-0.15, -0.13])))
    >>> wanted = np.zeros((1, 119))
    >>> wanted[0, [12, 5]] = 2, 2
    >>> found = hull.mixtures(wanted)
    >>> found.energy.round(4).tolist(), hull.texts(found)
    ([-0.1125], ['0.75 MgB2 + 0.25 Mg (mp-763, element)'])
    """

    def __init__(self, phases: Phases) -> None:
        """Elements without a phase of their own get one at 0 eV/atom."""
        self.phases = phases
        """Phases that can lie on the hull."""
        single = np.flatnonzero(np.diff(phases.ptr) == 1)
        best = single[np.argsort(phases.energy[single], kind="stable")][::-1]
        self._ground = np.full(len(SYMBOLS), -1)
        self._ground[phases.numbers[phases.ptr[best]]] = best  # of equal energies the first phase, written last
        lacking = np.flatnonzero(phases.held & (self._ground < 0))
        self._ground[lacking] = len(phases.energy) + np.arange(len(lacking))
        self._energy = np.concatenate([phases.energy, np.zeros(len(lacking))])
        self._ptr = np.concatenate([phases.ptr, phases.ptr[-1] + 1 + np.arange(len(lacking))])
        self._numbers = np.concatenate([phases.numbers, lacking])
        self._shares = np.concatenate([phases.shares, np.ones(len(lacking))])
        holds = np.zeros((len(self._energy), len(SYMBOLS)), bool)
        holds[np.repeat(np.arange(len(holds)), np.diff(self._ptr)), self._numbers] = True
        self._compounds = np.flatnonzero(np.diff(self._ptr) > 1)
        self._sets = _packed(holds[self._compounds])

    def mixtures(self, amounts: Floats) -> Mixtures:
        """The mixtures of least energy at compositions (n, 119), amounts on any scale."""
        there = amounts > 0
        sets, system = np.unique(_packed(there), axis=0, return_inverse=True)
        most = max(int(there.sum(axis=1).max(initial=0)), 1)
        found = Mixtures(
            np.full(len(amounts), np.nan), np.full((len(amounts), most), -1), np.zeros((len(amounts), most))
        )
        order = np.argsort(system.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(system.ravel(), minlength=len(sets)))
        for number, rows in enumerate(np.split(order, ends[:-1])):
            elements = np.flatnonzero(there[rows[0]]) if len(rows) else np.array([], np.int64)
            if len(elements) and self.phases.held[elements].all():
                self._mix(sets[number], elements, amounts, rows, found)
        return found

    def _mix(
        self, wanted: NDArray[np.uint64], elements: NDArray[np.int64], amounts: Floats, rows: Any, out: Mixtures
    ) -> None:
        """Find the mixtures of some rows, all of one chemical system."""
        rows_inside = np.empty(len(self._sets), np.int64)
        compounds = self._compounds[rows_inside[: pivots.within(self._sets, wanted, rows_inside)]]
        inside = np.concatenate([self._ground[elements], compounds])
        place = np.zeros(len(SYMBOLS), np.int64)
        place[elements] = np.arange(len(elements))
        shares = np.zeros((len(inside), len(elements)))
        pivots.gather(inside, self._ptr, self._numbers, self._shares, place, shares)
        here = amounts[np.ix_(rows, elements)]
        here /= here.sum(axis=1, keepdims=True)
        phases, parts, lowest = np.zeros(here.shape, np.int64), np.zeros(here.shape), np.zeros(len(here))
        pivots.mix(shares, self._energy[inside], here, phases, parts, lowest)
        order = np.lexsort((phases, -parts), axis=1)
        parts = np.take_along_axis(parts, order, axis=1)
        phases = np.where(parts > 0, inside[np.take_along_axis(phases, order, axis=1)], -1)
        out.energy[rows] = lowest
        out.phases[rows, : len(elements)], out.parts[rows, : len(elements)] = phases, parts

    def texts(self, found: Mixtures) -> list[str | None]:
        """Each mixture for people, as in `0.67 MgB2 + 0.33 Mg (mp-763, mp-153)`.

        The parts are those of the atoms. `element` stands for the name of an element without a
        phase of its own. None where there is no mixture.
        """
        used = np.unique(found.phases[found.phases >= 0])
        amounts = np.zeros((len(used), len(SYMBOLS)))
        for row, phase in enumerate(used.tolist()):
            at = slice(self._ptr[phase], self._ptr[phase + 1])
            amounts[row, self._numbers[at]] = self._shares[at]
        formulas = dict(zip(used.tolist(), reduced_formulas(amounts).tolist()))
        count = len(self.phases.names)
        names = {phase: str(self.phases.names[phase]) if phase < count else "element" for phase in formulas}
        texts: list[str | None] = []
        for phases, parts in zip(found.phases.tolist(), found.parts.tolist()):
            pairs = [(phase, part) for phase, part in zip(phases, parts) if phase >= 0]
            sum_ = " + ".join(f"{part:.2g} {formulas[phase]}" for phase, part in pairs)
            texts.append(f"{sum_} ({', '.join(names[phase] for phase, _ in pairs)})" if pairs else None)
        return texts


def _packed(holds: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(n, 2) sets of elements as bits, from flags (n, 119)."""
    padded = np.zeros((len(holds), 16), np.uint8)
    padded[:, :15] = np.packbits(holds, axis=1)
    return padded.view(np.uint64)
