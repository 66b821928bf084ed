"""Which element stands on each site of a POSCAR.

Enters: the lines that may name elements: the comment, the line of symbols, labels after positions.
Leaves: atomic numbers, warnings, or `Unusable` where the lines say nothing or contradict each
other. This module does not know positions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from assay.sources.checks import limits
from assay.sources.elements import ISOTOPES, NUMBERS, SYMBOLS
from assay.sources.formats.records import Unusable, quoted
from assay.sources.quarantine import Reason

_COMMENT = re.compile(r"[!#].*", re.DOTALL)
_SYMBOL_OF_LABEL = re.compile(r"([A-Z][a-z]?)(?![A-Za-z.(])")


class Label(NamedTuple):
    """The first word after a position and its flags."""

    site: int
    line: int
    """Number of the line, from 1."""
    text: str


def without_comment(line: str) -> str:
    """Return a line up to the `!` or `#` that begins a comment, without outer blanks."""
    return _COMMENT.sub("", line).strip()


def words(line: str, place: str) -> list[str]:
    """The words of a line that names or counts kinds of atoms; `place` is its number, in words.

    Raises:
        Exceeded: when there are too many.
    """
    found = without_comment(line).split()
    limits.check("kinds", len(found), place)
    return found


def all_known(line: str) -> bool:
    """Whether a line holds nothing but symbols of elements, and at least one."""
    found = without_comment(line).split()
    return bool(found) and all(map(_element, found))


def of_line(line: str, place: int, warnings: list[str]) -> list[int]:
    """Atomic number of each symbol of line number `place`: `Mg`, `Mg_pv`, `Mg_pv/3a1f9c`.

    Raises:
        Unusable: when a word is no symbol of an element.
    """
    found, told = [], set(warnings)
    for word in words(line, f"line {place}"):
        symbol = _element(word)
        if not symbol:
            raise Unusable(f"line {place}: {quoted(word)} is no symbol of an element", Reason.UNKNOWN_SPECIES)
        exact = symbol == re.split("[_/]", word)[0] and symbol not in ISOTOPES
        number = NUMBERS["H" if symbol in ISOTOPES else symbol]
        what = f"{ISOTOPES[symbol]}, read as H" if symbol in ISOTOPES else f"read as {SYMBOLS[number]}"
        message = f"line {place}: {quoted(word)} is {what}"
        if not exact and message not in told:
            told.add(message)
            warnings.append(message)
        found.append(number)
    return found


def _element(word: str) -> str:
    """The symbol in a word, with D and T for the isotopes of hydrogen; "" when there is none."""
    name = re.split("[_/]", word, maxsplit=1)[0]
    if name in NUMBERS or name in ISOTOPES:
        return name
    letters = re.fullmatch(r"([A-Za-z]{1,2})[0-9]{0,3}[+-]?", name)
    symbol = letters[1].capitalize() if letters else ""
    return symbol if symbol in NUMBERS else ""


def of_sites(
    comment: str,
    symbols: list[int] | None,
    counts: Sequence[int],
    labels: Sequence[Label],
    warnings: list[str],
) -> list[int]:
    """Atomic number of each site.

    Without a line of symbols (VASP 4) the labels of the positions say it, or else a comment line
    that holds one symbol for each count and nothing more.

    Raises:
        Unusable: when nothing names the elements, or labels of all sites contradict the counts.
    """
    total = sum(counts)
    labelled = {label: _labelled(label.text) for label in labels}
    whole = len(labels) == total > 0 and all(labelled.values())
    named = symbols
    if named is None:
        named = _of_comment(comment, counts)
        source = "the comment line"
        if named is None and whole:
            first_sites = [0, *accumulate(counts)][:-1]
            by_site = list(labelled.values())
            named = [by_site[min(site, total - 1)] for site in first_sites]
            source = "the labels after the positions"
        if named is None:
            message = (
                f"no line of element symbols (VASP 4), and the comment {quoted(comment)} is not one symbol "
                f"for each of the {len(counts)} numbers of atoms"
            )
            raise Unusable(message)
        warnings.append(f"no line of element symbols (VASP 4); taken from {source}")
    numbers = [number for number, count in zip(named, counts) for _ in range(count)]
    for label, number in labelled.items():
        if number and number != numbers[label.site]:
            expected = SYMBOLS[numbers[label.site]]
            message = (
                f"line {label.line}: the label {quoted(label.text)} stands on a site that is {expected} by the counts"
            )
            if whole:
                raise Unusable(message, Reason.MALFORMED)
            warnings.append(f"{message}; {expected} is kept")
            break
    return numbers


def _labelled(text: str) -> int:
    """Atomic number of the element that a label such as `Mg`, `Mg1` or `Mg2+` names, else 0."""
    found = _SYMBOL_OF_LABEL.match(text)
    symbol = found[1] if found else ""
    return NUMBERS["H"] if symbol == "D" else NUMBERS.get(symbol, 0)


def _of_comment(comment: str, counts: Sequence[int]) -> list[int] | None:
    """Elements of a comment such as `Mg O` or `Mg4 O4`; the amounts of a formula must fit."""
    text = comment.strip()
    if len(text) > limits.most("comment") or not re.fullmatch(r"(?:[A-Z][a-z]?[0-9]{0,6}\s*)+", text):
        return None
    parts = re.findall(r"([A-Z][a-z]?)([0-9]*)", text)
    if len(parts) != len(counts) or not all(symbol in NUMBERS for symbol, _ in parts):
        return None
    amounts = [int(amount or 1) for _, amount in parts]
    if text.split() != [symbol for symbol, _ in parts] and any(
        amount * counts[0] != count * amounts[0] for amount, count in zip(amounts, counts)
    ):
        return None
    return [NUMBERS[symbol] for symbol, _ in parts]
