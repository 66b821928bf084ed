"""The sites of a CIF: what stands on them, and where.

Enters: a block of `grammar`. Leaves: one `Site` for each row that holds an atom, with what had
to be decided; or `Refused` with the line and the spelling that cannot be used. This module does not
know symmetry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from assay.sources.checks import limits
from assay.sources.formats.cif import species
from assay.sources.formats.cif.grammar import Block, Item, is_unsaid
from assay.sources.formats.cif.species import Refused
from assay.sources.quarantine import Reason

MAX_NUMBER = 40
"""Characters of a number."""

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?)(?:\(\d*\.?\d*\)?)?$")
_PLAIN = re.compile(r"-?\d{1,9}\.\d{1,20}$")
_DECIMALS = re.compile(r"[+-]?\d*\.(\d{2,7})(?:\(|$)")
_FRACTION = re.compile(r"([+-]?\d+)/(\d+)$")
_AXES = ("fract_x", "fract_y", "fract_z")
_NEEDED = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")


@dataclass
class Site:
    """One row of the list of sites."""

    label: str
    species: list[tuple[int, float]]
    """Atomic number and occupancy; empty for a vacant site."""
    place: tuple[float, float, float]
    """Fractional, as written."""
    written: tuple[str, str, str]
    """The texts of the coordinates."""
    multiplicity: int | None
    """Atoms of this site in the cell, where the file says so."""
    row: int
    """In the list of sites, from 0."""
    item: Item
    """A column of the list."""

    @property
    def line(self) -> int:
        """Line in the file."""
        return self.item.line_of(self.row)

    @property
    def thirds(self) -> tuple[float, float, float]:
        """The place with the rounding of thirds and sixths (0.33, 0.1667) undone."""
        x, y, z = (_third(text, value) for text, value in zip(self.written, self.place))
        return x, y, z

    @property
    def amount(self) -> float:
        """Atoms on one image of the site."""
        return sum(share for _, share in self.species)


def sites(block: Block, stated: Collection[str], warnings: list[str]) -> list[Site]:
    """Read the sites of a block; `stated` are the elements of its formula, empty if not known.

    Raises:
        Refused: when a row cannot be used, with the line and the spelling.
        Damaged: when the list itself breaks the grammar.
    """
    table = _Table(block)
    _no_lost_hydrogen(table)
    found: list[Site] = []
    dummies: list[str] = []
    for row in range(len(table)):
        kind, name = table.text("type_symbol", row), table.text("label", row)
        if not (kind or name) and table.is_blank(row):
            continue
        label = table.label(row)
        if table.text("calc_flag", row).lower() == "dum":
            dummies.append(label)
            if not stated and species.may_be_an_atom(kind, label):
                text = f"{label!r} is a dummy site: an atom without a position"
                raise Refused(Reason.UNSUPPORTED, f"line {table.line(row)}: {text}")
            continue
        share = table.occupancy(row)
        if share == 0:
            warnings.append(f"site {label} has the occupancy 0 and was left out")
            found.append(table.site(row, label, []))
            continue
        element = species.element(kind, name, partial(table.line, row), stated, warnings)
        found.append(table.site(row, label, [(element, share)]))
    if not found and not dummies:
        raise Refused(Reason.UNREADABLE, f"line {table.line(0)}: the list of sites is empty")
    unshared = [table.label(row) for row in range(len(table)) if table.is_unshared(row)]
    if unshared:
        warnings.append(f"disordered sites without an occupancy were taken as full: {', '.join(unshared[:5])}")
    if dummies:
        warnings.append(f"dummy sites left out: {', '.join(dummies[:5])}")
    return found


class _Table:
    """The columns of the list of sites."""

    def __init__(self, block: Block) -> None:
        self.columns = dict(_columns(block))
        if "fract_x" not in self.columns and block.column("_atom_site_cartn_x"):
            raise Refused(Reason.UNSUPPORTED, "sites have Cartesian coordinates only; fractional ones are needed")
        for name in ("fract_x", "fract_y", "fract_z"):
            if name not in self.columns:
                raise Refused(Reason.UNREADABLE, f"the list of sites has no _atom_site_{name}, or is empty")
        if "label" not in self.columns and "type_symbol" not in self.columns:
            raise Refused(
                Reason.UNREADABLE, "the list of sites has neither _atom_site_label nor _atom_site_type_symbol"
            )
        self.rows = len(self.columns["fract_x"].values)
        limits.check("rows", self.rows)
        for item in self.columns.values():
            if len(item.values) != self.rows:
                count = f"{len(item.values)} values where the list of sites has {self.rows} rows"
                raise Refused(Reason.MALFORMED, f"line {item.line}: {item.tag} has {count}")
        self.texts = {name: list(map(_said, item.values)) for name, item in self.columns.items()}
        self.numbers = {name: _numbers(self.texts[name]) for name in _AXES}

    def __len__(self) -> int:
        return self.rows

    def site(self, row: int, label: str, held: list[tuple[int, float]]) -> Site:
        """The site of a row, with what stands on it."""
        x, y, z = (self.coordinate(axis, row) for axis in _AXES)
        written = (self.texts["fract_x"][row], self.texts["fract_y"][row], self.texts["fract_z"][row])
        return Site(label, held, (x, y, z), written, self.multiplicity(row), row, self.columns["fract_x"])

    def line(self, row: int) -> int:
        return self.columns["fract_x"].line_of(row)

    def text(self, name: str, row: int) -> str:
        """A value; empty where it is not said."""
        column = self.texts.get(name)
        return column[row] if column else ""

    def is_blank(self, row: int) -> bool:
        """Whether a row says nothing at all."""
        return not any(self.text(name, row) for name in _NEEDED)

    def label(self, row: int) -> str:
        return (self.text("label", row) or self.text("type_symbol", row) or f"row {row + 1}")[:20]

    def occupancy(self, row: int) -> float:
        """The share of a row; 1 where it is not said, as in the dictionary of CIF."""
        text = self.text("occupancy", row)
        if not text:
            return 1.0
        share = number(text)
        if share is None:
            raise Refused(
                Reason.UNREADABLE, f"line {self.line(row)}: occupancy {text[:40]!r} of {self.label(row)} is no number"
            )
        if share < 0:
            raise Refused(
                Reason.BAD_OCCUPANCY,
                f"line {self.line(row)}: occupancy {text[:40]} of {self.label(row)}, 0 to 1 accepted",
            )
        return share

    def is_unshared(self, row: int) -> bool:
        """Whether a site belongs to a group of a disordered part and states no share."""
        return self.text("disorder_group", row) not in ("", "0") and not self.text("occupancy", row)

    def coordinate(self, axis: str, row: int) -> float:
        """A coordinate of a row; `axis` is the name of its column."""
        value = self.numbers[axis][row]
        if value is None:
            written = self.texts[axis][row]
            said = f"{written[:40]!r} is no number" if written else "is not said"
            message = f"coordinate {axis[-1]} of {self.label(row)} {said}"
            raise Refused(Reason.UNREADABLE, f"line {self.line(row)}: {message}")
        return value

    def multiplicity(self, row: int) -> int | None:
        text = self.text("multiplicity", row)
        return int(text) if text.isdigit() and len(text) < 6 else None


def _columns(block: Block) -> Iterator[tuple[str, Item]]:
    for name in (*_NEEDED, *_OPTIONAL):
        for tag in (f"_atom_site_{name}", *_OTHER_NAMES.get(name, ())):
            item = block.column(tag)
            if item is not None and item.values:
                yield name, item
                break


_OPTIONAL = ("occupancy", "disorder_group", "attached_hydrogens", "calc_flag", "multiplicity")
_OTHER_NAMES = {"multiplicity": ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity")}


def _said(value: str) -> str:
    value = value.strip()
    return "" if is_unsaid(value) else value


def _numbers(texts: list[str]) -> list[float | None]:
    """The numbers of a column; plain ones are read at once."""
    if all(map(_PLAIN.match, texts)):
        return list(map(float, texts))
    return [number(text) for text in texts]


def number(text: str) -> float | None:
    """A number of a CIF, its standard uncertainty in brackets left out; None for other texts.

    >>> [number(text) for text in ("0.25(1)", "1/3", ".5", "-1.5E-1", "1,5")]
    [0.25, 0.3333333333333333, 0.5, -0.15, None]
    """
    if len(text) > MAX_NUMBER:
        return None
    match = _NUMBER.match(text.strip())
    if match:
        value = float(match[1].replace("d", "e").replace("D", "e"))
        return value if abs(value) < 1e300 else None
    match = _FRACTION.match(text.strip())
    return float(Fraction(match[0])) if match and int(match[2]) else None


def _third(written: str, value: float) -> float:
    """The third or sixth that was rounded or cut to the written decimals, or the value itself."""
    match = _DECIMALS.match(written)
    if not match:
        return value
    near, decimals = round(value * 6) / 6, len(match[1])
    cut = math.trunc(near * 10**decimals) / 10**decimals
    return near if round(value * 6) % 3 and value in (round(near, decimals), cut) else value


def _no_lost_hydrogen(table: _Table) -> None:
    for row in range(len(table)):
        text = table.text("attached_hydrogens", row)
        count = number(text) if text else 0.0
        if count != 0:
            message = f"{table.label(row)} has {text!r} attached hydrogens, which have no positions"
            raise Refused(Reason.UNSUPPORTED, f"line {table.line(row)}: {message}")
