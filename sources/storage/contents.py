"""Kinds of files, told apart by their content: for a text that comes without a name.

Enters: the bytes of a text. Leaves: its kind, or None. This module parses no more than tells the
kinds apart.
"""

from __future__ import annotations

import io
import json

from assay.sources.storage.kinds import Kind
from assay.sources.storage.opening import as_text

HEAD = 2**16
"""Bytes that are looked at."""
TOLD_APART = (Kind.CIF, Kind.POSCAR, Kind.XYZ, Kind.JSON, Kind.OPTIMADE)


def kind_of(content: bytes) -> Kind | None:
    r"""Return the kind of a text by its first lines, None for one of no kind in `TOLD_APART`.

    >>> kind_of(b"data_x\n_cell_length_a 4"), kind_of(b"2\nrock salt\nNa 0 0 0\nCl 2 2 2").value
    (<Kind.CIF: 'CIF'>, 'extended XYZ')
    """
    head = as_text(io.BytesIO(content[:HEAD])).read().lstrip()
    lines = head.splitlines()
    if _is_poscar(lines):  # before JSON, which its first line may be
        return Kind.POSCAR
    if head.startswith(("{", "[")):
        return Kind.OPTIMADE if head.startswith("{") and len(lines) > 1 and _is_whole(lines[0]) else Kind.JSON
    if lines and lines[0].strip().isdecimal():
        return Kind.XYZ
    first = next((line.strip().lower() for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    return Kind.CIF if first.startswith(("data_", "global_", "loop_", "_")) else None


def _is_poscar(lines: list[str]) -> bool:
    """Whether a scale, or three, stands below the first line, and then three vectors."""
    rows = [line.split() for line in lines[1:5]]
    widths = [len(row) for row in rows]
    return widths[1:] == [3, 3, 3] and widths[0] in (1, 3) and all(_is_number(word) for row in rows for word in row)


def _is_number(word: str) -> bool:
    try:
        float(word.lower().replace("d", "e"))
    except ValueError:
        return False
    return True


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
