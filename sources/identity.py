"""Finds the crystals that are the same crystal, for example in two databases.

Enters: `Crystals`. Leaves: a label of symmetry and composition per crystal, blocks of crystals that
may be the same, pairs that are the same, and the clusters that these pairs form. A label depends on
its own crystal only, so several processes may share the work. Geometry, which is expensive, is
compared inside a block only. The result depends on the crystals and their ids, not on their order.
This module does not know sources or properties, and does not choose which crystal of a cluster is
kept.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from string import ascii_lowercase, ascii_uppercase
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.sources import symmetry
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.occupants import occupants, shares

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

    from assay.sources.symmetry import MoyoDataset

log = logging.getLogger(__name__)

COARSE, FINE = 0.1, 0.01
"""Å, tolerances of the symmetry search."""
LARGEST_BLOCK = 200
"""Rows compared with each other; a larger block is cut, see `confirm`."""
LENGTH, DISPLACEMENT, ANGLE = 0.1, 0.15, 5.0
"""Largest differences: cell lengths (relative, after scaling to one volume), sites in units of
(V / sites)^(1/3), cell angles in degrees."""
VOLUME = 1.2
"""Largest ratio of the volumes per site; functionals, pseudopotentials and magnetic states give one
crystal different volumes."""
OCCUPANCY = 0.001
"""Largest difference of an occupancy. Samples of one doping series are often 0.005 apart and have
different critical temperatures."""
MOST_POINTS = 100_000
"""Most lattice points within the longest vector; a very flat cell has more, and comparing it would
take too long."""

LABELS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"unit": "", "meaning": "id of the crystal"}),
        pa.field("formula", pa.string(), metadata={"unit": "", "meaning": "reduced formula, elements in order"}),
        pa.field("spacegroup", pa.int16(), metadata={"unit": "", "meaning": "number at 0.1 Å; 0: not found"}),
        pa.field("label", pa.string(), metadata={"unit": "", "meaning": "protostructure at 0.1 Å; empty: not found"}),
        pa.field("label_fine", pa.string(), metadata={"unit": "", "meaning": "the same at 0.01 Å"}),
    ]
)
"""One row per crystal."""


def stamp() -> str:
    """Library versions and tolerances, which decide which crystals are the same.

    Raises:
        ValueError: when a library is missing.
    """
    try:
        versions = [f"{name} {metadata.version(name)}" for name in ("moyopy", "pymatgen")]
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"finding the same crystal in two sources needs {error.name}: pip install {error.name}, "
            "or set identity: false"
        ) from None
    bounds = (COARSE, FINE, LENGTH, DISPLACEMENT, ANGLE, VOLUME, OCCUPANCY, LARGEST_BLOCK)
    return ", ".join([*versions, *map(str, bounds)])


@cache
def _pymatgen() -> SimpleNamespace:
    """The parts of pymatgen that this module uses, imported on first use."""
    from pymatgen.analysis import prototypes, structure_matcher
    from pymatgen.core import lattice, structure

    return SimpleNamespace(
        WYCKOFF_MULTIPLICITY_DICT=prototypes.WYCKOFF_MULTIPLICITY_DICT,  # type: ignore[attr-defined]  # no __all__
        canonicalize_element_wyckoffs=prototypes.canonicalize_element_wyckoffs,
        StructureMatcher=structure_matcher.StructureMatcher,
        Lattice=lattice.Lattice,
        Structure=structure.Structure,
    )


def labels(crystals: Crystals) -> pa.Table:
    """One row of `LABELS` per crystal, in order.

    For an ordered crystal, the label is pymatgen's protostructure label. In `AB_cF8_225_a_b:Cl-Na`
    stand the site ratio, the Pearson symbol, the space group, the Wyckoff letters and the
    occupants. Sites of one composition (to 0.01) count as one occupant, written `La0.92Sr0.08`. So
    the label holds the composition, whatever the size of the cell. Where the symmetry search at
    0.1 Å fails, the labels are empty and the space group is 0.
    """
    groups, coarse, fine = [], [], []
    for cell in _cells(crystals):
        group, label = _label(cell, COARSE)
        groups.append(group)
        coarse.append(label)
        fine.append(_label(cell, FINE)[1] if label else "")
    columns = [crystals.ids.astype(object), crystals.formulas().astype(object), groups, coarse, fine]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, LABELS)]
    return pa.Table.from_arrays(arrays, schema=LABELS)


def blocks(labels: pa.Table) -> NDArray[np.int64]:
    """(n,) block of each row, numbered by the smallest row in it.

    Rows that share either label are in one block. Rows of one block may be the same crystal; rows
    of two blocks count as different. A row without a label is alone in its block.
    """
    pairs = []
    for name in ("label", "label_fine"):
        first: dict[str, int] = {}
        pairs += [(first.setdefault(text, row), row) for row, text in enumerate(labels[name].to_pylist()) if text]
    return clusters(len(labels), np.array(pairs, dtype=np.int64).reshape(-1, 2))


def confirm(crystals: Crystals, block: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2) pairs of rows that are the same crystal, the representative first.

    `block` is (n,), from `blocks`; each block may have a call of its own. Inside a block, crystals
    are taken in the order of their ids. Each is compared with the representatives found so
    far, the nearest volume first. It is paired with the first one that fits; where none fits, it
    becomes a representative itself. Two crystals fit under three conditions: their space groups at
    0.1 Å and their occupants are equal; their occupancies, volumes and cells agree within the
    tolerances above; pymatgen's `StructureMatcher` maps their sites on each other. A block of more
    than `LARGEST_BLOCK` rows is cut by volume per site into smaller parts of equal size, with a
    warning; equal crystals in two parts stay apart.

    Raises:
        ValueError: when `block` has not one number per crystal.
    """
    block = np.asarray(block, dtype=np.int64)
    if block.shape != (len(crystals),):
        raise ValueError(f"block has shape {block.shape}, expected ({len(crystals)},)")
    pairs: list[tuple[int, int]] = []
    for rows in _parts(crystals, block):
        pairs += [(int(rows[one]), int(rows[other])) for one, other in _leaders(crystals.select(rows))]
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def clusters(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) cluster of each row, numbered by its smallest row, after joining all pairs (m, 2).

    Raises:
        ValueError: when a pair names a row outside 0 to n - 1.
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < n):
        raise ValueError(f"pairs name rows {pairs.min()} to {pairs.max()}, expected 0 to {n - 1}")
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for one, other in pairs.tolist():
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return np.array([root(row) for row in range(n)], dtype=np.int64)


