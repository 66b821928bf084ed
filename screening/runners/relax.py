"""Work that relaxes crystals with the force field of a campaign.

Enters: a chunk of crystals. Leaves: a `Part`: the crystals that arrived, with what was measured on
each, and a quarantine record for every other one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from assay.models.potentials import columns, relax as relaxing
from assay.models.potentials.formation import Formation
from assay.models.potentials.relax import Settings
from assay.screening.runners.score import Chunked
from assay.screening.runners.work import Entry, Models
from assay.screening.runners.worker import Part
from assay.sources import table as tables
from assay.sources.quarantine import Stage


@dataclass(frozen=True)
class Relax(Chunked):
    """The crystals of a chunk where they arrived; one that kills workers is quarantined."""

    stage, done = Stage.RELAX, "relaxed"
    settings: Settings
    """When a crystal has arrived."""
    formation: Formation | None = None
    """What makes formation energies of their energies; None where no hull asks for them."""

    @property
    def name(self) -> str:
        """`relax`."""
        return "relax"

    def do(self, models: Models, table: pa.Table) -> Part:
        """Relax the crystals of one chunk; an end in a cell that no reader accepts is refused."""
        potential = models.potential()
        crystals, unread = tables.from_table(table, "chunk")
        found = relaxing.relax(crystals, potential, self.settings)
        energy, made = found.energy / found.crystals.nsites, self.formation
        formed, functional = (made.columns(found.crystals, energy, potential), made.functional) if made else ({}, "")
        content = columns.to_table(columns.measured(found, formed), potential.name, potential.scale, functional)
        odd = [replace(row, origin="", stage=Stage.RELAX) for row in tables.from_table(content, "relaxed")[1]]
        lost = {row.id for row in odd}
        sound = [name not in lost for name in found.crystals.ids.tolist()]
        places = crystals.columns["origin"].tolist() if "origin" in crystals.columns else [""] * len(crystals)
        origin = dict(zip(crystals.ids.tolist(), places, strict=True))
        refused = [replace(row, origin=str(origin[row.id])) for row in (*found.refused, *odd)]
        return Part(content.filter(pa.array(sound, pa.bool_())), [*unread, *refused])

    def entry(self, key: str, rows: int, result: Part) -> Entry:
        """A record of the kind `relaxed`; it names the chunk that is scored.

        Raises:
            Failure: a crystal is neither relaxed nor quarantined.
        """
        path = f"relaxed/{key}.parquet"
        kept = {path: result.table}
        if result.quarantined:
            kept[f"relaxed/{key}.quarantine.parquet"] = tables.quarantine_table(result.quarantined)
        chunk = {"name": key, "path": path, "rows": result.table.num_rows}
        return Entry("relaxed", kept, self.counted(key, rows, result), {"chunks": [chunk]})
