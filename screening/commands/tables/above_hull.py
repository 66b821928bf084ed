"""The command `assay hull`.

Enters: tables of formulas with formation energies, and the name of a table of reference phases.
Leaves: one line per row on standard output, and a Parquet, CSV or JSON file if asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import MaxBad, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, hull as beside, output as written
from assay.screening.settings.names import ABOVE_HULL
from assay.sources import table


def hull(
    tables: Annotated[
        list[Path], typer.Argument(help="CSV or Parquet with a column `formula`; of assay predict, too.")
    ],
    energy: Annotated[str, typer.Option(help="Column of formation energies, in eV/atom.")],
    reference: Annotated[
        str, typer.Option(help="Known phases: a dataset, or FILE.parquet#COLUMN of crystals or formulas.")
    ] = "mp-formation-energy",
    functional: Annotated[
        str | None, typer.Option(help="That of the energies, where a table does not say; it must be the reference's.")
    ] = None,
    output: Annotated[Path | None, output_option("File for the table: .parquet, .csv, .json or .jsonl.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Say how far formulas lie above a convex hull, by known energies.

    Energies are compared as they come. A table and a reference that name two functionals are
    refused, and so are those of which one names none, unless --functional speaks for it.
    """
    if output is not None:
        written.check(output, tables, ["id", beside.FORMULA, energy, ABOVE_HULL], "hull")
    found = beside.compare(tables, reference, energy, functional)
    for line in beside.lines(found):
        say(line)
    if output is not None:
        written.write(found.table, output)
        say(f"{len(found)} rows in {output}", err=True)
        rest = written.refused(output)
        rest.unlink(missing_ok=True)
        if found.refused:
            written.write(table.quarantine_table(found.refused), rest)
    for line in describe.refusals(found.refused, len(found), max_bad, "formulas", "compared"):
        say(line, err=True)
