"""The pull of one host: its sources, one after the other.

Enters: jobs, which say what the ledger already holds. Leaves: steps, which the driver commits one
by one under `snapshot/<source>/`. A pull that is run again goes on behind the last committed
portion. This module does not know Ray: both runners call `events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Down, Step
from assay.screening.settings.exits import one_line
from assay.sources.databases.pace import Pace


def events(jobs: Iterable[Job], pace: Pace | None = None) -> Iterator[Step]:
    """The steps of some sources of one host, one source after the other; `pace` is the host's."""
    for job in jobs:
        try:
            yield from job.source.pull(job, pace)
        except ConnectionError as error:
            yield Down(job.name, one_line(error))


def hosts(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs grouped by host, in config order."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.host, []).append(job)
    return list(groups.values())
