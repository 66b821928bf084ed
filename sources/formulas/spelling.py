"""Texts that only look like formulas: wrong case, abbreviations, oxidation states.

Enters: a formula in plain characters. Leaves: the formula that may be meant, or `FormulaError`.
This module does not read amounts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from assay.sources.elements import NUMBERS, SYMBOLS
from assay.sources.formulas.typeset import FormulaError

_MISTAKEN = re.compile(r"CU|NB|NI(?!3)|\ASI(?!4)|BI(?!3)|PB|OS(?![0-9])|SB|SC|HF(?=[A-Z])|PU|BK|([A-Z])[0-9]*\1")
"""What in a text without small letters is rather another element: one of two letters, or, as in
CO3O4, one before an element that stands there twice."""
_DOUBTFUL = re.compile(r"SN|IN|SI|CS|YB|NP|CO(?![23])|HO")
"""Two letters that are one element or two alike; they are read as two."""
_STATE = re.compile(r"[(\[]\s*(?:I{1,3}|IV|VI{0,3}|V)\s*[)\]]")
_ZERO = re.compile(r"(?:\A|[.\u00b7])\s*[0-9/]*\s*[(\[]?(H20)[)\]]?\s*(?:\Z|[\u00b7])")
"""Water with a zero for its oxygen."""
_ACETATE = re.compile(r"OAc(?![a-z])")
_POLYTYPE = re.compile(r"\s*[0-9]+[HRC](?:(?=\s)|(?=([A-Z][a-z]?)))")
_NAMES = frozenset({"YBCO", "BFO", "NBCO", "PBCO"})
"""Abbreviations of compounds that consist of symbols of elements."""
_LONGEST = 12
"""Letters in a row for which a spelling is sought."""
_COMMON = NUMBERS.keys() - {"Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa", *SYMBOLS[93:]}
"""Elements that a suggestion names."""
_WORD = 4
"""Small letters in a row that may be a formula; more are a word."""
_NONMETALS = frozenset(["H", "C", "N", "O", "F", "P", "S", "Cl", "Se", "Br", "I"])


def check(text: str) -> str:
    """Refuse a formula whose symbols are elements, but not those that are meant; return a note.

    Raises:
        FormulaError: for capitals such as NB3SN, for names such as YBCO, for `Fe(III)`.
    """
    if state := _STATE.search(text):
        raise FormulaError(state.start(), f"{state[0]!r} may be an oxidation state; it is no part of a formula")
    if acetate := _ACETATE.search(text):
        raise FormulaError(acetate.start(), "'OAc' may be acetate or actinium; write C2H3O2")
    if zero := _ZERO.search(text):
        raise FormulaError(zero.start(1), "'H20' ends in a zero; is H2O meant?")
    if text[:1].isdigit() and (label := _POLYTYPE.match(text)) and (label[1] or "Nb") not in _NONMETALS:
        raise FormulaError(0, f"{label[0]!r} may be a polytype, or a coefficient and an element")
    if text.isupper():
        return _check_capitals(text)
    return ""


def _check_capitals(text: str) -> str:
    if found := _MISTAKEN.search(text):
        raise FormulaError(found.start(), f"{found[0]!r} may be another element in capitals{_meant(text)}")
    for run in re.finditer(r"[A-Z]{3,}", text):
        if run[0] in _NAMES or len(set(run[0])) < len(run[0]):
            raise FormulaError(run.start(), f"{run[0]!r} is read as an abbreviation; write the formula")
    doubtful = sorted(set(_DOUBTFUL.findall(text)))
    return "; ".join(f"{pair} is read as {pair[0]} and {pair[1]}, not as {pair.title()}" for pair in doubtful)


def unknown(text: str, place: int, symbol: str, why: str = "is no symbol of an element") -> FormulaError:
    """Why the symbol at this place is no element, with the formula that may be meant."""
    near = next((run[0] for run in re.finditer(r"[A-Z]{3,}", text) if run.start() <= place < run.end()), symbol)
    meant = _meant(text)
    if near != symbol and not meant:
        return FormulaError(place, f"{near!r} is no symbol of an element; write abbreviations as formulas")
    return FormulaError(place, f"{symbol!r} {why}{meant}")


def _meant(text: str) -> str:
    """`; did you mean MgB2?` where there is such a formula."""
    runs = re.findall(r"[A-Za-z]+", text)
    if len(runs[0]) > _WORD and text.islower() and text.isalpha():
        return ""
    spelled = [respelled(run) for run in runs]
    if not all(spelled) or "".join(spelled) == "".join(runs):
        return ""
    every = iter(spelled)
    return f"; did you mean {re.sub('[A-Za-z]+', lambda _: next(every), text)[:60]}?"


@lru_cache(maxsize=4096)
def respelled(letters: str) -> str:
    """These letters as symbols of elements, as few as can be; "" where they are none.

    >>> respelled("mgb"), respelled("NBSN"), respelled("tmtsf")
    ('MgB', 'NbSn', '')
    """
    if len(letters) > _LONGEST:
        return ""
    best: list[list[str] | None] = [[]]
    for end in range(1, len(letters) + 1):
        ways = []
        for width in (2, 1):
            symbol = letters[max(end - width, 0) : end].capitalize()
            before = best[end - width] if end >= width else None
            if before is not None and symbol in _COMMON:
                ways.append([*before, symbol])
        best.append(min(ways, key=len, default=None))
    return "".join(best[-1] or [])
