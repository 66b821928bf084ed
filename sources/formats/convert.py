"""Converts crystals to and from the objects of pymatgen and ASE, partial occupancy included.

Enters: `pymatgen.core.Structure` or `ase.Atoms`, or `Crystals`. Leaves: `Crystals`, or those
objects; the near neighbours that pymatgen finds in a cell; a calculator of ASE around a function.
Occupancies are exact to 5 decimals, coordinates to the rounding of the cell transform. Charges,
spins and site properties are dropped. This module does not know files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.checks.importing import one_at_a_time
from assay.sources.crystals import Crystals
from assay.sources.elements import NUMBERS, SYMBOLS
from assay.sources.quarantine import Reason

if TYPE_CHECKING:
    from ase import Atoms as Atoms  # noqa: PLC0414 (handed on)
    from ase.calculators.calculator import Calculator as Calculator  # noqa: PLC0414
    from pymatgen.core.structure import Structure

HEAVIEST_NEAR = 96
"""Largest atomic number with a radius in CrystalNN."""


def _pymatgen() -> SimpleNamespace:
    """The classes of pymatgen that make a structure."""
    with one_at_a_time():
        from pymatgen.core import lattice, periodic_table, structure

    return SimpleNamespace(Lattice=lattice.Lattice, Species=periodic_table.Species, Structure=structure.Structure)


def from_pymatgen(structures: Iterable[Structure], ids: Sequence[str]) -> Crystals:
    """Convert structures of pymatgen to crystals, in order.

    Raises:
        ValueError: when a structure is refused; the message names its id and the broken rule.
    """
    return _all_or_error(add_pymatgen, structures, ids)


def from_ase(atoms: Iterable[Atoms], ids: Sequence[str]) -> Crystals:
    """Convert `Atoms` of ASE to crystals, in order.

    Partial occupancy is read from `info["occupancy"]`, where ASE's CIF reader puts it.

    Raises:
        ValueError: when one is refused; the message names its id and the broken rule.
    """
    return _all_or_error(add_ase, atoms, ids)


def add_pymatgen(
    assembler: Assembler, structure: Structure, id: str, origin: str, columns: Mapping[str, Any] | None = None
) -> None:
    """Hand one structure to the assembler; drop oxidation states, refuse dummy species."""
    if not all(structure.lattice.pbc):
        message = f"periodic along {tuple(map(bool, structure.lattice.pbc))}, three dimensions are needed"
        assembler.refuse(id, origin, Reason.NOT_PERIODIC, message)
        return
    species = [[(_number(kind.symbol), amount) for kind, amount in site.species.items()] for site in structure]
    assembler.add(id, origin, structure.lattice.matrix, structure.frac_coords, species, columns)


def add_ase(assembler: Assembler, atoms: Atoms, id: str, origin: str, columns: Mapping[str, Any] | None = None) -> None:
    """Hand one `Atoms` to the assembler; it must be periodic in three dimensions."""
    if not all(atoms.pbc):
        message = f"periodic along {tuple(map(bool, atoms.pbc))}, three dimensions are needed"
        assembler.refuse(id, origin, Reason.NOT_PERIODIC, message)
        return
    kinds = atoms.arrays.get("spacegroup_kinds")
    try:
        species = site_species(
            atoms.numbers.tolist(), atoms.info.get("occupancy"), None if kinds is None else kinds.tolist()
        )
    except ValueError as error:
        assembler.refuse(id, origin, Reason.MALFORMED, str(error))
        return
    assembler.add(id, origin, atoms.cell.array, atoms.positions, species, columns, cartesian=True)


def site_species(numbers: Sequence[int], occupancy: Any, kinds: Sequence[int] | None) -> list[list[tuple[int, float]]]:
    """Return the pairs of atomic number and share on each site, as ASE keeps them.

    `occupancy` is `info["occupancy"]`: kind of site -> symbol -> share. `kinds` holds the kind of
    each site, `spacegroup_kinds`. ASE's trajectories keep the first and lose the second.

    Raises:
        ValueError: when there are shares, and no kinds that say on which sites.
    """
    species = [[(number, 1.0)] for number in numbers]
    if not isinstance(occupancy, dict):
        return species
    shares = {str(kind): held for kind, held in occupancy.items() if isinstance(held, dict)}
    if kinds is None or len(kinds) != len(species):
        if any(len(held) > 1 or any(share != 1 for share in held.values()) for held in shares.values()):
            raise ValueError("info['occupancy'] shares sites, but no spacegroup_kinds say which sites these are")
        return species
    for site, kind in enumerate(kinds):
        held = shares.get(str(kind)) or {}
        species[site] = [(_number(symbol), share) for symbol, share in held.items()] or species[site]
    return species


def to_pymatgen(crystals: Crystals) -> list[Structure]:
    """Convert crystals to structures of pymatgen; `properties` hold the id and the columns."""
    pymatgen = _pymatgen()
    found: list[Structure] = []
    for row, (sites, species) in enumerate(_rows(crystals)):
        shares = [{SYMBOLS[number]: share for number, share in site} for site in species]
        properties = {"id": str(crystals.ids[row]), **_row_columns(crystals, row)}
        lattice = pymatgen.Lattice(crystals.lattice[row])
        found.append(pymatgen.Structure(lattice, shares, crystals.frac[sites], properties=properties))
    return found


def to_ase(crystals: Crystals) -> list[Atoms]:
    """Convert crystals to `Atoms` of ASE; `info` holds the id and the columns.

    A disordered site becomes an atom of its main element; `info["occupancy"]` holds all elements.
    """
    with one_at_a_time():
        from ase import Atoms

    found = []
    for row, (sites, species) in enumerate(_rows(crystals)):
        main = [max(site, key=lambda pair: pair[1])[0] for site in species]
        info: dict[str, Any] = {"id": str(crystals.ids[row]), **_row_columns(crystals, row)}
        atoms = Atoms(numbers=main, scaled_positions=crystals.frac[sites], cell=crystals.lattice[row], pbc=True)
        if not crystals.is_ordered[row]:
            shares = [{SYMBOLS[number]: share for number, share in site} for site in species]
            info["occupancy"] = {str(kind): share for kind, share in enumerate(shares)}
            atoms.arrays["spacegroup_kinds"] = np.arange(len(species))
        atoms.info.update(info)
        found.append(atoms)
    return found


def to_calculator(
    measured: Callable[[Atoms], dict[str, Any]], properties: Sequence[str], name: str, again: Callable[[], Calculator]
) -> Calculator:
    """Make a calculator of ASE that asks a function for its results.

    Args:
        measured: Gives the value of each property of some atoms.
        properties: Names of ASE, for example `energy`.
        name: Of the calculator, for databases of ASE.
        again: Makes it anew; copies and other processes call this, so it must be picklable. The
            atoms and results of the moment go with a copy.
    """
    with one_at_a_time():
        from ase.calculators.calculator import Calculator, all_changes

    class Measured(Calculator):
        """Asks `measured` about atoms that have changed."""

        implemented_properties = list(properties)  # noqa: RUF012 -- the contract of ASE

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            """Measure the atoms; where that fails there are no results."""
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            asked: Any = self.atoms
            self.results = {}
            self.results = measured(asked)

        def _get_name(self) -> str:
            return name

        def __reduce__(self) -> tuple[Any, ...]:
            return again, (), self.__dict__

    return Measured()  # type: ignore[no-untyped-call]


def near_neighbours(
    crystals: Crystals, cell: NDArray[np.float64], frac: NDArray[np.float64], sites: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the near neighbours of each site of a cell with pymatgen's CrystalNN.

    The method is that of Zimmermann & Jain, RSC Adv. 10, 6063, 2020, with its default settings and
    without oxidation states, so that covalent radii judge the distances. A disordered site counts
    as its main element by occupancy (the lightest of equal ones), without vacancy. A site may have
    a neighbour that does not have it in turn, or none; two sites at one place have none.

    Args:
        crystals: The batch whose species stand on the sites.
        cell: (3, 3) Å.
        frac: (s, 3) fractional positions.
        sites: (s,) a site of the batch with the species of each.

    Returns:
        source (e,) and target (e,), positions in `sites`, source ascending, and image (e, 3). The
            neighbour of `source` is at `frac[target] + image`.

    Raises:
        ImportError: without pymatgen.
        ValueError: for an element beyond `HEAVIEST_NEAR`, and where CrystalNN fails.
    """
    try:
        pymatgen = _pymatgen()
    except ImportError as error:
        raise ImportError("CrystalNN needs pymatgen: pip install pymatgen") from error
    main = [_main_element(crystals, site) for site in sites.tolist()]
    if max(main) > HEAVIEST_NEAR:
        raise ValueError(f"atomic number {max(main)}; the radii of CrystalNN end at {HEAVIEST_NEAR}")
    neutral = [
        pymatgen.Species(SYMBOLS[number], 0) for number in main
    ]  # answered as an element is, without its warnings
    edges = np.array(_named(pymatgen.Structure(pymatgen.Lattice(cell), neutral, frac)), np.int64).reshape(-1, 5)
    return edges[:, 0], edges[:, 1], edges[:, 2:]


