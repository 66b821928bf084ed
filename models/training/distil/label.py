"""Energies, forces and stresses of a teacher, in parts of fixed size that are kept on disk.

Enters: `Crystals` and a `Potential`. Leaves: a folder of Parquet files, one per part, and `Labels`
read back from it. A part that is there is not made again, so labelling can stop at any time, and
several processes can share the parts. This module does not know how crystals were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from assay.models.potentials.potential import Evaluation, Potential, Scale, known
from assay.sources import table
from assay.sources.crystals import Crystals, concat, gather_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

PART = 256
"""Crystals in a part."""


@dataclass(frozen=True)
class Labels:
    """n crystals with what a teacher says of them."""

    crystals: Crystals
    energy: NDArray[np.float64]
    """(n,) eV per cell."""
    forces: NDArray[np.float64]
    """(S, 3) eV/Å."""
    stress: NDArray[np.float64]
    """(n, 3, 3) eV/Å^3."""
    scale: Scale
    """Of the energies."""

    def select(self, rows: NDArray[np.int64]) -> Labels:
        """Some of them."""
        some = self.crystals.select(rows)
        sites, _ = gather_ranges(self.crystals.site_ptr, rows)
        return Labels(some, self.energy[rows], self.forces[sites], self.stress[rows], self.scale)


def part_path(folder: Path, part: int) -> Path:
    """Where a part is kept."""
    return folder / f"part-{part:05}.parquet"


def label(crystals: Crystals, teacher: Potential, folder: Path, parts: Iterable[int]) -> None:
    """Label some parts of the crystals; what the teacher cannot say stands in the part as null."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        path = part_path(folder, part)
        if not path.exists():
            some = crystals.select(np.arange(part * PART, min((part + 1) * PART, len(crystals))))
            rows, _ = known(teacher, some)
            some = some.select(rows)
            table.write(_table(some, teacher.evaluate(some), teacher), path)


def _table(crystals: Crystals, found: Evaluation, teacher: Potential) -> pa.Table:
    energy = np.where(np.isfinite(found.stress).all(axis=(1, 2)), found.energy, np.nan)
    forces = [found.forces[a:b].ravel() for a, b in zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True)]
    values = table.to_table(crystals).append_column("energy", pa.array(energy, from_pandas=True))
    values = values.append_column("forces", pa.array(forces, pa.list_(pa.float64())))
    values = values.append_column("stress", pa.array(list(found.stress.reshape(-1, 9)), pa.list_(pa.float64(), 9)))
    told = {"teacher": teacher.name, "functional": teacher.scale.functional, "reference": teacher.scale.reference}
    return values.replace_schema_metadata({**(values.schema.metadata or {}), **told})


def read(folder: Path, parts: Iterable[int]) -> Labels:
    """The labels of some parts, without the crystals of which the teacher could not say anything.

    Raises:
        FileNotFoundError: when a part is missing.
        ValueError: when parts have energies on unlike scales.
    """
    tables = [table.read(part_path(folder, part)) for part in parts]
    told = {(t.schema.metadata[b"functional"].decode(), t.schema.metadata[b"reference"].decode()) for t in tables}
    if len(told) != 1:
        raise ValueError(f"{folder} has energies on {len(told)} scales, expected one: {sorted(told)}")
    found = [_labels(values, str(folder)) for values in tables]
    every = concat([labels.crystals for labels in found])
    joined = (np.concatenate([getattr(labels, name) for labels in found]) for name in ("energy", "forces", "stress"))
    energy, forces, stress = joined
    return Labels(every, energy, forces, stress, Scale(*told.pop()))


def _labels(values: pa.Table, name: str) -> Labels:
    """The labels of one part, without crystals that no reader takes or that have no label."""
    rows = pa.array(np.arange(len(values)))
    crystals, _ = table.from_table(values.drop_columns(["forces"]).append_column("row", rows), name)
    crystals = crystals.select(np.flatnonzero(np.isfinite(crystals.columns["energy"].astype(float))))
    found, alone = crystals.columns, crystals.without_columns()
    forces = values["forces"].take(pa.array(found["row"].astype(np.int64))).combine_chunks().flatten()
    shapes = forces.to_numpy().reshape(-1, 3), found["stress"].reshape(-1, 3, 3)
    return Labels(alone, found["energy"], *shapes, Scale("", ""))
