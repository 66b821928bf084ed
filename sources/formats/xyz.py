"""Reads crystals from the lines of an extended XYZ file, one frame at a time.

Enters: the lines of one file, with its name for ids and records. Leaves: one crystal per frame in
an assembler, or a record with the number and the line of the frame. A frame that cannot be used
costs nothing but itself: reading goes on at the next line that is a number of atoms and nothing
else. This module does not know files, nor the grammar of the comment line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.formats import xyz_atoms as atoms, xyz_comment as comments
from assay.sources.formats.fortran import is_number, real
from assay.sources.formats.records import Unusable, numbered, quoted
from assay.sources.formats.xyz_comment import Layout
from assay.sources.quarantine import Reason


def add_xyz(assembler: Assembler, lines: Iterable[str], label: str, origin: str) -> None:
    """Hand the crystal of each frame to the assembler, or refuse it."""
    source = _Lines(lines)
    count = 0
    while (line := source.next_filled()) is not None:
        count += 1
        id, place = numbered(label, count), f"frame {count} at line {source.at}"
        try:
            if not _is_count(line):
                raise Unusable(f"a number of atoms expected, found {quoted(line)}")
            frame = _read(source, int(line), assembler.max_sites)
        except Unusable as error:
            message = f"{place}: {error}{source.skip_to_count()}"
            assembler.refuse(id, origin, error.reason, message)
        else:
            assembler.add(id, origin, *frame[:-1], cartesian=True, warnings=frame.warnings)
    if not count:
        assembler.refuse(numbered(label, 1), origin, Reason.UNREADABLE, "no frame: the text is blank")


class _Lines:
    """The lines of a file, with their numbers and one line of foresight."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._ahead: str | None = None
        self.at = 0
        """Number of the line read last, from 1."""

    def next(self) -> str | None:
        line, self._ahead = self.peek(), None
        self.at += line is not None
        return line

    def peek(self) -> str | None:
        if self._ahead is None:
            self._ahead = next(self._lines, None)
        return self._ahead

    def next_filled(self) -> str | None:
        self.skip_blank()
        return self.next()

    def skip_blank(self) -> None:
        while (line := self.peek()) is not None and not line.strip():
            self.next()

    def atoms(self, count: int, keep: int) -> tuple[list[str], int]:
        """Take up to `count` lines, none blank or a count: the first `keep`, and how many."""
        kept: list[str] = []
        taken = 0
        while taken < count and (line := self.peek()) and line.strip() and not _is_count(line):
            self.next()
            taken += 1
            if taken <= keep:
                kept.append(line)
        return kept, taken

    def skip_to_count(self) -> str:
        """Go on to the next number of atoms; say which lines that leaves out."""
        self.skip_blank()
        first, last = self.at + 1, 0
        while (line := self.peek()) is not None and not _is_count(line):
            self.next()
            last = self.at if line.strip() else last
        if not last:
            return ""
        return f"; line {first} is not read" if first == last else f"; lines {first} to {last} are not read"


def _is_count(line: str) -> bool:
    """Whether a line is a number of atoms; no line of an atom is one whole number alone."""
    text = line.strip()
    return text.isdigit() and text.isascii() and len(text) <= 18


class _Frame(NamedTuple):
    lattice: NDArray[np.float64]
    """(3, 3) Å."""
    coords: NDArray[np.float64]
    """(s, 3) Å."""
    species: atoms.Species
    columns: dict[str, Any]
    warnings: list[str]


def _read(source: _Lines, count: int, max_sites: int) -> _Frame:
    """Read the lines after a number of atoms.

    Raises:
        Unusable: when these lines give no crystal.
    """
    comment = source.next() or ""
    first = source.at + 1
    lines, taken = source.atoms(count, keep=max_sites)
    if taken < count:
        after = source.peek()
        then = "the text ends" if after is None else f"line {source.at + 1} is {quoted(after)}"
        raise Unusable(f"{taken} of {count} atoms, then {then}", Reason.MALFORMED)
    warnings: list[str] = []
    found, lattice, columns = _head(comment, _vectors(source), warnings)
    if count > max_sites:
        raise Unusable(f"{count} sites, at most {max_sites}", Reason.TOO_LARGE)
    layout = comments.layout(found)
    rows = [line.split() for line in lines]
    atoms.check_widths(rows, layout, first, warnings)
    coords = atoms.coordinates(rows, layout, first)
    species = atoms.species(rows, layout, first, comments.shares(found), warnings)
    _look_after(source, layout, count)
    return _Frame(lattice, coords, species, columns, warnings)


def _vectors(source: _Lines) -> list[list[float]]:
    """The cell as lines `VEC1 x y z` after the atoms, which ASE writes on demand."""
    vectors: list[list[float]] = []
    while (line := source.peek()) is not None and line.lstrip().startswith("VEC"):
        source.next()
        name, *words = line.split()
        if name != f"VEC{len(vectors) + 1}" or len(vectors) == 3 or len(words) != 3 or not all(map(is_number, words)):
            raise Unusable(f"line {source.at}: a cell vector VEC1, VEC2 or VEC3 expected, found {quoted(line)}")
        vectors.append([real(word) for word in words])
    return vectors


def _head(
    comment: str, vectors: list[list[float]], warnings: list[str]
) -> tuple[dict[str, str], NDArray[np.float64], dict[str, Any]]:
    """The texts of the comment line by name, the cell, and the columns.

    Raises:
        Unusable: when the frame is not periodic in three dimensions.
    """
    found: dict[str, str] = {}
    if vectors:
        axes = (True, len(vectors) > 1, len(vectors) > 2)
        lattice: NDArray[np.float64] | None = np.array(vectors)
        columns: dict[str, Any] = {"comment": comment.strip()}
    else:
        try:
            found = comments.pairs(comment, warnings)
        except Unusable:
            if re.search(r"(?i)\blattice\s*=", comment):
                raise
        axes, lattice, columns = comments.periodic(found), comments.lattice(found), comments.columns(found)
    if not all(axes):
        raise Unusable(f"periodic along {axes}, three dimensions are needed", Reason.NOT_PERIODIC)
    if lattice is None:
        raise Unusable("periodic by pbc, but without Lattice", Reason.BAD_LATTICE)
    return found, lattice, columns


def _look_after(source: _Lines, layout: Layout, count: int) -> None:
    """Refuse a frame after which one more atom stands than it counts."""
    source.skip_blank()
    line = source.peek() or ""
    if atoms.is_atom(line.split(), layout):
        raise Unusable(f"line {source.at + 1} follows the {count} atoms: {quoted(line)}", Reason.MALFORMED)
