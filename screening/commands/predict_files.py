"""The command `assay predict`.

Enters: crystals in files or from standard input, or formulas, and ensembles. Leaves: one line per
crystal or formula on standard output, and a Parquet, CSV or JSON file if asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from assay.screening.commands.arguments import DEFAULT_MODEL, Cell, MaxBad, Models, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import describe, formulas as of_formulas, inputs, output as written
from assay.screening.prediction.predict import Predictions
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table

STDIN = Path("-")
"""The argument that stands for standard input."""
Output = Annotated[
    Path | None,
    output_option("File for the predictions; its ending says .parquet, .csv, .json or .jsonl."),
]
Standardize = Annotated[
    Cell | None, typer.Option(help="Predict every crystal in this standard cell, for models that depend on the cell.")
]
Given = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files, folders, archives or patterns of crystals, - for standard input; with --formulas, tables."
    ),
]
Formula = Annotated[
    list[str] | None, typer.Option("--formula", metavar="FORMULA", help="Predict a formula, no crystal; repeatable.")
]
Column = Annotated[
    str | None, typer.Option("--formulas", metavar="COLUMN", help="Column of the tables that holds formulas.")
]


def predict(
    files: Given = None,
    models: Models = None,
    output: Output = None,
    max_bad: MaxBad = 0.05,
    standardize: Standardize = None,
    formula: Formula = None,
    formulas: Column = None,
) -> None:
    """Predict the crystals in some files: mean ± std with its interval.

    Of standard input the content shows the format: CIF, POSCAR, extended XYZ or JSON.

    A crystal that is disordered, or unlike the training crystals, is marked. With several --model
    the table holds the columns of each. Models that read the composition alone also predict
    formulas: those of --formula, and a column of tables with --formulas.
    """
    paths, listed = files or [], formula or []
    _check(paths, listed, formulas, standardize)
    if output is not None:
        written.check(output, paths)
    ensembles = [inputs.load(model) for model in models or [DEFAULT_MODEL]]
    if listed or formulas is not None:
        found = of_formulas.predict(of_formulas.joined(listed, paths, formulas), ensembles)
        say(f"{len(found)} formulas predicted, all without structures", err=True)
    else:
        stdin = _stdin() if STDIN in paths else None
        named = [path for path in paths if path != STDIN]
        found = inputs.predict_paths(named, ensembles, standardize.value if standardize else None, stdin)
    for line in describe.lines(found, ensembles, most=None if output is None else 20):
        say(line)
    for line in describe.compared(found):
        say(line, err=True)
    if output is not None:
        _write(found, output)
    for line in describe.refusals(found.refused, len(found), max_bad, found.noun):
        say(line, err=True)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise Failure(Exit.USAGE, "standard input is closed, and - asks for it")
    return sys.stdin.buffer


def _check(paths: list[Path], listed: list[str], column: str | None, standardize: Cell | None) -> None:
    """Refuse a command line that says nothing, or two things.

    Raises:
        Failure: USAGE.
    """
    if not paths and not listed:
        what = "--formulas names a column, and no table is given" if column is not None else "nothing to predict"
        raise Failure(Exit.USAGE, f"{what}; give files of crystals, --formula FORMULA, or --formulas COLUMN TABLE")
    if listed and paths and column is None:
        raise Failure(
            Exit.USAGE,
            f"--formula and {paths[0]}: crystals and formulas are predicted apart; for a table add --formulas",
        )
    if STDIN in paths and column is not None:
        raise Failure(Exit.USAGE, "--formulas reads tables from files; - is for crystals")
    if standardize is not None and (listed or column is not None):
        raise Failure(Exit.USAGE, "--standardize is for crystals; formulas have no cell")


def _write(found: Predictions, output: Path) -> None:
    """Write the predictions and, beside them, the refused rows; those of an earlier run go."""
    written.write(found.with_formulas(), output)
    say(f"{len(found)} predictions in {output}", err=True)
    beside = written.refused(output)
    beside.unlink(missing_ok=True)
    if found.refused:
        written.write(table.quarantine_table(found.refused), beside)
        say(f"{len(found.refused)} refused {found.noun}, with the reasons, in {beside}", err=True)
