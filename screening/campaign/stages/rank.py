"""The last stage: it ranks the parts and writes what a campaign leaves for people."""

from __future__ import annotations

from collections.abc import Iterable

from assay.screening.campaign import outputs
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.stages.stage import Stage
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.summary import Summary
from assay.screening.runners.runner import Unit


class Ranking(Stage):
    """Writes the outputs when everything is scored and the workers are gone."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self.summary: Summary | None = None
        """The campaign in numbers, once the outputs are written."""

    def advance(self, *, complete: bool) -> Iterable[Unit]:  # noqa: ARG002 (workers have no part in it)
        """No units."""
        return ()

    def finished(self) -> bool:
        """Whether workers have nothing to do for it: always."""
        return True

    def conclude(self) -> None:
        """Rank, and write every output."""
        self.summary = outputs.write(self._plan, self._ledger)
