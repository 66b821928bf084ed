"""The stage that scores chunks: those of the snapshot, or those of a later tier of a cascade."""

from __future__ import annotations

from assay.screening.campaign.stages.chunks import ByChunk
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.runners.score import Score
from assay.screening.settings.config import Campaign
from assay.screening.settings.progress import Board


class Scoring(ByChunk):
    """Scores the chunks of one tier; without a cascade there is only tier 0.

    Where crystals are relaxed, tier 0 scores a chunk as soon as it is.
    """

    def __init__(self, campaign: Campaign, ledger: Ledger, board: Board, tier: int) -> None:
        super().__init__(ledger, board, Score(None if tier == len(campaign.tiers()) else tier), "part")
        self._tier = tier
        self._first = "chunks" if campaign.relax is None else "relaxed"

    def _chosen(self) -> list[Record]:
        if self._tier == 0:
            return self._ledger.all(self._first)
        record = self._ledger.find("selection", str(self._tier))
        return [] if record is None else [record]
