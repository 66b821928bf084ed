"""The outcome of many trials: how many were tried, held, refused and lost.

Enters: the verdict of each trial. Leaves: one line of the table, and what became of it as JSON. A
trial is `held` when the bytes in the end are those of an undisturbed run, `refused` when the
command ended with an exit code of its list and one line, and `lost` in every other case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("part", "tried", "held", "refused", "lost", "seconds")


@dataclass
class Tally:
    """One line of the table."""

    part: str
    tried: int = 0
    held: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Exit code -> trials that ended with it."""
    lines: dict[str, str] = field(default_factory=dict)
    """Exit code -> the line on standard error of the first trial that ended with it."""
    lost: list[str] = field(default_factory=list)
    """What went wrong, and how to repeat it."""
    seconds: float = 0.0
    note: str = ""
    """What else is worth knowing, for instance at which share of the work the kills came."""
    detail: list[dict[str, Any]] = field(default_factory=list)

    def hold(self) -> None:
        """Count a trial that ended in the same bytes."""
        self.tried += 1
        self.held += 1

    def refuse(self, code: int, line: str) -> None:
        """Count a trial that was refused."""
        self.tried += 1
        self.refused[code] += 1
        self.lines.setdefault(str(code), line)

    def lose(self, what: str) -> None:
        """Count a trial that lost or faked something."""
        self.tried += 1
        self.lost.append(what)

    def cells(self) -> list[str]:
        """The line as text."""
        numbers = (self.tried, self.held, self.refused.total(), len(self.lost))
        return [self.part, *map(str, numbers), f"{self.seconds:.0f}"]

    def record(self) -> dict[str, Any]:
        """The line as JSON."""
        return {**vars(self), "refused": {str(code): n for code, n in sorted(self.refused.items())}}

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Tally:
        """A line that was written as JSON."""
        refused = Counter({int(code): n for code, n in record["refused"].items()})
        return cls(**{**record, "refused": refused})

    def add(self, other: Tally) -> None:
        """Take in another share of the same part."""
        self.tried += other.tried
        self.held += other.held
        self.refused += other.refused
        self.lines = {**other.lines, **self.lines}
        self.lost += other.lost
        self.seconds += other.seconds
        self.note = "; ".join(filter(None, dict.fromkeys((self.note, other.note))))


def merged(tallies: Iterable[Tally]) -> list[Tally]:
    """One line per part: shares of a part that ran apart are added up."""
    found: dict[str, Tally] = {}
    for tally in tallies:
        if tally.part in found:
            found[tally.part].add(tally)
        else:
            found[tally.part] = tally
    return list(found.values())


def table(tallies: Sequence[Tally]) -> list[str]:
    """The table as lines of text, the sum below."""
    total = Tally("all", *(sum(values) for values in zip(*((t.tried, t.held) for t in tallies), strict=True)))
    for tally in tallies:
        total.refused += tally.refused
        total.lost += tally.lost
        total.seconds += tally.seconds
    rows = [list(COLUMNS), *(tally.cells() for tally in tallies), total.cells()]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = ["  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths))) for row in rows]
    for tally in tallies:
        lines += [f"{tally.part}: {tally.note}"] if tally.note else []
        lines += [
            f"{tally.part}, {n} times exit code {code}: {tally.lines[str(code)]}" for code, n in tally.refused.items()
        ]
    return lines
