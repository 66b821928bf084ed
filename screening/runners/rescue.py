"""Work that kills the process that does it: what can be saved, and which rows are to blame.

Enters: a table, and the results of the tries that are asked for. Leaves: tables to try, then the
result for the innocent rows and the row numbers of the guilty ones. It does not know where a table
is tried: on a Ray actor (`assay.screening.runners.pool`) or in a child of the local runner
(`assay.screening.runners.child`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa

from assay.screening.runners.work import Work
from assay.screening.settings.exits import Exit, Failure

R = TypeVar("R")
T = TypeVar("T")
Tries = Generator[pa.Table, R | None, T]
"""Yields tables to try, receives the result of each (None for a death), returns the outcome."""
Rows = tuple[int, ...]
log = logging.getLogger(__name__)


def rescue(table: pa.Table, merge: Callable[[Sequence[R]], R]) -> Tries[R, tuple[R, list[int]]]:
    """Do work whose process died before: once more, then without the rows that kill every process.

    A row is guilty when it kills on its own, twice (once may be an accident). All innocent rows are
    worked on again in one batch, so that their bits depend on the data alone. A table that kills
    though none of its rows is guilty needs too much memory: it is done in halves, and `merge` puts
    the results together in row order.

    Args:
        table: n rows; with a column `id`, the log names the guilty rows.
        merge: results of consecutive rows -> their common result.

    Yields:
        Tables to try: at most about 3 n of them; for one guilty row about 2 log2(n) + 4.

    Returns:
        The result for the other rows, in their order, and the sorted numbers of the guilty rows.

    Raises:
        Failure: the process dies also on a table without rows: no crystal is to blame.
    """
    result, guilty = yield from _Trial(table, merge).solve(tuple(range(table.num_rows)))
    if guilty:
        names = table["id"].take(guilty).to_pylist() if "id" in table.column_names else guilty
        log.warning("rows that kill the process that works on them: %s", ", ".join(map(str, names)))
    return result, guilty


def rescued(work: Work[R], table: pa.Table) -> Tries[R, R]:
    """The same for a piece of work; returns the result for all rows, the guilty ones blamed."""
    result, guilty = yield from rescue(table, work.merge)
    return work.blame(table, result, guilty)


def answer(tries: Tries[R, T], attempt: Callable[[pa.Table], R | None]) -> T:
    """Try every table that is asked for at once, and return the outcome."""
    result: Any = None
    while True:
        try:
            result = attempt(tries.send(result))
        except StopIteration as end:
            outcome: T = end.value
            return outcome


class _Trial(Generic[R]):
    """One rescue: no rows are tried twice, unless a second death decides something."""

    def __init__(self, table: pa.Table, merge: Callable[[Sequence[R]], R]) -> None:
        self._table = table
        self._merge = merge
        self._known: dict[Rows, R | None] = {}

    def solve(self, rows: Rows) -> Tries[R, tuple[R, list[int]]]:
        """Result and guilty rows."""
        if not rows:
            return (yield from self._nothing()), []
        result = yield from self._try(rows)
        if result is not None:
            return result, []
        guilty = yield from self._guilty(rows)
        if guilty:
            rest, more = yield from self.solve(tuple(row for row in rows if row not in set(guilty)))
            return rest, sorted([*guilty, *more])
        result = yield from self._again(rows)  # an accident is no reason for halves, whose last bits may differ
        if result is not None:
            return result, []
        first, second = _halves(rows)
        left, blamed = yield from self.solve(first)
        right, others = yield from self.solve(second)
        return self._merge([left, right]), [*blamed, *others]

    def _guilty(self, rows: Rows) -> Tries[R, list[int]]:
        """Rows that kill on their own, by bisection among rows that killed together."""
        if len(rows) == 1:
            return [*rows] if (yield from self._again(rows)) is None else []
        left, right = _halves(rows)
        found = {left: (yield from self._try(left)), right: (yield from self._try(right))}
        deadly = [half for half, result in found.items() if result is None]
        if len(deadly) > 1:
            yield from self._nothing()  # two deaths in different rows: is it the rows at all?
        guilty = []
        for half in deadly:
            guilty += yield from self._guilty(half)
        return guilty

    def _nothing(self) -> Tries[R, R]:
        """The result for no rows."""
        result = yield from self._try(())
        if result is None:
            result = yield from self._again(())
        if result is None:
            raise Failure(
                Exit.CONFIG,
                "the worker process dies before it meets a crystal: too little memory, or a broken installation; "
                "give it more memory, or look into its output above",
            )
        return result

    def _try(self, rows: Rows) -> Tries[R, R | None]:
        if rows not in self._known:
            self._known[rows] = yield _take(self._table, rows)
        return self._known[rows]

    def _again(self, rows: Rows) -> Tries[R, R | None]:
        if self._known.get(rows) is None:
            self._known.pop(rows, None)
        return (yield from self._try(rows))


def _take(table: pa.Table, rows: Rows) -> pa.Table:
    whole = len(rows) == table.num_rows
    return table if whole else table.take(pa.array(rows, pa.int64()))  # an empty list would have no type


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]
