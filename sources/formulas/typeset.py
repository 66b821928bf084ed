r"""Formulas as they are typeset -> plain characters.

Enters: a text with Unicode subscripts, LaTeX or HTML, such as `YBa$_2$Cu$_3$O$_{6.9}$`. Leaves: the
same formula in plain characters, with the position that each had, or `FormulaError`. An amount that
stands below the line keeps marks around it, so that nobody mistakes it for a coefficient. This
module does not know elements.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from assay.sources.checks import limits

BELOW, ABOVE = "\x02", "\x03"
"""Marks before and after an amount that stands below the line."""
SEPARATOR = "\u00b7"
"""What stands between the parts of a formula, as in CaSO4·2H2O."""
VACANCY = "\u25a1"

_LOW = "₀₁₂₃₄₅₆₇₈₉\u2024₊₋ₓₙₐₑ"
_SUBSCRIPTS = dict(zip(_LOW, "0123456789.+-xnae", strict=True))
_DOTS = "·•\u2219⋅\u2027\u30fb\uff65●*\u2217⋆\u00d7✕"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63-"
_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_PLAIN = str.maketrans(
    {**dict.fromkeys(_DOTS, SEPARATOR), **dict.fromkeys(_DASHES, "-"), **dict.fromkeys(_UNSEEN, ""), "▫": VACANCY}
)
_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"
_FRACTIONS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅙": "1/6", "⅛": "1/8"}
_GREEK = {"delta": "δ", "alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε", "varepsilon": "ε"}
_COMMANDS = {
    **_GREEK,
    **dict.fromkeys(("cdot", "bullet", "times", "ast", "cdotp"), SEPARATOR),
    **dict.fromkeys(("square", "Box"), VACANCY),
    **dict.fromkeys(("mathrm", "mathit", "mathsf", "mathbf", "mathregular", "text", "textrm", "textit"), ""),
    **dict.fromkeys(("rm", "it", "sf", "ce", "left", "right", "quad", "operatorname", "ensuremath"), ""),
}
"""LaTeX commands that a formula may hold -> what they print."""
_TOKEN = re.compile(
    rf"""
      (?: _\{{ (?P<braced> (?:[^{{}}]|\{{[^{{}}]*\}})* ) \}}
        | _\\(?:mathrm|text|textrm|rm)\s*\{{ (?P<named> [^{{}}]* ) \}}
        | \\textsubscript\{{ (?P<text> [^{{}}]* ) \}}
        | <sub> (?P<tag> [^<]* (?:<[ib]>[^<]*</[ib]>[^<]*)* ) </sub>
        | ~ (?P<tilde> [0-9.,/]+ ) ~
        | _ (?P<bare> [0-9]+(?:\.[0-9]+)?(?:/[0-9]+)? | [a-z\u0370-\u03ff] )
        | (?P<small> [{_LOW}]+ (?: [.·/] [₀-₉]+ )? ) )
    | (?P<raised> \^ | <sup> | \\textsuperscript | [\u2070\u00b9\u00b2\u00b3\u2074-\u207f] )
    | \\ (?P<command> [A-Za-z]+ ) [ ]*
    | (?P<gap> \\[,;:!\ ] | ~ )
    | (?P<nothing> \$ | </?(?:i|b|em|strong|span|font)(?:\s[^<>]*)?> )
    | (?P<entity> &\#?[A-Za-z0-9]{{1,10}}; )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIMPLE = re.compile(r"[A-Za-z0-9.,/()\[\] +\-:=%]*")


class FormulaError(ValueError):
    """A text that is no formula, or one that can be read in two ways."""

    def __init__(self, position: int, reason: str) -> None:
        """`position` counts the characters of the text from 0; the message counts from 1."""
        super().__init__(f"position {position + 1}: {reason}")
        self.position = position
        self.reason = reason


def plain(text: str) -> tuple[str, range | list[int]]:
    """A formula in plain characters, and the place of each character in the text.

    >>> plain("Sr_2RuO_4")[0] == f"Sr{BELOW}2{ABOVE}RuO{BELOW}4{ABOVE}"
    True

    Raises:
        FormulaError: when the text is too long, or holds raised characters or unknown commands.
    """
    if len(text) > (most := limits.most("formula")):
        raise FormulaError(most, f"the text has {len(text)} characters, a formula at most {most}")
    if _SIMPLE.fullmatch(text):
        return text, range(len(text))
    latex = "\\" in text or "$" in text
    found: list[str] = []
    places: list[int] = []
    for place, piece in _pieces(text):
        if latex and piece in ("{", "}"):  # groups of LaTeX, which it does not print
            continue
        found.append(piece)
        places += [place] * len(piece)
    return "".join(found), places


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The plain characters that stand for each token of a text, with the place of the token."""
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            yield place, _character(text, place)
            place += 1
            continue
        kind = str(token.lastgroup)
        if kind == "raised":
            raise FormulaError(place, "raised characters: a charge or an isotope, and no amount")
        yield place, _replaced(kind, token, place)
        place = token.end()


def _replaced(kind: str, token: re.Match[str], place: int) -> str:
    content = token[kind]
    if kind == "nothing":
        return ""
    if kind == "gap":
        return " "
    if kind == "entity":
        return _character(html.unescape(content)[:1], 0)
    if kind == "command":
        if content not in _COMMANDS:
            raise FormulaError(place, f"unknown command \\{content[:20]}")
        return _COMMANDS[content]
    return BELOW + _below(content) + ABOVE


def _below(content: str) -> str:
    """The amount in a subscript, without commands, braces and blanks."""
    content = re.sub(r"\\([A-Za-z]+)", lambda match: _COMMANDS.get(match[1], match[0]), html.unescape(content))
    content = re.sub(r"<[^<>]*>|[{}$\s]", "", content)
    content = "".join(_SUBSCRIPTS.get(character, character) for character in content)
    return re.sub(r"(?<=[0-9])\u00b7(?=[0-9])", ".", content).translate(_PLAIN)


def _character(text: str, place: int) -> str:
    character = text[place]
    if character in _BREAKS and text[place:].strip() and text[:place].strip():
        raise FormulaError(place, "a line break or a tab: one formula is expected")
    if character.isspace():
        return " "
    if character in _FRACTIONS:
        return (" " if text[place - 1 : place].isdigit() else "") + _FRACTIONS[character]
    if ord(character) < ord(" "):
        raise FormulaError(place, "a control character")
    return character.translate(_PLAIN)
