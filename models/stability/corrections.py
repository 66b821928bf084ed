"""Energies of PBE(+U) with and without the corrections of the Materials Project, by pymatgen.

Enters: ordered crystals, their energies on one scale, the name of another scale. Leaves: the
energies there. The corrections of anions and of metals with a Hubbard U (MaterialsProject2020-
Compatibility, and MaterialsProjectCompatibility before it) presuppose the settings of the Materials
Project. The corrections of 2018/19 set N2, F2, Cl2 and H2 to fitted energies, so the energies of
elements are corrected too. This module does not know hulls, nor who computed an energy. It is the
door to pymatgen's corrections.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.formats.convert import to_pymatgen

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

TOTALS = "PBE(+U), totals"
"""The scale without corrections."""
OF_2018 = "PBE(+U), Materials Project corrections of 2018/19"
OF_2020 = "PBE(+U), MP2020"
_NAMES = {name: name for name in (TOTALS, OF_2018, OF_2020)} | {"PBE(+U), totals with MP2020 corrections": OF_2020}
Floats = NDArray[np.float64]


def convertible(given: str, wanted: str) -> bool:
    """Whether energies of one scale can be had on another; those of 2018/19 are only reached.

    >>> convertible(TOTALS, OF_2018), convertible(OF_2018, TOTALS), convertible("PBE", "PBE")
    (True, False, True)
    """
    here, there = _NAMES.get(given), _NAMES.get(wanted)
    return given == wanted or (here is not None and there is not None and (here == there or here != OF_2018))


def converted(crystals: Crystals, energy: Floats, given: str, wanted: str) -> Floats:
    """(n,) energies, eV/atom, on the scale `wanted`; NaN where pymatgen has no correction.

    `energy` (n,) eV/atom is on the scale `given`, from which `wanted` must be `convertible`.
    """
    if _NAMES.get(given, given) == _NAMES.get(wanted, wanted):
        return energy
    structures = to_pymatgen(crystals.without_columns())
    raw = energy - _corrections(structures, energy, _NAMES[given])
    return np.asarray(raw + _corrections(structures, raw, _NAMES[wanted]), np.float64)


def of_elements(totals: Mapping[str, float], wanted: str) -> dict[str, float]:
    """Energies of elements in their reference phases on a scale, eV/atom, from totals."""
    symbols, energy = [*totals], np.array([*totals.values()])
    if wanted not in _NAMES:
        return dict(totals)
    return dict(zip(symbols, (energy + _corrections(symbols, energy, _NAMES[wanted])).tolist(), strict=True))


def _corrections(matter: list[Any], energy: Floats, scale: str) -> Floats:
    """(n,) eV/atom that a scale adds to totals (n,), of structures or of symbols of elements."""
    if scale == TOTALS:
        return np.zeros(len(matter))
    with warnings.catch_warnings():  # guesses of oxidation states that fail are part of the scheme
        warnings.simplefilter("ignore")
        return np.array([_correction(one, total, scale) for one, total in zip(matter, energy.tolist(), strict=True)])


def _correction(one: Any, total: float, scale: str) -> float:
    pymatgen = _pymatgen()
    if isinstance(one, str):
        entry = pymatgen.ComputedEntry(f"{one}2", 2 * total)
    else:
        entry = pymatgen.ComputedStructureEntry(one, len(one) * total)
    most_negative = max(entry.composition.elements, key=lambda symbol: symbol.X).symbol
    known = _schemes()[OF_2020].u_settings.get(most_negative, {})
    hubbards = {symbol: known[symbol] for symbol in entry.composition.as_dict() if symbol in known}
    entry.parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    found = _schemes()[scale].process_entry(entry)  # None: there is no correction
    return float(found.correction_per_atom) if found is not None else np.nan


@cache
def _schemes() -> dict[str, Any]:
    """The corrections by scale, without the check of potentials that nobody names."""
    old = _pymatgen().MaterialsProjectCompatibility()
    old.corrections = old.corrections[1:]
    return {OF_2018: old, OF_2020: _pymatgen().MaterialsProject2020Compatibility(check_potcar=False)}


def _pymatgen() -> Any:
    from pymatgen.analysis import compatibility

    return compatibility
