"""Chemical formulas as people print them -> amounts of the elements.

Enters: texts such as `YBa2Cu3O6.9`, `CaSO4\u00b72H2O`, `Ba(Fe0.92,Co0.08)2As2` or
`La$_{1.85}$Sr$_{0.15}$CuO$_4$`. Leaves: amounts per formula as it is written, or a reason that
names the position. A text that can be read in two ways is refused. This module does not know files
or crystals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import NUMBERS, SYMBOLS
from assay.sources.formulas import dots, spelling
from assay.sources.formulas.typeset import ABOVE, BELOW, SEPARATOR, VACANCY, FormulaError, plain

__all__ = ["Formula", "FormulaError", "Formulas", "read", "read_many"]

LARGEST = 1e6
"""Amounts of an element in a formula."""

_NUMBER = r"[0-9]+/[0-9]+|[0-9]+\.[0-9]+(?:\([0-9]{1,2}\))?|[0-9]+\.(?=\s*\Z)|[0-9]+|\.[0-9]+"
_TOKEN = re.compile(
    rf"""
      (?P<element> [A-Z][a-z]? )
    | (?P<below> {BELOW} (?P<inner> [^{ABOVE}]* ) {ABOVE} )
    | (?P<number> {_NUMBER} )
    | (?P<space> \s+ )
    | (?P<open> [(\[{{] ) | (?P<close> [)\]}}] )
    | (?P<separator> {SEPARATOR} )
    | (?P<comma> , )
    | (?P<vacancy> {VACANCY} )
    """,
    re.VERBOSE,
)
_AMOUNT = re.compile(rf"(?:{_NUMBER})\Z")
_SIMPLE = re.compile(r"(?:(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,20})?)?\Z")
_SYMBOLS = re.compile(r"([A-Z][a-z]?)")
_MISSING = "NaN"
"""What tables write where a value is missing."""
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_UNKNOWN = "xyzndδεηξ"
"""Letters that stand for an amount that is not said."""


@dataclass(frozen=True)
class Formula:
    """The elements of one formula."""

    amounts: NDArray[np.float64]
    """(119,) atoms of each element, by atomic number, in the formula as it is written."""
    notes: tuple[str, ...] = ()
    """What was understood that the text does not say outright."""


@dataclass(frozen=True)
class Formulas:
    """The elements of many formulas."""

    amounts: NDArray[np.float64]
    """(n, 119) atoms of each element; zeros where the text was refused."""
    notes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Notes by row, for rows that have some."""
    refused: dict[int, FormulaError] = field(default_factory=dict)
    """Reasons by row."""


def read(text: str, *, tritium: bool = False) -> Formula:
    """The elements of one formula. T is tritium in `tritium` texts, and refused in others.

    >>> formula = read("CaSO4.2H2O")
    >>> {SYMBOLS[number]: float(formula.amounts[number]) for number in formula.amounts.nonzero()[0]}
    {'H': 4.0, 'O': 6.0, 'S': 1.0, 'Ca': 1.0}

    Raises:
        FormulaError: for a text that is no formula, or that can be read in two ways.
    """
    amounts, notes = _read(text, ("D", "T") if tritium else ("D",))
    found = np.zeros(len(SYMBOLS))
    found[[NUMBERS[symbol] for symbol in amounts]] = list(amounts.values())
    return Formula(found, notes)


def read_many(texts: Iterable[str]) -> Formulas:
    """The elements of many formulas; a text that is none is refused, and costs no other one."""
    every = list(texts)
    found = Formulas(np.zeros((len(every), len(SYMBOLS))))
    places: list[int] = []
    values: list[float] = []
    for row, text in enumerate(every):
        try:
            amounts, notes = _read(text, ("D",))
        except FormulaError as error:
            found.refused[row] = error
            continue
        places += [row * len(SYMBOLS) + NUMBERS[symbol] for symbol in amounts]
        values += amounts.values()
        if notes:
            found.notes[row] = notes
    found.amounts.reshape(-1)[places] = values
    return found


def _read(text: str, isotopes: tuple[str, ...]) -> tuple[dict[str, float], tuple[str, ...]]:
    return _simple(text) or _Reader(text, isotopes).read()


