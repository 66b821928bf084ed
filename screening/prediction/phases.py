"""The reference phases of a hull, by the name of their table.

Enters: the name of a dataset, or FILE.parquet#COLUMN. Leaves: `Phases`. This module does not know
campaigns, nor whether energies are comparable.
"""

from __future__ import annotations

from assay.models.stability.hull import Phases
from assay.sources import datasets, table


def load(name: str) -> Phases:
    """Read the phases of a table of crystals, or of one of formulas.

    Raises:
        FileNotFoundError: when the data folder or the file is missing.
        ValueError: for an unknown name or column, or a damaged file.
    """
    path, _ = datasets.described(name)
    if {"lattice", "lattice_vectors"} & set(table.schema(path).names):
        found = datasets.load(name)
        ids, amounts, energy, dropped = found.crystals.ids, found.crystals.composition(), found.target, found.dropped
    else:
        rows = datasets.load_formulas(name)
        ids, amounts, energy, dropped = rows.keys["formula"], rows.atoms, rows.target, rows.dropped
    return Phases.of(ids, amounts, energy).with_refused(sum(dropped.values()))
