"""The command `assay select`.

Enters: the folder of a finished campaign. Leaves: a table of the crystals to measure next, and on
standard error the rule that chose them and how many were left out.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Folder, output_option
from assay.screening.commands.terminal import say
from assay.screening.deciding import batch
from assay.screening.deciding.batch import Batch, Wish
from assay.screening.folder.results import Results
from assay.screening.prediction import output as written
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.yamlfile import LARGEST_SEED


class Order(StrEnum):
    """Which end of a property is wanted."""

    ASCENDING = "ascending"
    DESCENDING = "descending"


class By(StrEnum):
    """Acquisition functions (`assay.models.ensemble.distribution.acquisition`)."""

    EI = "ei"
    PI = "pi"
    UCB = "ucb"
    THOMPSON = "thompson"
    STD = "std"
    MEAN = "mean"
    EHVI = batch.EHVI


SAID = {
    By.EI: "expected improvement over {best}",
    By.PI: "probability of improvement over {best}",
    By.UCB: "predicted value and {kappa:g} of its standard deviation",
    By.THOMPSON: "a draw from the predicted distribution",
    By.STD: "standard deviation",
    By.MEAN: "predicted value",
    By.EHVI: "expected hypervolume improvement over the first front of their predicted values",
}
"""What each of them is, in words."""
READ_BY = {
    "--best": (batch.NEEDS_BEST, "the value that ei and pi improve on"),
    "--kappa": (("ucb",), "the number of standard deviations that ucb adds"),
    "--seed": (("thompson",), "the seed of thompson"),
}
"""Option -> the functions that read it, and what it is to them."""
APART = 0.5
"""Least distance of two crystals of a diverse batch."""


def select(
    folder: Folder,
    output: Annotated[Path, output_option("Table of the batch; its ending says .csv, .parquet, .json or .jsonl.")],
    n: Annotated[int, typer.Option(min=1, help="Crystals of the batch.")] = 20,
    by: Annotated[By, typer.Option(help="What makes a measurement useful; ehvi: of several objectives.")] = By.EI,
    property: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is measured; unset: what ranks, of several objectives the first."),
    ] = None,
    order: Annotated[
        Order | None, typer.Option(help="Which end of it is wanted; unset: as the campaign ranks.")
    ] = None,
    best: Annotated[
        float | None, typer.Option(help="Value that ei and pi improve on; unset: the best predicted one.")
    ] = None,
    kappa: Annotated[float | None, typer.Option(min=0, help="Standard deviations that ucb adds; unset: 1.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="Of thompson; unset: 0.")] = None,
    diverse: Annotated[bool, typer.Option("--diverse", help="No two crystals alike, see --apart.")] = False,
    apart: Annotated[
        float | None,
        typer.Option(min=0, help="With --diverse: least distance of two crystals, as ood_distance; unset: 0.5."),
    ] = None,
    cost: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Utility per cost; a numeric column of candidates.parquet.")
    ] = None,
    known: Annotated[bool, typer.Option("--known", help="Also compositions that the ensemble learned from.")] = False,
) -> None:
    """Choose what to measure next from a finished campaign."""
    _check(by, {"--best": best, "--kappa": kappa, "--seed": seed, "--apart": apart}, diverse=diverse)
    if by is By.EHVI and (property is not None or order is not None):
        raise Failure(Exit.USAGE, "--by ehvi weighs all objectives of the campaign; --property and --order name one")
    written.free(output, batch.FIRST, "select")
    results = Results(folder)
    far = (APART if apart is None else apart) if diverse else None
    end = None if order is None else order.value
    wish = Wish(n, by.value, property, end, best, 1.0 if kappa is None else kappa, seed or 0, cost, far, known)
    found = batch.choose(results, wish)
    written.write(found.rows, output)
    say(output)
    for line in _lines(wish, found):
        say(line, err=True)


def _check(by: By, numbers: dict[str, float | None], *, diverse: bool) -> None:
    """Refuse numbers that are not finite, and those that the rule would not read."""
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise Failure(Exit.USAGE, f"{name} {value} is not finite")
    for name, (readers, what) in READ_BY.items():
        if numbers[name] is not None and by.value not in readers:
            raise Failure(Exit.USAGE, f"{name} is {what}; --by {by.value} reads none")
    if numbers["--apart"] is not None and not diverse:
        raise Failure(Exit.USAGE, "--apart says how far the crystals of --diverse lie apart; give both")


def _lines(wish: Wish, found: Batch) -> list[str]:
    """The rule in words, and what was left out."""
    target, rows = found.target, found.rows
    best = "" if found.best is None else f"{found.best:.4g} {target.unit}"
    if found.best is not None and wish.best is None:
        best += ", the best predicted value"
    rule = SAID[By(wish.by)].format(best=best, kappa=wish.kappa) + (f" per {wish.cost}" if wish.cost else "")
    wanted = {"ascending": "the lowest ", "descending": "the highest ", "inside": ""}[found.order]
    wanted = "" if wish.by == By.EHVI else f" for {wanted}{target.name}"
    what = f"{rows.num_rows} of {found.candidates:,} candidates{wanted} by {rule}"
    lines = [what + (f", farther than {wish.apart:g} apart" if wish.apart is not None else "")]
    lines += [f"left out: {count:,} {reason}" for reason, count in found.left_out.items()]
    if rows.num_rows < min(wish.n, found.candidates):
        lines.append(f"only {rows.num_rows} lie so far apart; for more, lower --apart")
    useless = sum(value == 0 for value in rows["utility"].to_pylist())
    if useless and wish.by != By.MEAN:
        lines.append(f"{useless} of them promise nothing: their utility is 0, and the predicted value ordered them")
    return lines
