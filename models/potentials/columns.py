"""Relaxed crystals as a table: what was measured on each of them stands in columns.

Enters: `Relaxed`, and the scale of its energies. Leaves: crystals with the columns `MEASURED`, or
their table, whose fields name unit and meaning. This module does not know files or campaigns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.sources.crystals import set_aside

if TYPE_CHECKING:
    import pyarrow as pa

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


def measured(found: Relaxed) -> Crystals:
    """The relaxed crystals with the columns `MEASURED` behind those that they came with.

    A column of the input that has one of these names is called `reported_...`.
    """
    values = {
        "energy_per_atom": found.energy / found.crystals.nsites,
        "volume_change": found.volume_change,
        "steps": found.steps,
        "max_force": found.force,
        "max_stress": found.stress,
    }
    kept = {set_aside(name, MEASURED): column for name, column in found.crystals.columns.items()}
    return found.crystals.without_columns().with_columns(**kept, **values)


def to_table(crystals: Crystals, potential: str, scale: Scale) -> pa.Table:
    """Crystals with the columns `MEASURED` as a table; the field of the energies names a scale."""
    from assay.sources import table  # models are used without pyarrow, too

    found = table.to_table(crystals)
    for name, (unit, meaning) in MEASURED.items():
        said = f"{meaning}: {potential}, {scale}" if name == "energy_per_atom" else meaning
        place = found.schema.get_field_index(name)
        field = found.schema.field(place).with_metadata({"unit": unit, "meaning": said})
        found = found.set_column(place, field, found.column(place))
    return found
