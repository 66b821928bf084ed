"""The element that a type symbol or a label of a CIF means.

Enters: the type symbol and the label of one site, and the elements of the stated formula. Leaves:
one atomic number, with what had to be decided; or `Refused`. This module does not know where the
site lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from assay.sources.elements import NUMBERS
from assay.sources.quarantine import Reason

_TYPE = re.compile(
    r"(?P<mass>\d{1,3})?(?P<symbol>[A-Za-z]{1,2})(?:val|va|\(?(?:\d*\.?\d*[+-]|[+-]{2,4}|[+-]\d*\.?\d*|\d+|[IVX]+)\)?|\.+)?$"
)
"""An element with its charge, valence or mass: `Fe`, `Fe3+`, `O-2`, `Fe(III)`, `2H`."""
_GROUP = re.compile(r"wat|water|wa(?![a-z])|h2o|d2o|hoh|o[-_]?[hd]|ow|n-?h|c-?h|aq", re.IGNORECASE)
"""The beginning of a name for several atoms: water, hydroxyl, ammonium, methyl."""
_WATER = re.compile(r"h2o|d2o|[onc][-_][hd]", re.IGNORECASE)
"""Names of the same kind that begin like the label of one atom."""
_SEVERAL = re.compile(r".*[A-Za-z\d][/,&][A-Z]|[A-Z][a-z]?\d*\.?\d+[A-Z][a-z]")
"""Labels of more than one element: `Fe/Co`, `Fe0.5Co0.5`."""
_TWO_LETTERS = frozenset(symbol for symbol in NUMBERS if len(symbol) == 2)
_VACANT = re.compile(r"(va|vac|vacancy|vacant|\[\]|\u25a1|x|dum|dummy|\*)\d*$", re.IGNORECASE)


class Refused(Exception):
    """A crystal that cannot be used, with the reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def element(kind: str, label: str, line: Callable[[], int], stated: Collection[str], warnings: list[str]) -> int:
    """Atomic number of a site from its type symbol `kind`, or from its label where there is none.

    `line` gives the line in the file, `stated` are the elements of the formula, empty if not known.

    Raises:
        Refused: when neither names one element, with the line and the spelling.
    """
    if kind in NUMBERS and label.startswith(kind) and not label[len(kind) : len(kind) + 1].isalpha():
        return NUMBERS[kind]  # Fe1 of Fe: most sites there are
    place = f"line {line()}"
    if not kind:
        return NUMBERS[_of_label(label, place, stated, warnings)]
    symbol = _of_type(kind, place, stated, warnings)
    _compare(symbol, label[:20], warnings)
    return NUMBERS[symbol]


def may_be_an_atom(kind: str, label: str) -> bool:
    """Whether a dummy site has the name of an element: an atom without a position."""
    match = _TYPE.match(kind or re.sub(r"\d.*", "", label))
    return bool(match and (match["symbol"].title() in NUMBERS or match["symbol"] in ("D", "T")))


def _say(warnings: list[str], text: str) -> None:
    if text not in warnings:
        warnings.append(text)


def _unknown(place: str, text: str) -> Refused:
    return Refused(Reason.UNKNOWN_SPECIES, f"{place}: {text}")


def _of_type(kind: str, place: str, stated: Collection[str], warnings: list[str]) -> str:
    """The element of a type symbol: `Fe`, `Fe3+`, `O-2`, `FE`, `D`."""
    match = _TYPE.match(kind)
    symbol = match["symbol"] if match else ""
    if symbol in ("D", "T"):
        return _isotope(symbol, kind, place, stated, warnings)
    if match and symbol.title() in NUMBERS and (symbol in NUMBERS or not _GROUP.match(kind)):
        return _with_care(match, symbol.title(), place, stated, warnings)
    if _GROUP.match(kind):
        raise Refused(Reason.UNSUPPORTED, f"{place}: species {kind!r} stands for atoms without positions")
    several = [part for part in re.findall(r"[A-Z][a-z]?", kind) if part in NUMBERS]
    if len(several) > 1:
        raise _unknown(
            place, f"type symbol {kind!r} names {len(several)} elements; each needs a row with its occupancy"
        )
    raise _unknown(place, f"species {kind!r} is no chemical element")


