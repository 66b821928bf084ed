"""Names of crystals within a file, and messages of records.

Enters: the name of a file and a count, or an error. Leaves: an id, or one line of text. This module
does not know formats.
"""

from __future__ import annotations


def numbered(label: str, number: int) -> str:
    """Return the id of the crystal `number` of a file; the first has no number."""
    return f"file/{label}" if number == 1 else f"file/{label}#{number}"


def described(error: Exception) -> str:
    """Return an error as one line, with its type where the text alone says too little."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
