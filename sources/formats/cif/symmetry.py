"""The symmetry that a CIF states: what its operations, names and number mean, and where they clash.

Enters: a block of `grammar` and the cell. Leaves: the `Reading`s that the statements allow. One
reading is the rule; there are several where a name leaves the origin open, or where two statements
contradict each other. This module does not know sites: `read` builds each reading and judges them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import limits
from assay.sources.formats.cif import operations, space_groups
from assay.sources.formats.cif.grammar import Block, Item, is_unsaid
from assay.sources.formats.cif.operations import METRIC_TOLERANCE, Operations
from assay.sources.formats.cif.space_groups import Setting
from assay.sources.formats.cif.species import Refused
from assay.sources.quarantine import Reason

_OPERATION_TAGS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NAME_TAGS = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_symmetry_space_group_name_h-m_full",
    "_space_group_name_h-m",
    "_space_group_name_h-m_alt_name",
)
_REFERENCE_TAGS = ("_space_group_name_h-m_ref", "_symmetry_space_group_name_h-m_ref")
_HALL_TAGS = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NUMBER_TAGS = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_space_group_it_number")
_SUPERSPACE = (
    "_space_group_symop_ssg",
    "_space_group_ssg",
    "_space_group_symop_magn_ssg",
    "_space_group_magn_ssg",
    "_cell_wave_vector",
    "_cell_subsystem",
    "_atom_site_fourier",
)


@dataclass
class Reading:
    """One meaning of the statements about symmetry."""

    operations: Operations
    source: str
    """Where it comes from, for messages: `the list of operations`, `F d -3 m:2`."""


@dataclass
class Symmetry:
    """All readings of a block."""

    readings: list[Reading]
    """At least one; the first is the one to prefer where all give one crystal."""
    lattice: NDArray[np.float64]
    """(3, 3) Å, the cell that all of them fit."""
    conventional: bool = False
    """Whether a convention puts the first reading before the others: axis b unique, else c."""
    contradiction: str = ""
    """Two statements that exclude each other, one line."""
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Stated:
    """The statements of a block about its symmetry."""

    listed: Operations | None = None
    hall: Operations | None = None
    hall_text: str = ""
    names: list[tuple[str, list[Setting]]] = field(default_factory=list)
    """Each name with its settings; none for an unknown name."""
    reference: list[Setting] = field(default_factory=list)
    number: int | None = None

    @property
    def known(self) -> list[Setting]:
        """Settings that every known name allows; those of the first name where none is common."""
        groups = [settings for _, settings in self.names if settings]
        common = [one for one in groups[0] if all(one in other for other in groups[1:])] if groups else []
        return common or (groups[0] if groups else [])


def symmetry(block: Block, lattice: NDArray[np.float64]) -> Symmetry:
    """Find the readings of the symmetry of a block, for a cell (3, 3) in Å.

    Raises:
        Refused: when a statement cannot be read, no reading fits the cell, or the operations are no
            group.
        Damaged: when an item breaks the grammar.
    """
    stated = _statements(block)
    if stated.listed is not None:
        return _by_list(stated, lattice)
    for text, settings in stated.names:
        if not settings and stated.hall is None:
            raise Refused(Reason.MALFORMED, f"space group {text!r} is not known, and no operations are listed")
    if stated.hall is not None:
        return _by_hall(stated, lattice)
    if stated.known:
        return _by_name(stated, stated.known, lattice)
    if stated.reference:
        return _by_name(stated, stated.reference, lattice)
    if stated.number is not None:
        return _by_name(stated, space_groups.numbered(stated.number), lattice)
    nothing = Reading(operations.parse(["x,y,z"]), "P 1")
    told = ["no symmetry is stated; the listed sites were taken as the whole cell"]
    return Symmetry([nothing], lattice, warnings=told)


def refuse_modulated(block: Block) -> None:
    """Refuse a crystal that repeats in more than three dimensions.

    Raises:
        Refused: for a modulated or composite crystal.
    """
    dimension = block.items.get("_cell_modulation_dimension")
    found = dimension if dimension is not None and dimension.values[:1] not in (["0"], ["?"], ["."]) else None
    for beginning in _SUPERSPACE:
        item = found or block.holds(beginning)
        if item is not None and any(not is_unsaid(value) for value in item.values):
            raise Refused(Reason.NOT_PERIODIC, f"line {item.line}: {item.tag}: a modulated crystal has no unit cell")


def _statements(block: Block) -> _Stated:
    stated = _Stated(listed=_listed(block))
    number = block.item(*_NUMBER_TAGS)
    if number is not None:
        text = number.values[0].strip()
        if not text.isdigit() or not 1 <= int(text) <= 230:
            raise Refused(
                Reason.MALFORMED, f"line {number.line}: {number.tag} {text!r}; a number from 1 to 230 is accepted"
            )
        stated.number = int(text)
    for tag in _NAME_TAGS:
        item = block.item(tag)
        if item is not None:
            _add_name(stated, item)
    reference = block.item(*_REFERENCE_TAGS)
    if reference is not None:
        stated.reference = space_groups.named(reference.values[0])
        if not stated.reference and not stated.names:
            stated.names.append((reference.values[0], []))
    hall = block.item(*_HALL_TAGS)
    if hall is not None:
        _add_hall(stated, hall)
    return stated


def _listed(block: Block) -> Operations | None:
    first: Operations | None = None
    for tag in _OPERATION_TAGS:
        listed = block.item(tag)
        if listed is None:
            continue
        found = operations_of(listed)
        if first is not None and first.key != found.key:
            raise Refused(Reason.MALFORMED, f"line {listed.line} and below: two lists of operations differ")
        first = found
    return first


def operations_of(item: Item) -> Operations:
    """The operations of a list, which must be a group.

    Raises:
        Refused: when an entry is no operation, or a product of two is not in the list.
    """
    texts = [value for value in item.values if not is_unsaid(value)]
    try:
        found = operations.parse(texts)
    except limits.Exceeded as error:
        raise Refused(Reason.TOO_LARGE, f"line {item.line} and below: {error}") from None
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"line {item.line} and below: {error}") from None
    missing = found.missing
    if missing:
        message = f"line {item.line} and below: the {len(found)} operations are no group: {missing}"
        raise Refused(Reason.MALFORMED, message)
    return found


def _add_name(stated: _Stated, item: Item) -> None:
    text = item.values[0]
    settings = space_groups.named(text)
    if not settings:
        try:
            stated.hall, stated.hall_text = space_groups.of_hall(text), text  # a Hall symbol under the wrong tag
        except ValueError:
            stated.names.append((text, []))
        return
    stated.names.append((text, settings))


def _add_hall(stated: _Stated, item: Item) -> None:
    text = item.values[0]
    try:
        stated.hall, stated.hall_text = space_groups.of_hall(text), text
    except ValueError:
        settings = [] if text.isdigit() else space_groups.named(text)  # a Hermann-Mauguin symbol
        if settings:
            stated.names.append((text, settings))
        elif stated.listed is None:
            raise Refused(Reason.MALFORMED, f"line {item.line}: {text!r} is no Hall symbol") from None


# From statements to readings.


def _by_list(stated: _Stated, lattice: NDArray[np.float64]) -> Symmetry:
    """The listed operations come first; names and numbers are compared with them."""
    assert stated.listed is not None
    listed = stated.listed
    _fit(listed, lattice, "the listed operations")
    first = Reading(listed, "the listed operations")
    warnings: list[str] = []
    other: list[Reading] = []
    settings = stated.known
    if settings and listed.key not in {one.operations.key for one in settings}:
        name = settings[0].name
        agreed = stated.hall is not None and stated.hall.key in {one.operations.key for one in settings}
        if not agreed and space_groups.number_of(listed) in {one.number for one in settings}:
            tabled = space_groups.setting_of(listed)
            warnings.append(
                f"the listed operations are those of {tabled.name if tabled else 'another setting'}, not of {name}"
            )
        else:
            other += [Reading(one.operations, one.name) for one in settings]
    if stated.hall is not None and stated.hall.key != listed.key and not other:
        if space_groups.number_of(stated.hall) == space_groups.number_of(listed):
            warnings.append(
                f"the listed operations are not those of the Hall symbol {stated.hall_text}, on another setting"
            )
        else:
            other.append(Reading(stated.hall, f"the Hall symbol {stated.hall_text}"))
    if stated.number is not None and not other and space_groups.number_of(listed) != stated.number:
        other += [Reading(one.operations, f"number {stated.number}") for one in space_groups.numbered(stated.number)]
    if not other:
        return Symmetry([first], lattice, warnings=warnings)
    fitting = [one for one in other if one.operations.misfit(lattice) <= METRIC_TOLERANCE]
    clash = (
        f"the listed operations are those of number {space_groups.number_of(listed)}, but {other[0].source} is stated"
    )
    return Symmetry([first, *fitting], lattice, contradiction=clash, warnings=warnings)


def _by_hall(stated: _Stated, lattice: NDArray[np.float64]) -> Symmetry:
    assert stated.hall is not None
    hall, text = stated.hall, f"the Hall symbol {stated.hall_text}"
    settings = stated.known or stated.reference
    warnings = [
        f"space group {name!r} is not known; the Hall symbol was taken" for name, known in stated.names if not known
    ]
    agreed = not stated.known or hall.key in {one.operations.key for one in stated.known}
    meant = [one for one in settings if one.operations.key == hall.key] or settings
    numbers = {one.number for one in meant} | ({stated.number} if stated.number else set())
    if agreed and numbers <= {space_groups.number_of(hall)}:
        _fit(hall, lattice, text)
        return Symmetry([Reading(hall, text)], lattice, warnings=warnings)
    other = settings or space_groups.numbered(stated.number or 1)
    readings = [Reading(hall, text), *(Reading(one.operations, one.name) for one in other)]
    fitting = [one for one in readings if one.operations.misfit(lattice) <= METRIC_TOLERANCE]
    clash = f"{text} (number {space_groups.number_of(hall)}) contradicts {_told(stated, other)}"
    if not fitting:
        raise Refused(Reason.MALFORMED, f"{clash}, and neither fits the cell")
    return Symmetry(fitting, lattice, contradiction=clash, warnings=warnings)


def _by_name(stated: _Stated, settings: list[Setting], lattice: NDArray[np.float64]) -> Symmetry:
    name = settings[0].name.split(":")[0]
    clashes = [text for text, known in stated.names if known and not set(known) & set(settings)]
    if clashes:
        raise Refused(Reason.MALFORMED, f"space groups {stated.names[0][0]!r} and {clashes[0]!r} contradict each other")
    if stated.number is not None:
        chosen = [one for one in settings if one.number == stated.number]
        if not chosen:
            text = f"space group {stated.names[0][0] if stated.names else name!r} has number {settings[0].number}"
            raise Refused(Reason.MALFORMED, f"{text}, but {stated.number} is stated")
        settings = chosen
    if stated.reference and not any(one.number == stated.reference[0].number for one in settings):
        text = f"{name} (number {settings[0].number}) and the reference symbol {stated.reference[0].name}"
        raise Refused(Reason.MALFORMED, f"space groups {text} contradict each other")
    misfits = [one.operations.misfit(lattice) for one in settings]
    fitting = [one for one, misfit in zip(settings, misfits) if misfit <= METRIC_TOLERANCE]
    if not fitting:
        _fit(settings[int(np.argmin(misfits))].operations, lattice, f"the operations of {name}")
    open_axes = all(one.axes and 3 <= one.number <= 15 for one in fitting)
    if open_axes:
        fitting.sort(key=lambda one: "bca".find(one.axes.lstrip("-")[:1]))
    return Symmetry([Reading(one.operations, one.name) for one in fitting], lattice, conventional=open_axes)


def _fit(found: Operations, lattice: NDArray[np.float64], source: str) -> None:
    misfit = found.misfit(lattice)
    if not misfit <= METRIC_TOLERANCE:
        message = f"{source} do not fit the cell: they change lengths or angles by up to {misfit:.1%}"
        raise Refused(Reason.MALFORMED, f"{message}, at most {METRIC_TOLERANCE:.0%} accepted")


def _told(stated: _Stated, settings: list[Setting]) -> str:
    if stated.names:
        return f"the name {stated.names[0][0]!r} (number {settings[0].number})"
    return f"number {settings[0].number}"
