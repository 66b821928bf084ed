"""What a stage of a campaign is: the contract between the stages and the flow that drives them.

Enters: the ledger as the stages before left it. Leaves: units of work, and records for the stages
after. A stage knows no other stage and no runner: stages meet in the ledger alone, so that one more
stage is one more entry of a list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Step
from assay.screening.runners.runner import Done, Unit
from assay.screening.settings.exits import Failure


class Stage(ABC):
    """One stage of one campaign; made from a ledger, it goes on where that ledger ends."""

    @abstractmethod
    def advance(self, *, complete: bool) -> Iterable[Unit]:
        """Commit what needs no worker, and offer every unit that can begin now and was not offered.

        `complete` says that all stages before this one are finished. The caller takes all units.
        """

    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing is left for this stage, provided that those before it are finished."""

    def jobs(self) -> list[Job]:
        """What is left to pull."""
        return []

    def pulled(self, step: Step) -> bool:
        """Commit a step of a job of this stage; True when this stage or a later one may go on."""
        raise TypeError(f"{type(self).__name__} has no jobs, and was given {step!r:.200}")

    def done(self, done: Done) -> bool:
        """Commit a unit of this stage; True when this stage or a later one may go on."""
        raise TypeError(f"{type(self).__name__} offers no units, and was given {done.unit.name!r}")

    def failures(self) -> list[Failure]:
        """What keeps this stage from finishing in this run."""
        return []

    def conclude(self) -> None:  # noqa: B027 (most stages have nothing left to do)
        """Do what is left once all stages are finished and the workers are gone."""


def commit(ledger: Ledger, done: Done) -> None:
    """Commit the record that a piece of work leaves."""
    entry = done.unit.work.entry(done.unit.key, done.unit.rows, done.result)
    ledger.commit(entry.kind, done.unit.key, entry.tables, entry.counts, entry.detail)
