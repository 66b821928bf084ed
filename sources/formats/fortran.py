"""Numbers and logicals as Fortran programs write them.

Enters: text. Leaves: floats. This module does not know formats.
"""

from __future__ import annotations

import re

NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eEdD][+-]?[0-9]+)?"
"""Pattern of a real number: `1`, `-.5`, `2.`, `1e-3`, `1.0d0`. NaN and infinity are none."""
LOGICAL = r"\.?(?:[tT](?:[rR][uU][eE])?|[fF](?:[aA][lL][sS][eE])?)\.?"
"""Pattern of a logical: `T`, `.TRUE.`, `f`, `False`."""

_NUMBER = re.compile(NUMBER)
_GLUED = re.compile(r"(?<=[0-9])-(?=[0-9]*\.)")


def is_number(text: str) -> bool:
    """Whether the whole of `text` is a real number."""
    return bool(_NUMBER.fullmatch(text))


def real(text: str) -> float:
    """Return the value of a text that matches `NUMBER`."""
    return float(text.replace("d", "e").replace("D", "e"))


def separated(text: str) -> str:
    """Put a space between numbers that run together, as in `0.25000000-0.75000000`.

    A minus between a digit and a number with a decimal point begins a number: exponents are whole.
    """
    return _GLUED.sub(" -", text)
