"""The stage between two tiers of a cascade: it chooses the crystals that the next tier scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from assay.screening.campaign.stages.stage import Stage
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.summary import Target
from assay.screening.ranking import cascade
from assay.screening.runners.runner import Unit
from assay.screening.settings.config import Campaign


class Selecting(Stage):
    """Commits the chunks of one tier once the tier before it has scored everything."""

    def __init__(self, campaign: Campaign, ledger: Ledger, targets: Sequence[Target], tier: int) -> None:
        """`targets` rank, as each tier predicts them; the chunks are those of `tier`, above 0."""
        self._campaign, self._ledger, self._targets, self._tier = campaign, ledger, targets, tier

    def advance(self, *, complete: bool) -> Iterable[Unit]:
        """Choose, and offer no units."""
        if complete and not self.finished():
            cascade.select(self._ledger, self._campaign, self._targets, self._tier - 1)
        return ()

    def finished(self) -> bool:
        """Whether the crystals are chosen."""
        return self._ledger.find("selection", str(self._tier)) is not None
