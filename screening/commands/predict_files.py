"""The command `assay predict`.

Enters: files of crystals and ensembles. Leaves: one line per crystal on standard output, and a
Parquet, CSV or JSON file if asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import DEFAULT_MODEL, Cell, Files, MaxBad, Models, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, inputs, output as written
from assay.sources import table

Output = Annotated[
    Path | None,
    output_option("File for the predictions; its ending says .parquet, .csv, .json or .jsonl."),
]


Standardize = Annotated[
    Cell | None, typer.Option(help="Predict every crystal in this standard cell, for models that depend on the cell.")
]


def predict(
    files: Files,
    models: Models = None,
    output: Output = None,
    max_bad: MaxBad = 0.05,
    standardize: Standardize = None,
) -> None:
    """Predict the crystals in some files: mean ± std with its interval.

    A crystal that is disordered, or unlike the training crystals, is marked. With several --model
    the table holds the columns of each.
    """
    if output is not None:
        written.check(output, files)
    ensembles = [inputs.load(model) for model in models or [DEFAULT_MODEL]]
    found = inputs.predict_with(files, ensembles, standardize.value if standardize else None)
    shown = describe.lines(found, ensembles, most=None if output is None else 20)
    say(*shown)
    if output is not None:
        written.write(found.with_formulas(), output)
        say(f"{len(found)} predictions in {output}", err=True)
        beside = written.refused(output)
        beside.unlink(missing_ok=True)  # that of an earlier run
        if found.refused:
            written.write(table.quarantine_table(found.refused), beside)
            say(f"{len(found.refused)} refused crystals, with the reasons, in {beside}", err=True)
    for line in describe.refusals(found.refused, len(found), max_bad):
        say(line, err=True)
