"""The command `assay export`.

Enters: a campaign folder. Leaves: files of its best candidates, and their paths on standard output.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Folder, MaxBad, output_option
from assay.screening.commands.terminal import say
from assay.screening.export import best, structures, tables
from assay.screening.folder.results import STALE, Results
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure


class Format(StrEnum):
    """A format of `structures.FORMATS` or `structures.BESIDE_A_LIST`, or of `tables.ENDINGS`."""

    CIF = "cif"
    POSCAR = "poscar"
    EXTXYZ = "extxyz"
    JSON = "json"
    CGCNN = "cgcnn"
    ALIGNN = "alignn"
    CSV = "csv"
    PARQUET = "parquet"
    OPTIMADE = "optimade"


class Recipe(StrEnum):
    """A recipe of pymatgen for the inputs of VASP."""

    MP_RELAX = "MPRelaxSet"
    MP_SCAN_RELAX = "MPScanRelaxSet"
    MP_STATIC = "MPStaticSet"
    MATPES_STATIC = "MatPESStaticSet"


def export(
    folder: Folder,
    output: Annotated[Path, output_option("Folder of the structures, or file of the table.")],
    top: Annotated[int, typer.Option(min=1, help="Candidates, best first.")] = 20,
    format: Annotated[
        Format | None,
        typer.Option(help="cif (default), poscar, extxyz, json, cgcnn, alignn: a file each; the others: one file."),
    ] = None,
    inputs: Annotated[
        Recipe | None, typer.Option(help="Instead of --format: inputs of VASP for each, by a recipe of pymatgen.")
    ] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Write the best of a campaign as CIF, POSCAR, tables and more.

    Each file says rank, id, prediction and model. The cells are those that were scored: relaxed
    ones where the campaign relaxed. A candidate that a format cannot hold is left out with the
    reason.
    """
    if inputs is not None and format is not None:
        raise Failure(Exit.USAGE, f"--inputs {inputs.value} and --format {format.value}: give one of them")
    chosen = (format or Format.CIF).value
    if chosen in tables.ENDINGS:
        tables.check(output, chosen)
    results = Results(folder)
    found = best.find(results, top)
    if results.stale:
        say(f"the ranking is {STALE}; rank again for what came since: assay report {folder}", err=True)
    if chosen in tables.ENDINGS:
        tables.write(found, chosen, output)
        say(str(output))
        return
    if place.claim(output, "export"):
        advice = "choose another --output, or remove that folder: two rankings in one folder could not be told apart"
        raise Failure(Exit.CONFIG, f"{output} holds an earlier export; {advice}")
    make = structures.write if inputs is None else structures.write_inputs
    made = make(found, chosen if inputs is None else inputs.value, output)
    say(*made.paths)
    say(*made.left, err=True)
    made.check(max_bad)
