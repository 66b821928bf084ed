"""The commands that look at a campaign folder or free it: status, verify, errors, unlock.

Enters: a campaign folder. Leaves: text or JSON on standard output. Nothing but a lock is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from assay.screening.audit import audit, refusals, status as progress
from assay.screening.commands.arguments import AsJson, Folder
from assay.screening.commands.terminal import say
from assay.screening.folder import lock
from assay.screening.settings.exits import Exit, Failure


class By(StrEnum):
    """How refused crystals are grouped."""

    REASON = "reason"
    SOURCE = "source"
    STAGE = "stage"


def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show how far a campaign is, also while it runs.

    The sources, the chunks, the counts, and the process that works on it.
    """
    _show(progress.read(folder), progress.lines, as_json=as_json)


def verify(
    folder: Folder,
    quick: Annotated[bool, typer.Option("--quick", help="Compare digests and counts alone; decode nothing.")] = False,
) -> None:
    """Read a campaign folder again; list damaged, lost or changed files."""
    report = audit.quick(folder) if quick else audit.check(folder)
    say(*audit.lines(report))
    if report.code is not Exit.DONE:
        raise Failure(report.code, f"{folder} is not intact: {audit.count(report)}, listed above")


def unlock(
    folder: Folder,
    force: Annotated[bool, typer.Option("--force", help="Also when the holder seems to be alive.")] = False,
) -> None:
    """Remove the lock that a dead process left in a campaign folder."""
    holder = lock.unlock(folder, force=force)
    say(f"{folder} is free; it was held by {holder.describe()}")


def errors(
    folder: Folder,
    by: Annotated[By, typer.Option(help="How the refused crystals are grouped.")] = By.REASON,
    as_json: AsJson = False,
) -> None:
    """List the refused crystals of a campaign by cause, with remedies.

    Each group has its count, one example and a remedy.
    """
    _show(refusals.read(folder, by.value), refusals.lines, as_json=as_json)


def _show(found: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], *, as_json: bool) -> None:
    say(*([json.dumps(found, ensure_ascii=False)] if as_json else lines(found)))