def _main_element(crystals: Crystals, site: int) -> int:
    held = slice(crystals.species_ptr[site], crystals.species_ptr[site + 1])
    shares = (-crystals.occupancy[held].astype(np.float64)).round(4).tolist()
    return int(min(zip(shares, crystals.numbers[held].tolist()))[1])


def _named(structure: Structure) -> list[tuple[int, ...]]:
    """Site, neighbour, and the three integers of the image of the neighbour, of each pair."""
    with one_at_a_time():
        from pymatgen.analysis.local_env import CrystalNN

    finder = CrystalNN()  # type: ignore[no-untyped-call]
    edges: list[tuple[int, ...]] = []
    for site in range(len(structure)):
        try:
            found = finder.get_nn_info(structure, site)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if "No Voronoi neighbors found" in str(error):
                continue
            place = f"site {site} of {len(structure)}, {structure[site].specie.symbol}"
            raise ValueError(f"CrystalNN fails at {place}: {type(error).__name__}: {error}") from error
        edges += [(site, near["site_index"], *near["image"]) for near in found]
    return edges


def _all_or_error(add: Callable[..., None], objects: Iterable[Any], ids: Sequence[str]) -> Crystals:
    objects = list(objects)
    if len(objects) != len(ids):
        raise ValueError(f"{len(objects)} structures but {len(ids)} ids; must be equal")
    assembler = Assembler(max_sites=max([400, *map(len, objects)]))
    for thing, id in zip(objects, ids):
        add(assembler, thing, id, "memory")
    crystals, refused = assembler.finish()
    if refused:
        first = refused[0]
        raise ValueError(f"{len(refused)} of {len(objects)} structures are refused; {first.id!r}: {first.message}")
    return crystals


def _number(symbol: str) -> int:
    return NUMBERS["H"] if symbol in ("D", "T") else NUMBERS.get(symbol, 0)


def _rows(crystals: Crystals) -> Iterable[tuple[slice, list[list[tuple[int, float]]]]]:
    """The site range of each crystal and, per site, its (Z, occupancy) pairs."""
    numbers, shares = crystals.numbers.tolist(), np.round(crystals.occupancy.astype(np.float64), 5).tolist()
    pairs = list(zip(numbers, shares))
    bounds = crystals.species_ptr.tolist()
    for start, stop in zip(crystals.site_ptr[:-1].tolist(), crystals.site_ptr[1:].tolist()):
        yield slice(start, stop), [pairs[bounds[site] : bounds[site + 1]] for site in range(start, stop)]


def _row_columns(crystals: Crystals, row: int) -> dict[str, Any]:
    return {name: column[row : row + 1].tolist()[0] for name, column in crystals.columns.items()}
