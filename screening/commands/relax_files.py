"""The command `assay relax`.

Enters: files of crystals, and the name of a potential. Leaves: one line per crystal on standard
output, and a Parquet file of the relaxed crystals if asked for.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from assay.models.potentials import potential as potentials
from assay.models.potentials.relax import Settings
from assay.screening.commands.arguments import Files, MaxBad, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, relax as relaxing
from assay.screening.settings.exits import Exit, Failure

_DEFAULT = Settings()


class Method(StrEnum):
    """A way downhill."""

    LBFGS = "lbfgs"
    FIRE = "fire"


class Symmetry(StrEnum):
    """What becomes of the space group."""

    FREE = "free"
    KEEP = "keep"


def relax(
    files: Files,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Force field: potential (bundled), chgnet, sevennet, nequix:FILE, ase:MODULE:CLASS."
        ),
    ] = "potential",
    output: Annotated[Path | None, output_option("Parquet file for the relaxed crystals.")] = None,
    fmax: Annotated[float, typer.Option(help="Longest force that may remain, in eV/Å.")] = _DEFAULT.fmax,
    smax: Annotated[float, typer.Option(help="Largest stress that may remain, in GPa.")] = _DEFAULT.smax,
    steps: Annotated[int, typer.Option(help="Most evaluations of the potential per crystal.")] = _DEFAULT.steps,
    method: Annotated[
        Method, typer.Option(help="lbfgs, or fire: more than twice the steps, and hard to lead astray.")
    ] = Method.LBFGS,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Move the atoms alone.")] = False,
    symmetry: Annotated[
        Symmetry, typer.Option(help="keep: the space group of each crystal stays; free: it may change.")
    ] = Symmetry.FREE,
    symprec: Annotated[
        float | None,
        typer.Option(help=f"With --symmetry keep: Å within which the space group is found; unset: {_DEFAULT.symprec}."),
    ] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Relax crystals with a force field, atoms and cell together.

    They move until forces and stress are small. A crystal that is disordered, holds an element that
    the potential does not know, explodes, collapses or does not arrive is refused, with the reason.
    """
    if symprec is not None and symmetry is not Symmetry.KEEP:
        raise Failure(Exit.USAGE, "--symprec is for --symmetry keep; give both")
    if output is not None:
        relaxing.check(output, files)
    try:
        within = _DEFAULT.symprec if symprec is None else symprec
        settings = Settings(fmax, smax, steps, not fixed_cell, method.value, symmetry.value, within)
        potential = potentials.load(model)
    except (ValueError, ImportError, OSError) as error:
        raise Failure(Exit.USAGE, str(error)) from error
    found = relaxing.relax_with(files, potential, settings)
    for line in relaxing.lines(found, None if output is None else relaxing.SHOWN):
        say(line)
    if output is not None:
        relaxing.write(found, output)
        say(f"{len(found)} relaxed crystals in {output}", err=True)
    for line in describe.refusals(found.refused, len(found), max_bad, done="relaxed"):
        say(line, err=True)
