"""Relaxed crystals as a table: what was measured on each of them stands in columns.

Enters: `Relaxed`, and the scale of its energies. Leaves: crystals with the columns `MEASURED`, or
their table, whose fields name unit and meaning. This module does not know files or campaigns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.sources.crystals import set_aside

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from assay.models.potentials.potential import Scale
    from assay.models.potentials.relax import Relaxed
    from assay.sources.crystals import Crystals

MEASURED = {
    "energy_per_atom": ("eV/atom", "of exactly this cell, on the scale of the potential"),
    "volume_change": ("", "relaxed volume / first volume - 1"),
    "steps": ("", "evaluations of the potential"),
    "max_force": ("eV/Å", "longest force on an atom that remains"),
    "max_stress": ("GPa", "largest component of the stress that remains"),
}
"""Columns of a relaxed crystal: unit and meaning."""
FORMATION = "relaxed_formation_energy"
"""Name of the formation energy of a relaxed crystal by the potential, where one is asked for."""
FORMED = {
    f"{FORMATION}_{part}": ("eV/atom", f"{meaning} of exactly this cell by the potential")
    for part, meaning in {
        "mean": "formation energy",
        "std": "standard deviation of the error of the formation energy",
        "lo": "lower end of the 90 % interval of the formation energy",
        "hi": "upper end of the 90 % interval of the formation energy",
    }.items()
}
"""Its columns: unit and meaning."""


def measured(found: Relaxed, formed: Mapping[str, NDArray[np.float64]] | None = None) -> Crystals:
    """The relaxed crystals with the columns `MEASURED` behind those that they came with.

    Behind them stand those of `formed`, (m,) each, named as in `FORMED`. A column of the input that
    has one of these names is called `reported_...`.
    """
    values = {
        "energy_per_atom": found.energy / found.crystals.nsites,
        "volume_change": found.volume_change,
        "steps": found.steps,
        "max_force": found.force,
        "max_stress": found.stress,
    }
    kept = {set_aside(name, MEASURED | FORMED): column for name, column in found.crystals.columns.items()}
    return found.crystals.without_columns().with_columns(**kept, **values, **(formed or {}))


def to_table(crystals: Crystals, potential: str, scale: Scale, functional: str = "") -> pa.Table:
    """Crystals with the columns `MEASURED` as a table; the field of the energies names a scale.

    `functional` is that of the columns `FORMED`, where there are any.
    """
    from assay.sources import table  # models are used without pyarrow, too

    found = table.to_table(crystals)
    scales = {"energy_per_atom": f": {potential}, {scale}"} | dict.fromkeys(FORMED, f", {functional}")
    for name, (unit, meaning) in (MEASURED | FORMED).items():
        said = meaning + scales.get(name, "")
        place = found.schema.get_field_index(name)
        if place < 0:
            continue
        field = found.schema.field(place).with_metadata({"unit": unit, "meaning": said})
        found = found.set_column(place, field, found.column(place))
    return found
