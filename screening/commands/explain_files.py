"""The command `assay explain`.

Enters: files of crystals and an ensemble. Leaves: one table per crystal and pictures of attention
in a folder, and a summary on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import DEFAULT_MODEL, Files, MaxBad, Models, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, explain as explanation, inputs
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure


def explain(
    files: Files,
    models: Models = None,
    output: Annotated[Path, output_option("Folder of the tables.")] = Path("runs/explain"),
    name: Annotated[str | None, typer.Option("--property", help="The explained property; unset: the first.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Show what each atom adds to a prediction: tables and pictures.

    The pictures show where vision networks look.
    """
    if models and len(models) > 1:
        raise Failure(Exit.USAGE, f"--model is given {len(models)} times; explain one ensemble at a time")
    ensemble = inputs.load(models[0] if models else DEFAULT_MODEL)
    place.claim(output, "explain")
    found = inputs.predict(files, ensemble)
    for one in explanation.write(found, ensemble, output, name):
        say(*one.lines)
        for note in one.notes:
            say(note, err=True)
    for line in describe.refusals(found.refused, len(found), max_bad):
        say(line, err=True)
