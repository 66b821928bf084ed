"""The command `assay evaluate`.

Enters: a trained ensemble. Leaves: the folder of its evaluation: Markdown, JSON, figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.models.ensemble import zoo
from assay.models.evaluation import evaluate as evaluation
from assay.screening.commands.arguments import output_option
from assay.screening.commands.terminal import say
from assay.screening.settings import place


def evaluate(
    ensemble: Annotated[str, typer.Argument(help="Ensemble folder, or the name of a bundled ensemble.")],
    output: Annotated[Path, output_option("Folder of the evaluation.")],
    against: Annotated[str | None, typer.Option(help="A second ensemble, compared on the same rows.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Training set by name; unset: its own.")] = None,
    part: Annotated[str, typer.Option(help="test, calibration, development or all.")] = "test",
    threshold: Annotated[float | None, typer.Option(help="How well are values above this found?")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processors for the baselines.")] = 1,
) -> None:
    """Measure an ensemble on known values, beside baselines.

    The evaluation is written as Markdown, JSON and figures.
    """
    folder, other = zoo.find(ensemble), None if against is None else zoo.find(against)
    place.claim(output, "evaluate")
    evaluation.run(folder, output, against=other, dataset=dataset, part=part, threshold=threshold, workers=workers)
    say(output / "evaluation.md")
