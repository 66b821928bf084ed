"""The command that reads a campaign folder again.

Enters: a campaign folder. Leaves: every problem, one line each. Nothing is changed.
"""

from __future__ import annotations

from typing import Annotated

import typer

from assay.screening.audit import audit
from assay.screening.commands.arguments import Folder
from assay.screening.commands.terminal import say
from assay.screening.settings.exits import Exit, Failure


def verify(
    folder: Folder,
    quick: Annotated[bool, typer.Option("--quick", help="Compare digests and counts alone; decode nothing.")] = False,
) -> None:
    """Read a campaign folder again; list damaged, lost or changed files."""
    report = audit.quick(folder) if quick else audit.check(folder)
    say(*audit.lines(report))
    if report.code is not Exit.DONE:
        raise Failure(report.code, f"{folder} is not intact: {audit.count(report)}, listed above")
