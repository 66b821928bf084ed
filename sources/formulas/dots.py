"""Dots of a formula: decimal points, or what separates its parts.

Enters: a formula in plain characters. Leaves: the same with a middle dot for each dot that
separates parts, as in CaSO4.2H2O, or `FormulaError` for a dot that may be either. This module does
not compute amounts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from assay.sources.formulas.typeset import ABOVE, BELOW, SEPARATOR, FormulaError

_CHAIN = re.compile(rf"{BELOW}[^{ABOVE}]*{ABOVE}|(?P<chain>[0-9]*(?:\.[0-9]+)+(?P<over>/[0-9]+)?|\.)")
_MOLECULE = re.compile(rf"\s*([(\[]?)(?:[HDT]2O|OH2|N[HDT]3|H2O2)[)\]]?(?=\s*(?:\Z|[.{SEPARATOR}]))")
"""A whole part that is water or ammonia, the usual guests of a salt."""
_GUEST = re.compile(r"\s*(?:H2O|D2O|NH3|\()(?![0-9a-z])")
_SYMBOL = re.compile(r"[A-Z][a-z]?")
_ANIONS = frozenset(["F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N"])
_OPENING, _CLOSING = "([{", ")]}"


def separated(text: str) -> str:
    """The formula with a middle dot for each dot that separates its parts; equally long.

    >>> separated("CaSO4.2H2O"), separated("YBa2Cu3O6.9")
    ('CaSO4·2H2O', 'YBa2Cu3O6.9')

    Raises:
        FormulaError: for a dot that may be a decimal point and may separate parts.
    """
    found = list(text)
    part = 0
    depth = list(accumulate((c in _OPENING) - (c in _CLOSING) for c in text))
    for match in _CHAIN.finditer(text):
        if match["chain"] is None:
            continue
        if depth[match.start()]:
            _refuse_guest(text, match)
            continue
        for place in _separators(text, part, match):
            found[place] = SEPARATOR
            part = place + 1
    return "".join(found)


def _refuse_guest(text: str, match: re.Match[str]) -> None:
    """Refuse water behind a dot in brackets, where parts cannot stand."""
    if not match["chain"].partition(".")[2].startswith("0") and _GUEST.match(text, match.end()):
        raise _ambiguous(match.start(), match[0])


def _separators(text: str, part: int, match: re.Match[str]) -> Sequence[int]:
    """Places of the dots in a chain of digits and dots that separate parts."""
    start, end, chain = match.start(), match.end(), match["chain"]
    part = max(part, text.rfind(SEPARATOR, 0, start) + 1)
    if chain == ".":  # no digit behind it
        return () if not text[end:].strip() and text[start - 1 : start].isdigit() else (start,)
    numbers = chain.split(".")
    spaced = start > 0 and text[start - 1] in (" ", ABOVE) and not numbers[0]
    if spaced or (match["over"] and len(numbers) == 2 and not numbers[0]):
        return (start,)
    if len(numbers) == 2:
        separates = _separates(text, part, match, *numbers)
        return (start + len(numbers[0]),) if separates else ()
    if len(numbers) == 3 and (numbers[1] == "0" or not numbers[0]):
        return (start + len(numbers[0]),)
    if len(numbers) == 4:
        return (start + len(numbers[0]) + 1 + len(numbers[1]),)
    raise _ambiguous(start, chain)


def _separates(text: str, part: int, match: re.Match[str], whole: str, behind: str) -> bool:
    """Whether the one dot between two numbers separates parts; `part` is where its part begins."""
    start, rest = match.start(), text[match.end() :]
    before = _SYMBOL.findall(text[part:start])
    if behind.startswith("0") or whole == "0" or not before or not rest.strip():
        return False
    alone = len(re.findall(r"(?<![0-9])\.[0-9]", text)) == 1
    if _MOLECULE.match(rest):
        if whole == "1" or len(set(before)) == 1 or not (whole or alone):
            raise _ambiguous(start, match[0])
        return True
    anion = text[start - 1] in _CLOSING or before[-1] in _ANIONS
    if not whole and anion and alone:
        raise _ambiguous(start, match[0])
    after = set(_SYMBOL.findall(re.split(rf"[.{SEPARATOR}]", rest)[0]))
    if whole and before[-1] in _ANIONS and before[-1] in after and text[start - 1] not in _CLOSING:
        raise _ambiguous(start, match[0])
    return False


def _ambiguous(place: int, chain: str) -> FormulaError:
    return FormulaError(
        place, f"the dot in {chain!r} may be a decimal point or separate parts; write \u00b7 between parts"
    )
