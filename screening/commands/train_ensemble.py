"""The command `assay train`.

Enters: a recipe, whose data may lie in a campaign or in files. Leaves: the folder of a
trained ensemble with its card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.models.training import fit
from assay.screening.commands.arguments import On, Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.settings import bundled, place
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import listed, progress, pulled, recipes, tuning


def train(
    recipe: Annotated[
        str, typer.Argument(help="Training recipe: a YAML file, or the name of a bundled one (train-tc).")
    ],
    output: Annotated[Path, output_option("Folder of the trained ensemble.")],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped training.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Members at once; unset: one, on Ray all that fit.")
    ] = None,
    on: Annotated[On, typer.Option(help="Where members learn; ray: on a cluster, one CPU each.")] = On.LOCAL,
    gpus: Annotated[float, typer.Option(min=0, help="With --on ray: GPUs per member.")] = 0.0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard too.")] = False,
) -> None:
    """Train an ensemble by a recipe, calibrate it, and write its card."""
    checked = recipes.load(bundled.recipe(recipe), overrides or [])
    if place.claim(output, "train") and not resume:
        advice = "add --resume to go on with its training, or choose another --output"
        raise Failure(Exit.CONFIG, f"{output} is not empty; {advice}")
    for store in (listed.stored, pulled.stored):
        checked, learned = store(checked, output)
        say(*learned, err=True)
    pool = None
    if on is On.RAY:
        pool = tuning.ray_pool(workers=workers, gpus=gpus)
        output = output.absolute()
    settings = "".join(f" --set {text}" for text in overrides or [])
    command = f"assay train {recipe} --output {output}{settings}"
    with progress.shown(checked, output, tensorboard=tensorboard):
        made = fit.run(checked, output, workers=workers or 1, command=command, pool=pool)
    say(str(output / "README.md") if made else f"{output}: nothing to predict with, a start for others")
