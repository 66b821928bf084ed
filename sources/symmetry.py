"""The one door to moyo: the space group of a cell, and what follows from it.

Enters: a cell, and a number for the kind of each site. Leaves: the symmetry that moyo finds, and
how far the cell lies from it. This module does not know species, files or graphs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks.importing import one_at_a_time

if TYPE_CHECKING:
    from moyopy import (
        Cell as Cell,  # noqa: PLC0414 (handed on)
        MoyoDataset as MoyoDataset,  # noqa: PLC0414
    )

log = logging.getLogger(__name__)

KEPT = 0.02
"""Largest change of a strain under a rotation that it is said to keep, relative to the strain."""
NO_STRAIN = 1e-4
"""A strain of this size is no more than the digits of a file, and is not said to keep anything."""


@dataclass(frozen=True)
class Distortion:
    """How far a cell lies from the symmetric cell that was found for it."""

    displacement: float
    """Å, the farthest that a site lies from its place in the symmetric cell."""
    strain: float
    """Largest principal strain of the lattice against the symmetric one, at equal volumes."""
    keeps_axis: bool
    """Whether the strain keeps an axis or a mirror plane of the symmetric cell. The strain of a
    phase transition does; that of numerical noise does not."""


def stamp() -> str:
    """Name and version of the library that decides.

    Raises:
        ValueError: when the library is missing.
    """
    try:
        return f"moyopy {metadata.version('moyopy')}"
    except metadata.PackageNotFoundError:
        raise ValueError("the symmetry of a crystal is found by moyopy: pip install moyopy") from None


@cache
def _moyopy() -> ModuleType:
    """The library, imported on first use."""
    with one_at_a_time():
        import moyopy

    logging.getLogger("moyo").setLevel(logging.CRITICAL)  # it warns about every supercell
    return moyopy


def dataset(
    basis: list[list[float]], positions: list[list[float]], numbers: list[int], symprec: float
) -> MoyoDataset | None:
    """Find the symmetry of a cell at a tolerance in Å; None where moyo fails.

    `basis` is 3 x 3 in Å, `positions` are fractional.
    """
    moyopy = _moyopy()
    try:
        found: MoyoDataset = moyopy.MoyoDataset(moyopy.Cell(basis, positions, numbers), symprec=symprec)
    except ValueError as error:
        reason = str(error)
    except BaseException as error:  # a panic in moyo's Rust; its class is no Exception and cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        reason = str(error)
    else:
        return found
    log.info("no symmetry at %s Å for a cell of %d sites: %s", symprec, len(numbers), reason)
    return None


def niggli(basis: list[list[float]]) -> NDArray[np.float64]:
    """(3, 3) the Niggli-reduced cell of a lattice, in the unit of `basis`."""
    return np.array(_moyopy().niggli_reduce(basis)[0], np.float64)


def distortion(basis: list[list[float]], positions: list[list[float]], found: MoyoDataset) -> Distortion:
    """Compare a cell with the symmetric cell of `found`, which `dataset` made from it."""
    ideal, linear = np.array(found.prim_std_cell.basis), np.array(found.prim_std_linear)
    places = np.array(found.prim_std_cell.positions)[found.mapping_std_prim]
    moved = (np.array(positions) - np.array(found.prim_std_origin_shift)) @ np.linalg.inv(linear).T - places
    steps = (moved - np.rint(moved)) @ ideal
    steps -= steps.sum(axis=0) / len(steps)
    displacement = float(np.sqrt((steps * steps).sum(axis=1).max()))
    strain, size = strain_between(ideal, linear.T @ np.array(basis))
    keeps_axis = size > NO_STRAIN and _keeps_axis(strain, size, ideal, found.number)
    return Distortion(displacement, size, keeps_axis)


def strain_between(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(3, 3) logarithmic strain from one basis (rows) to another, and its largest principal value.

    The change of volume is left out.
    """
    gradient = np.linalg.solve(one, other)
    squares, axes = np.linalg.eigh(gradient @ gradient.T)
    logarithms = 0.5 * np.log(squares)
    principal = logarithms - logarithms.sum() / 3
    return (axes * principal) @ axes.T, float(max(principal[2], -principal[0]))


def _keeps_axis(strain: NDArray[np.float64], size: float, basis: NDArray[np.float64], number: int) -> bool:
    rotations = np.linalg.inv(basis) @ np.swapaxes(_turns(number), 1, 2) @ basis
    changed = np.abs(np.swapaxes(rotations, 1, 2) @ strain @ rotations - strain).max(axis=(1, 2), initial=0.0)
    return bool(np.any(changed <= KEPT * size))


@cache
def operations(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations W (m, 3, 3) and translations w (m, 3) of a space group in its `prim_std_cell`.

    They act on fractional positions: a site at x has an equal one at W x + w.
    """
    found = _moyopy().operations_from_number(number, primitive=True)
    return np.array(found.rotations, np.float64), np.array(found.translations, np.float64)


@cache
def _turns(number: int) -> NDArray[np.float64]:
    """(m, 3, 3) rotations of a space group in its primitive cell, but identity and inversion."""
    every = operations(number)[0]
    diagonal = np.array([np.eye(3), -np.eye(3)])
    trivial = np.any(np.all(every[:, None] == diagonal, axis=(2, 3)), axis=1)
    return np.asarray(every[~trivial], np.float64)
