"""The quick commands that look at a campaign folder or free it: status, errors, unlock.

Enters: a campaign folder. Leaves: text or JSON on standard output. Nothing but a lock is changed,
and no network is loaded, so that they answer at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from assay.screening.audit import refusals, status as progress
from assay.screening.commands.arguments import AsJson, Folder
from assay.screening.commands.terminal import say
from assay.screening.folder import lock


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
