"""Reads a crystal from the dictionary of a `Structure` of pymatgen (`as_dict`).

Enters: the dictionary, as JSON gives it. Leaves: a crystal in an assembler, or a record that says
why there is none. Occupancies are kept; charges, spins and site properties are dropped. This module
does not import pymatgen and does not know files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.elements import NUMBERS
from assay.sources.formats.records import Unusable
from assay.sources.quarantine import Reason

SAME_PLACE = 0.01
"""Å; a site whose two positions (`abc`, `xyz`) are farther apart contradicts itself."""
SAME_LENGTH = 0.01
"""Å; so does a lattice whose matrix and lengths differ by more."""


def is_structure(item: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary is a structure, or a molecule, of pymatgen."""
    lattice = isinstance(item.get("lattice"), dict) or "Molecule" in str(item.get("@class", ""))
    return lattice and isinstance(item.get("sites"), list)


def add_structure(
    assembler: Assembler, structure: Mapping[str, Any], id: str, origin: str, columns: Mapping[str, Any]
) -> None:
    """Hand one structure to the assembler, or refuse it."""
    warnings: list[str] = []
    try:
        lattice = _lattice(structure.get("lattice"))
        sites = structure["sites"]
        positions = [_position(site, f"sites[{n}]", lattice) for n, site in enumerate(sites)]
        species = [_species(site, f"sites[{n}]", warnings) for n, site in enumerate(sites)]
    except Unusable as refusal:
        assembler.refuse(id, origin, refusal.reason, str(refusal))
        return
    if not sites:
        assembler.refuse(id, origin, Reason.MALFORMED, "sites is empty")
        return
    assembler.add(id, origin, lattice, np.array(positions), species, columns, warnings=list(dict.fromkeys(warnings)))


def _lattice(lattice: Any) -> NDArray[np.float64]:
    """Return the (3, 3) vectors, in Å."""
    if not isinstance(lattice, dict):
        raise Unusable("a molecule, which has no lattice; three dimensions are needed", Reason.NOT_PERIODIC)
    pbc = lattice.get("pbc", [True, True, True])
    if not isinstance(pbc, list) or not all(pbc):
        raise Unusable(f"lattice.pbc is {pbc}, three dimensions are needed", Reason.NOT_PERIODIC)
    matrix = _numbers(lattice.get("matrix"), "lattice.matrix", (3, 3))
    for name, length in zip("abc", np.linalg.norm(matrix, axis=1)):
        said = lattice.get(name)
        if isinstance(said, int | float) and abs(said - length) > SAME_LENGTH:
            raise Unusable(f"lattice.{name} is {said} Å, but {length:.4f} Å in lattice.matrix", Reason.MALFORMED)
    return matrix


def _position(site: Any, place: str, lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (3,) fractional position of a site."""
    if not isinstance(site, dict):
        raise Unusable(f"{place} is {type(site).__name__}, expected a site", Reason.MALFORMED)
    fractional = _numbers(site.get("abc"), f"{place}.abc", (3,))
    if site.get("xyz") is not None:
        cartesian = _numbers(site["xyz"], f"{place}.xyz", (3,))
        with np.errstate(all="ignore"):  # the assembler refuses what is not finite
            away = float(np.linalg.norm(cartesian - fractional @ lattice))
        if away > SAME_PLACE:
            message = f"{place}: abc and xyz are {away:.3f} Å apart, at most {SAME_PLACE} Å accepted"
            raise Unusable(message, Reason.MALFORMED)
    return fractional


def _species(site: Mapping[str, Any], place: str, warnings: list[str]) -> list[tuple[int, float]]:
    """Return atomic number and share of each species of a site."""
    species = site.get("species")
    if not isinstance(species, list):
        raise Unusable(f"{place}.species is missing, or no list", Reason.MALFORMED)
    found = []
    for one in species:
        symbol = one.get("element") if isinstance(one, dict) else None
        share = one.get("occu") if isinstance(one, dict) else None
        if not isinstance(symbol, str) or not isinstance(share, int | float):
            raise Unusable(f"{place}.species: {str(one)[:80]} has no element or no occu", Reason.MALFORMED)
        if symbol in ("D", "T"):
            warnings.append(f"{'deuterium' if symbol == 'D' else 'tritium'} was read as hydrogen")
        number = NUMBERS.get("H" if symbol in ("D", "T") else symbol)
        if number is None:
            raise Unusable(f"{place}: {symbol!r} is no chemical element", Reason.UNKNOWN_SPECIES)
        found.append((number, float(share)))
    return found


def _numbers(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or isinstance(value, str):
        wanted = " x ".join(map(str, shape))
        raise Unusable(f"{name} is {str(value)[:60]}, expected {wanted} numbers", Reason.MALFORMED)
    return array