def _simple(text: str) -> tuple[dict[str, float], tuple[str, ...]] | None:
    """The amounts in a text of symbols and numbers that nobody can misread; None for any other."""
    if len(text) > 200 or text.isupper() or text == _MISSING or text.endswith(("H2O", "NH3", "D2O", "H20", "Ac")):
        return None
    before, *terms = _SYMBOLS.split(text)
    symbols = terms[::2]
    try:
        values = [_simple_amount(amount) for amount in terms[1::2]]
    except ValueError:
        return None
    amounts = dict(zip(symbols, values))
    if before or len(amounts) < len(symbols) or not amounts.keys() <= NUMBERS.keys() or not any(values):
        return None
    return amounts, ()


@lru_cache(maxsize=65536)
def _simple_amount(text: str) -> float:
    """The number behind a symbol, 1 where there is none."""
    if not _SIMPLE.match(text):
        raise ValueError(text)
    return float(text or 1)


@dataclass
class _Group:
    """What stands between two brackets, or between two separators."""

    opening: str
    place: int
    amounts: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] | None = None
    """The element or group before, which waits for its amount."""
    bare: bool = False
    """Whether something in it has no amount of its own."""
    comma: bool = False

    def end(self) -> None:
        """Count what waits for its amount once."""
        if self.last is not None:
            self.bare = True
            self.add(1.0)

    def add(self, factor: float) -> None:
        """Count what waits for its amount so often."""
        for symbol, amount in (self.last or {}).items():
            self.amounts[symbol] = self.amounts.get(symbol, 0.0) + factor * amount
        self.last = None


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, isotopes: tuple[str, ...]) -> None:
        self.isotopes = isotopes
        self.notes: list[str] = []
        self.text, self.places = plain(text)
        self.total: dict[str, float] = {}
        self.stack = [_Group("", 0)]
        self.coefficient = 1.0
        self.fresh = True
        """Whether nothing of this part has been read."""
        self.spaced = False
        """Whether a blank stands before the token."""

    def read(self) -> tuple[dict[str, float], tuple[str, ...]]:
        try:
            return self._read(), tuple(self.notes)
        except FormulaError as error:
            place = self.places[error.position] if error.position < len(self.places) else error.position
            raise FormulaError(place, error.reason) from None

    def _read(self) -> dict[str, float]:
        if not self.text.strip():
            raise FormulaError(0, "an empty text")
        if self.text.strip() == _MISSING:
            self.notes.append("NaN is read as Na and N, not as a missing value")
        if note := spelling.check(self.text):
            self.notes.append(note)
        dotted = dots.separated(self.text)
        if dotted != self.text:
            self.notes.append(f"read as {dotted.replace(BELOW, '').replace(ABOVE, '')}")
        self.text = dotted
        for token in self._tokens():
            self._take(str(token.lastgroup), token)
            self.spaced = token.lastgroup == "space"
            self.fresh = (self.fresh and token.lastgroup == "space") or token.lastgroup == "separator"
        self._end_part(len(self.text))
        if not all(amount <= LARGEST for amount in self.total.values()):
            raise FormulaError(0, f"an amount above {LARGEST:.0f}")
        if not any(self.total.values()):
            raise FormulaError(0, "no atom")
        return self.total

    def _tokens(self) -> Iterator[re.Match[str]]:
        place = 0
        while place < len(self.text):
            token = _TOKEN.match(self.text, place)
            if token is None:
                raise self._unexpected(place)
            yield token
            place = token.end()

    def _take(self, kind: str, token: re.Match[str]) -> None:
        group, place = self.stack[-1], token.start()
        if kind == "element":
            group.end()
            group.last = {self._symbol(token): 1.0}
        elif kind in ("number", "below"):
            self._number(token, kind)
        elif kind == "open":
            group.end()
            self.stack.append(_Group(token[0], place))
        elif kind == "close":
            self._close(token)
        elif kind == "comma":
            self._comma(place)
        elif kind == "separator":
            self._end_part(place)
        elif kind == "vacancy":
            group.end()
            group.last = {}

    def _symbol(self, token: re.Match[str]) -> str:
        symbol, place = token[0], token.start()
        if symbol in NUMBERS:
            return symbol
        if symbol in self.isotopes:
            note = f"{symbol} is counted as H"
            if note not in self.notes:
                self.notes.append(note)
            return "H"
        if len(symbol) == 2 and symbol[0] in NUMBERS and symbol[1] in _UNKNOWN:
            raise FormulaError(place + 1, f"the amount {symbol[1]!r} of {symbol[0]} is unknown")
        if symbol == "T":
            raise spelling.unknown(self.text, place, symbol, "may be tritium, a transition metal or a part of a name")
        raise spelling.unknown(self.text, place, symbol)

    def _number(self, token: re.Match[str], kind: str) -> None:
        group, place = self.stack[-1], token.start()
        text = token["inner"] if kind == "below" else token[0]
        if kind == "below" and not _AMOUNT.match(text):
            self._refuse_amount(text, place)
        value = _value(text, place)
        if group.last is not None and (kind == "below" or not self.spaced):
            group.add(value)
        elif kind == "number" and len(self.stack) == 1 and self.fresh:
            self.coefficient = value
        elif kind == "number" and len(self.stack) > 1 and group.last is None and not group.amounts:
            raise FormulaError(place, f"{text!r} begins a bracket: an isotope, or a remark")
        else:
            raise FormulaError(place, f"{text!r} belongs to no element; write \u00b7 between parts")

    def _refuse_amount(self, text: str, place: int) -> None:
        unknown = next((letter for letter in text if letter.isalpha()), "")
        if unknown:
            raise FormulaError(place, f"the amount {text[:20]!r} is unknown")
        hint = "; a decimal comma?" if "," in text else ""
        raise FormulaError(place, f"the amount {text[:20]!r} is no number{hint}")

    def _comma(self, place: int) -> None:
        group = self.stack[-1]
        if len(self.stack) == 1:
            decimal = self.text[place - 1 : place].isdigit() and self.text[place + 1 : place + 2].isdigit()
            hint = "a decimal comma? write a dot" if decimal else "a list; write one formula"
            raise FormulaError(place, f"a comma outside brackets: {hint}")
        if self.text[place + 1 : place + 2].isdigit():
            raise FormulaError(place, "a decimal comma? write a dot")
        group.end()
        group.comma = True

    def _close(self, token: re.Match[str]) -> None:
        group, place = self.stack[-1], token.start()
        if len(self.stack) == 1 or _PAIRS[group.opening] != token[0]:
            raise FormulaError(place, f"{token[0]!r} closes no bracket that is open")
        group.end()
        if not group.amounts:
            raise FormulaError(group.place, "an empty bracket")
        if group.comma and group.bare:
            raise FormulaError(group.place, "shares are missing; write them, as in (Fe0.9,Co0.1)")
        self.stack.pop()
        self.stack[-1].last = group.amounts

    def _end_part(self, place: int) -> None:
        group = self.stack[-1]
        if len(self.stack) > 1:
            raise FormulaError(group.place, f"{group.opening!r} is not closed")
        waiting = group.last is not None
        group.end()
        if not (group.amounts or waiting):
            raise FormulaError(min(place, len(self.text) - 1), "a part without an element")
        for symbol, amount in group.amounts.items():
            self.total[symbol] = self.total.get(symbol, 0.0) + self.coefficient * amount
        self.stack, self.coefficient = [_Group("", place)], 1.0

    def _unexpected(self, place: int) -> FormulaError:
        """Why nothing of a formula begins at this place."""
        character, rest = self.text[place], self.text[place + 1 :]
        if character in "+-":
            letter = rest.lstrip()[:1]
            why = "a charge, a sum, a range or several phases"
            if letter and letter in _UNKNOWN:
                why = f"the amount {letter!r} is unknown"
            return FormulaError(place, f"{character!r}: {why}; write one neutral formula with its amounts")
        if character in _UNKNOWN and not rest[:1].islower():
            return FormulaError(place, f"the amount {character!r} is unknown")
        if character.isascii() and character.isalpha():
            return spelling.unknown(self.text, place, character)
        return FormulaError(place, f"{character!r} is no part of a formula")


def _value(text: str, place: int) -> float:
    over, _, under = text.partition("(")[0].partition("/")
    if len(over) > 40 or len(under) > 40:
        raise FormulaError(place, f"an amount of {len(text)} digits")
    if over[0] == "0" and len(over) > 1 and over.isdigit():
        raise FormulaError(place, f"the amount {text[:20]!r} begins with a zero; is the letter O meant?")
    if under and not float(under):
        raise FormulaError(place, f"{text!r} divides by zero")
    value = float(over) / float(under or 1)
    if not math.isfinite(value) or value > LARGEST:
        raise FormulaError(place, f"the amount {text[:20]!r} is above {LARGEST:.0f}")
    return value
