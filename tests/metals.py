"""Crystals of the metals that ASE's EMT knows: strained, with displaced atoms, every third one left-handed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ase.build import bulk

from assay.sources.crystals import Crystals, concat
from assay.sources.formats import convert

EMT = "ase:ase.calculators.emt:EMT"
SYMBOLS = ("Cu", "Ag", "Au", "Ni", "Al", "Pd", "Pt")


def metals(n: int) -> Crystals:
    """`n` crystals of 1 to 4 atoms; every fourth one is an alloy."""
    every: list[Any] = [_strained(k) for k in range(n)]
    found = convert.from_ase(every, [f"metal/{k:03d}" for k in range(n)])
    return concat([_mirrored(found[k : k + 1]) if k % 3 == 0 else found[k : k + 1] for k in range(n)])


def alloys(n: int) -> Crystals:
    """Four atoms each, of one to four metals, on the lattice of fcc copper or a wider one."""
    random, made = np.random.default_rng(0), list[Any]()
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=random.uniform(3.8, 4.1), cubic=True)
        atoms.symbols[:] = random.choice(SYMBOLS, 4)
        made.append(atoms)
    return convert.from_ase(made, [f"alloy-{k}" for k in range(n)])


def disordered(*ids: str) -> Crystals:
    """Cells of one site that copper and gold share."""
    one = Crystals([""], 4 * np.eye(3)[None], [0, 1], [[0, 0, 0]], [0, 2], [29, 79], [0.5, 0.5])
    return concat([replace(one, ids=np.array([name])) for name in ids])


def unknown(id: str) -> Crystals:
    """Tungsten, which EMT does not know."""
    atoms: list[Any] = [bulk("W")]
    return convert.from_ase(atoms, [id])


def _strained(k: int) -> Any:
    rng = np.random.default_rng(k)
    atoms = bulk(SYMBOLS[k % len(SYMBOLS)], cubic=k % 2 == 0)
    strain = (1 + 0.03 * rng.normal()) * (np.eye(3) + 0.02 * rng.normal(size=(3, 3)))
    atoms.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
    atoms.rattle(0.05, seed=k)
    if k % 4 == 0:
        atoms.numbers[0] = 79
    return atoms


def _mirrored(crystal: Crystals) -> Crystals:
    """The same atoms; two vectors of the cell change places."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    return replace(crystal, lattice=swap @ crystal.lattice, frac=crystal.frac @ swap)
