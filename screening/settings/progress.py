"""How far, how fast, how long still: bars on a terminal, one line every 30 seconds elsewhere.

Enters: amounts done. Leaves: text on standard error. It knows nothing about what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LINE_INTERVAL_S = 30.0


@dataclass
class Board:
    """Several counts, shown together."""

    bars: Any = None
    """rich.progress.Progress on a terminal."""
    _counts: dict[str, _Count] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)
    """Label -> when its work began; other work began with the board."""
    _start: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def begin(self, label: str) -> None:
        """Work of a label is at hand; only the first call counts."""
        self._begun.setdefault(label, time.monotonic())

    def advance(self, label: str, amount: int, total: int | None = None, done: int = 0) -> None:
        """Count more of a label; `done`, the work of earlier runs, counts at the first call."""
        count = self._counts.setdefault(label, _Count(self._begun.get(label, self._start), done))
        count.fresh += amount
        count.total = total if total is not None else count.total
        if self.bars is not None:
            if count.bar is None:
                count.bar = self.bars.add_task(label, total=count.total, rate="")
            self.bars.update(
                count.bar, completed=count.before + count.fresh, total=count.total, rate=f"{count.rate():,.0f}/s"
            )
        elif time.monotonic() - self._last >= LINE_INTERVAL_S:
            self._last = time.monotonic()
            sys.stderr.write(" · ".join(count.line(name) for name, count in self._counts.items()) + "\n")
            sys.stderr.flush()


@dataclass
class _Count:
    start: float
    before: int
    total: int | None = None
    fresh: int = 0
    bar: Any = None

    def rate(self) -> float:
        return self.fresh / (time.monotonic() - self.start + 1e-9)

    def line(self, label: str) -> str:
        done = self.before + self.fresh
        if self.total is None:
            return f"{label} {done:,} ({self.rate():,.0f}/s)"
        left = (self.total - done) / self.rate() if self.rate() > 0 else 0.0
        return f"{label} {done:,} of {self.total:,} ({self.rate():,.0f}/s, {left:,.0f} s left)"


@contextmanager
def board() -> Iterator[Board]:
    """A board for the length of a block."""
    if not sys.stderr.isatty():
        yield Board()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Board(bars)
