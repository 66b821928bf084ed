"""The atom lines of a frame of extended XYZ.

Enters: lines cut into words, and where the words of interest stand. Leaves: coordinates and the
species of each site, or `Unusable` with the line at fault. This module does not know frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import ISOTOPES, NUMBERS, SYMBOLS
from assay.sources.formats.fortran import is_number, real
from assay.sources.formats.records import Unusable, quoted
from assay.sources.formats.xyz_comment import Layout
from assay.sources.quarantine import Reason

Species = list[list[tuple[int, float]]]
"""Pairs of atomic number and occupancy of each site."""


def check_widths(rows: Sequence[list[str]], layout: Layout, first: int, warnings: list[str]) -> None:
    """Refuse a line with too few words; warn of words that have no name."""
    widths = [len(row) for row in rows]
    if min(widths, default=layout.width) < layout.width:
        at = next(at for at, width in enumerate(widths) if width < layout.width)
        raise Unusable(f"line {first + at}: {layout.width} values expected, found {quoted(' '.join(rows[at]))}")
    if layout.stated and max(widths, default=0) > layout.width:
        at = next(at for at, width in enumerate(widths) if width > layout.width)
        warnings.append(f"line {first + at}: {widths[at]} values, of which Properties name the first {layout.width}")


def coordinates(rows: Sequence[list[str]], layout: Layout, first: int) -> NDArray[np.float64]:
    """Return the coordinates in Å, (s, 3); `first` is the number of the first line."""
    places = slice(layout.place, layout.place + 3)
    try:
        coords = np.array([[float(word) for word in row[places]] for row in rows]).reshape(-1, 3)
    except ValueError:
        coords = None
    underscored = any("_" in word for row in rows for word in row[places])  # 1_0 is 10 to Python alone
    if coords is not None and np.isfinite(coords).all() and not underscored:
        return coords
    for at, row in enumerate(rows):
        if not all(map(is_number, row[places])):
            reason = Reason.UNREADABLE if coords is None or underscored else Reason.NON_FINITE
            raise Unusable(f"line {first + at}: three coordinates expected, found {quoted(' '.join(row))}", reason)
    return np.array([[real(word) for word in row[places]] for row in rows])


def species(
    rows: Sequence[list[str]],
    layout: Layout,
    first: int,
    shares: Mapping[str, Mapping[str, float]] | None,
    warnings: list[str],
) -> Species:
    """Return the species of each site.

    `shares` holds the occupancies by kind of site that ASE writes for a disordered crystal.
    """
    numbers = _numbers(rows, layout, first, warnings)
    if shares is not None:
        return _disordered(rows, layout, numbers, shares)
    if layout.share is None:
        return [[(number, 1.0)] for number in numbers]
    words = [row[layout.share] for row in rows]
    for at, word in enumerate(words):
        if not is_number(word):
            raise Unusable(f"line {first + at}: an occupancy expected, found {quoted(word)}", Reason.BAD_OCCUPANCY)
    return [[(number, real(word))] for number, word in zip(numbers, words)]


def _numbers(rows: Sequence[list[str]], layout: Layout, first: int, warnings: list[str]) -> list[int]:
    """Atomic number of each atom, by its symbol, its number or both."""
    if layout.symbol is None:
        return [_number(row[layout.number or 0], first + at) for at, row in enumerate(rows)]
    symbols = [row[layout.symbol] for row in rows]
    known = {symbol: _element(symbol) for symbol in dict.fromkeys(symbols)}
    for symbol, number in known.items():
        line = first + symbols.index(symbol)
        if not number:
            raise Unusable(f"line {line}: {quoted(symbol)} is no symbol of an element", Reason.UNKNOWN_SPECIES)
        if symbol != SYMBOLS[number]:
            what = ISOTOPES.get(symbol.capitalize())
            told = f"{what}, read as H" if what else f"read as {SYMBOLS[number]}"
            warnings.append(f"line {line}: {quoted(symbol)} is {told}")
    for at, row in enumerate(rows if layout.number is not None else []):
        if _number(row[layout.number or 0], first + at) != known[symbols[at]]:
            message = f"line {first + at}: symbol and atomic number disagree in {quoted(' '.join(row))}"
            raise Unusable(message, Reason.MALFORMED)
    return [known[symbol] for symbol in symbols]


def _element(symbol: str) -> int:
    """Atomic number of a symbol in any case, isotopes of hydrogen included; 0 for others."""
    symbol = symbol.capitalize()
    return NUMBERS["H"] if symbol in ISOTOPES else NUMBERS.get(symbol, 0)


def _number(word: str, line: int) -> int:
    number = int(word) if word.isdecimal() and len(word) < 4 else 0
    if not 0 < number < len(SYMBOLS):
        raise Unusable(f"line {line}: {quoted(word)} is no atomic number of an element", Reason.UNKNOWN_SPECIES)
    return number


def _disordered(
    rows: Sequence[list[str]], layout: Layout, numbers: list[int], shares: Mapping[str, Mapping[str, float]]
) -> Species:
    """Species by kind of site, as ASE writes a crystal with partial occupancy."""
    if layout.kind is None:
        message = "occupancy holds shares by kind of site, but Properties lack spacegroup_kinds:I:1"
        raise Unusable(message, Reason.MALFORMED)
    for symbol in dict.fromkeys(symbol for of in shares.values() for symbol in of):
        if not _element(symbol):
            raise Unusable(f"{quoted(symbol)} in occupancy is no symbol of an element", Reason.UNKNOWN_SPECIES)
    kinds = {kind: [(_element(symbol), share) for symbol, share in of.items()] for kind, of in shares.items()}
    return [kinds.get(row[layout.kind]) or [(number, 1.0)] for row, number in zip(rows, numbers)]


def is_atom(row: Sequence[str], layout: Layout) -> bool:
    """Whether words have coordinates and an element where an atom line has them."""
    if len(row) < layout.width or not all(map(is_number, row[layout.place : layout.place + 3])):
        return False
    return layout.symbol is None or bool(_element(row[layout.symbol]))
