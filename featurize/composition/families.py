"""Shares of families of elements among the atoms: alkali metals, rare earths, 3d metals and so on.

Enters: the share of each element. Leaves: one column per family. This module does not know
properties of elements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import NUMBERS

LANTHANIDES = "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu"
METALS_3D = "Ti V Cr Mn Fe Co Ni Cu"
METALS_4D = "Zr Nb Mo Tc Ru Rh Pd Ag"
METALS_5D = "Hf Ta W Re Os Ir Pt Au"

FAMILIES: dict[str, str] = {
    "alkali metals": "Li Na K Rb Cs",
    "alkaline earth metals": "Be Mg Ca Sr Ba Ra",
    "rare earths": f"Sc Y {LANTHANIDES}",
    "actinides": "Ac Th Pa U Np Pu Am Cm",
    "3d metals": METALS_3D,
    "4d metals": METALS_4D,
    "5d metals": METALS_5D,
    "metals of the p block": "Al Ga In Tl Sn Pb Bi",
    "C, Si and Ge": "C Si Ge",
    "pnictogens": "N P As Sb",
    "chalcogens": "O S Se Te",
    "halogens": "F Cl Br I",
}
"""Symbols of the members of each family; no element is in two."""


def members(symbols: str) -> list[int]:
    """Atomic numbers of the symbols in a text, which blanks separate."""
    return [NUMBERS[symbol] for symbol in symbols.split()]


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [f"share of {family}" for family in FAMILIES]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, 12) shares."""
    columns = [share[:, np.array(members(symbols)) - 1].sum(axis=1) for symbols in FAMILIES.values()]
    return np.stack(columns, axis=1)
