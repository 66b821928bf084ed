"""The command `assay predict`.

Enters: files of crystals and an ensemble. Leaves: one line per crystal on standard output, and a
Parquet file if asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Files, MaxBad, Model
from assay.screening.prediction import describe, inputs
from assay.sources import table


def predict(
    files: Files,
    model: Model = "tc",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file for the predictions.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Predict the crystals in some files: mean ± std with its interval.

    A crystal that is disordered, or unlike the training crystals, is marked.
    """
    ensemble = inputs.load(model)
    found = inputs.predict(files, ensemble)
    shown = describe.lines(found, ensemble, most=None if output is None else 20)
    typer.echo("\n".join(shown))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.write(found.table, output)
        if found.refused:
            table.write(table.quarantine_table(found.refused), output.with_suffix(".quarantine.parquet"))
        typer.echo(f"{len(found)} predictions in {output}", err=True)
    for line in describe.refusals(found.refused, len(found), max_bad):
        typer.echo(line, err=True)
