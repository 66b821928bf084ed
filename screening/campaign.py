"""A campaign from end to end: plan -> pull -> score -> rank.

Enters: a `Plan` and a runner. Leaves: the campaign folder, and an `Outcome` with the exit code. Only this driver writes
to the ledger. It does not know which runner it drives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screening import accounts, durable, ledger, lock, outputs, progress, pull, snapshot
from screening.accounts import Accounts
from screening.config import dump
from screening.exits import Exit, Failure
from screening.ledger import Ledger
from screening.local import Runner
from screening.plan import Plan
from screening.pull import Page
from screening.snapshot import Chunk
from screening.worker import Part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended."""

    code: Exit
    accounts: Accounts
    folder: Path
    note: str = ""
    """Why the code is not 0, in one line."""
    summary: dict[str, Any] | None = None
    """Content of summary.json, when the campaign was ranked."""


def run(plan: Plan, runner: Runner, stopped: Callable[[], bool], *, pull_only: bool = False) -> Outcome:
    """Run a campaign, or go on with one: finished work is never redone.

    Raises:
        Failure: locked, other fingerprint, source down, disk full, identity broken, stopped.
    """
    with lock.held(plan.folder):
        ledger.check_fingerprint(plan.folder, plan.fingerprint)
        durable.write(plan.folder / "config.resolved.yaml", dump(plan.campaign))
        book = Ledger(plan.folder)
        pull_all(plan, book, runner, stopped)
        snapshot.seal(book, plan.campaign)
        if pull_only:
            return _judge(plan, book, accounts.take(book), None)
        score_all(plan, book, runner, stopped)
        return rank_all(plan, book)


def rerank(plan: Plan) -> Outcome:
    """Rank a scored campaign folder again, for instance by another rule."""
    with lock.held(plan.folder):
        book = Ledger(plan.folder)
        if book.find("chunks", "all") is None:
            raise Failure(Exit.CONFIG, f"{plan.folder} holds no scored campaign yet; start it with: assay run")
        ledger.check_fingerprint(plan.folder, plan.fingerprint)
        durable.write(plan.folder / "config.resolved.yaml", dump(plan.campaign))
        return rank_all(plan, book)


def pull_all(plan: Plan, book: Ledger, runner: Runner, stopped: Callable[[], bool]) -> None:
    """Pull every unfinished source into the snapshot."""
    todo = pull.jobs(book, plan.campaign)
    if not todo:
        return
    journal = pull.Journal(book, todo)
    down: Failure | None = None
    with progress.track("pull", None, accounts.take(book).received) as advance:
        for name, event in runner.pull(todo):
            if isinstance(event, Page):
                journal.page(name, event)
                advance(event.received)
            else:
                try:
                    journal.end(name, event)
                except Failure as failure:
                    down = down or failure  # the other sources are pulled before this one ends the campaign
            _stop_if(stopped, plan.folder)
    if down is not None:
        raise down
    unfinished = [job.name for job in pull.jobs(book, plan.campaign)]
    if unfinished:
        raise Failure(Exit.SOURCE_DOWN, f"sources not pulled to their end: {', '.join(unfinished)}; run again to go on")


def score_all(plan: Plan, book: Ledger, runner: Runner, stopped: Callable[[], bool]) -> None:
    """Score every chunk that has no part yet."""
    every = snapshot.chunks(book)
    todo = [chunk for chunk in every if book.find("part", chunk.name) is None]
    sealed = book.find("chunks", "all")
    assert sealed is not None
    before = sum(chunk.rows for chunk in every) - sum(chunk.rows for chunk in todo)

    def read(chunk: Chunk) -> Any:
        return book.read(sealed, chunk.path)

    with progress.track("score", sum(chunk.rows for chunk in every), before) as advance:
        for chunk, part in runner.score(todo, read, stopped):
            commit_part(book, chunk, part)
            advance(chunk.rows)
    if any(book.find("part", chunk.name) is None for chunk in every):
        _stop_if(lambda: True, plan.folder)


def commit_part(book: Ledger, chunk: Chunk, part: Part) -> None:
    """Commit what became of one chunk, after counting it."""
    from sources import table

    scored, quarantined = part.table.num_rows, len(part.quarantined)
    if scored + quarantined != chunk.rows:
        raise Failure(Exit.IDENTITY_BROKEN, f"chunk {chunk.name}: {chunk.rows} crystals became {scored} scored and "
                      f"{quarantined} quarantined; report this as a defect")  # fmt: skip
    tables = {f"parts/{chunk.name}.parquet": part.table}
    if part.quarantined:
        tables[f"quarantine/{chunk.name}.parquet"] = table.quarantine_table(part.quarantined)
    book.commit("part", chunk.name, tables, {"scored": scored, "quarantined": quarantined})


def rank_all(plan: Plan, book: Ledger) -> Outcome:
    """Rank the parts and write every output of the campaign folder."""
    summary, counted = outputs.write(plan, book)
    return _judge(plan, book, counted, summary)


def _judge(plan: Plan, book: Ledger, counted: Accounts, summary: dict[str, Any] | None) -> Outcome:
    rows = accounts.sources(book, plan.campaign)
    short = [row["name"] for row in rows if not row["complete"]]
    code, note = Exit.DONE, ""
    if counted.bad_fraction() > plan.campaign.max_bad:
        code = Exit.TOO_MANY_BAD
        note = (f"{counted.quarantined} of {counted.unique - counted.filtered} crystals were quarantined, more than "
                f"max_bad {plan.campaign.max_bad:.1%}; see quarantine.parquet, or raise max_bad")  # fmt: skip
    elif short:
        code, note = Exit.INCOMPLETE, f"incomplete: {', '.join(short)} delivered less than announced; see report.html"
    return Outcome(code, counted, plan.folder, note, summary)


def _stop_if(stopped: Callable[[], bool], folder: Path) -> None:
    if stopped():
        raise Failure(Exit.STOPPED, f"stopped; everything finished is committed in {folder}, run again to go on")
