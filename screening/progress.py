"""How far, how fast, how long still: a bar on a terminal, one line every 30 seconds elsewhere.

Enters: amounts done. Leaves: text on standard error. It knows nothing about what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_INTERVAL_S = 30.0


@contextmanager
def track(label: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A function to call with every amount finished; `done` was finished by an earlier run."""
    if sys.stderr.isatty():
        yield from _bar(label, total, done)
    else:
        yield _lines(label, total, done)


def _bar(label: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<6}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done, rate="")
        fresh = 0

        def advance(amount: int) -> None:
            nonlocal fresh
            fresh += amount
            progress.update(task, advance=amount, rate=f"{fresh / (time.monotonic() - start + 1e-9):,.0f}/s")

        yield advance


def _lines(label: str, total: int | None, done: int) -> Callable[[int], None]:
    start = last = time.monotonic()
    fresh = 0

    def advance(amount: int) -> None:
        nonlocal fresh, last
        fresh += amount
        now = time.monotonic()
        if now - last >= LINE_INTERVAL_S:
            last = now
            sys.stderr.write(_line(label, done + fresh, total, fresh / (now - start)) + "\n")
            sys.stderr.flush()

    return advance


def _line(label: str, done: int, total: int | None, rate: float) -> str:
    if total is None:
        return f"{label} {done:,} ({rate:,.0f}/s)"
    left = (total - done) / rate if rate > 0 else 0.0
    return f"{label} {done:,} of {total:,} ({rate:,.0f}/s, {left:,.0f} s left)"
