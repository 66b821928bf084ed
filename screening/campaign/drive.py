"""A campaign from end to end: plan -> pull -> score -> rank.

Enters: a `Plan` and a runner. Leaves: the campaign folder, and an `Outcome` with the exit code.
Only this driver writes to the ledger. It does not know which runner it drives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.screening.campaign import fingerprint, flow
from assay.screening.campaign.flow import Flow
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.stages.rank import Ranking
from assay.screening.folder import again, balance, delivery, inventory, lock, snapshot, stamp, unreported
from assay.screening.folder.attempts import Attempts
from assay.screening.folder.balance import Balance
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.summary import Summary
from assay.screening.runners.runner import Runner
from assay.screening.settings import progress
from assay.screening.settings.config import dump
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended."""

    code: Exit
    balance: Balance
    folder: Path
    note: str = ""
    """Why the code is not 0, in one line."""
    summary: Summary | None = None
    """The campaign in numbers, when it was ranked."""


def run(plan: Plan, runner: Runner, stopped: Callable[[], bool], *, pull_only: bool = False) -> Outcome:
    """Run a campaign, or go on with one: finished work is never redone.

    Raises:
        Failure: locked, other fingerprint, source down, disk full, damaged files, balance broken,
            stopped.
    """
    content = fingerprint.content(plan.campaign)
    with lock.held(plan.folder) as hold:
        ledger = _open(plan, content)
        again.ask(ledger, plan.campaign)
        ranking = Ranking(plan, ledger)
        with progress.board() as board, Attempts(plan.folder / "attempts.log") as attempts:
            if pull_only:
                stages = flow.pull_stages(plan, ledger, board)
            else:
                stages = [*flow.scoring_stages(plan, ledger, board), ranking]
            work = Flow(stages, attempts)
            for happened in runner.work(work.jobs, work.units, stopped):
                if hold.lost():
                    raise Failure(
                        Exit.LOCKED,
                        f"{plan.folder} was taken over by another process (this one was silent for too long); "
                        "nothing is lost, the other one goes on",
                    )
                work.take(happened)
        if not work.finished():
            raise _unfinished(plan, work, stopped())
        again.forget_parts(ledger)
        work.conclude()
        return _outcome(plan, ledger, ranking)


def rerank(plan: Plan) -> Outcome:
    """Rank a scored campaign folder again, for instance by another rule."""
    with lock.held(plan.folder):
        ledger = _open(plan)
        chosen = snapshot.tiers(ledger) > len(plan.campaign.tiers())
        if not (chosen and snapshot.sealed(ledger, plan.campaign)):
            raise Failure(Exit.CONFIG, f"{plan.folder} holds no scored campaign yet; start it with: assay run")
        ranking = Ranking(plan, ledger)
        ranking.conclude()
        return _outcome(plan, ledger, ranking)


def _open(plan: Plan, content: Mapping[str, str] | None = None) -> Ledger:
    """The ledger of the plan's folder, once all that an earlier run left there is checked."""
    stamp.check_fingerprint(plan.folder, plan.fingerprint, content)
    durable.write(plan.folder / "config.resolved.yaml", dump(plan.campaign))
    inventory.sweep(plan.folder)
    ledger = Ledger(plan.folder)
    files = ledger.check()
    log.info("%d records and %d files of earlier runs are intact", len(ledger), files)
    return ledger


def _unfinished(plan: Plan, work: Flow, stopped: bool) -> Failure:
    if stopped:
        return Failure(Exit.STOPPED, f"stopped; everything finished is committed in {plan.folder}, run again to go on")
    failures = work.failures()
    if failures:
        return failures[0]
    return Failure(Exit.SOURCE_DOWN, f"{plan.folder} could not be finished; run again to go on")


def _outcome(plan: Plan, ledger: Ledger, ranking: Ranking) -> Outcome:
    summary = ranking.summary
    counted = balance.take(ledger) if summary is None else summary.balance
    short = [source.name for source in delivery.read(ledger, plan.campaign) if not source.complete]
    code, note = Exit.DONE, ""
    if counted.bad_fraction() > plan.campaign.max_bad:
        code = Exit.TOO_MANY_BAD
        note = (
            f"{counted.quarantined} of {counted.unique - counted.filtered} crystals were quarantined, more than "
            f"max_bad: {plan.campaign.max_bad:g}; see quarantine.parquet, or raise max_bad"
        )
    elif short:
        code, note = Exit.INCOMPLETE, f"incomplete: {', '.join(short)} delivered less than announced; see report.html"
    elif empty := unreported.note(ledger, plan.campaign):
        code, note = Exit.INCOMPLETE, empty
    return Outcome(code, counted, plan.folder, note, summary)
