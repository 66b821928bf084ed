"""Reads crystals from the text of a POSCAR or CONTCAR, by the rules that VASP itself follows.

Enters: the text of one file, with its name for ids and records. Leaves: a crystal in an assembler,
or a record with the number and the text of the line at fault. A file that holds several POSCARs one
after the other gives each of them. Velocities and other blocks after the positions are not read.
This module does not know files, nor how a line of a POSCAR names elements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.checks import limits
from assay.sources.formats import poscar_species as species
from assay.sources.formats.fortran import LOGICAL, NUMBER, is_number, real, separated
from assay.sources.formats.poscar_species import Label
from assay.sources.formats.records import Unusable, numbered, quoted
from assay.sources.quarantine import Reason

_THREE = re.compile(rf"\s*({NUMBER})\s+({NUMBER})\s+({NUMBER})(?!\S)(.*)", re.DOTALL)
_FLAGS = re.compile(rf"(?:{LOGICAL}\s+){{2}}{LOGICAL}(?!\S)\s*")
_NUMERIC = re.compile(r"\s*[-+.]?[0-9]")


def add_poscar(assembler: Assembler, text: str, label: str, origin: str) -> None:
    """Hand each crystal of a POSCAR to the assembler, or refuse it."""
    lines = re.split(r"\r\n?|\n", text.rstrip())
    starts = [0, *_further_heads(lines)]
    for count, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)]), start=1):
        id = numbered(label, count)
        try:
            with np.errstate(all="ignore"):  # the assembler refuses what overflows
                crystal = _read(_Lines(lines, start, end), assembler.max_sites)
        except Unusable as error:
            assembler.refuse(id, origin, error.reason, str(error))
            continue
        except limits.Exceeded as error:
            assembler.refuse(id, origin, Reason.TOO_LARGE, str(error))
            continue
        sites = [[(atom, 1.0)] for atom in crystal.numbers]
        assembler.add(id, origin, crystal.lattice, crystal.frac, sites, warnings=crystal.warnings)


@dataclass
class _Crystal:
    lattice: NDArray[np.float64]
    """(3, 3) Å."""
    frac: NDArray[np.float64]
    """(s, 3) fractional."""
    numbers: list[int]
    """(s,) atomic numbers."""
    warnings: list[str]


@dataclass
class _Lines:
    """The lines of one POSCAR, read one after the other."""

    lines: Sequence[str]
    at: int
    """Index of the line that is read next, from 0."""
    end: int
    """Index after the last line."""
    warnings: list[str] = field(default_factory=list)

    def take(self, expected: str) -> str:
        if self.at >= self.end:
            raise Unusable(f"line {self.at + 1}: {expected} expected, but the text ends")
        self.at += 1
        return self.lines[self.at - 1]

    def wrong(self, expected: str, reason: Reason = Reason.UNREADABLE) -> Unusable:
        """Say that the line read last is not as expected."""
        return Unusable(f"line {self.at}: {expected} expected, found {quoted(self.lines[self.at - 1])}", reason)

    def warn(self, message: str) -> None:
        """Note an oddity of the line read last."""
        self.warnings.append(f"line {self.at}: {message}")


def _further_heads(lines: Sequence[str]) -> list[int]:
    """Index of the comment line of each POSCAR that follows the first one in the text."""
    found = []
    for symbols in range(12, len(lines) - 1):
        line = lines[symbols].lstrip()
        if line[:1].isalpha() and species.all_known(line):
            scale, *lattice = lines[symbols - 4 : symbols]
            numeric = is_number((scale.split() or [""])[0]) and all(map(_THREE.match, lattice))
            if numeric and (lines[symbols + 1].strip()[:1].isdigit() or species.all_known(lines[symbols + 1])):
                found.append(symbols - 5)
    return found


def _read(lines: _Lines, max_sites: int) -> _Crystal:
    comment = lines.take("a comment")
    scale = _scale(lines)
    lattice = np.array([_three(lines, "three numbers of a lattice vector")[0] for _ in range(3)])
    factors = _factors(scale, lattice)
    symbols, counts = _symbols_and_counts(lines)
    cartesian = _mode(lines)
    coords, labels = _positions(lines, sum(counts))
    if len(coords) > max_sites:
        raise Unusable(f"{len(coords)} sites, at most {max_sites}", Reason.TOO_LARGE)
    _look_after(lines, len(coords))
    numbers = species.of_sites(comment, symbols, counts, labels, lines.warnings)
    lattice = lattice * factors
    if cartesian:
        coords = _fractional(coords * factors, lattice)
    return _Crystal(lattice, coords, numbers, lines.warnings)


def _scale(lines: _Lines) -> list[float]:
    """One factor, a negative volume, or a factor for each of x, y and z."""
    expected = "a scale (one number but 0, or three above 0)"
    words = lines.take(expected).split()
    values = [real(word) for word in takewhile(is_number, words)]
    rest = " ".join(words[len(values) :])
    if len(values) not in {1, 3} or 0 in values or _NUMERIC.match(rest) or (len(values) == 3 and min(values) < 0):
        raise lines.wrong(expected)
    return values


def _factors(scale: list[float], lattice: NDArray[np.float64]) -> float | NDArray[np.float64]:
    """The factor of the lattice and of Cartesian positions, or (3,) one for each of x, y and z."""
    if len(scale) == 3:
        return np.array(scale)
    if scale[0] > 0:
        return scale[0]
    volume = abs(float(np.linalg.det(lattice)))
    if not volume:
        raise Unusable("the three lattice vectors lie in one plane", Reason.BAD_LATTICE)
    return float((-scale[0] / volume) ** (1 / 3))


def _three(lines: _Lines, expected: str) -> tuple[list[float], str]:
    """Three numbers of the next line, and the text after them."""
    line = lines.take(expected)
    found = _THREE.match(line)
    if not found:
        found = _THREE.match(separated(line))
        if not found:
            raise lines.wrong(expected)
        lines.warn(f"numbers that run together are taken apart in {quoted(line)}")
    return [real(text) for text in found.groups()[:3]], found[4].strip()


def _symbols_and_counts(lines: _Lines) -> tuple[list[int] | None, list[int]]:
    """Atomic number and number of atoms of each kind; None for the former in a file of VASP 4."""
    expected = "element symbols or whole numbers of atoms"
    line = lines.take(expected)
    if line.split()[:1] and line.split()[0].isdecimal():
        return None, _counts(lines, line)
    if _NUMERIC.match(line) or not species.without_comment(line):
        raise lines.wrong(expected)
    symbols = species.of_line(line, lines.at, lines.warnings)
    first = lines.at
    line = lines.take("numbers of atoms")
    while species.all_known(line):
        symbols += species.of_line(line, lines.at, lines.warnings)
        limits.check("kinds", len(symbols), f"line {lines.at}")
        line = lines.take("numbers of atoms")
    counts = _counts(lines, line)
    while len(counts) < len(symbols):
        missing = len(symbols) - len(counts)
        line = lines.take(f"numbers of atoms for the last {missing} of the {len(symbols)} symbols of line {first}")
        if not line.split()[:1] or not line.split()[0].isdecimal():
            message = f"{len(counts)} numbers of atoms for the {len(symbols)} symbols of line {first}"
            raise Unusable(f"line {lines.at - 1}: {message}", Reason.MALFORMED)
        counts += _counts(lines, line)
    if len(counts) > len(symbols):
        message = f"{len(counts)} numbers of atoms for the {len(symbols)} symbols of line {first}"
        raise Unusable(f"line {lines.at}: {message}", Reason.MALFORMED)
    return symbols, counts


def _counts(lines: _Lines, line: str) -> list[int]:
    words = species.words(line, f"line {lines.at}")
    counts = []
    for word in words:
        if not re.fullmatch(r"[0-9]{1,18}", word):
            break
        counts.append(int(word))
    rest = " ".join(words[len(counts) :])
    if not counts or _NUMERIC.match(rest):
        raise lines.wrong("whole numbers of atoms")
    if rest:
        lines.warn(f"{quoted(rest)} after the numbers of atoms is not read")
    return counts


def _mode(lines: _Lines) -> bool:
    """Whether positions are Cartesian."""
    expected = "Direct or Cartesian"
    line = lines.take(expected).strip()
    if line[:1] in {"s", "S"}:
        line = lines.take(expected).strip()
    if not line or _NUMERIC.match(line):
        raise lines.wrong(expected)
    if "configuration=" in line.lower():
        raise Unusable(f"line {lines.at}: {quoted(line)} begins a frame of an XDATCAR", Reason.UNSUPPORTED)
    if line[0] not in "cCkKdD":
        lines.warn(f"{quoted(line)} is read as Direct, as VASP does")
    return line[0] in "cCkK"


def _positions(lines: _Lines, total: int) -> tuple[NDArray[np.float64], list[Label]]:
    """Positions as they stand, (s, 3), and the labels after them."""
    left = lines.end - lines.at
    if total > left:
        filled = sum(1 for line in lines.lines[lines.at : lines.end] if line.strip())
        message = f"{total} positions are counted, but only {filled} lines follow line {lines.at}"
        raise Unusable(message, Reason.MALFORMED)
    coords, labels, unread = [], [], ""
    for site in range(total):
        place, rest = _three(lines, f"position {site + 1} of {total}")
        coords.append(place)
        if not rest:
            continue
        text = species.without_comment(_FLAGS.sub("", rest, count=1))
        if _NUMERIC.match(text):
            unread = unread or f"line {lines.at}: {quoted(text)} after the position is not read"
        elif text:
            labels.append(Label(site, lines.at, text.split()[0]))
    if unread:
        lines.warnings.append(unread)
    return np.array(coords, dtype=np.float64).reshape(-1, 3), labels


def _look_after(lines: _Lines, total: int) -> None:
    """Refuse a position more than counted; tell of text that is no block which VASP writes."""
    at = lines.at
    if at < lines.end and _THREE.match(lines.lines[at]):
        message = f"line {at + 1}: a further line follows the {total} positions: {quoted(lines.lines[at])}"
        raise Unusable(message, Reason.MALFORMED)
    for index in range(at, lines.end):
        line = lines.lines[index].strip()
        if line[:1].isalpha() and not re.match(r"(?i)[ck]artesian$|direct$|lattice velocities", line):
            lines.warnings.append(f"line {index + 1}: text after the positions is not read: {quoted(line)}")
            return


def _fractional(places: NDArray[np.float64], lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """One product per position, as pymatgen does: last bits depend on the processor if not."""
    try:
        inverse = np.linalg.inv(lattice)
        return np.array([np.dot(place, inverse) for place in places], dtype=np.float64).reshape(-1, 3)
    except np.linalg.LinAlgError:
        raise Unusable("the three lattice vectors lie in one plane", Reason.BAD_LATTICE) from None
