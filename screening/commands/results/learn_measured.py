"""The command `assay learn`.

Enters: the folder of a ranked campaign, and a CSV file of measured values. Leaves: a new ensemble
that has learned them, and a new campaign that is ranked by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.screening.campaign import launch
from assay.screening.commands.arguments import Folder, output_option
from assay.screening.commands.run_campaign import finish, stored
from assay.screening.commands.terminal import say
from assay.screening.deciding import learn as learning
from assay.screening.deciding.learn import Wish
from assay.screening.folder.results import Results


def learn(
    folder: Folder,
    measured: Annotated[
        Path, typer.Option(help="CSV: value, one of id, formula and file, and maybe uncertainty and unit.")
    ],
    output: Annotated[Path, output_option("Folder of the new campaign; the new ensemble is made beside it.")],
    weight: Annotated[float, typer.Option(min=1e-6, help="Weight of each measured value in the training.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Members that learn at once.")] = 1,
) -> None:
    """Learn measured values, and rank the campaign again.

    The ensemble that ranked is trained again by its own recipe, with the measured values among its
    training rows. The crystals are those of the old campaign. Nothing is overwritten.
    """
    wish = Wish(measured, output, weight, workers)
    lesson = learning.prepare(stored(folder, None), Results(folder), wish)
    say(*lesson.measured.refused, err=True)
    count, lost = len(lesson.measured.crystals), len(lesson.measured.refused)
    rest = f", {lost} refused" if lost else ""
    say(f"{count} measured values of {lesson.learned.name} are learned{rest} -> {wish.ensemble}", err=True)
    planned = learning.run(lesson, wish)
    finish(launch.run(planned, on_ray=False, workers=None, address=None))
