"""Reads crystals from CIF and mCIF: text -> cell, sites and warnings.

Enters: the text of a file, possibly damaged or contradicting itself. Leaves: one crystal in the
assembler for each data block with sites, or a quarantine record with the line and the spelling.
Operations, names, formula and sites are compared; a block whose statements exclude each other is
refused with both readings. This module does not know files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.checks import limits
from assay.sources.elements import SYMBOLS
from assay.sources.formats.cif import formulas, magnetic
from assay.sources.formats.cif.build import Built, build, closest_ratio, density, same_crystal
from assay.sources.formats.cif.grammar import Block, Damaged, Item, blocks
from assay.sources.formats.cif.sites import Site, number, sites
from assay.sources.formats.cif.species import Refused
from assay.sources.formats.cif.symmetry import Symmetry, refuse_modulated, symmetry
from assay.sources.formats.records import numbered
from assay.sources.quarantine import Reason

LENGTHS = (0.1, 1e4)
"""Å; accepted lengths of a cell."""
VOLUME_TOLERANCE = 0.01
"""Relative difference between cell and stated volume from which a row tells it."""
DENSITY_TOLERANCE = 0.05
"""The same for a density that the file calculates from its own cell."""
CROWDED_RATIO = 0.75
"""Of two origins, one whose atoms come closer than this times the sum of their covalent radii is
ruled out, if the other keeps the distance."""


def add_cif(assembler: Assembler, text: str, label: str, origin: str) -> None:
    """Hand each crystal of a CIF to the assembler, the first as `file/<label>`, then `#2`, `#3`."""
    every = count = 0
    for block in blocks(text):
        every += 1
        if not (block.fatal or _has_sites(block)):
            continue
        count += 1
        id = numbered(label, count)
        try:
            _add_block(assembler, block, id, origin)
        except Refused as refused:
            assembler.refuse(id, origin, refused.reason, refused.message)
        except limits.Exceeded as error:
            assembler.refuse(id, origin, Reason.TOO_LARGE, str(error))
        except Damaged as damage:
            assembler.refuse(id, origin, Reason.UNREADABLE, str(damage))
    if not count:
        why = "no data block with atom sites" if every else "no data block: a CIF begins one with data_"
        assembler.refuse(f"file/{label}", origin, Reason.UNREADABLE, why)


def _has_sites(block: Block) -> bool:
    names = (*block.items, *block.damage)
    return any(name.startswith("_atom_site_") and not name.startswith("_atom_site_aniso") for name in names)


def _add_block(assembler: Assembler, block: Block, id: str, origin: str) -> None:
    if block.fatal:
        raise Damaged(block.fatal)
    warnings: list[str] = [block.stray] if block.stray else []
    lattice = _cell(block, warnings)
    formula = _formula(block, warnings)
    refuse_modulated(block)
    group = magnetic.magnetic_group(block, lattice)
    stated = Symmetry([group.reading], lattice) if group else symmetry(block, lattice)
    rows = [row for row in sites(block, frozenset(formula or ()), warnings) if row.species]
    built = _chosen(block, rows, stated, formula, warnings)
    _compare_density(block, built, lattice, warnings)
    columns = group.columns(block, rows, built, lattice, warnings) if group else {}
    warnings = [*stated.warnings, *warnings, *built.notes, *_multiplicities(rows, built)]
    species = [rows[owner].species for owner in built.owner.tolist()]
    assembler.add(id, origin, lattice, built.frac, species, columns, warnings=warnings)


# The cell.


def _cell(block: Block, warnings: list[str]) -> NDArray[np.float64]:
    lengths = [_length(block, axis) for axis in "abc"]
    angles = [_angle(block, name, warnings) for name in ("alpha", "beta", "gamma")]
    cosines = [math.cos(math.radians(angle)) for angle in angles]
    room = 1 - sum(cosine**2 for cosine in cosines) + 2 * math.prod(cosines)
    if room <= 0:
        raise Refused(Reason.BAD_LATTICE, f"no cell has the angles {', '.join(f'{angle:g}' for angle in angles)}")
    lattice = _vectors(lengths, angles)
    item = block.item("_cell_volume")
    stated, found = (number(item.values[0]) if item else None), float(np.linalg.det(lattice))
    if stated is not None and abs(stated - found) > VOLUME_TOLERANCE * found:
        warnings.append(f"the cell has {found:.5g} Å^3, but a volume of {stated:.5g} is stated")
    return lattice


def _one_value(item: Item) -> str:
    """The value of an item that a block has once.

    Raises:
        Damaged: when a loop gives it several.
    """
    if len(set(item.values)) > 1:
        raise Damaged(f"line {item.line}: {item.tag} has several values")
    return item.values[0]


def _length(block: Block, axis: str) -> float:
    item = block.item(f"_cell_length_{axis}")
    if item is None:
        raise Refused(Reason.UNREADABLE, f"_cell_length_{axis} is not said")
    value = number(_one_value(item))
    if value is None or value <= 0:
        message = f"line {item.line}: {item.tag} {item.values[0][:40]!r} is no positive number"
        raise Refused(Reason.UNREADABLE, message)
    if not LENGTHS[0] <= value <= LENGTHS[1]:
        message = f"line {item.line}: {item.tag} {value:g} Å, {LENGTHS[0]:g} to {LENGTHS[1]:g} accepted"
        raise Refused(Reason.BAD_LATTICE, message)
    return value


def _angle(block: Block, name: str, warnings: list[str]) -> float:
    item = block.column(f"_cell_angle_{name}")
    if item is None or item.values[:1] == ["."]:
        text = "angles that are not said were taken as 90 degrees, the default of CIF"
        if text not in warnings:
            warnings.append(text)
        return 90.0
    value = number(_one_value(item)) if item.values else None
    if value is None or not 0 < value < 180:
        message = f"line {item.line}: {item.tag} {item.values[0] if item.values else ''!r} is no angle"
        raise Refused(Reason.UNREADABLE, message)
    return value


def _vectors(lengths: list[float], angles: list[float]) -> NDArray[np.float64]:
    """Rows a, b, c with c along z and a in the plane xz, the convention of pymatgen."""
    a, b, c = lengths
    alpha, beta, gamma = np.radians(angles)
    ratio = (np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta))
    star = np.arccos(min(1.0, max(-1.0, float(ratio))))
    rows = [
        [a * np.sin(beta), 0.0, a * np.cos(beta)],
        [-b * np.sin(alpha) * np.cos(star), b * np.sin(alpha) * np.sin(star), b * np.cos(alpha)],
        [0.0, 0.0, c],
    ]
    return np.array(rows, dtype=np.float64)


# What the file says about the whole: formula, formula units, density.


def _formula(block: Block, warnings: list[str]) -> dict[str, float] | None:
    item = block.item("_chemical_formula_sum")
    if item is None:
        return None
    found = formulas.amounts(item.values[0], partial(_symbols, block))
    if found is None:
        warnings.append(f"the stated formula {item.values[0][:40]!r} could not be compared with the sites")
    return found


def _symbols(block: Block) -> set[str]:
    """Elements that type symbols and labels begin with, for formulas in capitals."""
    names: set[str] = set()
    for tag in ("_atom_site_type_symbol", "_atom_site_label"):
        item = block.items.get(tag)
        letters = ("".join(c for c in value[:2] if c.isalpha()) for value in (item.values if item else ()))
        names |= {part for text in letters for part in (text.title(), text[:1].upper())}
    return names & set(SYMBOLS)


def _units(block: Block) -> float | None:
    item = block.item("_cell_formula_units_z")
    units = number(item.values[0]) if item else None
    return units if units is not None and units > 0 else None


# Which reading of the symmetry holds.


def _chosen(
    block: Block, rows: list[Site], stated: Symmetry, formula: Mapping[str, float] | None, warnings: list[str]
) -> Built:
    """The crystal of the reading that agrees with everything else that the file says."""
    every: list[Built] = []
    failures: list[Exception] = []
    for reading in stated.readings:
        try:
            every.append(build(rows, reading, stated.lattice))
        except (Refused, limits.Exceeded) as refused:
            failures.append(refused)
    if not every:
        raise failures[0]
    differences = [_difference(block, one, formula) for one in every]
    fitting = [one for one, difference in zip(every, differences) if not difference]
    if not fitting and len(every) == 1 and _confirmed_by_density(block, every[0], formula, stated.lattice):
        warnings.append("the stated number of formula units disagrees with the sites; the stated density agrees")
        fitting = every
    if not fitting:
        text = f"sites and formula disagree: {differences[0]}, read by {every[0].source}"
        raise Refused(Reason.MALFORMED, text)
    different = _different(fitting)
    if stated.contradiction:
        certain = formula is not None and _units(block) is not None
        return _despite(stated, every, fitting, different, certain, warnings)
    return different[0] if len(different) == 1 else _by_evidence(rows, different, stated, warnings)


def _difference(block: Block, built: Built, formula: Mapping[str, float] | None) -> str | None:
    """How the atoms of a cell differ from formula and formula units; None where they agree."""
    if formula is None:
        return None
    structural = block.item("_chemical_formula_structural")
    spelled = None if structural is None else formulas.amounts(structural.values[0])
    found = []
    for units in formulas.units_of(formula, _units(block), spelled):
        difference = formulas.disagreement(formula, built.amounts, units)
        if not difference:
            return None
        said = "1 formula unit" if units == 1 else f"{units or 0:g} formula units"
        found.append(f"{difference} with {said} in the cell" if units else difference)
    return found[0]


def _confirmed_by_density(
    block: Block, built: Built, formula: Mapping[str, float] | None, lattice: NDArray[np.float64]
) -> bool:
    """Whether formula and density agree with the sites, and only the number of units does not."""
    item = block.item("_exptl_crystal_density_diffrn", "_exptl_crystal_density_meas")
    stated = number(item.values[0]) if item else None
    if stated is None or formula is None or formulas.disagreement(formula, built.amounts):
        return False
    found = density(built, lattice)
    return abs(stated - found) < 0.03 * found


def _compare_density(block: Block, built: Built, lattice: NDArray[np.float64], warnings: list[str]) -> None:
    """Tell a calculated density that the cell does not have."""
    item = block.item("_exptl_crystal_density_diffrn")
    stated = number(item.values[0]) if item else None
    if stated is not None and abs(stated - (found := density(built, lattice))) > DENSITY_TOLERANCE * found:
        warnings.append(f"the cell has {found:.4g} g/cm^3, but a density of {stated:.4g} is stated")


def _different(every: list[Built]) -> list[Built]:
    found: list[Built] = []
    for one in every:
        if not any(same_crystal(one, other) for other in found):
            found.append(one)
    return found


def _despite(
    stated: Symmetry,
    every: list[Built],
    fitting: list[Built],
    different: list[Built],
    certain: bool,
    warnings: list[str],
) -> Built:
    """Decide between statements that exclude each other."""
    listed = every[0].source == "the listed operations"
    confirmed = certain and listed and fitting[0] is every[0] and len(different) == 1
    if confirmed or (len(different) == 1 and len(fitting) == len(every) > 1):
        warnings.append(stated.contradiction)
        return fitting[0]
    raise Refused(Reason.MALFORMED, f"{stated.contradiction}; {_sizes(every)}")


def _by_evidence(rows: list[Site], different: list[Built], stated: Symmetry, warnings: list[str]) -> Built:
    """Decide between origins or axes that the name leaves open.

    Multiplicities decide, then distances, then the convention that the axis b is unique.
    """
    what = "axes are" if stated.conventional else "origin is"
    counted = [one for one in different if not _multiplicities(rows, one)]
    if len(counted) == 1 and any(row.multiplicity for row in rows):
        warnings.append(f"the {what} not stated; {counted[0].source} gives the stated multiplicities")
        return counted[0]
    ratios = [closest_ratio(one, stated.lattice) for one in different]
    roomy = [one for one, ratio in zip(different, ratios) if ratio >= CROWDED_RATIO]
    if len(roomy) == 1:
        other = next(one for one in different if one is not roomy[0])
        text = f"the {what} not stated; {roomy[0].source} was taken, since atoms are too close by {other.source}"
        warnings.append(text)
        return roomy[0]
    if roomy and stated.conventional:
        warnings.append(f"the {what} not stated; {roomy[0].source} was taken by convention")
        return roomy[0]
    what = what if stated.conventional else "origin or setting is"
    message = f"the {what} not stated, and more than one is possible: {_sizes(different)}"
    raise Refused(Reason.MALFORMED, f"{message}; name it, or list the operations")


def _sizes(every: list[Built]) -> str:
    return ", ".join(f"{len(one.frac)} sites by {one.source}" for one in every[:3])


def _multiplicities(rows: list[Site], built: Built) -> list[str]:
    """What the file says about the number of images of a site, where it is not so."""
    counts = np.bincount(built.owner, minlength=len(rows)).tolist()
    wrong = [row for row, count in zip(rows, counts) if row.multiplicity is not None and count != row.multiplicity]
    if not wrong:
        return []
    row = wrong[0]
    count = counts[rows.index(row)]
    return [f"site {row.label} has {count} images in the cell, but the multiplicity {row.multiplicity} is stated"]