def _with_care(match: re.Match[str], name: str, place: str, stated: Collection[str], warnings: list[str]) -> str:
    """The element of a type symbol in unusual letters, or with a mass, told."""
    kind, symbol = match.group(), match["symbol"]
    if name != symbol:
        if stated and name not in stated:
            raise _unknown(place, f"type symbol {kind!r} means {name}, which is not in the stated formula")
        _say(warnings, f"type symbol {kind} was read as {name}")
    if match["mass"]:
        _say(warnings, f"isotope {kind} was read as {name}")
    return name


def _isotope(symbol: str, text: str, place: str, stated: Collection[str], warnings: list[str]) -> str:
    """Hydrogen for D, and for T where the formula holds hydrogen: T is a tetrahedral site too."""
    if stated and "H" not in stated:
        raise _unknown(place, f"{text!r} is no hydrogen, since the stated formula has none")
    if symbol == "T" and not stated:
        raise _unknown(place, f"{text!r} may be tritium or a tetrahedral site; a formula is needed")
    _say(warnings, f"{'deuterium' if symbol == 'D' else 'tritium'} was read as hydrogen")
    return "H"


def _compare(symbol: str, label: str, warnings: list[str]) -> None:
    """Tell a label that is the symbol of another element than the type symbol."""
    match = re.match(r"([A-Z][a-z]?)(?![A-Za-z])", label)
    named = match[1] if match else ""
    if named in NUMBERS and named != symbol:
        _say(warnings, f"label {label} stands beside the type symbol {symbol}, which was taken")
    elif symbol == "O" and re.match(r"(wat|h2o|oh|ow)(?![a-z])", label, re.IGNORECASE):
        _say(warnings, f"label {label} suggests hydrogen that the list of sites may lack")


# Labels without type symbols.


def _of_label(label: str, place: str, stated: Collection[str], warnings: list[str]) -> str:
    """The element at the beginning of a label."""
    run = re.match(r"[A-Za-z]*", label)
    letters = run.group() if run else ""
    two, one = letters[:2].title(), letters[:1].upper()
    if letters[:2] in NUMBERS and (_SEVERAL.match(label) or letters[2:] in _TWO_LETTERS):
        raise _unknown(place, f"label {label!r} names several elements; each needs a row with its occupancy")
    spelled = letters[:2] if letters[:2] in NUMBERS and not _WATER.match(label) else ""  # as usual: Fe1, CuA
    if not spelled and _VACANT.match(label):
        raise _unknown(place, f"species {label!r} is no chemical element")
    if not spelled and _GROUP.match(label):
        if one not in stated:
            raise Refused(Reason.UNSUPPORTED, f"{place}: label {label!r} stands for atoms without positions")
        _say(warnings, f"label {label} was read as {one}, as the stated formula allows")
        return one
    if not spelled and one in ("D", "T") and not letters[1:2].islower() and not (stated and two in stated):
        return _isotope(one, label, place, stated, warnings)
    chosen = _by_formula(letters, two, one, stated) if stated else _by_letters(letters, two, one)
    if not chosen:
        raise _unknown(place, f"label {label!r} names no single chemical element; it needs a type symbol")
    if not letters.startswith(chosen) or letters[len(chosen) : len(chosen) + 2].islower():
        _say(warnings, f"label {label} was read as {chosen}")
    return chosen


def _by_formula(letters: str, two: str, one: str, stated: Collection[str]) -> str:
    """The one element of the formula that a label may begin with; "" for none or two."""
    fitting = [symbol for symbol in dict.fromkeys((two, one)) if symbol in stated]
    if len(fitting) == 2:
        return "" if letters[:2].isupper() else two
    return fitting[0] if fitting else ""


def _by_letters(letters: str, two: str, one: str) -> str:
    """The element of a label by its letters alone; "" where they are no clear name."""
    if len(letters) == 1 or not letters:
        return one if one in NUMBERS else ""
    rest = letters[2:]
    if two in NUMBERS and letters[:2].isupper():  # NA1: capitals; HO is hydroxyl or holmium
        return "" if two == "Ho" else two
    if two in NUMBERS:
        return "" if len(rest) > 1 and rest.islower() else two
    if one in NUMBERS and not (rest and letters[1:].islower() and one != "O"):  # Oap, Oeq: sites of oxygen
        return one
    return ""
