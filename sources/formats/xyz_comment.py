"""The comment line of a frame of extended XYZ: `Lattice="..." Properties=... energy=-3.1`.

Enters: one line of text. Leaves: names with their texts, and from these the cell, the periodic
axes, the columns of the atom lines and the numbers and texts of the crystal. The grammar is that of
ASE: quotation marks, braces or brackets around a value, a backslash before any character, blanks
around `=`; a name alone is true. This module does not know atoms.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import set_aside
from assay.sources.formats.fortran import is_number, real
from assay.sources.formats.records import Unusable, quoted
from assay.sources.quarantine import Reason
from assay.sources.table import RESERVED

_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{(?:[^}\\]|\\.)*\}|\[(?:[^\]\\]|\\.)*\]"""
_PIECE = rf"""(?:{_QUOTED}|\\.|[^\s="'{{\[\\])"""
_PAIR = re.compile(rf"({_PIECE}+)(?:\s*=\s*((?:{_PIECE}|=)*))?\s*")
_PIECES = re.compile(_QUOTED + r"|\\.")
_TRUTH = {
    "T": True,
    "true": True,
    "True": True,
    "TRUE": True,
    "F": False,
    "false": False,
    "False": False,
    "FALSE": False,
}
_AXES = _TRUTH | {"1": True, "0": False}
_SPECIAL = {name.lower(): name for name in ("Lattice", "Properties", "pbc")}
_LATER = ("energy", "free_energy", "magmom")
"""Results of a calculator: ASE lists them after everything else."""
_TENSORS = frozenset({"stress", "virial", "dipole", "polarization", "dielectric_tensor"})
"""Names that ASE keeps for arrays."""
_NO_COLUMN = _TENSORS | frozenset(_SPECIAL.values())


def pairs(line: str, warnings: list[str]) -> dict[str, str]:
    """Return the texts of a comment line by name; `T` for a name alone.

    Raises:
        Unusable: when a quotation mark or bracket is never closed, or the line says two things
            about the cell, the periodic axes or the columns.
    """
    found: dict[str, str] = {}
    line = line.strip()
    at = 0
    while at < len(line):
        match = _PAIR.match(line, at)
        if not match:
            raise Unusable(f"the comment line cannot be read from {quoted(line[at:])} on", Reason.MALFORMED)
        at = match.end()
        name, value = _bare(match[1]), "T" if match[2] is None else _bare(match[2])
        special = _SPECIAL.get(name.lower())
        if special and match[2] is None:
            continue  # prose: "lattice of copper"
        if special:
            if name != special:
                warnings.append(f"{quoted(name)} is read as {special}")
            if found.get(special, value) != value:
                raise Unusable(f"two different values of {special} in the comment line", Reason.MALFORMED)
        found[special or name] = value
    return found


def _bare(text: str) -> str:
    """A text without its quotation marks, brackets and backslashes."""
    return _PIECES.sub(_content, text)


def _content(match: re.Match[str]) -> str:
    piece = match[0]
    return piece[1:] if piece[0] == "\\" else re.sub(r"\\(.)", r"\1", piece[1:-1])


def lattice(found: Mapping[str, str]) -> NDArray[np.float64] | None:
    """Return the rows a, b, c in Å, (3, 3); None without `Lattice`."""
    if "Lattice" not in found:
        return None
    words = re.findall(r"[^\s,\[\]]+", found["Lattice"])
    if len(words) != 9 or not all(map(is_number, words)):
        raise Unusable(f"Lattice must hold nine numbers, found {quoted(found['Lattice'])}")
    cell = np.array([real(word) for word in words]).reshape(3, 3)
    if "[" in found["Lattice"] and (cell != cell.T).any():  # ASE takes the columns for a, b, c, others the rows
        raise Unusable("Lattice in nested brackets may hold vectors as rows or as columns; write nine numbers")
    return cell


