"""The commands that train many variants of a recipe: study and tune.

Enters: a study or a search. Leaves: a folder with the trained variants and a table of them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.settings import bundled
from assay.screening.training import search, study as studies, trials, tuning


def study(
    config: Annotated[str, typer.Argument(help="Study: a YAML file, or the name of a bundled one (study-tc).")],
    output: Annotated[Path, output_option("Folder of the study; an interrupted one goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Networks that learn at once.")] = 1,
) -> None:
    """Learn one property in several ways on the same rows; write the table."""
    say(studies.run(config, output, workers=workers))


def tune(
    config: Annotated[str, typer.Argument(help="Search: a YAML file, or the name of a bundled one (tune-tc).")],
    output: Annotated[Path, output_option("Folder of the search; an interrupted one goes on.")],
    overrides: Set = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; unset: as many as fit.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per trial.")] = 0.0,
) -> None:
    """Search the sizes and rates of a recipe with Ray Tune.

    Trials learn from the development rows only.
    """
    logging.getLogger().setLevel(logging.INFO)
    wanted = search.read(bundled.search(config), overrides or []).load()
    found = tuning.tune(wanted, output, workers=workers, gpus=gpus)
    for line in trials.lines(wanted, output, found):
        say(line)