# Symmetry.


@dataclass(frozen=True)
class _Cell:
    """One crystal as lists, as the symmetry search reads it, with a number per kind of site."""

    basis: list[list[float]]
    positions: list[list[float]]
    kinds: list[str]
    """Distinct site compositions in order: an element, or a text such as `La0.92Sr0.08`."""
    numbers: list[int]
    """One per site: 1 + position in `kinds`."""
    shares: NDArray[np.float64]
    """Occupancies behind `kinds`, see `assay.sources.occupants.shares`."""

    def dataset(self, symprec: float) -> MoyoDataset | None:
        """The symmetry found by moyo at this tolerance (Å); None where it fails."""
        return symmetry.dataset(self.basis, self.positions, self.numbers, symprec)


def _cells(crystals: Crystals) -> Iterator[_Cell]:
    texts = occupants(crystals)
    lattice, frac, ends = crystals.lattice.tolist(), crystals.frac.tolist(), crystals.site_ptr.tolist()
    for start, stop, basis, share in zip(ends[:-1], ends[1:], lattice, shares(crystals, texts)):
        kinds = sorted(set(texts[start:stop]))
        number = {kind: position for position, kind in enumerate(kinds, 1)}
        yield _Cell(basis, frac[start:stop], kinds, [number[text] for text in texts[start:stop]], share)


def _label(cell: _Cell, symprec: float) -> tuple[int, str]:
    """Space group and label; 0 and empty where moyo fails or contradicts the composition."""
    dataset = cell.dataset(symprec)
    if dataset is None:
        return 0, ""
    group, letters = dataset.number, dataset.wyckoffs
    orbits: list[Counter[str]] = [Counter() for _ in cell.kinds]
    for site in set(dataset.orbits):
        orbits[cell.numbers[site] - 1][letters[site]] += 1
    multiplicity = _pymatgen().WYCKOFF_MULTIPLICITY_DICT[str(group)]
    ratio = _reduced([cell.numbers.count(number) for number in range(1, len(cell.kinds) + 1)])
    if ratio != _reduced([sum(multiplicity[letter] * n for letter, n in orbit.items()) for orbit in orbits]):
        return 0, ""
    wyckoff = _canonical("_".join("".join(f"{n}{a}" for a, n in sorted(orbit.items())) for orbit in orbits), group)
    ratios = "".join(f"{letter}{n if n > 1 else ''}" for letter, n in zip(ascii_uppercase + ascii_lowercase, ratio))
    return group, f"{ratios}_{dataset.pearson_symbol}_{group}_{wyckoff}:{'-'.join(cell.kinds)}"


