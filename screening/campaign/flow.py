"""What follows from what: a shard that is pulled whole is sealed, its chunks are scored; in a cascade, the best again.

Enters: steps and results as a runner delivers them. Leaves: records in the ledger, and further
tasks. A flow that is made from a ledger goes on where that ledger ends. It does not know which
runner it feeds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from assay.screening.campaign import identify
from assay.screening.folder import snapshot
from assay.screening.folder.attempts import Attempts
from assay.screening.folder.journal import Journal
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.snapshot import Chunk, Taken
from assay.screening.folder.summary import Target
from assay.screening.pulling.pull import Job, Planned, Step
from assay.screening.ranking import cascade
from assay.screening.runners import worker
from assay.screening.runners.runner import Done, Task
from assay.screening.runners.worker import Part
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.progress import Board

if TYPE_CHECKING:
    import pyarrow as pa

SUSPECT = 2
"""Attempts in vain after which a task is done where it cannot end the driver."""


class Flow:
    """The work of one campaign folder, as far as it is known."""

    def __init__(
        self,
        campaign: Campaign,
        book: Ledger,
        board: Board,
        attempts: Attempts,
        *,
        targets: Sequence[Target] = (),
        pull_only: bool = False,
    ) -> None:
        """`targets` is what ranks, as each tier of a cascade predicts it; without one nobody asks."""
        self._campaign, self._book, self._board, self._pull_only = campaign, book, board, pull_only
        self._attempts, self._targets = attempts, targets
        self._journal = Journal(book, campaign)
        self._taken = Taken()
        self._dealt: set[tuple[str, int]] = set()  # shards that had their turn in this process
        self._labelling: set[str] = set()
        self._matching: set[str] | None = None
        self.tasks: deque[Task] = deque()
        """What can be done now; the runner takes from the left."""
        self._before = sum(page.counts["received"] for page in book.all("page"))
        self._tier = 0
        self._unscored: set[str] = set()  # chunks of this tier
        self._rows: Counter[str] = Counter()  # by kind of task
        self._scored: Counter[str] = Counter()
        self._advance()

    @property
    def down(self) -> list[Failure]:
        """Sources that stopped answering in this run."""
        return list(self._journal.down.values())

    def jobs(self) -> list[Job]:
        """What is left to pull."""
        return self._journal.jobs()

    def finished(self) -> bool:
        """Whether everything is pulled and, unless only a pull was asked for, scored."""
        if self._pull_only:
            return snapshot.pulled(self._book, self._campaign)
        chosen = snapshot.tiers(self._book) > len(self._campaign.tiers())
        scored = all(self._book.find("part", chunk.name) for chunk in snapshot.chunks(self._book))
        return chosen and scored and snapshot.sealed(self._book, self._campaign)

    def take(self, happened: Step | Done) -> None:
        """Commit what happened, and find out what can be done next."""
        if isinstance(happened, Done):
            self._finish(happened)
            if worker.scores(happened.task.kind):
                self._climb()
            else:
                self._advance()
            return
        rows = self._journal.take(happened)
        if rows:
            self._board.advance("pull", rows, self._announced(), self._before)
        elif not isinstance(happened, Planned):
            self._advance()

    def _finish(self, done: Done) -> None:
        kind, key = done.task.kind, done.task.key
        self._attempts.done(f"{kind} {key}")
        if worker.scores(kind):
            commit_part(self._book, key, done.task.rows, done.result)
            self._unscored.discard(key)
            self._board.advance(kind, done.task.rows, self._rows[kind], self._scored[kind])
            return
        self._book.commit(identify.KINDS[kind], key, {f"identity/{kind}/{key}.parquet": done.result},
                          {"rows": done.result.num_rows})  # fmt: skip
        (self._labelling if self._matching is None else self._matching).discard(key)
        self._board.advance(kind, done.task.rows)

    def _advance(self) -> None:
        """Deal with every shard whose turn has come."""
        if not self._campaign.merges() or self._book.find("identity", "all") is not None:
            self._seal()
        elif not self._pull_only:
            self._identify()

    def _identify(self) -> None:
        """Label shards as they come in; then compare; then seal all of them."""
        for source, shard in self._ready():
            found = snapshot.unique(self._book, source, shard, self._taken)
            wanted = found.crystals.select(snapshot.keep(self._campaign, source, found.crystals))
            tasks = list(identify.label_tasks(self._book, source, shard, wanted))
            self._labelling.update(task.key for task in tasks)
            self._add(*tasks)
        if self._labelling or not snapshot.pulled(self._book, self._campaign):
            return
        if self._matching is None:
            tasks = identify.match_tasks(self._book, self._campaign)
            self._matching = {task.key for task in tasks}
            self._add(*tasks)
        if not self._matching:
            identify.resolve(self._book, self._campaign)
            self._taken, self._dealt = Taken(), set()
            self._seal()

    def _seal(self) -> None:
        """Cut shards into chunks, in plan order."""
        same = identify.others(self._book) if self._campaign.merges() else frozenset()
        for source, shard in self._ready():
            key = snapshot.shard_key(source, shard)
            if self._book.find("chunks", key) is None:
                found = snapshot.unique(self._book, source, shard, self._taken)
                snapshot.seal(self._book, self._campaign, source, shard, found, same)
            else:
                snapshot.note(self._book, source, shard, self._taken)
            if not self._pull_only:
                self._offer(self._book.find("chunks", key))
        if not self._pull_only:
            self._climb()

    def _climb(self) -> None:
        """Once a tier of a cascade has scored everything, cut the chunks of the next one."""
        last = len(self._campaign.tiers())
        while self._tier < last and not self._unscored and snapshot.sealed(self._book, self._campaign):
            chosen = self._book.find("selection", str(self._tier + 1))
            chosen = chosen or cascade.select(self._book, self._campaign, self._targets, self._tier)
            self._tier += 1
            self._offer(chosen)

    def _offer(self, record: Record | None) -> None:
        """Offer the chunks that a record names."""
        assert record is not None
        kind = worker.SCORE if self._tier == len(self._campaign.tiers()) else worker.tier_kind(self._tier)
        for chunk in (Chunk(**row) for row in record.detail["chunks"]):
            self._rows[kind] += chunk.rows
            if self._book.find("part", chunk.name) is None:
                self._unscored.add(chunk.name)
                self._add(Task(kind, chunk.name, chunk.rows, partial(self._book.read, record, chunk.path)))
            else:
                self._scored[kind] += chunk.rows

    def _add(self, *tasks: Task) -> None:
        """Offer tasks; each beginning is noted, so that blame survives a driver that dies."""
        for task in tasks:
            key = f"{task.kind} {task.key}"
            suspect = self._attempts.count(key) >= SUSPECT
            self.tasks.append(replace(task, read=partial(self._begin, key, task.read), suspect=suspect))

    def _begin(self, key: str, read: Callable[[], pa.Table]) -> pa.Table:
        self._attempts.begin(key)
        return read()

    def _ready(self) -> Iterator[tuple[str, int]]:
        """Shards pulled whole that had no turn yet, as far as the ones before them are pulled too."""
        for key in list(snapshot.plan_order(self._book, self._campaign)):
            if key not in self._dealt:
                self._dealt.add(key)
                yield key

    def _announced(self) -> int | None:
        plans = [record.detail["shards"] for record in self._book.all("plan")]
        counts = [shard["expected"] for shards in plans for shard in shards]
        known = len(plans) == len(self._campaign.sources) and all(plans)
        return None if None in counts or not known else sum(counts)


def commit_part(book: Ledger, chunk: str, rows: int, part: Part) -> None:
    """Commit what became of one chunk, after counting it."""
    from assay.sources import table

    scored, quarantined = part.table.num_rows, len(part.quarantined)
    if scored + quarantined != rows:
        raise Failure(Exit.BALANCE_BROKEN, f"chunk {chunk}: {rows} crystals became {scored} scored and "
                      f"{quarantined} quarantined; report this as a defect")  # fmt: skip
    tables = {f"parts/{chunk}.parquet": part.table}
    if part.quarantined:
        tables[f"quarantine/{chunk}.parquet"] = table.quarantine_table(part.quarantined)
    book.commit("part", chunk, tables, {"scored": scored, "quarantined": quarantined})
