"""Texts from files and servers, made fit to be stored and shown.

Enters: any text. Leaves: a text that UTF-8 can hold, of bounded length. This module does not know
what a text means.
"""

from __future__ import annotations

import hashlib

MAX_TEXT = 4096
"""Longest accepted id or text, in characters: one long text would widen the whole array column."""
MAX_LINE = 500
"""Longest line that is shown, in characters."""


def storable(value: object) -> str:
    """The text of a value, with `?` for lone surrogates, which UTF-8 cannot hold."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str, most: int = MAX_LINE) -> str:
    r"""A text on one line, without signs that steer a terminal, cut at `most` characters.

    >>> one_line("a\n b \x1b[2J")
    'a b [2J'
    """
    shown = (sign if sign.isprintable() else " " for sign in storable(text[: 20 * most]))
    return " ".join("".join(shown).split())[:most]


def one_name(text: str) -> str:
    """A name on one line, where two names stay two.

    A name that `one_line` cuts or squeezes ends in eight digits of the digest of the whole name.

    >>> one_name("b c.cif"), one_name("b  c.cif")
    ('b c.cif', 'b c.cif~1a17e56d')
    """
    shown = one_line(text)
    if shown == text:
        return shown
    mark = f"~{hashlib.sha256(storable(text).encode()).hexdigest()[:8]}"
    return f"{shown[: MAX_LINE - len(mark)]}{mark}"