def periodic(found: Mapping[str, str]) -> tuple[bool, bool, bool]:
    """Return the axes along which the frame is periodic: all where only `Lattice` is given."""
    if "pbc" not in found:
        return ("Lattice" in found,) * 3
    words = re.findall(r"[^\s,]+", found["pbc"])
    axes = [_AXES[word] for word in words if word in _AXES] * (3 if len(words) == 1 else 1)
    if len(words) not in {1, 3} or len(axes) != 3:
        raise Unusable(f"pbc must hold T or F for three axes, found {quoted(found['pbc'])}", Reason.MALFORMED)
    return axes[0], axes[1], axes[2]


def columns(found: Mapping[str, str]) -> dict[str, Any]:
    """Return the numbers, truths and texts of the crystal; arrays and JSON are left out.

    None has the name of a crystal field.
    """
    values = {name: _scalar(name, text) for name, text in found.items() if name not in _NO_COLUMN}
    ordered = sorted(values, key=lambda name: name in _LATER)
    return {set_aside(name, RESERVED): values[name] for name in ordered if values[name] is not None}


def _scalar(name: str, text: str) -> bool | float | str | None:
    if name.lower() == "uid" and text:
        return text
    words = re.findall(r"[^\s,]+", text)
    if not words or text.startswith("_JSON "):
        return None
    values = [_value(word) for word in words]
    if len(values) == 1:
        return text if values[0] is None else values[0]
    kinds = {type(value) for value in values}
    return None if kinds <= {int, float} or kinds == {bool} else text


def _value(word: str) -> bool | float | None:
    """The truth or number that a word is, None for text; `2024_01` is text, unlike in ASE."""
    if word in _TRUTH:
        return _TRUTH[word]
    if "_" in word:
        return None
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return None


def shares(found: Mapping[str, str]) -> dict[str, dict[str, float]] | None:
    """Return the occupancies that ASE writes for a disordered crystal, by kind of site."""
    text = found.get("occupancy", "")
    if not text.startswith("_JSON "):
        return None
    try:
        kinds = json.loads(text.removeprefix("_JSON "))
        table = {str(kind): {str(symbol): float(share) for symbol, share in of.items()} for kind, of in kinds.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Unusable(f"occupancy must hold shares by kind of site, found {quoted(text)}") from None
    if not all(math.isfinite(share) for of in table.values() for share in of.values()):
        raise Unusable(f"occupancy must hold numbers, found {quoted(text)}", Reason.NON_FINITE)
    return table


@dataclass(frozen=True)
class Layout:
    """Where the words of an atom line stand; None for what the line does not hold."""

    width: int
    """Number of words."""
    place: int
    """First of the three coordinates in Å."""
    symbol: int | None
    number: int | None
    """Atomic number."""
    share: int | None
    """Occupancy."""
    kind: int | None
    """Kind of site, for the shares of ASE."""
    stated: bool = True
    """Whether the frame has `Properties`; without them further words are usual."""


def layout(found: Mapping[str, str]) -> Layout:
    """Return where the words of the atom lines stand."""
    if "Properties" not in found:
        return Layout(4, 1, 0, None, None, None, stated=False)
    return _layout(found["Properties"])


@lru_cache(maxsize=64)
def _layout(text: str) -> Layout:
    fields = text.split(":")
    starts: dict[str, tuple[int, str, int]] = {}
    width = 0
    for name, kind, count in zip(fields[::3], fields[1::3], fields[2::3]):
        if not re.fullmatch("[1-9][0-9]{0,5}", count) or kind not in {"R", "I", "S", "L"} or name in starts:
            raise Unusable(f"Properties must hold name:type:count of each column once, found {quoted(text)}")
        starts[name] = (width, kind, int(count))
        width += int(count)

    def start(kind: str, count: int, *names: str) -> int | None:
        return next((starts[name][0] for name in names if starts.get(name, ())[1:] == (kind, count)), None)

    place = start("R", 3, "pos", "positions")
    symbol, number = start("S", 1, "species", "symbols"), start("I", 1, "Z", "numbers")
    if len(fields) % 3 or place is None or (symbol is None and number is None):
        raise Unusable(f"Properties must hold pos:R:3 and species:S:1 or Z:I:1, found {quoted(text)}")
    return Layout(width, place, symbol, number, start("R", 1, "occupancy"), start("I", 1, "spacegroup_kinds"))
