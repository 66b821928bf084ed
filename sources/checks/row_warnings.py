"""The `warnings` column: the accepted oddities of each crystal.

Enters: the columns of a batch, and messages for some rows. Leaves: the columns, with these messages
in `warnings`. The length of a row's text is bounded, because a file decides how many messages there
are. This module does not know what the messages say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from assay.sources.checks.texts import MAX_TEXT, one_line
from assay.sources.crystals import WARNINGS, text_array

MAX_MESSAGE = 200
"""Longest message, in characters."""
MAX_ADDED = 1000
"""Longest text that is added to a row at once, in characters."""
GLUE, MORE = "; ", "..."


def joined(text: str, messages: Iterable[str]) -> str:
    """The text of a row with messages added; one that it holds already is not added again.

    >>> joined("from the source", ["a site is vacant", "a site is vacant"])
    'from the source; a site is vacant'
    """
    added: list[str] = []
    for message in messages:
        line = one_line(message, MAX_MESSAGE)
        if not line or f"{GLUE}{line}{GLUE}" in f"{GLUE}{GLUE.join([text, *added])}{GLUE}":
            continue
        if len(GLUE.join([*added, line, MORE])) > MAX_ADDED:
            added.append(MORE)
            break
        added.append(line)
    if not added:
        return text
    tail = GLUE.join(added)
    return f"{text[: MAX_TEXT - len(tail) - len(GLUE)]}{GLUE}{tail}" if text else tail


def added(columns: Mapping[str, NDArray[Any]], messages: Mapping[int, list[str]], rows: int) -> dict[str, NDArray[Any]]:
    """The columns of a batch of `rows` crystals, with messages added by row.

    Where there is no message, the columns stay as they are; `warnings` is not made.
    """
    if not messages:
        return dict(columns)
    texts = columns[WARNINGS].tolist() if WARNINGS in columns else [""] * rows
    for row, lines in messages.items():
        texts[row] = joined(texts[row], lines)
    return {**columns, WARNINGS: text_array(texts)}


def without_blank(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns of a batch; `warnings` is left out where no row has one."""
    blank = WARNINGS in columns and not (columns[WARNINGS] != "").any()
    return {name: column for name, column in columns.items() if not (blank and name == WARNINGS)}
