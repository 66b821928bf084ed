"""The stage that relaxes chunks before anything scores them."""

from __future__ import annotations

from assay.models.potentials.formation import Formation
from assay.screening.campaign.stages.chunks import ByChunk
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.runners.relax import Relax
from assay.screening.runners.runner import Done
from assay.screening.settings.config import Relax as How
from assay.screening.settings.progress import Board


class Relaxing(ByChunk):
    """Relaxes the chunks of the snapshot as they are cut."""

    def __init__(self, how: How, formation: Formation | None, ledger: Ledger, board: Board) -> None:
        super().__init__(ledger, board, Relax(how.settings(), formation), "relaxed")

    def _chosen(self) -> list[Record]:
        return self._ledger.all("chunks")

    def done(self, done: Done) -> bool:
        """Commit a chunk; it can be scored now."""
        super().done(done)
        return True
