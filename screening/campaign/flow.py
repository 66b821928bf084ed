"""The stages of a campaign in a list, and the flow through them.

Enters: steps and results as a runner delivers them. Leaves: jobs and units for that runner, and,
through the stages, records in the ledger. The flow does not know what a stage does, nor which
runner it feeds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from assay.screening.campaign.plan import Plan
from assay.screening.campaign.stages.cut import Cutting
from assay.screening.campaign.stages.pull import Pulling
from assay.screening.campaign.stages.score import Scoring
from assay.screening.campaign.stages.select import Selecting
from assay.screening.campaign.stages.stage import Stage
from assay.screening.folder.attempts import SUSPECT, Attempts
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Step
from assay.screening.runners.runner import Done, Unit
from assay.screening.settings.exits import Failure
from assay.screening.settings.progress import Board
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.screening.campaign.stages import identify, relax
else:
    identify = importing.later("assay.screening.campaign.stages.identify")
    relax = importing.later("assay.screening.campaign.stages.relax")


def scoring_stages(plan: Plan, ledger: Ledger, board: Board) -> list[Stage]:
    """The stages up to the ranking, in order; each reads what the ones before it committed."""
    campaign = plan.campaign
    found: list[Stage] = [Pulling(campaign, ledger, board)]
    if campaign.merges():
        found.append(identify.Identifying(campaign, ledger, board))
    found.append(Cutting(campaign, ledger))
    if campaign.relax is not None:
        formation = plan.stability.formation if plan.stability else None
        found.append(relax.Relaxing(campaign.relax, formation, ledger, board))
    found.append(Scoring(campaign, ledger, board, 0))
    for tier in range(1, 1 + len(campaign.tiers())):
        found += [Selecting(campaign, ledger, plan.targets, tier), Scoring(campaign, ledger, board, tier)]
    return found


def pull_stages(plan: Plan, ledger: Ledger, board: Board) -> list[Stage]:
    """The stages of a campaign that is only pulled: those that need no worker."""
    cutting = [] if plan.campaign.merges() else [Cutting(plan.campaign, ledger)]
    return [Pulling(plan.campaign, ledger, board), *cutting]


class Flow:
    """The work of one campaign folder, as far as it is known."""

    def __init__(self, stages: Sequence[Stage], attempts: Attempts) -> None:
        """The first stage gets the steps of every job."""
        self._stages, self._attempts = stages, attempts
        self._owner: dict[str, int] = {}  # unit that is not done -> place of its stage
        self.units: deque[Unit] = deque()
        """What can be done now; the runner takes from the left."""
        self._advance(0)

    def jobs(self) -> list[Job]:
        """What is left to pull."""
        return [job for stage in self._stages for job in stage.jobs()]

    def take(self, happened: Step | Done) -> None:
        """Let the stage that it belongs to commit it, then find out what can be done next."""
        if isinstance(happened, Done):
            name = happened.unit.name
            self._attempts.done(name)
            place = self._owner.pop(name)
            opens = self._stages[place].done(happened)
        else:
            place = 0
            opens = self._stages[place].pulled(happened)
        if opens:
            self._advance(place)

    def finished(self) -> bool:
        """Whether no stage needs a worker or a source any more."""
        return all(stage.finished() for stage in self._stages)

    def failures(self) -> list[Failure]:
        """What keeps the campaign from finishing in this run."""
        return [failure for stage in self._stages for failure in stage.failures()]

    def conclude(self) -> None:
        """Let the stages do what is left when the workers are gone."""
        for stage in self._stages:
            stage.conclude()

    def _advance(self, first: int) -> None:
        """Ask every stage from that place on for what it can do now."""
        complete = all(stage.finished() for stage in self._stages[:first])
        for place, stage in enumerate(self._stages[first:], first):
            for unit in stage.advance(complete=complete):
                self._offer(unit, place)
            complete = complete and stage.finished()

    def _offer(self, unit: Unit, place: int) -> None:
        """Offer a unit; its beginning is noted, so that blame survives a driver that dies."""
        self._owner[unit.name] = place
        suspect = self._attempts.count(unit.name) >= SUSPECT
        self.units.append(replace(unit, read=partial(self._begin, unit.name, unit.read), suspect=suspect))

    def _begin(self, name: str, read: Callable[[], pa.Table]) -> pa.Table:
        self._attempts.begin(name)
        return read()
