"""The formal valence that neutrality leaves to Cu, Fe, Bi, Ni, and to all transition metals.

Enters: atoms of each element. Leaves: one valence per centre. All other atoms have usual charges
(columns of `assay.featurize.elements`): in La1.85Sr0.15CuO4 copper has 8 - 3 * 1.85 - 2 * 0.15 =
2.15, so there are 0.15 holes per copper. This module does not know structures: a bond between
anions, as in pyrites, is counted as two full charges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.composition import shares
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


def features(composition: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 119) atoms of each atomic number -> (n, 5) valences, 0 where there is no such atom.

    A formula with an element that has no usual charge, a noble gas, has NaN for each centre it
    holds.

    Raises:
        ValueError: for an element the property table does not hold, or a row without atoms.
    """
    share = shares.features(composition)
    charge = _charges(share)
    carried = np.where(share > 0, share * charge, 0)
    total = carried.sum(axis=1)
    columns = []
    for symbols in CENTRES.values():
        members_of = np.array(members(symbols)) - 1
        count = share[:, members_of].sum(axis=1)
        left = carried[:, members_of].sum(axis=1) - total
        valence = np.divide(left, count, out=np.zeros_like(left), where=count > 0)
        columns.append(np.clip(valence, -MOST, MOST))
    return np.stack(columns, axis=1)


def _charges(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) charge of each element in each formula.

    An element that can be an anion is one, unless the formula holds as much oxygen per atom as its
    oxo-anion does: P is +5 in LiFePO4 and -3 in LaFePO. In an oxide, where more than half of the
    anions are oxygen, metals have their charge in oxides, elsewhere the other one: Eu is +2 in
    EuFe2As2.
    """
    table = {name: elements.column(name)[1:] for name in ("oxide_charge", "other_charge", "anion_charge")}
    needed = elements.column("oxygen_per_cation")[1:]
    oxygen = share[:, members("O")[0] - 1, None]
    oxidised = oxygen >= needed * share  # False where no amount of oxygen does it: NaN
    anion = np.isfinite(table["anion_charge"]) & ~oxidised
    anions = (share * anion).sum(axis=1, keepdims=True)
    cation = np.where(2 * oxygen > anions, table["oxide_charge"], table["other_charge"])
    return np.where(anion, table["anion_charge"], np.where(oxidised, table["oxide_charge"], cation))
