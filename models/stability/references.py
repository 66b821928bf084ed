"""Formation energies from total energies, by a table of element references.

Enters: compositions, total energies per atom, the energy of each element in its reference phase.
Leaves: formation energies per atom. Totals and references must be on one scale (functional and
corrections). This module does not know where either comes from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import NUMBERS, SYMBOLS


def formation_energies(
    amounts: NDArray[np.float64], energy: NDArray[np.float64], references: Mapping[str, float]
) -> NDArray[np.float64]:
    """(n,) formation energies, eV/atom; NaN where an element has no reference.

    Args:
        amounts: (n, 119) of each atomic number, on any scale.
        energy: (n,) total energies, eV/atom.
        references: element symbol -> eV/atom.

    >>> amounts = np.zeros((1, 119))
    >>> amounts[0, [11, 17]] = 1, 1
    >>> formation_energies(amounts, np.array([-3.4]), {"Na": -1.3, "Cl": -1.8}).round(6).tolist()
    [-1.85]
    """
    of_element = np.full(len(SYMBOLS), np.nan)
    of_element[[NUMBERS[symbol] for symbol in references]] = [*references.values()]
    shares = amounts / amounts.sum(axis=1, keepdims=True)
    mixed = np.where(shares > 0, shares * of_element, 0.0).sum(axis=1)
    return np.asarray(energy - mixed, np.float64)
