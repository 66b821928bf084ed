"""CIF readers of other programs, brought to one form, for `reading.py`.

Enters: the path of a CIF. Leaves: for each crystal that a program reads, its composition, occupied
places, volume and shortest distances. This module does not know which reading is right.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals

ISOTOPES = {"D": "H", "T": "H"}
NEAR = 3.0
"""Å; distances up to here are compared."""
SAME_PLACE = 0.05
"""Å; atoms closer than this share a place."""
MOST_PLACES = 800
"""Distances of larger cells are not compared."""


@dataclass(frozen=True)
class Reading:
    """One crystal as one program read it."""

    composition: dict[str, float]
    places: int
    volume: float
    distances: NDArray[Any]

    def agrees(self, other: Reading) -> bool:
        """Whether both programs read the same crystal."""
        import numpy as np

        names = {name for one in (self, other) for name, amount in one.composition.items() if amount > 1e-6}
        same = all(abs(self.composition.get(n, 0) - other.composition.get(n, 0)) < 0.02 for n in names)
        same &= self.places == other.places and abs(self.volume - other.volume) < 2e-3 * self.volume
        same &= abs(len(self.distances) - len(other.distances)) <= 0.02 * len(self.distances)
        size = min(len(self.distances), len(other.distances))
        return same and bool(np.all(np.abs(self.distances[:size] - other.distances[:size]) < 0.02))

    def __str__(self) -> str:
        amounts = " ".join(f"{name}{amount:.4g}" for name, amount in sorted(self.composition.items()))
        return f"{amounts} on {self.places} places, {self.volume:.1f} Å^3, {self.distances[:4].round(2).tolist()}"


def reading(lattice: Any, atoms: Sequence[tuple[str, float]], frac: Any) -> Reading:
    """Bring one crystal to the common form; an atom is an element and its share."""
    import numpy as np

    lattice, frac = np.asarray(lattice, dtype=float), np.asarray(frac, dtype=float).reshape(-1, 3)
    composition: dict[str, float] = {}
    for element, share in atoms:
        name = ISOTOPES.get(element, element)
        composition[name] = composition.get(name, 0.0) + float(share)
    volume = float(abs(np.linalg.det(lattice)))
    if len(frac) > MOST_PLACES:
        return Reading(composition, len(frac), volume, np.empty(0))
    lengths = _shortest(lattice, frac)
    apart = np.flatnonzero(~np.tril(lengths < SAME_PLACE, -1).any(axis=1))
    own = np.sort(lengths[np.ix_(apart, apart)][np.triu_indices(len(apart), 1)])
    return Reading(composition, len(apart), volume, own[own < NEAR])


def _shortest(lattice: NDArray[Any], frac: NDArray[Any]) -> NDArray[Any]:
    """Distance of each two atoms, to the nearest image: in an oblique cell that is any of 27."""
    import numpy as np

    gaps = (frac[:, None] - frac[None] + 0.5) % 1 - 0.5
    shifts = product((-1, 0, 1), repeat=3)
    return np.asarray(np.min([np.linalg.norm((gaps + shift) @ lattice, axis=-1) for shift in shifts], axis=0))


# The programs.


def by_assay(path: Path) -> tuple[list[tuple[Reading, str]], list[str]]:
    """Crystals with their warnings, and the reasons of refusals."""
    from assay.sources import files

    crystals, refused = files.read_many([path])
    said = crystals.columns.get("warnings", [""] * len(crystals))
    readings = [(_row(crystals, row), str(said[row])) for row in range(len(crystals))]
    return readings, [f"{record.reason.value}: {record.message}" for record in refused]


def _row(crystals: Crystals, row: int) -> Reading:
    from assay.sources.elements import SYMBOLS

    sites = range(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    pairs = [(site, item) for site in sites for item in range(*crystals.species_ptr[site : site + 2])]
    atoms = [(SYMBOLS[crystals.numbers[item]], crystals.occupancy[item]) for _, item in pairs]
    return reading(crystals.lattice[row], atoms, crystals.frac[[site for site, _ in pairs]])


def by_gemmi(path: Path) -> list[Reading]:
    """The reader of small structures in gemmi."""
    import gemmi

    found = []
    for block in gemmi.cif.read(str(path)):
        structure = gemmi.make_small_structure_from_block(block)
        if structure.sites:
            sites = structure.get_all_unit_cell_sites()
            cell = structure.cell.orth.mat.transpose().tolist()
            frac = [site.fract.tolist() for site in sites]
            found.append(reading(cell, [(site.element.name, site.occ) for site in sites], frac))
    return found


def by_pymatgen(path: Path) -> list[Reading]:
    """The parser of CIF in pymatgen, the cell as it stands."""
    from pymatgen.io.cif import CifParser

    found = []
    for structure in CifParser(path, occupancy_tolerance=1.05).parse_structures(primitive=False, on_error="ignore"):
        pairs = [(site, element, share) for site in structure for element, share in site.species.items()]
        atoms = [(element.symbol, share) for _, element, share in pairs]
        found.append(reading(structure.lattice.matrix, atoms, [site.frac_coords for site, _, _ in pairs]))
    return found


def by_ase(path: Path) -> list[Reading]:
    """The reader of CIF in ASE, shares of sites included."""
    from ase.io.cif import read_cif

    found = []
    for atoms in read_cif(str(path), index=slice(None), fractional_occupancies=True):
        shares = atoms.info.get("occupancy", {})
        kinds = atoms.arrays.get("spacegroup_kinds", range(len(atoms)))
        own = [shares.get(str(kind)) or {symbol: 1.0} for kind, symbol in zip(kinds, atoms.get_chemical_symbols())]
        places = [place for place, share in zip(atoms.get_scaled_positions(), own) for _ in share]
        found.append(reading(atoms.cell[:], [pair for share in own for pair in share.items()], places))
    return found


OTHERS: dict[str, Callable[[Path], list[Reading]]] = {"gemmi": by_gemmi, "pymatgen": by_pymatgen, "ase": by_ase}


def by_others(path: Path) -> dict[str, list[Reading]]:
    """What each other program reads; nothing where it fails."""
    found: dict[str, list[Reading]] = {}
    for name, read in OTHERS.items():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                found[name] = read(path)
            except Exception:  # noqa: BLE001 - a foreign reader may fail in any way; it then has no voice
                found[name] = []
    return found


def voices(one: Reading, others: dict[str, list[Reading]]) -> list[str]:
    """Names of the programs that read the same crystal somewhere in the file."""
    return [name for name, readings in others.items() if any(one.agrees(other) for other in readings)]


def majority(others: dict[str, list[Reading]]) -> Iterable[Reading]:
    """Each crystal that at least two programs read alike."""
    for name, readings in others.items():
        for one in readings:
            if len(voices(one, others)) >= 2 and name == voices(one, others)[0]:
                yield one