def _reduced(counts: Sequence[int]) -> list[int]:
    divisor = math.gcd(*counts)
    return [count // divisor for count in counts]


@lru_cache(maxsize=1 << 16)
def _canonical(wyckoffs: str, group: int) -> str:
    """The Wyckoff letters under the choice of origin and axes that pymatgen prefers."""
    return str(_pymatgen().canonicalize_element_wyckoffs(wyckoffs, group))


# Geometry.


@dataclass(frozen=True)
class _Reduced:
    """The primitive cell of one crystal, symmetrised at 0.1 Å and Niggli-reduced.

    The other fields are compared first, because comparing structures is expensive.
    """

    key: tuple[int, int, tuple[str, ...]]
    """Space group, sites, kinds: equal in crystals that are the same."""
    shares: NDArray[np.float64]
    volume: float
    """Å^3 per site."""
    structure: Structure
    """The primitive cell; element k stands for the k-th of `kinds`."""


def _reduced_cell(cell: _Cell) -> _Reduced | None:
    dataset = cell.dataset(COARSE)
    if dataset is None or len(cell.kinds) >= len(SYMBOLS):
        return None
    primitive = dataset.prim_std_cell
    basis = symmetry.niggli(primitive.basis)
    volume, longest = abs(float(np.linalg.det(basis))), float(np.linalg.norm(basis, axis=1).max())
    if 4.19 * ((1 + LENGTH) * longest) ** 3 > MOST_POINTS * volume:
        log.warning("a cell of %.4g Å^3 with a vector of %.4g Å is too flat to be compared", volume, longest)
        return None
    order = np.argsort(primitive.numbers, kind="stable")
    positions = (np.array(primitive.positions) @ np.array(primitive.basis) @ np.linalg.inv(basis))[order]
    stand_ins = [SYMBOLS[primitive.numbers[site]] for site in order]
    structure = _pymatgen().Structure(_pymatgen().Lattice(basis), stand_ins, positions)
    return _Reduced((dataset.number, len(order), tuple(cell.kinds)), cell.shares, volume / len(order), structure)


@cache
def _matcher() -> Callable[[_Reduced, _Reduced], bool]:
    matcher = _pymatgen().StructureMatcher(LENGTH, DISPLACEMENT, ANGLE, primitive_cell=False, scale=True)

    def fit(one: _Reduced, other: _Reduced) -> bool:
        if one.key != other.key or not 1 / VOLUME < one.volume / other.volume < VOLUME:
            return False
        if np.abs(one.shares - other.shares).max() > OCCUPANCY + 1e-9:
            return False
        try:
            return bool(matcher.fit(one.structure, other.structure, skip_structure_reduction=True))
        except (ValueError, ArithmeticError) as error:
            log.warning("a comparison failed, the crystals stay apart: %s", error)
            return False

    return fit


def _leaders(crystals: Crystals) -> Iterator[tuple[int, int]]:
    """Yield pairs of a representative and an equal row; rows are in the order of their ids."""
    fit = _matcher()
    leaders: list[tuple[int, _Reduced]] = []
    for row, cell in enumerate(_cells(crystals)):
        reduced = _reduced_cell(cell)
        if reduced is None:
            continue
        near = sorted(leaders, key=lambda leader: abs(math.log(leader[1].volume / reduced.volume)))
        same = next((leader for leader, known in near if fit(known, reduced)), None)
        if same is None:
            leaders.append((row, reduced))
        else:
            yield same, row


def _parts(crystals: Crystals, block: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield groups of two or more rows to compare, each in the order of its ids."""
    volume = crystals.volume / crystals.nsites
    order = np.lexsort((crystals.ids, block))
    for rows in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(rows) <= LARGEST_BLOCK:
            parts = [rows]
        else:
            parts = np.array_split(rows[np.argsort(volume[rows], kind="stable")], -(-len(rows) // LARGEST_BLOCK))
            size, id = len(rows), crystals.ids[rows[0]]
            log.warning("%d crystals may be the same as %s: compared in %d parts by volume", size, id, len(parts))
        yield from (part[np.argsort(crystals.ids[part], kind="stable")] for part in parts if len(part) > 1)
