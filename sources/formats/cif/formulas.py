"""Chemical formulas that files state -> amounts of the elements.

Enters: texts such as `La1.85 Sr0.15 Cu O4`, `Fe1/3 I`, `(Y0.9 Ca0.1) Ba2 Cu3 O7` or `NA CL`.
Leaves: amounts per formula unit, and whether atoms agree with them. This module does not know
files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping

import numpy as np

from assay.sources.checks import limits
from assay.sources.elements import SYMBOLS
from assay.sources.formulas.read import FormulaError, read

RELATIVE, ABSOLUTE = 0.02, 0.02
"""Difference accepted between a stated amount and the atoms found, as a share of the amount and in
atoms per formula unit: stated amounts are rounded, and so are occupancies."""


def amounts(formula: str, known: Callable[[], Collection[str]] = tuple) -> dict[str, float] | None:
    """Atoms of each element in one formula unit; None where the text cannot be understood.

    D and T count as H. `known` gives the elements that may be meant in a formula in capitals.

    >>> amounts("Fe1/3 I")
    {'Fe': 0.3333333333333333, 'I': 1.0}
    >>> amounts("Ba (Fe0.92 Co0.08)2 As2")
    {'Fe': 1.84, 'Co': 0.16, 'As': 2.0, 'Ba': 1.0}
    >>> amounts("NA CL", known=lambda: {"Na", "Cl"})
    {'Na': 1.0, 'Cl': 1.0}
    """
    text = " ".join(formula.split()).strip("'\"").replace("~", "").replace("_", "")
    if len(text) > limits.most("formula"):
        return None
    if text == text.upper() and (found := known()):
        text = _in_small_letters(text, found)
    try:
        atoms = read(text, tritium=True).amounts
    except FormulaError:
        return None
    return {SYMBOLS[number]: float(atoms[number]) for number in np.flatnonzero(atoms)}


def _in_small_letters(text: str, known: Collection[str]) -> str:
    """The formula with each known symbol spelled as usual, the longest that fits first."""
    spelled = {symbol.upper(): symbol for symbol in known}
    pattern = re.compile("|".join(sorted(map(re.escape, spelled), key=len, reverse=True)))
    return pattern.sub(lambda match: spelled[match.group()], text)


def disagreement(stated: Mapping[str, float], found: Mapping[str, float], units: float | None = None) -> str | None:
    """How the atoms of a cell differ from a stated formula, None where they agree.

    `stated` holds atoms per formula unit, `found` atoms per cell, `units` the formula units in the
    cell. Without `units` only the proportions are compared.

    >>> disagreement({"Na": 1, "Cl": 1}, {"Na": 4, "Cl": 4}, units=4)
    >>> disagreement({"Na": 1, "Cl": 1}, {"Na": 1, "Cl": 1}, units=4)
    '1 Cl per cell, but 4 by the formula'
    """
    per_cell = units or sum(found.values()) / sum(stated.values())
    for symbol in sorted(stated.keys() | found.keys()):
        expected, actual = stated.get(symbol, 0.0) * per_cell, found.get(symbol, 0.0)
        lost = (expected > 0) != (actual > 0)
        if expected < 1e-9 and actual < 1e-9:
            continue
        if lost or abs(actual - expected) > RELATIVE * expected + ABSOLUTE * per_cell:
            return f"{actual:.4g} {symbol} per cell, but {expected:.4g} by the formula"
    return None


def units_of(
    stated: Mapping[str, float], units: float | None, structural: Mapping[str, float] | None = None
) -> tuple[float | None, ...]:
    """How often a stated formula may stand in the cell, from the stated number of formula units.

    pymatgen states the whole cell as the formula, and beside it the number of reduced formulas,
    rounded down (2 of N2 in N5), which it spells in the `structural` formula: Li2O2, N2. Other
    files state one unit, which may be no reduced formula either: Hg2Cl2. Without a structural
    formula the sites decide.

    >>> units_of({"Na": 1, "Cl": 1}, 4), units_of({"Al": 4, "O": 6}, 2)
    ((4,), (1.0, 2))
    >>> units_of({"Li": 4, "O": 4}, 2, {"Li": 2, "O": 2})
    (1.0,)
    >>> units_of({"Hg": 2, "Cl": 2}, 2, {"Hg": 2, "Cl": 2}), units_of({"N": 5}, 2, {"N": 2})
    ((2,), (1.0,))
    """
    if not units or units <= 1:
        return (units,)
    if structural == stated:
        return (units,)
    if structural and stated.keys() == structural.keys():
        shares = [stated[symbol] / structural[symbol] for symbol in stated]
        if max(shares) - min(shares) < 1e-6 and math.floor(min(shares) + 1e-6) == units:
            return (1.0,)
    counts = [round(amount) for amount in stated.values()]
    whole = all(abs(amount - count) < 1e-6 for amount, count in zip(stated.values(), counts))
    return (1.0, units) if whole and math.gcd(*counts) == units else (units,)
