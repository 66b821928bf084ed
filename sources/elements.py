"""The chemical elements: symbols, atomic numbers, and formulas made of them.

Enters: amounts of the elements. Leaves: reduced formulas. This module does not know crystals.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_PERIODS = """
H He
Li Be B C N O F Ne
Na Mg Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""

_ELECTROPOSITIVE_FIRST = """
Og Rn Xe Kr Ar Ne He
Fr Cs Rb K Na Li
Ra Ba Sr Ca Mg Be
Lr No Md Fm Es Cf Bk Cm Am Pu Np U Pa Th Ac
Lu Yb Tm Er Ho Dy Tb Gd Eu Sm Pm Nd Pr Ce La Y Sc
Rf Hf Zr Ti Db Ta Nb V Sg W Mo Cr Bh Re Tc Mn Hs Os Ru Fe Mt Ir Rh Co Ds Pt Pd Ni Rg Au Ag Cu Cn Hg Cd Zn
Nh Tl In Ga Al B Fl Pb Sn Ge Si C Mc Bi Sb As P N
H
Lv Po Te Se S O Ts At I Br Cl F
"""

SYMBOLS: tuple[str, ...] = ("X", *_PERIODS.split())
"""Symbol at each atomic number; position 0 is a placeholder."""

ISOTOPES = {"D": "deuterium", "T": "tritium"}
"""Isotopes of hydrogen that have a symbol; a crystal knows elements alone, so they count as H."""
NUMBERS: dict[str, int] = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}
"""Atomic number of each symbol."""

FORMULA_ORDER: tuple[int, ...] = tuple(NUMBERS[symbol] for symbol in _ELECTROPOSITIVE_FIRST.split())
"""Atomic numbers in the order of a formula: that of IUPAC (Red Book of 2005, table VI), which goes
by electronegativity along the groups: MgB2, VN, PbTe, LaH10, NH3."""

FEW, SOME = 24, 50
"""Atoms in whole numbers up to which shares are never written, and up to which rarely."""
FINE = 5
"""Shares coarser than fifths (halves, thirds, quarters) are written in whole numbers."""
MANY = 400
"""Shares are taken for whole numbers up to so many atoms in sum."""
SAME = 5e-4
"""Relative difference at which an amount counts as whole; occupancies of four digits differ by
less, and those of three, such as 0.333, by twice as much: these count as 1 and 2 in formulas of at
most `FEW` atoms."""

_PLACE = np.argsort(np.array([0, *FORMULA_ORDER])) - 1
_ORDERED_SYMBOLS = [SYMBOLS[number] for number in FORMULA_ORDER]
_CARBON, _HYDROGEN = (FORMULA_ORDER.index(NUMBERS[symbol]) for symbol in ("C", "H"))


def reduced_formulas(amounts: NDArray[np.float64]) -> NDArray[np.str_]:
    """(n,) reduced formulas from the amounts (n, 119) of each element, by atomic number.

    A formula depends on the ratios of the amounts alone, so that every cell of a crystal has the
    same. Elements stand in `FORMULA_ORDER`. The amounts are the smallest whole numbers, unless that
    hides a doping: see `_units`.

    >>> amounts = np.zeros((3, 119))
    >>> amounts[0, [57, 38, 29, 8]] = 3.7, 0.3, 2, 8
    >>> amounts[1, [27, 3, 8]] = 1, 0.5, 2
    >>> amounts[2, [5, 12]] = 4, 2
    >>> reduced_formulas(amounts).tolist()
    ['Sr0.15La1.85CuO4', 'LiCo2O4', 'MgB2']
    """
    row, number = np.nonzero(amounts > 0)
    order = np.argsort(row * len(SYMBOLS) + _PLACE[number])
    row, number = row[order], number[order]
    given, column = amounts[row, number], _PLACE[number]
    ends = np.searchsorted(row, np.arange(len(amounts) + 1))
    whole, units = _common(given, ends)
    plain = (whole & (np.add.reduceat(np.append(units, 0), ends[:-1]) <= FEW)).tolist()
    units = np.where(np.repeat(whole, np.diff(ends)), units, given)
    found = []
    places, counts = column.tolist(), units.tolist()
    for simple, (start, end) in zip(plain, itertools.pairwise(ends.tolist())):
        held, shown = places[start:end], counts[start:end]
        if not simple and held:
            unit_of = _shown(tuple(sorted(shown)), molecular=_CARBON in held and _HYDROGEN in held)
            shown = [unit_of[amount] for amount in shown]
        found.append("".join([_ORDERED_SYMBOLS[place] + _amount(unit) for place, unit in zip(held, shown)]))
    return np.array(found, dtype=np.str_)


