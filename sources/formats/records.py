"""Names of crystals within a file, messages of records, and the columns beside a structure.

Enters: the name of a file and a count, an error, or named values. Leaves: an id, one line of text,
or columns. This module does not know formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from assay.sources.crystals import set_aside
from assay.sources.quarantine import Reason
from assay.sources.table import RESERVED


class Unusable(ValueError):
    """A text that gives no crystal; the message is that of its record."""

    def __init__(self, message: str, reason: Reason = Reason.UNREADABLE) -> None:
        super().__init__(message)
        self.reason = reason


def numbered(label: str, number: int) -> str:
    """Return the id of the crystal `number` of a file; the first has no number."""
    return f"file/{label}" if number == 1 else f"file/{label}#{number}"


def described(error: Exception) -> str:
    """Return an error as one line, with its type where the text alone says too little."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers and texts among named values, none under the name of a crystal field."""
    scalar = (bool, int, float, str, np.number, np.bool_)
    found = {str(name): value for name, value in values.items() if isinstance(value, scalar)}
    return {set_aside(name, RESERVED): value for name, value in found.items()}


def quoted(text: str) -> str:
    """Return a text of a file in quotation marks, in one line and cut at 60 characters."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
