"""How many atoms of a kind there are per copper and per iron atom: layers, doping, oxygen.

Enters: the share of each element. Leaves: one column per ratio. Oxygen, alkaline earths and rare
earths per copper tell the member of a family of cuprates; metals on the copper site are dopants in
the plane. The same is asked of iron for pnictides and chalcogenides. This module does not know
properties of elements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize.composition.families import LANTHANIDES, members

RATIOS: dict[str, tuple[str, ...]] = {
    "Cu": (
        "O",
        "Ca",
        "Ba",
        "Sr",
        f"Y {LANTHANIDES}",
        "Hg Tl Bi Pb",
        "Zn Ni Fe Co Ga Al Cr Mn Ti V Mg Li Au Ag",
        "F Cl Br",
    ),
    "Fe": (
        "P As Sb",
        "S Se Te",
        "Co Ni Rh Pd Ir Pt Ru Cu Mn Cr Zn",
        f"Y {LANTHANIDES}",
        "Ca Sr Ba",
        "Li Na K Rb Cs",
        "O",
        "H F",
    ),
}
"""By the metal that is counted against: the atoms that are counted together."""

MOST = 20.0
"""Larger ratios are given as this one: the metal itself is a dopant then."""


def names() -> list[str]:
    """Names of the columns of `features`."""
    short = {f"Y {LANTHANIDES}": "Y and lanthanides"}
    return [f"{short.get(group, group)} per {metal}" for metal, groups in RATIOS.items() for group in groups]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, 16) ratios, 0 where the metal is absent."""
    columns = []
    for metal, groups in RATIOS.items():
        count = share[:, members(metal)[0] - 1]
        counted = np.stack([share[:, np.array(members(group)) - 1].sum(axis=1) for group in groups])
        found = np.divide(counted, count, out=np.zeros_like(counted), where=count > 0)
        columns.append(np.minimum(found, MOST))
    return np.vstack(columns).T
