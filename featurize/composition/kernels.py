"""Compiled loops of composition features: one pass over the elements of each formula.

Enters: shares of elements and a table of properties. Leaves: filled rows. A row does not depend on
the other rows of its batch. This module does not know what a column means.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from assay.featurize.threads import njit

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def fill_statistics(
    share: Floats,
    table: Floats,
    electronegativity: int,
    shells: NDArray[np.int64],
    norms: NDArray[np.int64],
    found: Floats,
) -> None:
    """Write the statistics of each formula.

    Args:
        share: (n, 103) shares of the elements.
        table: (103, p) properties; NaN in gaps.
        electronegativity: its column.
        shells: (4,) columns of the electrons in each shell.
        norms: orders of the stoichiometry norms.
        found: (n, q) is filled: number of elements, norms, six statistics of each property, shares
            of the shells, mean and largest ionic character.
    """
    present = np.empty(share.shape[1], np.int64)
    weight = np.empty(share.shape[1])
    for row in range(len(share)):
        count = 0
        for element in range(share.shape[1]):
            if share[row, element] > 0:
                present[count] = element
                weight[count] = share[row, element]
                count += 1
        found[row, 0] = count
        place = 1
        for order in norms:
            total = 0.0
            for i in range(count):
                total += weight[i] ** order
            found[row, place] = total ** (1 / order)
            place += 1
        most = np.argmax(weight[:count])
        first = place
        for column in range(table.shape[1]):
            _summarise(table[:, column], present, weight, count, most, found[row, place : place + 6])
            place += 6
        electrons = 0.0
        for shell in shells:
            electrons += found[row, first + 6 * shell]
        for shell in shells:
            found[row, place] = found[row, first + 6 * shell] / electrons
            place += 1
        spread = found[row, first + 6 * electronegativity + 4]
        found[row, place] = _mean_ionic(table[:, electronegativity], present, weight, count)
        found[row, place + 1] = 1 - math.exp(-spread * spread / 4)


@njit(cache=True, nogil=True)
def _summarise(
    values: Floats, present: NDArray[np.int64], weight: Floats, count: int, most: int, found: Floats
) -> None:
    """Mean, mean absolute deviation, minimum, maximum, range, and value of the element `most`."""
    mean, low, high = 0.0, np.inf, -np.inf
    for i in range(count):
        value = values[present[i]]
        mean += weight[i] * value
        low = min(low, value)
        high = max(high, value)
    deviation = 0.0
    for i in range(count):
        deviation += weight[i] * abs(values[present[i]] - mean)
    if math.isnan(mean):  # a gap: no minimum of the other elements either
        low, high = np.nan, np.nan
    found[0] = mean
    found[1] = deviation
    found[2] = low
    found[3] = high
    found[4] = high - low
    found[5] = values[present[most]]


@njit(cache=True, nogil=True)
def _mean_ionic(affinity: Floats, present: NDArray[np.int64], weight: Floats, count: int) -> float:
    """Ionic share of a bond (Pauling, 1932), averaged over all pairs of atoms."""
    total = 0.0
    for i in range(count):
        for j in range(i):
            difference = affinity[present[i]] - affinity[present[j]]
            total += 2 * weight[i] * weight[j] * (1 - math.exp(-difference * difference / 4))
        total += 0 * affinity[present[i]]  # NaN for a gap, also where it is alone
    return total


@njit(cache=True, nogil=True)
def fill_charges(share: Floats, charges: Floats, oxygen: int, centre: NDArray[np.bool_], found: Floats) -> None:
    """Write the charge per atom that the other elements leave to each centre, 0 where it is absent.

    Args:
        share: (n, 103) shares of the elements.
        charges: (4, 103) charge in an oxide, elsewhere, as an anion, and the oxygen per atom from
            which on an anion is a cation; NaN in gaps.
        oxygen: its place among the elements.
        centre: (c, 103) elements of each centre.
        found: (n, c) is filled.
    """
    charge = np.empty(share.shape[1])
    for row in range(len(share)):
        anions = 0.0
        for element in range(share.shape[1]):
            weight = share[row, element]
            if weight > 0 and _is_anion(weight, share[row, oxygen], charges[:, element]):
                anions += weight
        is_oxide = 2 * share[row, oxygen] > anions
        total = 0.0
        for element in range(share.shape[1]):
            weight = share[row, element]
            if weight > 0:
                charge[element] = _charge(weight, share[row, oxygen], charges[:, element], is_oxide)
                total += weight * charge[element]
        for place in range(len(centre)):
            count, own = 0.0, 0.0
            for element in range(share.shape[1]):
                if centre[place, element] and share[row, element] > 0:
                    count += share[row, element]
                    own += share[row, element] * charge[element]
            found[row, place] = (own - total) / count if count > 0 else 0.0


@njit(cache=True, nogil=True)
def _charge(weight: float, oxygen: float, charges: Floats, is_oxide: bool) -> float:
    """Charge of an element, with this share, beside this much oxygen."""
    oxide, other, anion, needed = charges
    found: float = oxide if is_oxide or oxygen >= needed * weight else other
    return anion if _is_anion(weight, oxygen, charges) else found


@njit(cache=True, nogil=True)
def _is_anion(weight: float, oxygen: float, charges: Floats) -> bool:
    """Whether an element is an anion beside this much oxygen."""
    return not math.isnan(charges[2]) and not oxygen >= charges[3] * weight


@njit(cache=True, nogil=True)
def fill_projections(share: Floats, signs: Floats, found: Floats) -> None:
    """Add the signed shares of each formula to its row.

    Args:
        share: (n, 103) shares of the elements.
        signs: (103, q) of each element in each column.
        found: (n, q) is filled; zeros before.
    """
    for row in range(len(share)):
        for element in range(share.shape[1]):
            part = share[row, element]
            if part > 0:
                for column in range(signs.shape[1]):
                    found[row, column] += part * signs[element, column]
