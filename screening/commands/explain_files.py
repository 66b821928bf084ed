"""The command `assay explain`.

Enters: files of crystals and an ensemble. Leaves: one table per crystal and pictures of attention
in a folder, and a summary on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Files, MaxBad, Model
from assay.screening.prediction import describe, explain as explanation, inputs


def explain(
    files: Files,
    model: Model = "tc",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the tables.")] = Path("runs/explain"),
    name: Annotated[str | None, typer.Option("--property", help="The explained property; unset: the first.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Show what each atom adds to a prediction: tables and pictures.

    The pictures show where vision networks look.
    """
    ensemble = inputs.load(model)
    found = inputs.predict(files, ensemble)
    for one in explanation.write(found, ensemble, output, name):
        typer.echo("\n".join(one.lines))
        for note in one.notes:
            typer.echo(note, err=True)
    for line in describe.refusals(found.refused, len(found), max_bad):
        typer.echo(line, err=True)