def _common(given: NDArray[np.float64], ends: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(n,) whether the amounts of a formula are whole numbers, and all (m,) without common factors.

    Amounts (m,) of n formulas, one after the other, `ends` (n + 1,) says where each begins.
    """
    held = np.flatnonzero(np.diff(ends))
    if not len(held):
        return np.zeros(len(ends) - 1, bool), given
    counts, starts = np.rint(given).astype(np.int64), ends[held]
    whole = np.zeros(len(ends) - 1, bool)
    whole[held] = np.logical_and.reduceat(np.abs(given - counts) <= 1e-9, starts) & np.logical_or.reduceat(
        counts > 0, starts
    )
    divisor = np.repeat(np.maximum(np.gcd.reduceat(counts, starts), 1), np.diff(ends)[held])
    return whole, (counts // divisor).astype(np.float64)


@lru_cache(maxsize=16384)
def _shown(amounts: tuple[float, ...], *, molecular: bool) -> dict[float, float]:
    """What `_units` makes of each amount; crystals of other elements have the same amounts."""
    return dict(zip(amounts, _units(np.array(amounts), molecular=molecular).tolist()))


def _units(amounts: NDArray[np.float64], *, molecular: bool) -> NDArray[np.float64]:
    """The amounts (m,) on the scale of the formula.

    The smallest whole numbers, if there are any (`MANY`), or else shares in as few decimals as
    can be. Whole numbers give way to shares that tell more (`_telling`), except in molecules, where
    such numbers are a coincidence.
    """
    shares = amounts / amounts.sum()
    smallest = _whole_numbers(amounts, MANY if not molecular else math.inf)
    if smallest is not None and (molecular or smallest.sum() <= FEW or _no_common_part(smallest)):
        return smallest
    steps = [np.arange(1, int(FEW * share) + 1) / share for share in shares]
    scaled = np.unique(np.concatenate([*steps, [1 / shares.max()]]))[:, None] * shares
    whole = _is_whole(scaled)
    telling = _telling(scaled, whole, smallest)
    scaled = np.where(whole, np.rint(scaled), scaled)
    kept = np.where(telling, whole.sum(axis=1), 0)
    if kept.max() > 1 or (len(shares) > 2 and kept.max()):  # the most whole amounts, then the fewest atoms
        return np.asarray(scaled[np.argmax(kept)])
    if (smallest is None or smallest.sum() > 100) and np.abs(shares - shares.round(3)).max() < 1e-6:
        return np.asarray(shares)  # an alloy: all share one site
    if smallest is not None and not kept.any():
        return smallest
    return _shortest(scaled[kept == kept.max()])


def _shortest(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of scales (s, m) in ascending order the first whose amounts need few decimals (up to 2)."""
    best, fewest = 0, math.inf
    for place, units in enumerate(scaled.tolist()):
        most = 2
        for unit in units:
            most = max(most, len(_amount(unit).partition(".")[2]))
            if most >= fewest:
                break
        else:
            best, fewest = place, most
            if fewest == 2:
                break
    return np.asarray(scaled[best])


def _telling(
    scaled: NDArray[np.float64], whole: NDArray[np.bool_], smallest: NDArray[np.float64] | None
) -> NDArray[np.bool_]:
    """(s,) scales of a formula, amounts (s, m), that tell more than the `smallest` whole numbers.

    Amounts that are not `whole` share a site, that is, add up to a whole number; or all but one of
    them do, and that one has vacancies. Against whole numbers (None: there are none) half of the
    amounts stay whole, or all but one of four or more; with more atoms than `SOME`, two amounts at
    least, or one of two or three. And against them no share may need more than three decimals:
    dopings are decimal, and compounds such as Mg17Al12 are not.
    """
    rest = np.where(whole, 0, scaled)
    kept, left, total = whole.sum(axis=1), (~whole).sum(axis=1), rest.sum(axis=1)
    share = (left >= 2) & _is_whole(total)
    strong = (share & (kept >= 2) & (kept >= left)) | ((left == 1) & (kept >= 3))
    vacant = (left >= 3) & ((rest > 0) & _is_whole(total[:, None] - rest)).any(axis=1)
    weak = ((share | vacant) & (kept >= 2)) | ((share & (left == 2) | (left == 1)) & (kept >= 1))
    if smallest is None:
        return np.asarray(strong | weak)
    ratio = smallest.sum() / scaled.sum(axis=1)
    found = strong & (ratio > FINE - 0.5)
    if smallest.sum() > SOME:
        found |= weak & (ratio > 2 * FINE - 0.5)
    return np.asarray(found & (np.abs(rest - rest.round(3)) < 1e-6).all(axis=1))


def _no_common_part(counts: NDArray[np.float64]) -> bool:
    """Whether no scale of these whole numbers leaves two of four or more amounts whole."""
    numbers = [int(count) for count in counts]
    return len(numbers) > 3 and all(math.gcd(a, b) < FINE for a, b in itertools.combinations(numbers, 2))


def _whole_numbers(amounts: NDArray[np.float64], most: float) -> NDArray[np.float64] | None:
    """The smallest whole numbers (m,) in the ratio of the amounts, None if there are none.

    `most` is their largest sum where the amounts are whole numbers; `MANY`, where they are not.
    """
    counts = np.rint(amounts)
    if (counts == amounts).all():
        counts /= np.gcd.reduce(counts.astype(np.int64))
        if counts.sum() <= most:
            return np.asarray(counts)
    scaled = np.arange(len(amounts), MANY + 1)[:, None] * (amounts / amounts.sum())
    fits = np.asarray(_is_whole(scaled).all(axis=1))
    few = scaled[: max(FEW + 1 - len(amounts), 0)]
    fits[: len(few)] |= _is_whole(few, np.where(few < 2.5, 2.2, 1) * SAME).all(axis=1)
    return np.rint(scaled[np.argmax(fits)]) if fits.any() else None


def _is_whole(amounts: NDArray[np.float64], same: float | NDArray[np.float64] = SAME) -> NDArray[np.bool_]:
    """Whether amounts are whole numbers from 1 on, to a relative difference and at most 0.009."""
    nearest = np.rint(amounts)
    return np.asarray((np.abs(amounts - nearest) <= np.minimum(same * amounts, 0.009)) & (nearest > 0))


@lru_cache(maxsize=4096)
def _amount(value: float) -> str:
    """The text of an amount: nothing for 1, whole numbers in full, others in four digits.

    >>> _amount(1.0), _amount(12345.0), _amount(0.15000000001), _amount(2e-8), _amount(0.99999)
    ('', '12345', '0.15', '0.00000002', '')
    """
    if value == round(value):
        return "" if value == 1 else str(round(value))
    text = f"{round(value, 9):.4g}"
    if "e" in text:
        text = np.format_float_positional(float(text), trim="-")
    return "" if text == "1" else text
