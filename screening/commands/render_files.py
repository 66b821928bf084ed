"""The command `assay render`.

Enters: files of crystals. Leaves: PNG files in a folder, and their paths on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Files, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, render as pictures
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure


def render(
    files: Files,
    output: Annotated[Path, output_option("Folder of the pictures.")] = Path("runs/render"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="a=b", help="Key of a view, for example encoding=elements.")
    ] = None,
) -> None:
    """Draw crystals as the vision networks see them: one PNG per view."""
    view = pictures.spec(overrides or [])
    place.claim(output, "render")
    drawn = pictures.write(files, output, view)
    for path in drawn.paths:
        say(path)
    for row in drawn.refused:
        say(describe.refusal(row), err=True)
    if drawn.refused:
        raise Failure(Exit.TOO_MANY_BAD, f"{len(drawn.refused)} crystals could not be drawn; the reasons are above")
