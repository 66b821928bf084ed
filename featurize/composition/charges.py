"""The formal valence that neutrality leaves to Cu, Fe, Bi, Ni, and to all transition metals.

Enters: the share of each element. Leaves: one valence per centre. All other atoms have usual
charges (columns of `assay.featurize.elements`): in La1.85Sr0.15CuO4 copper has 8 - 3 * 1.85 -
2 * 0.15 = 2.15, so there are 0.15 holes per copper. This module does not know structures: a bond
between anions, as in pyrites, is counted as two full charges.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.composition import kernels
from assay.featurize.composition.families import METALS_3D, METALS_4D, METALS_5D, members

CENTRES: dict[str, str] = {
    "Cu": "Cu",
    "Fe": "Fe",
    "Bi": "Bi",
    "Ni": "Ni",
    "transition metals": f"{METALS_3D} {METALS_4D} {METALS_5D}",
}
"""Atoms that share the remaining charge evenly."""

MOST = 8.0
"""Valences beyond this, of either sign, are given as this one: the centre itself is a dopant
then."""


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [f"valence of {centre}" for centre in CENTRES]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, 5) valences, 0 where there is no such atom.

    An element that can be an anion is one, unless the formula holds as much oxygen per atom as its
    oxo-anion does: P is +5 in LiFePO4 and -3 in LaFePO. In an oxide, where more than half of the
    anions are oxygen, metals have their charge in oxides, elsewhere the other one: Eu is +2 in
    EuFe2As2. A formula with an element that has no usual charge, a noble gas, has NaN for each
    centre it holds.
    """
    found = np.empty((len(share), len(CENTRES)))
    kernels.fill_charges(share, *_tables(), found)
    return np.clip(found, -MOST, MOST)


@cache
def _tables() -> tuple[NDArray[np.float64], int, NDArray[np.bool_]]:
    """Charges of the elements, the place of oxygen, and the elements of each centre."""
    columns = ("oxide_charge", "other_charge", "anion_charge", "oxygen_per_cation")
    centre = np.zeros((len(CENTRES), elements.HEAVIEST), bool)
    for row, symbols in enumerate(CENTRES.values()):
        centre[row, np.array(members(symbols)) - 1] = True
    return np.stack([elements.column(name)[1:] for name in columns]), members("O")[0] - 1, centre
