"""A crystal for people to look at: the numbers of a drawing that turns, and the same in words.

Enters: one crystal. Leaves: JSON for `crystal.js` beside this module, or text for people without a
script or without eyes. This module does not know HTML.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.pictures import colours
from assay.screening.prediction.describe import species
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

MOST_SITES = 400
"""Most sites of a cell that is drawn."""
LISTED = 24
"""Most sites that are listed in words."""
GREY, RADIUS = "#b0b0b0", 1.6
"""Colour and radius (Å) of an element beyond the table."""


def drawing(crystal: Crystals) -> str:
    """The whole cell of a batch of one, as JSON; "" where it has more than `MOST_SITES` sites.

    The object has `lattice` (3 x 3, Å, rows are a, b, c), `elements` (symbol, colour, covalent
    radius in Å) and `sites` (three fractional coordinates, then (position in `elements`, share) of
    every species there).
    """
    if len(crystal.frac) > MOST_SITES:
        return ""
    found = sorted({int(number) for number in crystal.numbers})
    sites: list[list[Any]] = []
    for site, place in enumerate(crystal.frac):
        held = slice(crystal.species_ptr[site], crystal.species_ptr[site + 1])
        shares = zip(crystal.numbers[held], crystal.occupancy[held], strict=True)
        sites.append([*_rounded(place), [[found.index(int(z)), round(float(share), 4)] for z, share in shares]])
    looks = [[SYMBOLS[number], *_looks().get(number, (GREY, RADIUS))] for number in found]
    content = {"lattice": [_rounded(row) for row in crystal.lattice[0]], "elements": looks, "sites": sites}
    return json.dumps(content, separators=(",", ":"))


def lattice(crystal: Crystals) -> dict[str, float]:
    """Edges (Å), angles (degrees) and volume (Å³) of the cell of a batch of one."""
    vectors = crystal.lattice[0]
    lengths = np.linalg.norm(vectors, axis=1)
    turned = np.roll(vectors, -1, axis=0), np.roll(vectors, -2, axis=0)
    cosines = (turned[0] * turned[1]).sum(axis=1) / (np.roll(lengths, -1) * np.roll(lengths, -2))
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return dict(zip(("a", "b", "c", "α", "β", "γ", "volume"), [*lengths, *angles, crystal.volume[0]], strict=True))


def words(crystal: Crystals) -> str:
    """The cell of a batch of one in a sentence: sites, edges, angles, volume."""
    cell, n = lattice(crystal), len(crystal.frac)
    edges = ", ".join(f"{name} = {cell[name]:.3f} Å" for name in "abc")
    angles = ", ".join(f"{name} = {cell[name]:.1f}°" for name in "αβγ")
    return f"A cell of {n} site{'s'[: n != 1]}: {edges}; {angles}; volume {cell['volume']:.1f} Å³."


def sites(crystal: Crystals) -> list[tuple[str, str, str, str]]:
    """Species with their shares, and fractional coordinates, of the first `LISTED` sites."""
    places = enumerate(crystal.frac[:LISTED])
    return [(species(crystal, site), *(f"{x:.4f}" for x in place)) for site, place in places]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) + 0.0 for value in values]


@cache
def _looks() -> dict[int, tuple[str, float]]:
    """Atomic number -> the colour of Jmol, and the covalent radius in Å."""
    levels = np.rint(255 * colours.encoding("elements").table()).astype(int)
    radii = elements.properties()[:, elements.property_names().index("covalent_radius")]
    return {z: ("#" + bytes(levels[z].tolist()).hex(), round(float(radii[z]), 2)) for z in range(1, len(levels))}
